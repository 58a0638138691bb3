"""The experiment that compares ctuq with other programs, without these."""

import ast
import csv
from pathlib import Path

import numpy as np
import pytest

from experiments.peers import __main__ as peers
from experiments.peers.drawing import draw
from experiments.peers.problems import problem_of

FOLDER = Path(peers.__file__).parent


def test_what_runs_in_another_environment_imports_nothing_of_ours():
    tree = ast.parse((FOLDER / "other_side.py").read_text())
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names} | {
        n.module for n in nodes if isinstance(n, ast.ImportFrom)
    }
    assert names >= {"numpy", "scipy.sparse"}
    assert not any(name.split(".")[0] in ("ctuq", "torch", "experiments") for name in names)
    keys = [n for n in ast.walk(tree) if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "METHODS"]
    assert {key.value for key in keys[0].value.keys} == set(peers.PEERS.values())


@pytest.mark.parametrize("name", ["walnut", "glyph"])
def test_unseen_views_are_of_the_same_object_and_none_is_used(name):
    problem = problem_of(name, 1)
    used, unseen = problem.scan.geometry.angles, problem.unseen.geometry.angles
    assert not set(np.round(used, 6)) & set(np.round(unseen, 6))
    assert len(unseen) >= 2 * len(used)
    assert len(problem.held) == 3
    again = problem_of(name, 1)
    np.testing.assert_array_equal(problem.scan.projections, again.scan.projections)
    other = problem_of(name, 2)
    assert not np.array_equal(problem.scan.projections, other.scan.projections)
    if name == "walnut":  # other views of the same scan
        assert not set(np.round(used, 6)) & set(np.round(other.scan.geometry.angles, 6))


def test_rows_are_kept_made_once_and_drawn(monkeypatch, tmp_path):
    made = []

    def measured(problem, method, seed, python):
        made.append((problem.name, method, seed))
        return {"seconds": 1.0 + seed, "log_likelihood": 2.0, "truth_crps_object": 0.001 * (1 + seed)}

    monkeypatch.setattr(peers, "TABLE", tmp_path / "peers.csv")
    monkeypatch.setattr(peers, "_measured", measured)
    given = dict(only="tv, edge prior;dip, laplace", problems="walnut;glyph")
    peers.main(**given, seeds=1)
    peers.main(**given, seeds=2)
    assert len(made) == len(set(made)) == 8
    assert [one[2] for one in made] == sorted(one[2] for one in made)
    peers.main(draw=True)
    assert len(made) == 8
    with (tmp_path / "peers.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    assert (tmp_path / "peers.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "peers.pdf").read_bytes()[:4] == b"%PDF"
    before = (tmp_path / "peers.png").read_bytes()
    draw(tmp_path / "peers.csv")
    assert (tmp_path / "peers.png").read_bytes() == before


def test_scores_are_those_of_the_result_on_unseen_rays(monkeypatch):
    monkeypatch.setattr("experiments.peers.problems.OBJECT_SIZE", 16)
    monkeypatch.setattr(peers, "SAMPLES", 64)
    row = peers._measured(problem_of("rectangles", 0), "tv, edge prior", 0, None)
    assert 0.5 < row["rms_z"] < 2 and 0.5 < row["cover_68"] < 0.95 and row["truth_psnr"] > 15
    assert row["raw_rms_z"] > row["rms_z"] * 0.5 and row["image_scale"] >= 1 and row["seconds"] > 0
