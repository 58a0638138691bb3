"""Angles by another program beside ours, without that program."""

import ast
from pathlib import Path

import numpy as np
import pytest

from ctuq.app.trials.subjects import phantom_subject
from experiments.angle_design import vcls
from experiments.angle_design.vcls import Options


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(vcls, "TABLE", tmp_path / "vcls.csv")
    return dict(size=16, candidates=12, counts=(6, 8), images=1, strategies=())


def test_what_runs_in_another_environment_imports_nothing_of_ours():
    tree = ast.parse(Path(vcls.__file__).with_name("vcls_side.py").read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert "mbirjax" in names and not any(name.split(".")[0] in ("ctuq", "torch", "experiments") for name in names)


def test_rows_are_made_once_and_gains_are_against_equidistant_views(options, monkeypatch, capsys):
    vcls.main(Options(**options))
    first = vcls.TABLE.read_bytes()
    monkeypatch.setattr(vcls, "choices", lambda *_: pytest.fail("nothing is to be made"))
    vcls.main(Options(**options))
    assert vcls.TABLE.read_bytes() == first
    told = capsys.readouterr().out
    assert told.count("(+0.0 ± nan)") >= 2 and "| golden | 1 |" in told


def test_the_other_program_is_given_both_references_and_its_views_are_judged(options, monkeypatch, tmp_path):
    seen = {}

    def run(command, **_):
        given = dict(np.load(command[2]))
        seen.update(given)
        views = np.full((2, 2, 8), -1)
        views[:, 0, :6], views[:, 1] = np.arange(6), np.arange(8)
        np.savez(command[3], views=views, seconds=2.0, apart=seen.get("told", 0.01))

    monkeypatch.setattr(vcls.subprocess, "run", run)
    vcls.main(Options(**options, python=tmp_path / "python"))
    rows = vcls.Rows(vcls.TABLE).where(strategy="vcls, pilot")
    assert [row["angles"] for row in rows] == [6, 8] and rows[0]["seconds"] == 1
    subject = phantom_subject("rectangles", 16, 12, noise=0.05, seed=0)
    truth, guess = seen["references"]
    np.testing.assert_allclose(truth, subject.reference)
    assert np.abs(guess - truth).max() > 0 and guess.shape == truth.shape
    # In units of pixels: a column through the middle of an image of ones is as long as the image.
    assert seen["sinogram"].max() < 1.5 * 16 * truth.max()


def test_another_geometry_is_refused(options, monkeypatch, tmp_path):
    def run(command, **_):
        np.savez(command[3], views=np.zeros((2, 2, 8), int), seconds=2.0, apart=0.4)

    monkeypatch.setattr(vcls.subprocess, "run", run)
    with pytest.raises(SystemExit, match="40% off ours"):
        vcls.main(Options(**options, python=tmp_path / "python"))
