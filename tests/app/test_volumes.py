from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
from scipy.ndimage import binary_erosion

from ctuq.app import stacks
from ctuq.app.cli import main
from ctuq.app.report.space import draw_space
from ctuq.errors import GeometryError
from ctuq.files import read_volume, write_volume_scan
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.stack.plan import StackPlan
from ctuq.pipeline.volume.doubts import doubts_of_volume
from ctuq.pipeline.volume.job import plan_volume, reconstruct_volume
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ConeBeam, Parallel3D, VolumeGrid, VolumeScan, radians
from ctuq.tomo.solids import solid_scan
from ctuq.uncertainty.results.volume import VolumeResult


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    path = tmp_path_factory.mktemp("ball") / "ball.h5"
    command = ["simulate", "--phantom", "ball", "--cone", "100:200", "--size", "24", "--angles", "40", "--noise", "1%"]
    assert main([*command, "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("method", ["fdk", "sirt", "cgls", "tv"])
def test_a_ball_comes_out_with_its_attenuation_in_every_file(ball, tmp_path, method, capsys):
    folder = tmp_path / "run"
    assert main(["reconstruct", str(ball), "--volume", "--method", method, "--size", "24", "-o", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "24 x 24 x 24 voxels" in told
    assert "Against the known truth" in told
    result = VolumeResult.load(folder / "results.h5")
    core = binary_erosion(result.truth > 0.049, iterations=2)
    assert result.mean[core].mean() == pytest.approx(0.05, rel=0.02)
    assert result.scores["psnr"] > 20
    np.testing.assert_array_equal(tifffile.imread(folder / "mean.tif"), result.mean)
    with h5py.File(folder / "results.h5") as file:
        assert file["entry/data/data"].chunks is not None
        assert file["entry/data/y"][0] > file["entry/data/y"][-1]
    page = (folder / "report.html").read_text()
    assert "It has no error bars" in page
    assert (folder / "figures" / "slices.png").read_bytes()[:4] == b"\x89PNG"
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text() == page


def test_the_plan_tells_who_computes_and_writes_nothing(ball, tmp_path, capsys):
    assert main(["reconstruct", str(ball), "--volume", "--method", "sirt", "--plan"]) == 0
    told = capsys.readouterr().out
    assert "GiB" in told
    assert "128 x 128 x 128 voxels" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("left", "told"), [(2**28, True), (2**36, False)])
def test_error_bars_that_may_not_fit_into_memory_are_told_before_they_are_begun(ball, monkeypatch, capsys, left, told):
    monkeypatch.setattr("ctuq.app.volumes.available_memory", lambda: left)
    assert main(["reconstruct", str(ball), "--volume", "--size", "8", "--plan"]) == 0
    assert ("error bars may need" in capsys.readouterr().out) == told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--volume", "--method", "fbp"], "for slices"),
        (["--volume", "--calibration-views", "40"], "leave at least one"),
        (["--volume", "--size", "8", "--roi", "0:4,0:9,0:4"], "0:9 along y"),
        (["--volume", "--roi", "0:4"], "--roi takes voxels"),
        (["--volume", "--roi", "4:4,0:1,0:1"], "--roi"),
        (["--volume", "--method", "sirt", "--roi", "0:4,0:4,0:4"], "--roi asks for error bars"),
        (["--roi", "0:4,0:4,0:4"], "--roi is of volumes"),
        (["--volume", "--samples", "-1"], "samples"),
        (["--volume", "--seed", "-1"], "seed"),
        (["--method", "fdk"], "--volume"),
        (["--volume", "--method", "fdk", "--resume"], "resume"),
        (["--volume", "--method", "fdk", "--size", "1"], "size"),
        (["--volume", "--method", "fdk", "--size", "4000"], "GiB"),
        (["--volume", "--method", "fdk", "--every", "0"], "every"),
        (["--volume", "--method", "fdk", "--threads", "0"], "threads"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(ball, tmp_path, capsys, arguments, told):
    assert main(["reconstruct", str(ball), *arguments, "-o", str(tmp_path / "run")]) in (2, 4)
    captured = capsys.readouterr().err
    assert told in captured
    assert captured.count("\n") == 1


def test_a_volume_without_volume_is_one_row_and_says_so(ball, tmp_path, capsys):
    assert main(["reconstruct", str(ball), "--method", "fbp", "--size", "24", "-o", str(tmp_path / "run")]) == 0
    assert "--volume takes all of them" in capsys.readouterr().out


def test_slices_and_solids_are_not_mixed_up(tmp_path, capsys):
    assert main(["simulate", "--phantom", "ellipses", "--cone", "100:200", "-o", str(tmp_path / "s.h5")]) == 2
    assert "slice" in capsys.readouterr().err
    for wrong in ("100", "200:100", "a:b", "10:200"):
        assert main(["simulate", "--phantom", "ball", "--size", "8", "--cone", wrong, "-o", str(tmp_path / "s.h5")]) == 2
    assert main(["simulate", "--phantom", "ball", "--size", "8", "--noise", "0%", "-o", str(tmp_path / "s.h5")]) == 0
    assert read_volume(tmp_path / "s.h5").geometry.upright


def test_chosen_views_are_used_alone(ball, tmp_path):
    folder = tmp_path / "run"
    assert (
        main(["reconstruct", str(ball), "--volume", "--method", "fdk", "--every", "2", "--size", "12", "-o", str(folder)]) == 0
    )
    assert VolumeResult.load(folder / "results.h5").geometry.n_angles == 20


def test_what_is_doubtful_about_a_volume_is_told():
    scan = solid_scan("ball", 16, radians(np.arange(0, 360, 12)), noise=0.0, seed=0, distances=(100.0, 200.0))
    geometry = scan.geometry
    cut = ConeBeam(
        angles=geometry.angles,
        rows=8,
        columns=geometry.columns,
        pixel=geometry.pixel,
        source_to_axis=100.0,
        source_to_detector=200.0,
    )
    middle = geometry.rows // 2
    few = VolumeScan(scan.projections[middle - 4 : middle + 4], cut)
    result = reconstruct_volume(few, method="fdk", size=16)
    assert any("lowest and highest detector row" in text for text in result.warnings)
    tall = VolumeScan(few.projections, cut, truth=scan.truth, grid=scan.grid)
    assert any("above or below the detector" in text for text in reconstruct_volume(tall, method="fdk", size=16).warnings)


def simulated(**change):
    """A ball's scan, with a geometry that differs from its own; only the warnings are right then."""
    scan = solid_scan("ball", 16, radians(np.arange(0, 360, 12)), noise=0.0, seed=0, distances=(100.0, 200.0))
    geometry = replace(scan.geometry, **change)
    return VolumeScan(np.resize(scan.projections, geometry.shape), geometry, truth=scan.truth, grid=scan.grid)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(angles=radians(np.arange(0, 150, 5.0))), "cover 150 degrees of the 20"),
        (dict(angles=[0.3]), "one view"),
        (dict(angles=radians(np.arange(0, 360, 12.0))), None),
        (dict(angles=radians(np.arange(0, 206, 5.0))), None),
        (dict(angles=radians(np.arange(0, 360, 72.0))), None),
    ],
)
def test_directions_that_are_missing_are_told(change, told):
    scan = simulated(**change)
    found = [text for text in doubts_of_volume(scan, scan.grid) if "view" in text and "above" not in text]
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_directions_that_a_leaning_axis_or_free_vectors_miss_are_told():
    def told(geometry):
        scan = simulated()
        scan = VolumeScan(np.resize(scan.projections, geometry.shape), geometry, truth=scan.truth, grid=scan.grid)
        return [text for text in doubts_of_volume(scan, scan.grid) if "degrees of the" in text]

    half, whole, arc = (radians(np.arange(0, stop, 10.0)) for stop in (180, 360, 120))
    beam = Parallel3D(angles=half, rows=18, columns=18, pixel=2.5, axis_tilt=0.5)
    assert "cover 180 degrees of the 360" in told(beam)[0]
    assert not told(replace(beam, angles=whole)) and not told(replace(beam, axis_tilt=0.01))
    cone = simulated().geometry
    assert "cover 120 degrees of the 180" in told(replace(cone, angles=arc).raised(np.zeros(12)))[0]
    assert not told(replace(cone, angles=whole).raised(np.linspace(-3, 3, 36)))


def test_rays_that_pass_a_small_volume_by_are_told_for_iterative_methods_only():
    scan = solid_scan("ball", 16, radians(np.arange(0, 360, 24)), noise=0.0, seed=0, distances=(100.0, 200.0))
    slab = VolumeScan(scan.projections, scan.geometry, truth=np.zeros((2, 16, 16)), grid=VolumeGrid((2, 16, 16), 2.5))
    by_sirt, by_fdk = (reconstruct_volume(slab, options=VolumeOptions(method, 16)).warnings for method in ("cgls", "fdk"))
    assert any("pass the volume by" in text for text in by_sirt)
    assert not any("pass the volume by" in text for text in by_fdk)


def test_a_detector_of_one_column_is_refused():
    with pytest.raises(GeometryError, match="one column"):
        reconstruct_volume(simulated(columns=1), method="fdk", size=16)


def test_free_vectors_need_a_grid_and_go_by_sirt(tmp_path):
    scan = solid_scan("ball", 12, radians(np.arange(0, 360, 15)), noise=0.0, seed=0, distances=(100.0, 200.0))
    helix = scan.geometry.raised(np.zeros(24))
    free = VolumeScan(scan.projections, helix, truth=scan.truth, grid=scan.grid)
    write_volume_scan(free, tmp_path / "free.h5")
    result = reconstruct_volume(read_volume(tmp_path / "free.h5"), options=VolumeOptions("sirt", 12, iterations=40))
    assert result.scores["psnr"] > 20
    assert plan_volume(free, VolumeOptions("sirt", 12)).backend in ("matrix", "numba")
    assert main(["reconstruct", str(tmp_path / "free.h5"), "--volume", "--method", "fdk", "-o", str(tmp_path / "r")]) == 2
    with pytest.raises(GeometryError, match="grid"):
        reconstruct_volume(VolumeScan(scan.projections, helix), method="sirt", size=12)


def test_info_tells_of_a_volume_and_draws_it_from_three_sides(ball, tmp_path, capsys):
    picture = tmp_path / "geometry.png"
    assert main(["info", str(ball), "--volume", "--draw", str(picture)]) == 0
    told = capsys.readouterr().out
    assert "cone beam" in told
    assert "28 rows of 28 columns" in told
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_every_kind_of_geometry_is_drawn_with_its_first_detector():
    scan = solid_scan("ball", 8, radians(np.arange(0, 360, 45)), noise=0.0, seed=0, distances=(100.0, 200.0))
    leaning = Parallel3D(angles=[0.0, 1.0], rows=4, columns=4, pixel=1.0, axis_tilt=0.5)
    for geometry, grid in ((scan.geometry, scan.grid), (leaning, None), (scan.geometry.raised(np.arange(8.0)), scan.grid)):
        panels = draw_space(geometry, grid).axes
        assert [axes.get_title() for axes in panels] == ["from above", "along y", "along x"]
        ends = panels[0].lines[-3 if grid else -2].get_xydata()
        assert np.isfinite(ends).all()


@pytest.fixture(scope="module")
def parallel(tmp_path_factory):
    path = tmp_path_factory.mktemp("parallel") / "shells.h5"
    command = ["simulate", "--phantom", "shells", "--size", "12", "--angles", "15", "--noise", "2%"]
    assert main([*command, "-o", str(path)]) == 0
    return path


def test_a_stack_by_the_command_leaves_every_file(parallel, tmp_path, capsys):
    folder = tmp_path / "run"
    command = [
        "reconstruct",
        str(parallel),
        "--stack",
        "--slices",
        "4:9:2",
        "--method",
        "sirt",
        "--size",
        "12",
        "-o",
        str(folder),
    ]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "Plan: 3 slices" in told
    assert "Each of its 3 slices was made by itself" in told
    result = VolumeResult.load(folder / "results.h5")
    assert result.mean.shape == (3, 12, 12)
    assert result.pitches[0] == pytest.approx(2 * result.grid.voxel, rel=0.2)
    with tifffile.TiffFile(folder / "mean.tif") as tiff:
        np.testing.assert_array_equal(tiff.asarray(), result.mean)
        assert tiff.imagej_metadata["spacing"] == pytest.approx(result.pitches[0] / 10)
        assert tiff.imagej_metadata["slices"] == 3
    assert not (folder / "std.tif").exists()
    assert not (folder / "checkpoint.h5").exists()
    assert main([*command, "--resume"]) == 0
    assert "complete" in capsys.readouterr().out


def test_error_bars_of_a_stack_by_the_command(parallel, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["--stack", "--slices", "5:7", "--size", "10", "--start", "random", "-o", str(folder)]
    quick = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,)), iterations=60, check_every=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctuq.app.slices.DIPOptions", lambda **_: quick)
        assert main(["reconstruct", str(parallel), *arguments]) == 0
    assert "teach the others" in capsys.readouterr().out
    result = VolumeResult.load(folder / "results.h5")
    assert (result.std > 0).all()
    np.testing.assert_array_equal(tifffile.imread(folder / "std.tif"), result.std)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--stack", "--volume"], "give one"),
        (["--slices", "1:2"], "--stack"),
        (["--workers", "2"], "--stack"),
        (["--stack", "--slices", "5:5"], "0 to 13"),
        (["--stack", "--slices", "20"], "0 to 13"),
        (["--stack", "--slices", "a:b"], "A:B:STEP"),
        (["--stack", "--slices", ""], "A:B:STEP"),
        (["--stack", "--workers", "0"], "--workers"),
        (["--stack", "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "give one"),
        (["--stack", "--method", "fdk"], "FDK"),
        (["--stack", "--truth", "x.h5"], "x.h5"),
    ],
)
def test_what_a_stack_cannot_be_is_said_in_a_sentence(parallel, tmp_path, capsys, arguments, told):
    size = ["--size", "12"] + ([] if "--method" in arguments else ["--method", "tv"])
    assert main(["reconstruct", str(parallel), *arguments, *size, "-o", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr().err
    assert told in captured
    assert captured.count("\n") == 1


def test_a_cone_is_no_stack(ball, tmp_path, capsys):
    assert main(["reconstruct", str(ball), "--stack", "--size", "12", "-o", str(tmp_path / "run")]) == 2
    assert "no slices" in capsys.readouterr().err


def test_chosen_rows_of_a_file_are_those_of_all_of_them(parallel, tmp_path):
    scan = read_volume(parallel)
    degrees = np.rad2deg(scan.geometry.angles)
    np.save(tmp_path / "rows.npy", scan.projections[::-1].swapaxes(0, 1))
    (tmp_path / "rows.yaml").write_text(
        f"kind: parallel\nvalues: log\nangles: {degrees.tolist()}\npixel: {scan.geometry.pixel}\naxis_column: 6.5\n"
    )
    for path in (parallel, tmp_path / "rows.npy"):
        whole, read = read_volume(path), []
        part = read_volume(path, rows=lambda count, read=read: read.append(count) or range(2, 9, 3))
        assert read == [14]
        np.testing.assert_array_equal(part.projections, whole.projections[[2, 5, 8]])
        heights = np.linspace(*whole.geometry.heights, 29)[1::2]
        assert part.geometry.heights == pytest.approx(
            (heights[2] - 1.5 * whole.geometry.row_pitch, heights[8] + 1.5 * whole.geometry.row_pitch)
        )
        assert part.geometry.row_pitch == pytest.approx(3 * whole.geometry.row_pitch)


def test_a_stack_that_needs_more_than_there_is_warns(tmp_path):
    plan = StackPlan(slices=5, teachers=1, way="", seconds=1.0, bytes=3 * 2**30, disk=2.0**60)
    assert stacks._short_of_memory(None, plan) == () == stacks._short_of_memory(4 * 2**30, plan)
    assert "none of the scheduler's has more than 2 GiB" in stacks._short_of_memory(2**31, plan)[0]
    assert "GiB of disk" in stacks._short_of_disk(tmp_path, plan)[0]
    assert stacks._short_of_disk(tmp_path, replace(plan, disk=1.0)) == ()


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_workers_that_nobody_means_are_refused_before_anything_is_read(tmp_path, capsys, workers):
    words = ["reconstruct", str(tmp_path / "none.h5"), "--stack", f"--workers={workers}", "-o", str(tmp_path / "run")]
    assert main(words) == 2
    assert "--workers takes a number from 1 to 4096" in capsys.readouterr().err
