"""``ctuq measure`` on stacks."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from ctuq.app.cli import main
from ctuq.quantities import Circle, Cylinder, Sphere
from ctuq.tomo import Parallel3D, VolumeGrid
from ctuq.uncertainty.results.volume import VolumeResult

SHAPE = (4, 12, 12)
BEAM = Parallel3D(angles=np.arange(4.0), rows=4, columns=12, pixel=1.5, row_pixel=0.7)


@pytest.fixture(scope="module")
def stack():
    """A disc of 0.05 in slices 0 to 2, and nothing in slice 3."""
    rng = np.random.default_rng(3)
    directions = (5e-4 * rng.standard_normal((4, 20, 12, 12))).astype(np.float32)
    std = np.sqrt(np.sum(directions.astype(np.float64) ** 2, axis=1)).astype(np.float32)
    x = 1.5 * (np.arange(12) - 5.5)
    disc = 0.05 / (1 + np.exp(2 * (np.hypot(x, x[:, None]) - 5)))
    mean = np.stack([disc, disc, disc, 0 * disc]).astype(np.float32)
    grid, alike = VolumeGrid(SHAPE, 1.5, (0.0, 0.0, 2.0)), np.array([1.0, 0.5, 0.2, 0.2])
    return VolumeResult(mean, grid, BEAM, "dip", std=std, slice_pitch=0.7, directions=directions, alike=alike)


@pytest.fixture
def file(stack, tmp_path):
    stack.save(tmp_path / "results.h5")
    return tmp_path / "results.h5"


def measured(file, *typed):
    out = file.parent / "out.csv"
    assert main(["measure", str(file), *typed, "--csv", str(out)]) == 0
    with out.open(newline="") as table:
        return {row["name"]: row for row in csv.DictReader(table)}


def test_circles_and_lines_are_measured_in_each_slice(stack, file):
    typed = ["--region", "circle:1,0,3", "--region", "rim=circle:0,6,2", "--contrast", "a,rim", "--porosity", "below=0.025"]
    told = measured(file, *typed, "--profile=-3,0,3,0", "--centre", "above=-1", "--probability", "above=0.04,at_least=9")
    for z in range(4):
        expected = stack.slice(z).region(Circle(1, 0, 3))
        assert float(told[f"mean of a, slice {z}"]["value"]) == pytest.approx(expected.value, rel=1e-6)
        found = float(told[f"mean of a, slice {z}"]["standard_uncertainty"])
        assert found == pytest.approx(expected.standard_uncertainty, rel=1e-6)
        assert {f"a less rim, slice {z}", f"area of a below 0.025, slice {z}", f"centre of rim above -1, x, slice {z}"} <= set(
            told
        )
    part = stack.slice(1).probability(Circle(1, 0, 3), above=0.04, at_least=9)
    name = "probability that a part of at least 9 mm^2 of a is above 0.04, slice 1"
    assert float(told[name]["value"]) == pytest.approx(part.value)
    assert len([name for name in told if name.startswith("profile")]) == 4 * len(stack.slice(0).profile((-3, 0), (3, 0)).points)


def test_some_slices_may_be_chosen_and_walls_that_are_not_there_are_told(stack, file, capsys):
    told = measured(file, "--region", "circle:1,0,3", "--slices", "1:4:2", "--thickness=-8,0,8,0,0.025")
    assert set(told) == {"mean of a, slice 1", "mean of a, slice 3", "thickness -8,0 to 8,0 at 0.025, slice 1"}
    assert "Slice 3 cannot be measured so" in capsys.readouterr().out
    assert main(["measure", str(file), "--slices", "3", "--thickness=-8,0,8,0,0.025"]) == 2
    assert "0 times" in capsys.readouterr().err


def test_slices_are_counted_as_the_reconstruction_counted_them(stack, tmp_path, capsys):
    numbered = replace(stack, slices={**stack.slices, "number": np.arange(6.0, 14.0, 2.0)})
    numbered.save(tmp_path / "r.h5")
    told = measured(tmp_path / "r.h5", "--region", "circle:1,0,3", "--slices", "8:11")
    assert set(told) == {"mean of a, slice 8", "mean of a, slice 10"}
    assert main(["measure", str(tmp_path / "r.h5"), "--region", "circle:1,0,3", "--slices", "1:4"]) == 2
    assert "none of the stack's slices, 6 to 12" in capsys.readouterr().err


def test_regions_go_through_slices(stack, file, capsys, tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 4:8, 4:8] = True
    np.save(tmp_path / "mask.npy", mask)
    typed = [
        "--region",
        "ball=sphere:0,0,2,1.2",
        "--region",
        "cylinder:1,0,4,1,3",
        "--region",
        f"m=mask:{tmp_path / 'mask.npy'}",
    ]
    told = measured(file, *typed, "--contrast", "ball,a", "--probability", "above=0.04", "--fraction", "above=0.025")
    for name, solid in {"ball": Sphere(0, 0, 2, 1.2), "a": Cylinder(1, 0, 4, 1, 3), "m": mask}.items():
        expected = stack.region(solid)
        assert float(told[f"mean of {name}"]["value"]) == pytest.approx(expected.value, rel=1e-6)
        assert float(told[f"mean of {name}"]["standard_uncertainty"]) == pytest.approx(expected.standard_uncertainty, rel=1e-6)
        assert float(told[f"mean of {name}"]["variance of slices that err alike"]) > 0
        assert told[f"volume of {name} above 0.025"]["unit"] == "mm^3"
        assert 0 <= float(told[f"probability that {name} is above 0.04"]["value"]) <= 1
    assert float(told["ball less a"]["value"]) == pytest.approx(
        stack.contrast(Sphere(0, 0, 2, 1.2), Cylinder(1, 0, 4, 1, 3)).value
    )
    assert "err as alike as their held-out rays do" in capsys.readouterr().out


def test_a_change_between_two_stacks_is_measured_slice_by_slice(stack, file, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    replace(stack, mean=stack.mean + np.float32(0.01)).save(tmp_path / "other" / "results.h5")
    told = measured(file, "--region", "circle:1,0,3", "--difference", str(tmp_path / "other"))
    assert [float(told[f"change of a, slice {z}"]["value"]) for z in range(4)] == pytest.approx([-0.01] * 4, rel=1e-4)
    moved = replace(stack, grid=VolumeGrid(SHAPE, 1.5))
    moved.save(tmp_path / "other" / "results.h5")
    told = measured(file, "--region", "circle:1,0,3", "--difference", str(tmp_path / "other"))
    assert set(told) == {f"mean of a, slice {z}" for z in range(4)}
    assert "change of a: Slice 0, 1, 2 and others cannot be measured so" in (said := capsys.readouterr().out)
    assert "different grids" in said
    replace(stack, directions=None).save(tmp_path / "other" / "results.h5")
    assert main(["measure", str(file), "--region", "circle:1,0,3", "--difference", str(tmp_path / "other")]) == 2
    assert "no covariance" in capsys.readouterr().err


def test_slices_that_failed_are_left_out_unless_they_are_asked_for(stack, tmp_path, capsys):
    mean, std, directions = stack.mean.copy(), stack.std.copy(), stack.directions.copy()
    for each in (mean, std, directions):
        each[1] = np.nan
    replace(stack, mean=mean, std=std, directions=directions, warnings=("Slice 1 could not be made.",)).save(tmp_path / "r.h5")
    told = measured(tmp_path / "r.h5", "--region", "circle:1,0,3")
    assert set(told) == {f"mean of a, slice {z}" for z in (0, 2, 3)}
    assert "Slice 1 could not be made." in capsys.readouterr().out
    for typed in (["--region", "circle:1,0,3", "--slices", "1"], ["--region", "cylinder:1,0,4,1,3"]):
        assert main(["measure", str(tmp_path / "r.h5"), *typed]) == 2
        assert "Slice 1 could not be made and holds no numbers" in capsys.readouterr().err
    told = measured(tmp_path / "r.h5", "--region", "circle:1,0,3", "--slices", "0:3")
    assert set(told) == {"mean of a, slice 0", "mean of a, slice 2"}
    assert "Warning: slice 1: Slice 1 could not be made and holds no numbers" in capsys.readouterr().out


def test_what_is_refused_through_slices_stops_nothing_else(file, capsys):
    solids = ["--region", "sphere:0,0,2,1", "--region", "sphere:0,0,2,3"]
    told = measured(file, *solids, "--probability", "above=0.02,at_least=2")
    assert set(told) == {"mean of a"}
    said = capsys.readouterr().out
    assert "of b is above 0.02: The probability of a connected part is of single slices" in said
    assert "Warning: mean of b: " in said and "out of the volume along z" in said


@pytest.mark.parametrize(
    "typed, words",
    [
        (["--region", "circle:0,0,20"], "out of the image"),
        (["--region", "sphere:0,0,2,3"], "out of the volume along z"),
        (["--region", "cylinder:0,0,2,2,2"], "two heights that differ"),
        (["--region", "cylinder:0,0,-2,1,2"], "positive radius"),
        (["--region", "cylinder:0,0,2,1"], "A region is"),
        (["--region", "cylinder:0,0,2,1,nan"], "finite"),
        (["--region", "circle:0,0,2", "--slices", "4"], "0 to 3"),
        (["--region", "circle:0,0,2", "--slices", "2:1"], "not there"),
        (["--region", "circle:0,0,2", "--slices", "top"], "A:B"),
        (["--region", "sphere:0,0,2,1", "--slices", "1"], "none is asked for"),
        (["--region", "sphere:0,0,2,1", "--region", "circle:0,0,2", "--contrast", "a,b"], "two regions of slices or of two"),
        (["--region", "sphere:0,0,2,1", "--centre", "above=0.01"], "--centre is of regions in slices"),
        (["--slices", "1"], "Nothing is to be measured"),
        (["--region", "circle:0,0,2", "--level", "2"], "level of an interval"),
    ],
)
def test_what_cannot_be_measured_of_a_stack_is_refused_in_one_sentence(file, typed, words, capsys):
    assert main(["measure", str(file), *typed]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and "\n" not in told


def test_a_stack_without_covariance_says_so(stack, tmp_path, capsys):
    replace(stack, directions=None, alike=None, settings={"stack": 1}).save(tmp_path / "results.h5")
    for region in ("circle:1,0,3", "sphere:0,0,2,1"):
        assert main(["measure", str(tmp_path), "--region", region]) == 2
        assert "holds no covariance of slices" in capsys.readouterr().err


def test_slices_are_of_stacks_alone(stack, tmp_path, capsys):
    rng = np.random.default_rng(0)
    samples = (0.02 + 0.001 * rng.standard_normal((32, *SHAPE))).astype(np.float32)
    replace(stack, directions=None, alike=None, samples=samples).save(tmp_path / "results.h5")
    assert main(["measure", str(tmp_path), "--region", "sphere:0,0,2,1"]) == 0
    assert main(["measure", str(tmp_path), "--region", "cylinder:0,0,3,1,3"]) == 0
    assert main(["measure", str(tmp_path), "--region", "sphere:0,0,2,1", "--slices", "1"]) == 2
    assert "--slices is of stacks" in capsys.readouterr().err
