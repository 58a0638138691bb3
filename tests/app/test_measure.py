import csv
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from ctuq.app.cli import main
from ctuq.app.measure.options import Measure
from ctuq.app.measure.sources import asked
from ctuq.app.measure.table import remembered
from ctuq.app.measure.texts import limit, pair, regions, segment, shape
from ctuq.errors import InputError
from ctuq.quantities import Circle, Polygon, Rectangle, Sphere
from ctuq.quantities.regions import shares_of
from ctuq.tomo import ConeBeam, VolumeGrid
from ctuq.uncertainty.results.volume import VolumeResult


@pytest.fixture(scope="module")
def kept(result):
    """The small result with a covariance of few directions."""
    rng = np.random.default_rng(5)
    directions = (0.3 * result.std * rng.standard_normal((6, *result.mean.shape))).astype(np.float32)
    return replace(result, directions=directions, waves=0, sigma2=1e-3)


@pytest.fixture
def file(kept, tmp_path):
    kept.save(tmp_path / "results.h5")
    return tmp_path / "results.h5"


def rows(path):
    with path.open(newline="") as table:
        return list(csv.DictReader(table))


def test_the_table_holds_what_python_gives(kept, file, tmp_path, capsys):
    out = tmp_path / "out.csv"
    typed = ["--region", "circle:2,1,5", "--region", "hole=rectangle:-6,-6,-1,-2", "--contrast", "a,hole", "--csv", str(out)]
    assert main(["measure", str(file), *typed, "--profile=-5,0,5,0", "--probability", "above=0.04"]) == 0
    told = {row["name"]: row for row in rows(out)}
    mean = kept.region(Circle(2, 1, 5))
    assert float(told["mean of a"]["value"]) == pytest.approx(mean.value)
    assert float(told["mean of a"]["standard_uncertainty"]) == pytest.approx(mean.standard_uncertainty)
    sources = [float(value) for name, value in told["mean of a"].items() if name.startswith("variance of")]
    assert sum(sources) == pytest.approx(mean.standard_uncertainty**2, rel=1e-4)
    contrast = kept.contrast(Circle(2, 1, 5), Rectangle(-6, -6, -1, -2))
    assert float(told["a less hole"]["lower"]) == pytest.approx(contrast.interval[0])
    assert float(told["probability that a is above 0.04"]["value"]) == pytest.approx(
        kept.probability(Circle(2, 1, 5), above=0.04).value
    )
    assert len([name for name in told if name.startswith("profile")]) == len(kept.profile((-5, 0), (5, 0)).points)
    assert "mean of hole" in capsys.readouterr().out


def test_a_profile_is_shown_by_a_dozen_points_and_written_whole(kept, file, tmp_path, capsys):
    count = len(kept.profile((-10, 0), (10, 0)).points)
    assert count > 30
    assert main(["report", str(file.parent)]) == 0
    capsys.readouterr()
    typed = ["measure", str(file), "--profile=-10,0,10,0"]
    assert main([*typed, "--csv", str(tmp_path / "out.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    points = [line for line in lines if line.startswith("profile -10,0 to 10,0 at ")]
    assert 6 <= len(points) <= 12 and not any("variance" in line for line in lines)
    (head,) = [line for line in lines if line.startswith(f"profile -10,0 to 10,0: {count} points, ")]
    assert "--csv and --json hold all" in head
    assert len(rows(tmp_path / "out.csv")) == count
    assert len(remembered(file)) == len(points)
    assert (file.parent / "report.html").read_text().count("profile -10,0 to 10,0 at ") == len(points)
    assert main([*typed, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["facts"]["quantities"]) == count


def test_a_folder_may_be_named(file, capsys):
    assert main(["measure", str(file.parent), "--region", "circle:0,0,5"]) == 0
    assert "1/mm" in capsys.readouterr().out


def test_a_yaml_file_asks_as_the_command_line_does(kept, file, tmp_path):
    plan = tmp_path / "plan.yaml"
    named = "regions:\n  grain: circle:2,1,5\n  hole: 'rectangle:-6,-6,-1,-2'\n"
    plan.write_text(named + "contrast: ['grain,hole']\nprofile: -5,0,5,0\n")
    out = [tmp_path / "one.csv", tmp_path / "two.csv"]
    typed = ["--region", "grain=circle:2,1,5", "--region", "hole=rectangle:-6,-6,-1,-2", "--contrast", "grain,hole"]
    assert main(["measure", str(file), "--regions", str(plan), "--csv", str(out[0])]) == 0
    assert main(["measure", str(file), *typed, "--profile=-5,0,5,0", "--csv", str(out[1])]) == 0
    assert out[0].read_text() == out[1].read_text()


def test_regions_of_imagej_lie_where_they_were_drawn(kept, file, tmp_path):
    roifile = pytest.importorskip("roifile")
    corners = np.array([[10, 4], [20, 4], [20, 12], [10, 12]], np.float32)
    square = roifile.ImagejRoi.frompoints(corners, name="grain")
    square.tofile(tmp_path / "one.roi")
    roifile.roiwrite(tmp_path / "two.zip", [square, roifile.ImagejRoi.frompoints(corners + 3, name="wall")])
    left, _, _, top = kept.grid.extent
    v = kept.grid.voxel
    (found,) = asked(Measure(results=file, regions=tmp_path / "one.roi"), kept.grid).regions.items()
    exact = Rectangle(left + 10 * v, top - 4 * v, left + 20 * v, top - 12 * v)
    assert found[0] == "grain"
    assert kept.region(found[1]).value == pytest.approx(kept.region(exact).value, rel=1e-5)
    both = asked(Measure(results=file, regions=tmp_path / "two.zip"), kept.grid).regions
    assert list(both) == ["grain", "wall"]


def test_a_change_between_two_results_is_measured(kept, file, tmp_path):
    replace(kept, mean=kept.mean + np.float32(0.002)).save(tmp_path / "later.h5")
    out = tmp_path / "out.csv"
    typed = ["--region", "circle:0,0,5", "--difference", str(tmp_path / "later.h5"), "--csv", str(out)]
    assert main(["measure", str(file), *typed]) == 0
    assert float(rows(out)[1]["value"]) == pytest.approx(-0.002, rel=1e-3)


def test_areas_centres_and_thicknesses_are_what_python_gives(kept, file, tmp_path):
    out = tmp_path / "out.csv"
    sure = replace(kept, directions=0.01 * kept.directions, std=0.01 * kept.std, mean=kept.truth)
    sure.save(file)
    typed = ["--region", "circle:0,0,15", "--porosity", "below=0.02", "--fraction", "above=0.02", "--centre", "above=0.02"]
    assert main(["measure", str(file), *typed, "--thickness=-16,-8,16,-8,0.025", "--csv", str(out)]) == 0
    told = {row["name"]: row for row in rows(out)}
    below, above = (float(told[f"share of a {side} 0.02"]["value"]) for side in ("below", "above"))
    assert below + above == pytest.approx(1)
    assert above == pytest.approx(sure.fraction(Circle(0, 0, 15), above=0.02).value)
    assert float(told["area of a above 0.02"]["value"]) == pytest.approx(above * np.pi * 15**2, rel=1e-6)
    assert told["area of a above 0.02"]["unit"] == "mm^2"
    assert {"centre of a above 0.02, x", "centre of a above 0.02, y"} <= set(told)
    wall = sure.thickness((-16, -8), (16, -8), 0.025)
    assert float(told["thickness -16,-8 to 16,-8 at 0.025"]["value"]) == pytest.approx(wall.value)


@pytest.fixture
def volume_file(tmp_path):
    rng, shape = np.random.default_rng(0), (3, 4, 5)
    beam = ConeBeam(angles=np.array([0.0, 1.0]), columns=6, pixel=1.0, rows=4, source_to_axis=50.0, source_to_detector=90.0)
    samples = (0.02 + 0.001 * rng.standard_normal((32, *shape))).astype(np.float32)
    volume = VolumeResult(samples.mean(0), VolumeGrid(shape, 1.0), beam, "dip", samples=samples)
    volume.save(tmp_path / "results.h5")
    return volume, tmp_path / "results.h5"


def test_regions_of_a_volume_are_measured_by_its_samples(volume_file, tmp_path):
    volume, file = volume_file
    mask = np.zeros(volume.grid.shape)
    mask[1, 1:3, 2:4] = 255
    tifffile.imwrite(tmp_path / "a=b.tif", mask.astype(np.uint8), photometric="minisblack")
    out = tmp_path / "out.csv"
    typed = ["--region", "ball=sphere:0,0,0,1.2", "--region", "box:-2,-1,-1,1,1,1", "--region", f"mask:{tmp_path}/a=b.tif"]
    chances = ["--probability", "above=0.02", "--probability", "below=0.019,at_least=2", "--contrast", "ball,b"]
    assert main(["measure", str(file), *typed, *chances, "--csv", str(out)]) == 0
    told = {row["name"]: row for row in rows(out)}
    assert float(told["mean of ball"]["value"]) == pytest.approx(volume.region(Sphere(0, 0, 0, 1.2)).value)
    assert float(told["mean of b"]["standard_uncertainty"]) == pytest.approx(volume.region(mask / 255).standard_uncertainty)
    assert told["mean of a"]["draws"] == "32"
    assert 0 <= float(told["probability that a part of at least 2 mm^3 of ball is below 0.019"]["value"]) < 1
    for option in (
        ["--fraction", "above=0.02"],
        ["--centre", "above=0.02"],
        ["--difference", str(file)],
        ["--thickness=0,0,1,1"],
    ):
        assert main(["measure", str(file), "--region", "sphere:0,0,0,1", *option]) == 2


@pytest.mark.parametrize(
    "typed, words",
    [
        (["--region", "circle:0,0,1"], "is of a slice"),
        (["--region", "sphere:0,0,0,50"], "out of the volume along x"),
        (["--region", "sphere:0,0,0"], "A region is"),
        (["--region", "box:0,0,0,1,1,0"], "flat"),
        (["--region", "sphere:0,0,0,-1"], "positive radius"),
        (["--region", "sphere:0,0,0,nan"], "finite"),
        (["--region", "mask:nowhere.tif"], "no file"),
        (["--region", "mask:nowhere.txt"], "is read from a file of"),
        (["--region", "sphere:0,0,0,1", "--probability", "at_least=2"], "above=X or below=X"),
        (["--region", "sphere:0,0,0,1", "--probability", "above=0.02,size=2"], "at_least=A"),
        (["--region", "sphere:0,0,0,1", "--probability", "above=0.02,at_least=two"], "at_least=A"),
    ],
)
def test_what_cannot_be_measured_of_a_volume_is_refused_in_one_sentence(volume_file, typed, words, capsys):
    assert main(["measure", str(volume_file[1]), *typed]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and "\n" not in told


def test_a_part_that_no_volume_tells_stops_nothing_else(volume_file, capsys):
    chances = ["--probability", "above=0.02,at_least=0.1", "--probability", "above=0.02,at_least=9"]
    assert main(["measure", str(volume_file[1]), "--region", "sphere:0,0,0,1", *chances]) == 0
    told = capsys.readouterr().out
    assert "mean of a: 0.0" in told and "at least one voxel" in told and "No part of 9 mm^3" in told


THIN = ["--thickness=-1,0,1,0,0.04", "--thickness=-1,0,1,0,0.05"]


def test_what_is_refused_is_told_and_the_rest_is_printed_and_saved(file, tmp_path, capsys):
    out, folder = tmp_path / "out.csv", file.parent
    assert main(["report", str(folder)]) == 0
    capsys.readouterr()
    typed = ["--region", "circle:2,1,5", "--region", "circle:0,0,500", "--porosity", "below=0.02", *THIN]
    assert main(["measure", str(file), *typed, "--csv", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [row["name"] for row in rows(out)] == ["mean of a", "share of a below 0.02", "area of a below 0.02"]
    assert any(line.startswith("mean of a: ") for line in lines)
    assert any(line.startswith("Warning: thickness -1,0 to 1,0 at 0.04") for line in lines)
    assert sum("reaches" in line for line in lines) == 1
    assert any(line.startswith("Warning: mean of b, share of b below 0.02: ") for line in lines)
    assert "share of a below 0.02" in (folder / "report.html").read_text()
    assert main(["measure", str(file), *typed, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = [each["name"] for each in document["facts"]["refused"]]
    assert names == ["mean of b", "share of b below 0.02", "thickness -1,0 to 1,0 at 0.04", "thickness -1,0 to 1,0 at 0.05"]
    assert all(each["reason"].endswith(".") for each in document["facts"]["refused"])


def test_where_nothing_can_be_told_nothing_is_written(file, tmp_path, capsys):
    out, folder = tmp_path / "out.csv", file.parent
    assert main(["report", str(folder)]) == 0
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    assert main(["measure", str(file), "--region", "circle:0,0,500", *THIN, "--csv", str(out), "--json"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("ctuq: mean of a: ") and "; thickness -1,0 to 1,0 at 0.04" in said.err
    assert said.err.count("\n") == 1 and len(json.loads(said.out)["facts"]["refused"]) == 3
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("mistake", [["--region", "circle:0,0"], ["--thickness", "0,0,5"], ["--level", "95"]])
def test_what_is_typed_wrongly_is_refused_at_once(file, mistake, capsys):
    assert main(["measure", str(file), "--region", "circle:0,0,5", "--probability", "above=0.02", *mistake]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1


@pytest.mark.parametrize(
    "values, words",
    [
        (np.zeros((3, 4, 6)), "The mask has shape"),
        (np.zeros((3, 4, 5)), "some voxel that counts"),
        (np.arange(60.0).reshape(3, 4, 5), "two values"),
        (np.full((3, 4, 5), np.nan), "NaN"),
        (np.ones(60), "2 or 3 axes"),
        (np.ones((3, 4, 5), complex), "real numbers"),
    ],
)
def test_masks_that_say_nothing_are_refused_in_one_sentence(volume_file, tmp_path, values, words, capsys):
    np.save(tmp_path / "mask.npy", values)
    assert main(["measure", str(volume_file[1]), "--region", f"mask:{tmp_path / 'mask.npy'}"]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and "\n" not in told


def test_a_mask_of_a_slice_is_a_region_and_solids_are_not(kept, file, tmp_path, capsys):
    mask = np.zeros(kept.grid.shape, bool)
    mask[5:9, 6:12] = True
    np.save(tmp_path / "mask.npy", mask)
    assert main(["measure", str(file), "--region", f"grain=mask:{tmp_path / 'mask.npy'}"]) == 0
    assert f"{kept.region(mask).value:.4g} ±" in capsys.readouterr().out
    assert main(["measure", str(file), "--region", "box:0,0,0,1,1,1"]) == 2
    assert "is of a volume" in capsys.readouterr().err


def test_a_part_is_asked_for_on_the_command_line_and_in_yaml(kept, file, tmp_path, capsys):
    expected = kept.probability(Circle(2, 1, 5), above=0.04, at_least=12.0)
    name = "probability that a part of at least 12 mm^2 of grain is above 0.04"
    (tmp_path / "plan.yaml").write_text("regions:\n  grain: circle:2,1,5\nprobability: 'above=0.04,at_least=12'\n")
    typed = ["--region", "grain=circle:2,1,5", "--probability", "above=0.04,at_least=12"]
    for asked_by in (typed, ["--regions", str(tmp_path / "plan.yaml")]):
        assert main(["measure", str(file), *asked_by, "--csv", str(tmp_path / "out.csv")]) == 0
        (told,) = [row for row in rows(tmp_path / "out.csv") if row["name"] == name]
        assert float(told["value"]) == pytest.approx(expected.value)
        assert float(told["monte_carlo_error"]) == pytest.approx(expected.monte_carlo_error, rel=0.01)
    assert f"by {expected.draws} draws" in capsys.readouterr().out


def test_the_report_has_a_table_of_all_that_was_measured(kept, file, capsys):
    folder = file.parent
    typed = ["measure", str(file), "--region", "grain=circle:2,1,5"]
    assert main(typed) == 0
    assert not (folder / "measured.json").exists()
    assert main(["report", str(folder)]) == 0
    assert "mean of grain" not in (folder / "report.html").read_text()
    assert main(typed) == 0
    assert main(["measure", str(file), "--region", "hole=circle:-4,1,3", "--level", "0.68"]) == 0
    page = (folder / "report.html").read_text()
    mean = kept.region(Circle(2, 1, 5))
    assert "mean of grain" in page and "mean of hole" in page and f"{mean.value:.4g} ± {mean.standard_uncertainty:.2g}" in page
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text() == page
    replace(kept, mean=2 * kept.mean).save(file)
    assert main(["report", str(folder)]) == 0
    assert "mean of grain" not in (folder / "report.html").read_text()
    capsys.readouterr()


def test_what_is_measured_is_kept_as_json_that_every_program_reads(file):
    assert main(["report", str(file.parent)]) == 0
    name = "probability that a is above 0.04"
    assert main(["measure", str(file), "--region", "circle:2,1,5", "--probability", "above=0.04"]) == 0
    text = (file.parent / "measured.json").read_text()
    assert '"interval": [\n    null' in text and "NaN" not in text
    kept = {each.name: each for each in remembered(file)}
    assert np.isnan(kept[name].interval).all() and np.isfinite(kept["mean of a"].interval).all()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"results": 1}', '{"results": null, "quantities": [{}]}', "\u00ff", "[" * 9999]
)
def test_a_damaged_table_stops_no_measurement_and_is_told(file, text, capsys):
    folder = file.parent
    assert main(["report", str(folder)]) == 0
    (folder / "measured.json").write_text(text)
    assert main(["measure", str(file), "--region", "circle:0,0,5"]) == 0
    out = capsys.readouterr().out
    assert "mean of a" in out and ("damaged" in out or "1 measured quantities" in out)


def test_the_report_of_a_volume_has_its_table_too(volume_file):
    folder = volume_file[1].parent
    assert main(["report", str(folder)]) == 0
    assert main(["measure", str(volume_file[1]), "--region", "<b>=sphere:0,0,0,1"]) == 0
    page = (folder / "report.html").read_text()
    assert "mean of &lt;b&gt;" in page and re.search(r"32, \d+\.?\d* %", page)


@pytest.mark.parametrize(
    "typed, words",
    [
        (["--thickness", "0,0,5"], "--thickness takes"),
        (["--porosity", "below=0.02"], "Nothing is to be measured"),
        (["--region", "circle:0,0,5", "--centre", "0.02"], "--centre takes"),
        ([], "Nothing is to be measured"),
        (["--region", "circle:0,0"], "A region is"),
        (["--region", "blob:0,0,1"], "A region is"),
        (["--region", "circle:0,0,one"], "A region is"),
        (["--region", "circle:0,0,-1"], "positive radius"),
        (["--region", "circle:0,0,500"], "reaches"),
        (["--region", "x=circle:0,0,5", "--region", "x=circle:0,0,4"], "twice"),
        (["--region", "circle:0,0,5", "--contrast", "a,z"], "regions are: a"),
        (["--region", "circle:0,0,5", "--probability", "over=1"], "above=X or below=X"),
        (["--region", "circle:0,0,5", "--level", "95"], "probability from 0.5"),
        (["--profile", "0,0,5"], "two points"),
        (["--profile=0,0,0,0"], "one point"),
        (["--profile=0,0,500,0"], "leaves the image"),
        (["--probability", "above=1", "--profile=0,0,5,0"], "are of regions"),
        (["--regions", "nowhere.yaml"], "Cannot read"),
        (["--difference", "nowhere.h5", "--region", "circle:0,0,5"], "no results file"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(file, typed, words, capsys):
    assert main(["measure", str(file), *typed]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and "\n" not in told


def warned(kept, tmp_path, capsys, *typed, **change):
    """What is said of a result's method."""
    replace(kept, **change).save(tmp_path / "other.h5")
    assert main(["measure", str(tmp_path / "other.h5"), "--region", "circle:0,0,5", *typed]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if "measured on" in line]


def test_other_methods_are_told_that_their_edges_were_not_tried(kept, tmp_path, capsys):
    (told,) = warned(kept, tmp_path, capsys, method="CUQIpy")
    assert "deep image prior and of tv; of CUQIpy nobody has" in told
    (told,) = warned(kept, tmp_path, capsys, method="tv", settings={"uncertainty": "gmrf"})
    assert "of tv with the error bars gmrf nobody has" in told
    (told,) = warned(kept, tmp_path, capsys, method="tv", settings={"error_bars": "samples"})
    assert "of tv nobody has" in told


def test_of_tv_it_is_told_of_edges_alone_where_they_were_measured(kept, tmp_path, capsys):
    """docs/quantities.md: means, parts, changes and stacks of simulated objects; areas, centres and widths of real holes."""
    asked_of_means = ["--probability", "above=0.02", "--probability", "above=0.02,at_least=12", "--profile=-5,0,5,0"]
    usual = {"method": "tv", "settings": {"method": "tv", "uncertainty": True}}
    assert warned(kept, tmp_path, capsys, *asked_of_means, **usual) == []
    for edges in (["--porosity", "below=0.02"], ["--centre", "above=0.02"]):
        (told,) = warned(kept, tmp_path, capsys, *edges, **usual)
        assert "Areas, centres and thicknesses by tv were measured on the holes of 21 real discs alone" in told


def test_results_without_uncertainty_are_refused(result, tmp_path, capsys):
    replace(result, std=None, std_raw=None, samples=None, method="fbp").save(tmp_path / "plain.h5")
    assert main(["measure", str(tmp_path / "plain.h5"), "--region", "circle:0,0,5"]) == 2
    assert "method fbp" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["regions: [a]\n", "region: circle:0,0,1\n", "regions: {a: 5}\n", "profile: [3]\n", "a: &b 1\nc: *b\n", "x\n", ""]
)
def test_yaml_that_asks_for_nothing_known_is_refused(file, tmp_path, text, capsys):
    (tmp_path / "plan.yaml").write_text(text)
    assert main(["measure", str(file), "--regions", str(tmp_path / "plan.yaml")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_result_is_measured_without_torch(file):
    """It takes a second and a half to import, and the budget needs the rays' matrix alone."""
    code = (
        "import sys, ctuq; r = ctuq.Result.load(sys.argv[1]); p = ctuq.quantities.Circle(0, 0, 5); "
        "print(sorted(r.region(p).budget), r.fraction(p, above=0.02).value); print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True).stdout
    assert "noise of the rays" in told and told.splitlines()[-1] == "False"


def test_an_oval_of_imagej_has_its_area(kept, file, tmp_path):
    """roifile gives it 32 corners, which hold 0.6 % too little."""
    roifile = pytest.importorskip("roifile")
    oval = roifile.ImagejRoi()
    oval.roitype, oval.version, oval.name = roifile.ROI_TYPE.OVAL, 227, "pore"
    oval.left, oval.top, oval.right, oval.bottom = 4, 6, 12, 12
    oval.tofile(tmp_path / "oval.roi")
    (found,) = asked(Measure(results=file, regions=tmp_path / "oval.roi"), kept.grid).regions.values()
    shares = shares_of(found, kept.grid)
    assert shares.sum() == pytest.approx(np.pi * 4 * 3, rel=1e-6)
    assert shares[9, 8] == pytest.approx(1) and shares[:5].sum() == shares[13:].sum() == 0


@pytest.mark.parametrize("kind", ["LINE", "FREELINE", "POLYLINE", "ANGLE", "POINT", "NOROI"])
def test_lines_and_points_of_imagej_are_no_polygons(kept, file, tmp_path, kind):
    roifile = pytest.importorskip("roifile")
    roi = roifile.ImagejRoi.frompoints(np.array([[10, 4], [20, 4], [20, 12]], np.float32))
    roi.roitype = roifile.ROI_TYPE[kind]
    roi.tofile(tmp_path / "corners.roi")
    with pytest.raises(InputError, match="only regions with an area"):
        asked(Measure(results=file, regions=tmp_path / "corners.roi"), kept.grid)


@pytest.mark.parametrize("name", ["x.roi", "x.zip"])
def test_damaged_regions_of_imagej_are_refused(file, tmp_path, name, capsys):
    pytest.importorskip("roifile")
    (tmp_path / name).write_bytes(b"Iout" + bytes(100))
    assert main(["measure", str(file), "--regions", str(tmp_path / name)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_texts_of_shapes_limits_and_lines():
    assert shape("circle: 1, 2.5 ,3e0") == Circle(1, 2.5, 3)
    assert shape("rect:0,0,1,1") == Rectangle(0, 0, 1, 1)
    assert shape("polygon:0,0,1,0,1,1") == Polygon([(0, 0), (1, 0), (1, 1)])
    assert list(regions(["circle:0,0,1", "b=circle:0,0,2", "circle:0,0,3", "circle:0,0,4"])) == ["a", "b", "c", "d"]
    assert limit("above=2e-2", "--probability") == {"above": 0.02}
    assert segment("0,1,2,3", "--profile") == ((0, 1), (2, 3))
    with pytest.raises(InputError):
        pair("a", {})
