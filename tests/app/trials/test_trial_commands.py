import csv
import json

import numpy as np
import pytest
import tyro

from ctuq import files
from ctuq.app.cli import main
from ctuq.app.design.commands import run_step
from ctuq.app.trials import commands
from ctuq.app.trials.options import Compare, Simulate
from ctuq.errors import InputError
from ctuq.tomo import FanBeam, VolumeGrid
from ctuq.tomo.phantoms import rectangles
from ctuq.tomo.simulate import RelativeNoise, simulate

SMALL = ["--size", "10", "--candidates", "12", "--pilot", "3", "--total", "6", "--random", "2", "--criterion", "eig"]


def typed(kind, *words):
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
    return run_step(tyro.cli(kind, args=[str(word) for word in words], config=config))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Figures have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "drawn", lambda *_: b"a picture")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Trials of two small phantoms."""
    path = tmp_path_factory.mktemp("design")
    assert typed(Simulate, "rectangles", "-o", path, "--images", 2, "--prior", "matern", *SMALL) == 0
    return path


def test_a_simulation_leaves_trials_a_table_and_figures(folder):
    assert len(list(folder.glob("*.trial.h5"))) == 2 * 6
    assert {path.name for path in folder.glob("comparison*")} == {
        "comparison.csv",
        "comparison_angles.png",
        "comparison_tv_truth.png",
        "comparison_tv_unseen.png",
    }
    table = rows(folder / "comparison.csv")
    assert {row["strategy"] for row in table} == {"equidistant", "nested", "golden", "random", "eig matern"}
    (last,) = (r for r in table if (r["strategy"], r["quality"], r["angles"]) == ("eig matern", "tv truth", "6"))
    assert last["subjects"] == "2" and np.isfinite(float(last["minus equidistant (dB)"]))


def test_a_comparison_is_given_to_programs_row_by_row(folder, capsys):
    assert main(["design", "compare", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["facts"]
    written = rows(folder / "comparison.csv")
    assert facts["folder"] == str(folder) and len(facts["comparison"]) == len(written)
    assert {row["strategy"] for row in facts["comparison"]} == {row["strategy"] for row in written}


def test_another_design_joins_the_folder_and_what_is_there_is_not_run_again(folder, capsys, monkeypatch):
    ran = []
    from ctuq.design.trials import trial

    real = trial.run
    monkeypatch.setattr(trial, "run", lambda s, strategy, *a, **k: ran.append(strategy.name) or real(s, strategy, *a, **k))
    words = ["rectangles", "-o", folder, "--images", 2, "--prior", "isotropic", "--batch", 2, *SMALL]
    assert typed(Simulate, *words) == 0
    assert ran == ["eig isotropic, batch 2"] * 2
    told = capsys.readouterr().out
    assert ("eig matern: " in told and "for the same error" in told) or "never as good" in told
    assert {row["strategy"] for row in rows(folder / "comparison.csv")} > {"eig matern", "eig isotropic, batch 2"}


def test_compare_writes_the_same_table_elsewhere(folder, tmp_path):
    assert typed(Compare, folder, "-o", tmp_path / "out") == 0
    assert typed(Compare, folder) == 0
    assert (tmp_path / "out" / "comparison.csv").read_bytes() == (folder / "comparison.csv").read_bytes()


def test_other_settings_are_refused_in_the_same_folder(folder):
    words = ["rectangles", "-o", folder, "--prior", "matern", *SMALL, "--noise", "0.2"]
    with pytest.raises(InputError, match="other settings"):
        typed(Simulate, *words)


def test_a_scan_is_replayed_with_the_views_that_it_has(tmp_path):
    geometry = FanBeam(angles=np.arange(16) * np.pi / 8, columns=20, pixel=1.2, source_to_axis=60.0, source_to_detector=90.0)
    rng = np.random.default_rng(0)
    scan = simulate(lambda n: rectangles(n, rng), geometry, VolumeGrid((10, 10), 1.0), RelativeNoise(0.02), rng=rng)
    files.write_scan(scan, tmp_path / "scan.h5")
    words = ["--prior", "isotropic", "--size", 10, "--pilot", 3, "--total", 4, "--random", 1, "--every", 2]
    assert typed(Simulate, tmp_path / "scan.h5", "-o", tmp_path / "out", *words) == 0
    table = rows(tmp_path / "out" / "comparison.csv")
    assert {"half turn", "eig isotropic"} < {row["strategy"] for row in table}
    assert {row["quality"] for row in table} == {"tv truth", "tv unseen"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.h5"], "neither a file nor a phantom"),
        (["rectangles", "--total", "13"], "13 angles are wanted of 12 candidates"),
        (["rectangles", "--pilot", "6"], "pilot"),
        (["rectangles", "--batch", "0"], "batch"),
        (["rectangles", "--size", "2"], "8 or more pixels"),
        ([], "Name a scan file or a phantom"),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(tmp_path, words, said):
    settings = dict(zip(SMALL[::2], SMALL[1::2], strict=True))
    settings |= dict(zip(words[1::2], words[2::2], strict=False))
    options = [word for pair in settings.items() for word in pair]
    with pytest.raises(InputError, match=said):
        typed(Simulate, *words[:1], "-o", tmp_path / "out", "--prior", "matern", *options)


def test_folders_without_trials_are_told(tmp_path):
    with pytest.raises(InputError, match="no trial"):
        typed(Compare, tmp_path)
    with pytest.raises(InputError, match="Name a folder"):
        typed(Compare)
