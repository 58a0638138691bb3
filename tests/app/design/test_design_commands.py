import json
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import tifffile
import torch

from ctuq import files, records
from ctuq.app import cli
from ctuq.app.design import commands as design_commands
from ctuq.app.design.options import Start
from ctuq.design import CRITERIA, PRIORS
from ctuq.design.session import file as sessionfile
from ctuq.design.session.session import Session
from ctuq.tomo import FanBeam, ParallelBeam, Scan, default_grid, ray_transform
from ctuq.tomo.phantoms import rectangles

PARALLEL = "kind: parallel\npixel: 1.0\ncolumns: 18\n"
FAN = """
kind: fan
pixel: 2.0
columns: 18
source_to_axis: 60
source_to_detector: 120
clockwise: true
values: counts
flat: 20000
dark: 100
"""


def line_integrals(geometry):
    grid = default_grid(geometry, 12)
    image = torch.tensor(0.05 * rectangles(12, np.random.default_rng(0)), dtype=torch.float32)
    clean = ray_transform(grid, geometry, backend="matrix")(image).numpy()
    return clean + 0.03 * clean.mean() * np.random.default_rng(1).standard_normal(clean.shape)


def scan_at(path, degrees, **changes):
    """A file of our own with views at these angles."""
    geometry = ParallelBeam(**({"angles": np.deg2rad(degrees), "columns": 18, "pixel": 1.0} | changes))
    files.write_scan(Scan(line_integrals(geometry), geometry), path)
    return str(path)


def told(capsys):
    lines = capsys.readouterr().err.splitlines()
    found = [line for line in lines if line.startswith("ctuq: ")]
    assert len(found) == 1
    return found[0]


def design(*words):
    return cli.main(["design", *map(str, words)])


def begin(folder):
    (folder / "geometry.yml").write_text(PARALLEL)
    path = folder / "s.h5"
    words = "--candidates 0:180:6 --size 12 --prior isotropic --pilot 3 --batch 2 --dose-budget 7 --forbid 80:100"
    assert design("start", path, "--geometry", folder / "geometry.yml", *words.split()) == 0
    return path


@pytest.fixture
def begun(tmp_path):
    """A session with nothing told, on 12 x 12 pixels and 30 candidates."""
    return begin(tmp_path)


@pytest.fixture(scope="module")
def piloted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("piloted")
    path = begin(folder)
    assert design("tell", path, scan_at(folder / "pilot.h5", [0, 60, 120])) == 0
    return path


@pytest.fixture
def running(piloted, tmp_path):
    """The same with its pilot told; without its cache."""
    for name in ("s.h5", "pilot.h5"):
        (tmp_path / name).write_bytes((piloted.parent / name).read_bytes())
    return tmp_path / "s.h5"


def test_a_session_from_its_start_to_its_budget(begun, tmp_path, capsys):
    assert design("suggest", begun) == 0
    shown = capsys.readouterr().out
    assert "Next: 0°, 60°, 120°" in shown and "pilot" in shown
    assert design("tell", begun, scan_at(tmp_path / "pilot.h5", [0, 60, 120])) == 0
    assert "3 views are measured, dose 3 of 7 is spent" in capsys.readouterr().out
    for number in range(2):
        assert design("suggest", begun) == 0
        lines = capsys.readouterr().out.splitlines()
        angles = [float(part.rstrip("°")) for part in lines[0].removeprefix("Next: ").split(", ")]
        assert len(angles) == 2 and not any(80 <= angle <= 100 for angle in angles)
        assert lines[1].split()[0] == f"{angles[0]:g}°" and "nats" in lines[1] and "are free" in lines[1]
        assert lines[-1].startswith("Go on: ") and "predicted error" in lines[-1]
        assert design("tell", begun, scan_at(tmp_path / f"{number}.h5", angles)) == 0
        capsys.readouterr()
    before = begun.read_bytes()
    assert design("suggest", begun) == 11
    assert "budget of 7 is exhausted (7 spent, 0 views pending); raise it to go on: " in (said := told(capsys))
    assert "ctuq design tell SESSION.h5 --dose-budget X" in said and "session.allow(X)" in said
    for pending in ((), ("--pending", 6)):
        assert design("suggest", begun, "--json", *pending) == 11
        session = json.loads(capsys.readouterr().out)["facts"]["session"]
        assert session["budget_spent"] and (session["dose"], session["budget"]) == (7, 7)
    assert begun.read_bytes() == before
    assert design("tell", begun, "--dose-budget", 8) == 0
    assert "dose 7 of 8 is spent" in capsys.readouterr().out
    assert design("suggest", begun) == 0


def test_the_advice_to_stop_comes_with_its_figures(tmp_path, capsys):
    (tmp_path / "g.yml").write_text(PARALLEL)
    path, words = tmp_path / "s.h5", "--candidates 0:180:6 --size 12 --prior isotropic --pilot 3 --stop-gain 1e6"
    assert design("start", path, "--geometry", tmp_path / "g.yml", *words.split()) == 0
    assert design("tell", path, scan_at(tmp_path / "pilot.h5", [0, 60, 120])) == 0
    assert design("suggest", path) == 10
    assert "Stop: " in (shown := capsys.readouterr().out) and "stop below 1e+06" in shown


def test_suggest_waits_for_no_torch(running):
    code = (
        "import sys\nfrom ctuq.app.cli import main\n"
        f"assert main(['design', 'suggest', {str(running)!r}]) == 0\nassert main(['design', 'status', {str(running)!r}]) == 0\n"
        "assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "predicted gain" in done.stdout


def test_more_than_was_worked_out_and_pending_angles(running, capsys):
    capsys.readouterr()
    assert design("suggest", running, "-n", 4) == 0
    four = capsys.readouterr().out.splitlines()[0].removeprefix("Next: ").split(", ")
    assert len(four) == 4
    assert design("suggest", running, "--pending", ",".join(a.rstrip("°") for a in four[:2])) == 0
    assert capsys.readouterr().out.splitlines()[0].removeprefix("Next: ").split(", ") == four[2:]


def test_a_rejected_angle_that_was_never_asked_for_is_said_to_cost_its_dose(running, capsys):
    assert design("tell", running, "--reject", "60,6") == 0
    shown = capsys.readouterr().out
    assert "One had no projection: it is counted as a failed exposure, dose 1." in shown
    assert "dose 4 of 7 is spent" in shown


def test_status_tells_the_log_and_draws(running, tmp_path, capsys):
    assert design("suggest", running) == 0
    assert design("tell", running, "--reject", "60", "--because", "beam lost", "--final") == 0
    assert "failed exposure" not in capsys.readouterr().out
    before = running.read_bytes()
    assert design("status", running, "--draw", tmp_path / "s.png") == 0
    shown = capsys.readouterr().out
    for text in ("Measured: 2 of 30", "Dose spent: 3 of 7", "Failed for good: 60°", "pilot views", "beam lost", "gains"):
        assert text in shown
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert running.read_bytes() == before


def test_retraining_is_left_to_another_process_and_merged(tmp_path, capsys):
    (tmp_path / "g.yml").write_text(PARALLEL)
    path, words = tmp_path / "s.h5", "--candidates 0:180:6 --size 12 --prior isotropic --pilot 3 --retrain-every 1"
    assert design("start", path, "--geometry", tmp_path / "g.yml", *words.split()) == 0
    assert design("tell", path, scan_at(tmp_path / "pilot.h5", [0, 60, 120])) == 0
    capsys.readouterr()
    assert design("tell", path, scan_at(tmp_path / "n.h5", [30]), "--no-retrain") == 0
    assert "Learning is due (1 views are new): ctuq design retrain" in capsys.readouterr().out
    assert design("suggest", path) == 0
    assert design("retrain", path) == 0
    assert "Learned from 4 views" in capsys.readouterr().out
    assert len(Session(path).record.learnt.views) == 4


def test_a_clockwise_fan_with_counts_in_tiff(tmp_path, capsys):
    (tmp_path / "fan.yml").write_text(FAN)
    path, words = tmp_path / "s.h5", "--candidates 0:360:10 --size 12 --prior edges --pilot 4 --criterion a --roi=-3,3,-3,3"
    assert design("start", path, "--geometry", tmp_path / "fan.yml", *words.split(), "--forbid", "40:80") == 0
    assert design("suggest", path) == 0
    assert "Next: 0°, 90°, 180°, 270°" in capsys.readouterr().out
    shape = {"columns": 18, "pixel": 2.0, "source_to_axis": 60.0, "source_to_detector": 120.0}
    for name, degrees, light in (("a", [0, 90], 1.0), ("b", [180, 270], 0.25)):
        y = line_integrals(FanBeam(angles=-np.deg2rad(degrees), **shape))
        tifffile.imwrite(tmp_path / f"{name}.tif", (100 + 19900 * light * np.exp(-y)).astype("f4"))
    (tmp_path / "a.yaml").write_text("angles: [0, 90]\n")
    assert design("tell", path, tmp_path / "a.tif") == 0
    assert design("tell", path, tmp_path / "b.tif", "--angles", "180,270") == 0
    record = Session(path).record
    np.testing.assert_allclose(np.rad2deg(record.angles[record.state.views]), [-0.0, -90, -180, -270])
    y = line_integrals(FanBeam(angles=-np.deg2rad([0, 90]), **shape))
    np.testing.assert_allclose(record.state.projections[:2], y, atol=1e-5)
    ratio = record.state.weights[2:].mean() / record.state.weights[:2].mean()
    assert ratio == pytest.approx(0.25, rel=0.1) and record.counted > 1000
    capsys.readouterr()
    assert design("suggest", path) == 0
    shown = capsys.readouterr().out.splitlines()
    angle = float(shown[0].removeprefix("Next: ").rstrip("°"))
    assert 0 <= angle < 360 and not 40 <= angle <= 80 and f"the best angle, {angle:g} degrees" in shown[-1]
    assert design("tell", path, tmp_path / "a.tif") == 2
    assert "The angle 0° was told before" in told(capsys)


def test_doses_come_from_a_file_and_turning_has_a_price(tmp_path):
    (tmp_path / "g.yml").write_text(PARALLEL + "angles: {first: 0, step: 6, count: 30}\n")
    (tmp_path / "doses.txt").write_text("0 1\n90 3\n180 1\n")
    path, words = tmp_path / "s.h5", "--size 12 --prior isotropic --rotation-cost 0.5 --endless"
    assert design("start", path, "--geometry", tmp_path / "g.yml", "--exposures", tmp_path / "doses.txt", *words.split()) == 0
    record = Session(path).record
    np.testing.assert_allclose(record.doses[[0, 15, 5]], [1, 3, 1 + 2 / 3])
    assert record.settings.rotation_cost == pytest.approx(0.5 * 180 / np.pi) and record.settings.endless


STARTS = {
    "--candidates 0:180": "first, stop and step",
    "--candidates 0:180:-1": "from 0 to 180 in steps of -1 degrees",
    "--candidates 180:0:1": "are -180 angles; 1 to",
    "--tolerance=-1": "got -1 degrees",
    "--rotation-cost=-1": "got -1 a degree",
    "--size 0": "2 to 16384 pixels",
    "--candidates 0:180:0.01": "tolerance",
    "--forbid 80": "arcs in degrees",
    "--forbid 0:360": "All 180 candidate angles are forbidden",
    "--roi 1,2": "left, right, bottom and top",
    "--retrain-every sometimes": "whole number",
    "--retrain-every 0": "whole number",
    "--size 1": "2 to 16384 pixels",
    "--dose-budget=-2": "budget",
    "--columns 0": "how wide the detector is",
    "--exposures nothing.txt": "nothing.txt",
    "--geometry nothing.yml": "nothing.yml",
}


@pytest.mark.parametrize("words", STARTS)
def test_what_cannot_be_begun_is_told_in_one_line(words, tmp_path, capsys):
    (tmp_path / "g.yml").write_text(PARALLEL)
    geometry = () if "--geometry" in words else ("--geometry", tmp_path / "g.yml")
    assert design("start", tmp_path / "s.h5", *geometry, *words.split()) == 2
    assert STARTS[words] in told(capsys)
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pixel: 1.0\ncolumns: 18\n", "kind"),
        ("kind: parallel\npixel: 1.0\n", "columns: 512"),
        ("kind: parallel\npixel: 1.0\ncolumns: 18\naxis_column: search\n", "must be a number"),
        ("kind: fan\npixel: 1.0\ncolumns: 18\n", "source_to_axis"),
    ],
)
def test_a_scanner_that_is_not_told_whole_is_asked_for(text, said, tmp_path, capsys):
    (tmp_path / "g.yml").write_text(text)
    assert design("start", tmp_path / "s.h5", "--geometry", tmp_path / "g.yml") == 2
    assert said in told(capsys)


def spoiled(tmp_path, **changes):
    """An ``.npz`` scan at 30 degrees with something wrong."""
    y = line_integrals(ParallelBeam(angles=np.deg2rad([30.0]), columns=18, pixel=1.0))
    entries = {"sinogram": y, "angles_deg": np.array([30.0]), "kind": "parallel", "pixel": 1.0} | changes
    np.savez(tmp_path / "new.npz", **{key: value for key, value in entries.items() if value is not None})
    return tmp_path / "new.npz"


MISFITS = {
    "wrong shape": (lambda p: spoiled(p, sinogram=np.ones((1, 20))), "20 detector columns"),
    "two views for one angle": (lambda p: spoiled(p, sinogram=np.ones((2, 18))), "2 projections but 1 angles"),
    "an angle that is no candidate": (lambda p: spoiled(p, angles_deg=np.array([31.0])), "31° is not among the candidates"),
    "told before": (lambda p: spoiled(p, angles_deg=np.array([60.0])), "60° was told before"),
    "NaN": (lambda p: spoiled(p, sinogram=np.full((1, 18), np.nan)), "nothing but NaN"),
    "NaN counts": (lambda p: spoiled(p, sinogram=np.full((1, 18), np.nan), values="counts", flats=np.ones((1, 18))), "NaN"),
    "counts without flats": (lambda p: spoiled(p, values="counts"), "no flats"),
    "another pixel": (lambda p: spoiled(p, pixel=1.1), "its pixel is 1.1 mm, the session's 1 mm"),
    "another offset": (lambda p: spoiled(p, detector_offset=0.4), "detector offset is 0.4 mm"),
    "another beam": (lambda p: spoiled(p, kind="fan", source_to_axis=60.0, source_to_detector=90.0), "fan beam scan"),
    "no angles": (lambda p: spoiled(p, angles_deg=None), "--angles 36,72"),
    "no file": (lambda p: p / "none.h5", "no file"),
    "not a scan": (lambda p: records.write(p / "r.h5", {"a": 1}, kind="result") or p / "r.h5", "holds a result"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_projections_that_do_not_match_are_refused_and_the_session_stays(what, running, tmp_path, capsys):
    make, said = MISFITS[what]
    before = running.read_bytes()
    capsys.readouterr()
    assert design("tell", running, make(tmp_path)) == 2
    sentence = told(capsys)
    assert said in sentence and "defect" not in sentence
    assert running.read_bytes() == before


WORDS = {
    ("suggest", "-n", "0"): "At least one",
    ("suggest", "--pending", "7"): "7° is not among the candidates",
    ("suggest", "--pending", "x"): "--pending takes degrees",
    ("tell",): "Name a file",
    ("tell", "--reject", "7"): "not among the candidates",
    ("tell", "a.h5", "b.h5", "--angles", "1,2"): "one by one",
    ("tell", "new.h5", "--reject", "60"): "one after the other",
}


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_what_makes_no_sense_is_told_and_the_session_stays(words, running, capsys):
    before = running.read_bytes()
    capsys.readouterr()
    assert design(words[0], running, *words[1:]) == 2
    assert WORDS[words] in told(capsys)
    assert running.read_bytes() == before


@pytest.mark.parametrize("step", ["suggest", "tell", "status", "retrain"])
def test_a_damaged_or_newer_or_missing_session_is_told_by_every_command(step, running, tmp_path, capsys):
    words = (tmp_path / "pilot.h5",) if step == "tell" else ()
    damaged, newer = tmp_path / "damaged.h5", tmp_path / "newer.h5"
    damaged.write_bytes(running.read_bytes()[:-500])
    tree = records.read(running, kind="session")
    records.write(newer, {**tree, "layout": sessionfile.LAYOUT + 1}, kind="session")
    for path, said in ((damaged, "whole"), (newer, "newer ctuq"), (tmp_path / "none.h5", "no file")):
        before = path.read_bytes() if path.exists() else None
        capsys.readouterr()
        assert design(step, path, *words) == 2
        assert said in told(capsys)
        assert (path.read_bytes() if path.exists() else None) == before


def test_several_files_are_told_at_once_or_not_at_all(begun, tmp_path, capsys):
    names = [scan_at(tmp_path / f"{angle}.h5", [angle]) for angle in (0, 60)]
    before = begun.read_bytes()
    assert design("tell", begun, *names, scan_at(tmp_path / "odd.h5", [7])) == 2
    assert begun.read_bytes() == before
    assert design("tell", begun, *names) == 0
    assert Session(begun).state.views.tolist() == [0, 10]


def test_an_interruption_says_that_nothing_is_lost(running, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "update", interrupted)
    assert design("tell", running, scan_at(tmp_path / "n.h5", [30])) == 3
    assert "what was told is kept" in told(capsys)
    assert len(Session(running).state.views) == 4


def test_the_choices_on_the_command_line_are_those_of_the_library():
    assert get_args(Start.__annotations__["prior"]) == PRIORS
    assert set(get_args(Start.__annotations__["criterion"])) == set(CRITERIA)
    assert design_commands._every("never") == 0
