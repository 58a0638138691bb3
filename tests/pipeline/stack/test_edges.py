"""Stacks by total variation: error bars of an edge prior that a few slices teach, as a single slice has them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from cylinders import N, cylinders
from stacks import KillsAWorker, resumed

from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.files import write_volume_scan
from ctuq.pipeline import ReconstructOptions, reconstruct, reconstruct_stack
from ctuq.pipeline.stack import scan as stack_scan
from ctuq.pipeline.stack import taught
from ctuq.pipeline.stack.plan import plan_stack
from ctuq.scale import cluster
from ctuq.tomo import Parallel3D, ParallelBeam, VolumeGrid, VolumeScan, radians, ray_transform
from ctuq.tomo.slices import row_of_stack
from ctuq.uncertainty import gaussian_bars
from ctuq.uncertainty.results.volume import VolumeResult

TV = ReconstructOptions(method="tv", size=N, device="cpu")
ROWS = 6


@pytest.fixture(scope="module")
def scan():
    return cylinders(ROWS)[0]


@pytest.fixture(scope="module")
def whole(scan):
    return reconstruct_stack(scan, options=TV)


def same(one, other):
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.std, other.std)
    np.testing.assert_array_equal(one.directions, other.directions)
    np.testing.assert_array_equal(one.alike, other.alike)
    for name, column in one.slices.items():
        np.testing.assert_array_equal(column, other.slices[name], err_msg=name)


def test_error_bars_know_the_error(whole):
    error = whole.mean - cylinders(ROWS)[1]
    assert 0.5 < np.sqrt(np.mean((error / whole.std) ** 2)) < 2
    assert np.mean(np.abs(error) < 1.96 * whole.std) > 0.85
    assert not whole.slices["failed"].any() and (whole.std > 0).all()


def test_a_view_that_is_wrong_in_all_slices_counts_for_less_in_all_of_them(scan, whole):
    projections = scan.projections.copy()
    projections[:, 5] = projections[:, 5, ::-1]
    wrong = reconstruct_stack(replace(scan, projections=projections), options=TV)
    assert sum("first number 5" in text and "times as far from the image" in text for text in wrong.warnings) == 1
    truth = cylinders(ROWS)[1]
    error, before = (np.sqrt(np.mean(np.square(result.mean - truth))) for result in (wrong, whole))
    assert error < 1.2 * before  # 1.8 times with all views alike
    assert not any("times as far from the image" in text for text in whole.warnings)


def test_few_slices_teach_and_the_others_take_their_scales(whole):
    teachers = whole.slices["teacher"] > 0
    assert teachers.sum() == 4
    held = whole.slices["learned_anew"] == 0
    assert held[~teachers].any()
    assert len(set(whole.slices["image_scale"][held])) == 1
    assert whole.settings["lesson.image_scale"] == whole.slices["image_scale"][held][0]
    z = whole.slices["held_out_rms_z"][held & ~teachers]
    assert whole.scores["held_out_rms_z"] == pytest.approx(np.sqrt(np.mean(z**2)))


def with_one_scale(monkeypatch):
    """For a slice that is a job of its own: edges and flat parts of a stack's slices share a scale."""
    monkeypatch.setattr(gaussian_bars, "has_both", lambda edges: False)


def test_a_slice_that_refuses_the_lesson_has_the_error_bars_of_its_own_job(scan, monkeypatch):
    monkeypatch.setattr(taught, "HOLDS", 1 + 1e-9)
    with_one_scale(monkeypatch)
    found = reconstruct_stack(scan, options=TV)
    assert (found.slices["learned_anew"] == 1).all()
    assert any("learned anew" in text for text in found.warnings)
    for number in (0, 5):
        alone = reconstruct(row_of_stack(scan, number), "tv", size=N, field=float(found.grid.voxel * N), device="cpu")
        np.testing.assert_allclose(found.mean[number], alone.mean, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found.std[number], alone.std, rtol=1e-4)


def test_one_slice_is_taught_by_itself(scan, monkeypatch):
    with_one_scale(monkeypatch)
    one = reconstruct_stack(scan, rows=range(2, 3), options=TV)
    alone = reconstruct(row_of_stack(scan, 2), "tv", size=N, field=float(one.grid.voxel * N), device="cpu")
    np.testing.assert_allclose(one.std[0], alone.std, rtol=1e-4)


def test_without_held_out_views_bars_are_the_models_own_and_that_is_told(scan):
    found = reconstruct_stack(scan, options=replace(TV, calibrate=False))
    assert np.isfinite(found.std).all() and (found.slices["image_scale"] == 1).all()
    assert any("Not calibrated" in text for text in found.warnings)


def test_many_threads_and_a_killed_run_give_the_same_bits(scan, whole, tmp_path, monkeypatch):
    # Killed first: its child is forked, which processes that had many threads bear badly.
    with monkeypatch.context() as patch:
        found, made = resumed(scan, TV, tmp_path / "checkpoint.h5", patch)
    same(found, whole)
    assert made == [2, 3, 4, 5]
    with ThreadPoolExecutor(3) as executor:
        same(reconstruct_stack(scan, options=TV, executor=executor), whole)


def test_workers_of_dask_give_the_same_bits_and_so_they_do_when_one_is_killed(scan, whole):
    pytest.importorskip("distributed")
    with cluster(2) as executor:
        kills = KillsAWorker(executor)
        same(reconstruct_stack(scan, options=TV, executor=executor, progress=kills), whole)
        assert kills.left


def test_slices_wait_for_no_neighbour(scan):
    """Each is a chain of its own: of six slices six workers have something to do."""
    assert stack_scan.Stack.of(scan, None, TV).blocks == [[n] for n in range(ROWS)]
    assert len(stack_scan.Stack.of(scan, None, ReconstructOptions(size=N)).blocks) == 1


def test_slices_without_rays_and_of_air_are_told_and_lose_no_other(scan, whole):
    projections, weights = scan.projections.copy(), np.ones_like(scan.projections)
    weights[1] = 0
    projections[3] = 0
    found = reconstruct_stack(VolumeScan(projections, scan.geometry, weights), options=TV)
    assert found.slices["failed"][1] == 1 and np.isnan(found.std[1]).all()
    assert np.isfinite(found.std[[0, 2, 4, 5]]).all()
    assert any("Slice 1 could not" in text for text in found.warnings)


def test_other_views_judge_each_slice_and_change_nothing(scan):
    even, odd = scan.select(np.arange(0, 15, 2)), scan.select(np.arange(1, 15, 2))
    found, plain = (reconstruct_stack(even, rows=range(3), judge=judge, options=TV) for judge in (odd, None))
    np.testing.assert_array_equal(found.std, plain.std)
    assert (found.slices["judged_rmse"] < 0.1).all()
    assert ((found.slices["judged_rms_z"] > 0.3) & (found.slices["judged_rms_z"] < 3)).all()


def test_views_of_an_object_that_reaches_beyond_judge_what_lies_inside(monkeypatch):
    """They see what lies outside too: as they are, they miss by many times the error bars."""
    y, x = np.mgrid[19.5:-20:-1, -19.5:20]
    image = 0.01 * (np.hypot(x, y) < 18) + 0.04 * (np.hypot(x - 2, y + 1) < 4)
    beam = ParallelBeam(angles=radians(np.arange(0, 180, 6.0)), columns=40, pixel=1.0)
    rays = ray_transform(VolumeGrid((40, 40), 1.0), beam, backend="matrix")(torch.from_numpy(image.astype(np.float32))).numpy()
    rays = rays + 0.01 * np.random.default_rng(0).standard_normal((2, *rays.shape)).astype(np.float32)
    space = Parallel3D(angles=beam.angles, rows=2, columns=20, pixel=1.0)
    scan = VolumeScan(np.ascontiguousarray(rays[..., 10:30]), space)
    even, odd = scan.select(np.arange(0, 30, 2)), scan.select(np.arange(1, 30, 2))

    def judged():
        found = reconstruct_stack(even, rows=range(2), judge=odd, options=replace(TV, size=20))
        assert any("do not fall to air" in text for text in found.warnings)
        return found.slices["judged_rms_z"]

    assert ((judged() > 0.5) & (judged() < 2)).all()
    monkeypatch.setattr(taught, "lies_outside", lambda *_, **__: False)
    assert (judged() > 5).all()


def test_a_stack_that_sees_air_or_has_one_view_is_told(scan):
    air = (0.001 * np.random.default_rng(0).standard_normal(scan.projections.shape)).astype(np.float32)
    found = reconstruct_stack(replace(scan, projections=air), rows=range(1), options=TV)
    assert any("only air" in text for text in found.warnings)
    lonely = reconstruct_stack(scan.select(np.array([0])), rows=range(1), options=TV)
    assert any("All rays are of one view" in text for text in lonely.warnings)
    assert not any("only air" in text for text in lonely.warnings)
    with pytest.raises(InputError, match=r"Slice 0 cannot be fitted: .* what air gives"):
        reconstruct_stack(replace(scan, projections=0 * air), options=TV)


@pytest.mark.parametrize("kind", ["gmrf", "matern", "bootstrap", "constant"])
def test_other_error_bars_of_single_slices_are_refused(scan, kind):
    with pytest.raises(InputError, match=f"Error bars '{kind}' are of single slices; of stacks .* tv has edges"):
        reconstruct_stack(scan, options=replace(TV, uncertainty=kind))


def test_an_arc_has_longer_error_bars_where_no_view_sees(scan):
    arc = scan.select(np.arange(8))
    found = reconstruct_stack(arc, rows=range(2), options=TV)
    assert any("edges across these are guessed" in text for text in found.warnings)
    alone = reconstruct(row_of_stack(arc, 1), "tv", size=N, field=float(found.grid.voxel * N), device="cpu")
    assert 0.5 < np.median(found.std[1] / alone.std) < 2


def test_a_beam_that_may_harden_is_told(scan, whole):
    assert any("hardening" in text for text in whole.warnings)
    known = replace(scan, provenance=replace(scan.provenance, facts={"beam": "monochromatic"}))
    sure = reconstruct_stack(known, rows=range(2), options=TV)
    assert not any("hardening" in text for text in sure.warnings)


def test_the_plan_tells_the_way(scan):
    plan = plan_stack(scan, options=TV)
    assert plan.teachers == 4 and plan.seconds > 0
    assert "edge prior" in str(plan) and "4 of them teach" in str(plan)


def test_the_command_writes_reads_and_exports_them(scan, whole, tmp_path, capsys):
    write_volume_scan(scan, tmp_path / "scan.h5")
    run = tmp_path / "run"
    words = ["reconstruct", str(tmp_path / "scan.h5"), "--stack", "--method", "tv", "--size", str(N), "-o", str(run)]
    assert main([*words, "--plan"]) == 0
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "taught the error bars of the others" in told
    found = VolumeResult.load(run / "results.h5")
    np.testing.assert_array_equal(found.std, whole.std)
    np.testing.assert_array_equal(tifffile.imread(run / "std.tif"), whole.std)
    assert "taught the error bars of the others" in (run / "report.html").read_text()
    assert main(["export", str(run), str(tmp_path / "pages")]) == 0
    assert {path.name for path in (tmp_path / "pages").iterdir()} >= {"mean.tif", "std.tif"}
    assert main([*words, "--resume"]) == 0  # made already
    assert main([*words, "--overwrite", "--no-uncertainty"]) == 0
    plain = VolumeResult.load(run / "results.h5")
    assert plain.std is None and not (run / "std.tif").exists()
