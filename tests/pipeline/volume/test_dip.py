"""The Deep Image Prior of a volume from its scan to its files: held-out views, going on after a kill, plan, faults."""

import weakref
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from killing import die, killed

from ctuq import stages
from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.files import write_volume_scan
from ctuq.pipeline.running.checkpoint import CheckpointError
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume import dip as volume_dip
from ctuq.pipeline.volume.job import plan_volume, reconstruct_volume, volume_made_by
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import Parallel3D, VolumeGrid, VolumeScan
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.solids import solid_scan
from ctuq.uncertainty.results.volume import VolumeResult

NETWORK = UNetOptions(channels=(8, 8), skips=(4,), dims=3)
OPTIONS = VolumeOptions("dip", 10, uncertainty=False, dip=DIPOptions(network=NETWORK, iterations=40, check_every=10))
SHORT = replace(OPTIONS, dip=replace(OPTIONS.dip, iterations=8, check_every=4))
TURN = np.arange(14) * 2 * np.pi / 14


@pytest.fixture(scope="module")
def scan():
    return solid_scan("ball", 10, TURN, noise=0.03, seed=0, distances=(100.0, 200.0))


@pytest.fixture(scope="module")
def whole(scan):
    return reconstruct_volume(scan, options=OPTIONS)


def same(a, b):
    np.testing.assert_array_equal(a.mean, b.mean)
    for name, values in a.history.items():
        np.testing.assert_array_equal(values, b.history[name])
    np.testing.assert_array_equal(a.held_views, b.held_views)
    assert a.scores == b.scores and a.warnings == b.warnings and a.rays == b.rays


def test_a_result_says_what_was_held_out_and_how_well_it_is_met(whole, scan, tmp_path):
    assert whole.held_views.tolist() == [2, 7, 11]
    assert set(whole.history) == {"iteration", "loss", "held_out_loss"}
    assert whole.held_out_misfit == whole.history["held_out_loss"].min()
    assert whole.held_out_misfit < 0.2 * float((scan.projections[:, [2, 7, 11]] ** 2).mean())
    assert whole.scores["psnr"] > 10
    whole.save(tmp_path / "r.h5")
    again = VolumeResult.load(tmp_path / "r.h5")
    same(again, whole)
    assert volume_made_by(again, scan, OPTIONS)
    assert not volume_made_by(again, scan, replace(OPTIONS, seed=1))
    assert not volume_made_by(again, scan.every(2), OPTIONS)


def test_views_that_are_held_out_do_not_change_the_fit(scan, whole):
    changed = np.array(scan.projections)
    changed[:, [2, 7, 11]] *= 1.1
    other = reconstruct_volume(replace(scan, projections=changed), options=OPTIONS)
    np.testing.assert_array_equal(other.history["loss"], whole.history["loss"])
    assert (other.history["held_out_loss"] != whole.history["held_out_loss"]).all()


def test_the_truth_does_not_change_the_fit(scan, whole):
    np.testing.assert_array_equal(reconstruct_volume(replace(scan, truth=None), options=OPTIONS).mean, whole.mean)


def test_a_killed_run_goes_on_to_the_same_bits(scan, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_WORTH", 0.0)
    path = tmp_path / "checkpoint.h5"

    def stop(progress):
        if progress.done == 20:
            die()

    def work():
        monkeypatch.setattr("ctuq.pipeline.running.checkpoint._EVERY", 1)
        reconstruct_volume(scan, options=OPTIONS, checkpoint=path, progress=stop)

    assert killed(work)
    seen = []
    again = reconstruct_volume(scan, options=OPTIONS, checkpoint=path, progress=seen.append)
    assert 20 < seen[0].done <= 30
    same(again, whole)


@pytest.mark.parametrize("change", ["options", "scan"])
def test_a_checkpoint_of_other_work_is_refused(scan, tmp_path, change):
    path = tmp_path / "checkpoint.h5"
    reconstruct_volume(scan, options=SHORT, checkpoint=path)
    options, other = (replace(SHORT, seed=3), scan) if change == "options" else (SHORT, scan.every(2))
    with pytest.raises(CheckpointError, match="overwrite"):
        reconstruct_volume(other, options=options, checkpoint=path)


def test_the_command_goes_on_and_then_has_nothing_to_do(scan, whole, tmp_path, monkeypatch, capsys):
    write_volume_scan(scan, tmp_path / "scan.h5")
    # Before anything is patched: the command imports what it does when it is called, and would keep what stands in for it.
    import_module("ctuq.app.slices")
    monkeypatch.setattr("ctuq.app.volumes.DIPOptions", lambda **_: OPTIONS.dip)
    command = ["reconstruct", str(tmp_path / "scan.h5"), "--volume", "--size", "10", "--no-uncertainty"]
    command += ["-o", str(tmp_path / "run")]
    monkeypatch.setattr("ctuq.app.volumes.write_tiffs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(command) == 3
    assert "--resume" in capsys.readouterr().err
    assert main(command) == 2
    assert "holds a run that stopped" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr("ctuq.app.volumes.DIPOptions", lambda **_: OPTIONS.dip)
    assert main([*command, "--resume"]) == 0
    told = capsys.readouterr().out
    assert "3 views were held out of the fit" in told
    same(VolumeResult.load(tmp_path / "run" / "results.h5"), whole)
    assert not (tmp_path / "run" / "checkpoint.h5").exists()
    assert main([*command, "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--resume", "--seed", "1"]) == 2
    assert main([*command, "--overwrite", "--method", "fdk"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "held out" not in page


def test_the_plan_counts_with_measured_steps_and_spares_memory_where_it_must(scan, monkeypatch):
    monkeypatch.setattr(volume_dip, "_step_seconds", lambda shape, *_: 1e-3 * np.prod(shape))
    plan = plan_volume(scan, OPTIONS)
    assert plan.iterations == 40 and not plan.sparing
    assert plan.seconds == pytest.approx(40 * 1.1, rel=0.2)
    monkeypatch.setattr(volume_dip, "available_memory", lambda *_: 2**18)
    spared = plan_volume(scan, OPTIONS)
    assert spared.sparing and spared.bytes < plan.bytes and spared.seconds > 1.3 * 40 * 1.1
    assert "made twice" in str(spared)


def test_activations_made_twice_change_nothing(scan, whole):
    plan = replace(plan_volume(scan, OPTIONS), sparing=True)
    same(reconstruct_volume(scan, options=OPTIONS, plan=plan), whole)


def test_a_fit_that_fills_the_device_goes_on_with_activations_made_twice(scan, whole, monkeypatch):
    before, spared, made = Run.fit, [], []

    def fit(run, generate, *rest):
        spared.append(generate.sparing)
        if not generate.sparing:
            activations = torch.rand(3, generator=run.rng)
            made.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("out of memory")
        assert made[0]() is None, "what the first attempt made still lies on the device"
        return before(run, generate, *rest)

    monkeypatch.setattr(Run, "fit", fit)
    with pytest.warns(UserWarning, match="made twice"):
        same(reconstruct_volume(scan, options=OPTIONS), whole)
    assert spared == [False, True]


@pytest.mark.parametrize("views", [3, 4])
def test_too_few_views_are_stopped_by_rays_and_it_is_told(scan, views):
    found = reconstruct_volume(scan.select(np.arange(views) * 4), options=SHORT)
    assert len(found.held_views) == 0
    assert any(f"{views} views are too few" in text for text in found.warnings)
    assert found.held_out_misfit > 0


def test_what_shows_nothing_is_refused_and_leaves_no_checkpoint(scan, tmp_path):
    empty = VolumeScan(0 * scan.projections, scan.geometry, grid=scan.grid)
    with pytest.raises(InputError, match="no object"):
        reconstruct_volume(empty, options=SHORT, checkpoint=tmp_path / "checkpoint.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_volume_that_explains_nothing_unseen_says_so(scan, whole):
    noise = np.random.default_rng(0).normal(size=scan.projections.shape)
    found = reconstruct_volume(replace(scan, projections=noise), options=OPTIONS)
    assert any("has not seen" in text for text in found.warnings)
    assert not any("has not seen" in text for text in whole.warnings)


def test_rays_that_are_too_few_are_refused_and_few_ones_told(scan):
    weights = np.zeros(scan.projections.shape, np.float32)
    weights[5, :, 6] = 1
    found = reconstruct_volume(replace(scan, weights=weights), options=replace(SHORT, calibrate=False))
    assert any("are missing or of weight 0" in text for text in found.warnings)
    weights[5, 1:, 6] = 0
    with pytest.raises(InputError, match="1 can be used"):
        reconstruct_volume(replace(scan, weights=weights), options=SHORT)


FLAT = {
    "one row": (lambda g: replace(g, rows=1), (1, 10, 10)),
    "two slices": (lambda g: g, (2, 10, 10)),
    "odd and not cubic": (lambda g: g, (5, 9, 7)),
    "short scan of a shifted detector": (lambda g: replace(g, angles=TURN * 0.62, detector_offset=6.0), (10, 10, 10)),
    "helix": (lambda g: g.raised(np.linspace(-6, 6, 14)), (10, 10, 10)),
    "laminography": (
        lambda g: Parallel3D(angles=g.angles, rows=14, columns=14, pixel=4.0, axis_tilt=0.5),
        (10, 10, 10),
    ),
}


@pytest.mark.parametrize("kind", FLAT)
def test_every_shape_and_orbit_is_fitted_from_the_weights_of_images(scan, kind):
    change, shape = FLAT[kind]
    geometry, grid = change(scan.geometry), VolumeGrid(shape, 4.0)
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    truth = 0.05 * ((y - 1) ** 2 + x**2 + z**2 < 6)
    shown = volume_transform(grid, geometry)(torch.tensor(truth, dtype=torch.float32)).numpy()
    dip = DIPOptions(network=UNetOptions(dims=3), iterations=30, check_every=10)
    options = VolumeOptions("dip", shape[-1], dip=dip, uncertainty=False)
    found = reconstruct_volume(VolumeScan(shown, geometry, truth=truth, grid=grid), options=options)
    assert found.mean.shape == shape
    assert found.scores["rmse"] < 0.5 * truth.std()
    assert len(found.held_views) == 3


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_of_attenuation_makes_no_difference(scan, whole, unit):
    found = reconstruct_volume(replace(scan, projections=unit * scan.projections, truth=unit * scan.truth), options=OPTIONS)
    assert found.scores["psnr"] == pytest.approx(whole.scores["psnr"], abs=0.2)


def test_a_volume_has_the_numbers_of_the_host_on_a_gpu(scan, gpu):
    torch.manual_seed(0)
    host, there = (reconstruct_volume(scan, options=replace(SHORT, device=device)) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.mean, host.mean, atol=1e-3 * host.mean.max())
    np.testing.assert_allclose(there.history["held_out_loss"], host.history["held_out_loss"], rtol=1e-3)
