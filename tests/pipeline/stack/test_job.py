"""Slices of a parallel scan: each the ordinary job, the same bits whoever does it, and none lost for the fault of another."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from cylinders import N, cylinders
from stacks import KillsAWorker, resumed

from ctuq import stages
from ctuq.errors import GeometryError, InputError, ResourceError
from ctuq.pipeline import ReconstructOptions, reconstruct, reconstruct_stack
from ctuq.pipeline.stack import scan as stack_scan
from ctuq.pipeline.stack import taught
from ctuq.pipeline.stack.plan import plan_stack
from ctuq.pipeline.stack.work import Work
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.scale import cluster
from ctuq.tomo import ConeBeam, Parallel3D, VolumeGrid, VolumeScan, radians, ray_transform
from ctuq.tomo.slices import chosen_rows, row_beam, row_of_stack
from ctuq.uncertainty.results.volume import VolumeResult

DIP = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,)), iterations=60, check_every=10)
OPTIONS = ReconstructOptions(size=12, dip=DIP, device="cpu")


@pytest.fixture(scope="module")
def scan():
    return cylinders()[0]


@pytest.fixture(scope="module")
def whole(scan):
    return reconstruct_stack(scan, options=OPTIONS)


@pytest.fixture
def all_is_kept(monkeypatch):
    monkeypatch.setattr(stages, "_WORTH", 0.0)


def same(one, other, rows=slice(None)):
    np.testing.assert_array_equal(one.mean[rows], other.mean[rows])
    np.testing.assert_array_equal(one.std[rows], other.std[rows])
    np.testing.assert_array_equal(one.directions[rows], other.directions[rows])
    np.testing.assert_array_equal(one.effects[rows], other.effects[rows])
    for name, column in one.slices.items():
        np.testing.assert_array_equal(column[rows], other.slices[name][rows], err_msg=name)


def test_slices_come_out_with_error_bars_that_know_the_error(whole):
    truth = cylinders()[1]
    error = whole.mean - truth
    assert np.sqrt(np.mean(error**2)) < 0.6 * truth.std()
    assert 0.5 < np.sqrt(np.mean((error / whole.std) ** 2)) < 2
    assert not whole.slices["failed"].any()
    assert whole.grid.shape == whole.std.shape == (5, N, N)
    assert whole.pitches[0] == 2.0


def test_a_slice_starts_from_its_neighbour_and_takes_fewer_iterations(scan):
    alone = reconstruct_stack(scan, options=replace(OPTIONS, uncertainty=False))
    assert alone.std is None
    assert alone.slices["warm"][0] == 0
    assert alone.slices["iterations"][0] > 30
    warm = alone.slices["warm"] > 0
    assert warm[1:].any()
    assert (alone.slices["iterations"][warm] <= 15).all()


def test_few_slices_teach_and_the_others_are_held_to_it(whole):
    teachers = whole.slices["teacher"] > 0
    assert 0 < teachers.sum() < 5
    taught = ~teachers & (whole.slices["learned_anew"] == 0)
    assert len(set(whole.slices["image_scale"][taught | (teachers & (whole.slices["learned_anew"] == 0))])) == 1
    z = whole.slices["held_out_rms_z"][taught]
    assert whole.scores.get("held_out_rms_z", 1.0) == pytest.approx(np.sqrt(np.mean(z**2)) if z.size else 1.0)


def test_a_lesson_that_does_not_hold_is_told_and_learned_anew(scan, whole, monkeypatch):
    monkeypatch.setattr(taught, "HOLDS", 1 + 1e-9)
    found = reconstruct_stack(scan, options=OPTIONS)
    assert (found.slices["learned_anew"] == 1).all()
    assert any("In 5 slices" in text and "learned anew" in text for text in found.warnings)
    assert len(set(found.slices["image_scale"])) == 5
    np.testing.assert_array_equal(found.slices["held_out_rms_z"], whole.slices["held_out_rms_z"])


@pytest.mark.parametrize("method", ["fbp", "tv"])
def test_classical_slices_are_those_of_single_scans(scan, method):
    plain = {"device": "cpu", "uncertainty": False}
    found = reconstruct_stack(scan, method, size=N, **plain)
    alone = reconstruct(row_of_stack(scan, 3), method, size=N, field=float(found.grid.voxel * N), **plain)
    np.testing.assert_allclose(found.mean[3], alone.mean, atol=1e-6)
    assert found.std is None


def test_a_killed_run_goes_on_to_the_same_bits_and_makes_no_slice_twice(scan, whole, tmp_path, monkeypatch):
    found, made = resumed(scan, OPTIONS, tmp_path / "checkpoint.h5", monkeypatch)
    same(found, whole)
    assert made == [2, 3, 4]


def test_another_scan_or_other_options_do_not_go_on_with_it(scan, tmp_path):
    quick = replace(OPTIONS, uncertainty=False)
    path = tmp_path / "checkpoint.h5"
    reconstruct_stack(scan, options=quick, checkpoint=path)
    with pytest.raises(InputError, match="seed"):
        reconstruct_stack(scan, options=replace(quick, seed=1), checkpoint=path)
    with pytest.raises(InputError, match="another scan"):
        reconstruct_stack(scan, rows=range(3), options=quick, checkpoint=path)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(stack_scan, "BLOCK", 2)
    monkeypatch.setattr(stack_scan, "_TEACHERS", 2)


@pytest.mark.usefixtures("small_blocks")
def test_side_by_side_blocks_give_the_same_bits(scan):
    with ThreadPoolExecutor(3) as executor:
        together = reconstruct_stack(scan, options=OPTIONS, executor=executor)
    same(together, reconstruct_stack(scan, options=OPTIONS))


@pytest.mark.usefixtures("small_blocks")
def test_workers_of_dask_give_the_same_bits_and_so_they_do_when_one_is_killed(scan):
    pytest.importorskip("distributed")
    quick = replace(OPTIONS, uncertainty=False)
    with cluster(1) as executor:  # each worker imports torch, which is most of this test
        kills = KillsAWorker(executor)
        found = reconstruct_stack(scan, rows=range(3), options=quick, executor=executor, progress=kills)
        assert kills.left and kills.left != kills.processes()
    np.testing.assert_array_equal(found.mean, reconstruct_stack(scan, rows=range(3), options=quick).mean)


def test_slices_that_fail_are_told_and_lose_no_other(scan):
    projections, weights = scan.projections.copy(), np.ones_like(scan.projections)
    weights[1] = 0
    projections[3] = -1e-3
    quick = replace(OPTIONS, uncertainty=False)
    found = reconstruct_stack(VolumeScan(projections, scan.geometry, weights), options=quick)
    np.testing.assert_array_equal(found.slices["failed"], [0, 1, 0, 1, 0])
    assert np.isnan(found.mean[[1, 3]]).all()
    assert np.isfinite(found.mean[[0, 2, 4]]).all()
    assert any("Slice 1 could" in text for text in found.warnings)
    assert any("Slice 3 could" in text for text in found.warnings)


@pytest.mark.parametrize("kind", ["ensemble", "dropout", "last-layer"])
def test_error_bars_of_single_slices_are_not_those_of_a_stack(scan, kind):
    with pytest.raises(InputError, match=f"Error bars '{kind}' are of single slices"):
        reconstruct_stack(scan, options=ReconstructOptions(size=16, uncertainty=kind))


def test_a_stack_of_which_nothing_can_be_made_is_refused(scan):
    with pytest.raises(InputError, match="None of the"):
        reconstruct_stack(VolumeScan(np.full_like(scan.projections, -1e-3), scan.geometry), options=OPTIONS)


def test_a_full_disk_loses_no_slice_that_was_made(scan, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise ResourceError("The disk has no room.")

    quick = replace(OPTIONS, uncertainty=False)
    monkeypatch.setattr(stages, "write_tree", full)
    found = reconstruct_stack(scan, options=quick, checkpoint=tmp_path / "checkpoint.h5")
    same_mean = reconstruct_stack(scan, options=quick).mean
    np.testing.assert_array_equal(found.mean, same_mean)
    assert "the disk is full" in caplog.text


def test_a_file_written_slice_by_slice_is_what_is_returned(scan, tmp_path):
    quick = replace(OPTIONS, uncertainty=False)
    here = reconstruct_stack(scan, options=quick)
    reconstruct_stack(scan, options=quick, output=tmp_path / "results.h5")
    found = VolumeResult.load(tmp_path / "results.h5")
    np.testing.assert_array_equal(found.mean, here.mean)
    assert found.warnings == here.warnings and found.pitches == here.pitches
    with VolumeResult.open(tmp_path / "results.h5") as lazily:
        assert not isinstance(lazily.mean, np.ndarray)
        np.testing.assert_array_equal(lazily.mean[2], here.mean[2])


def test_chosen_rows_lie_where_they_lay(scan):
    part = chosen_rows(scan, range(1, 5, 3))
    np.testing.assert_array_equal(part.projections, scan.projections[[1, 4]])
    heights = np.linspace(*scan.geometry.heights, 11)[1::2]
    low, high = part.geometry.heights
    assert (low + high) / 2 == pytest.approx(heights[[1, 4]].mean())
    assert part.geometry.row_pitch == pytest.approx(heights[4] - heights[1])
    for wrong in (range(0), range(3, 6), range(-1, 2)):
        with pytest.raises(InputError, match="0 to 4"):
            chosen_rows(scan, wrong)


def test_rows_that_are_no_slices_are_refused():
    shared = {"angles": radians(np.arange(10) * 36.0), "rows": 8, "columns": 8, "pixel": 1.0}
    with pytest.raises(GeometryError, match="leans"):
        row_beam(Parallel3D(**shared, axis_tilt=0.1))
    with pytest.raises(GeometryError, match="--slices"):
        row_beam(ConeBeam(**shared, source_to_axis=10.0, source_to_detector=20.0))
    assert row_beam(ConeBeam(**shared, source_to_axis=2000.0, source_to_detector=2100.0)).columns == 8


def test_a_plan_tells_slices_memory_and_disk(scan):
    plan = plan_stack(scan, options=OPTIONS)
    assert plan.slices == 5
    assert plan.seconds > 0 < plan.disk
    for words in ("5 slices", "teach the others", "GiB of memory a worker", "of disk"):
        assert words in str(plan)


def test_slices_of_a_beam_that_may_harden_are_less_sure(scan, whole):
    known = replace(scan, provenance=replace(scan.provenance, facts={"beam": "monochromatic"}))
    sure = reconstruct_stack(known, options=OPTIONS)
    np.testing.assert_array_equal(sure.mean, whole.mean)
    more = [
        reconstruct_stack(known, options=replace(OPTIONS, systematics=f"hardening={w}")).std ** 2 - sure.std**2
        for w in (10, 20)
    ]
    assert bool((whole.std >= sure.std).all()) and np.median(more[0] / sure.std**2) > 0.1
    np.testing.assert_allclose(more[1], 4 * more[0], rtol=1e-3, atol=1e-3 * more[0].max())
    assert any("hardening" in text for text in whole.warnings) and not any("hardening" in text for text in sure.warnings)
    assert any("what rays would tell of the scanner (axis, gain, truncation)" in text for text in whole.warnings)
    with pytest.raises(InputError, match="axis is of single slices"):
        reconstruct_stack(scan, options=replace(OPTIONS, systematics="axis"))


def test_other_views_judge_each_slice_and_change_nothing(scan):
    even, odd = scan.select(np.arange(0, 15, 2)), scan.select(np.arange(1, 15, 2))
    found = reconstruct_stack(even, rows=range(2, 4), judge=odd, options=OPTIONS)
    plain = reconstruct_stack(even, rows=range(2, 4), options=OPTIONS)
    np.testing.assert_array_equal(found.mean, plain.mean)
    np.testing.assert_array_equal(found.std, plain.std)
    A = ray_transform(VolumeGrid((N, N), 1.0), odd.geometry.plane, backend="matrix")
    missed = odd.projections[2:4] - A(torch.from_numpy(found.mean)).numpy()
    np.testing.assert_allclose(found.slices["judged_rmse"], np.sqrt(np.mean(missed**2, axis=(1, 2))), rtol=1e-4)
    least = missed / np.sqrt(found.slices["noise_variance"])[:, None, None]
    assert (found.slices["judged_rms_z"] < np.sqrt(np.mean(least**2, axis=(1, 2)))).all()
    with pytest.raises(InputError, match="another detector"):
        reconstruct_stack(even, judge=chosen_rows(odd, range(3)), options=OPTIONS)


def test_chosen_slices_are_called_by_their_numbers_in_the_scan(scan, whole):
    """Of slices 2 to 4 the second was called "Slice 1" where it failed."""
    dead = replace(scan, weights=np.ones_like(scan.projections) * (np.arange(5) != 3)[:, None, None])
    quick = ReconstructOptions(method="tv", size=12, uncertainty=False, device="cpu")
    found = reconstruct_stack(dead, rows=range(2, 5), options=quick)
    np.testing.assert_array_equal(found.slices["number"], [2, 3, 4])
    assert any(text.startswith("Slice 3 could not be made") for text in found.warnings)
    steps = chosen_rows(chosen_rows(scan, range(1, 5)), range(0, 4, 2))
    assert steps.provenance.numbers(2) == range(1, 5, 2)
    odd = replace(scan.provenance, facts={"slices": f"0:{10**30}:1"})
    assert odd.numbers(3) == range(3)  # as damaged files may have it
    np.testing.assert_array_equal(whole.slices["number"], range(5))


def test_a_slice_draws_the_same_whichever_others_are_chosen(scan):
    some = stack_scan.Stack.of(scan, range(2, 5), OPTIONS)
    everything = stack_scan.Stack.of(scan, None, OPTIONS)
    drawn = [
        torch.rand(3, generator=Work(stack.setting(), stack.slice(place)).rng) for stack, place in ((some, 1), (everything, 3))
    ]
    assert torch.equal(*drawn)


def test_processes_of_python_give_the_same(scan):
    quick = ReconstructOptions(method="sirt", size=12, iterations=5, device="cpu")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        found = reconstruct_stack(scan, options=quick, executor=executor)
    np.testing.assert_array_equal(found.mean, reconstruct_stack(scan, options=quick).mean)
