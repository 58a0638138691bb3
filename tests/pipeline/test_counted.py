"""Noise of line integrals that grows with attenuation, in scans that have no weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ctuq
from ctuq.pipeline import match_detector
from ctuq.pipeline.counted import growth_in, weighed_by_counts
from ctuq.pipeline.image import job
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.stack.job import reconstruct_stack
from ctuq.tomo.count_noise import growth_of, variance_of
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import Noise, PhotonNoise, RelativeNoise, simulate
from ctuq.tomo.space import Parallel3D
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.results.unseen_views import predict_views

CPU = torch.device("cpu")
SIZE, FIELD = 48, 40.0


def scan_of(noise: Noise, *, attenuation: float = 0.15, n: int = 60, fan: bool = False, weights: bool = False) -> ctuq.Scan:
    """Ellipses, whose line integrals go up to 2.8; without the weights of the simulation, as a file of line integrals."""
    grid, angles = VolumeGrid((SIZE, SIZE), FIELD / SIZE), np.arange(n) * (2 if fan else 1) * np.pi / n
    lengths = {"source_to_axis": 150.0, "source_to_detector": 300.0}
    geometry = (
        FanBeam(angles=angles, columns=70, pixel=2 * grid.voxel, **lengths)
        if fan
        else ParallelBeam(angles=angles, columns=70, pixel=grid.voxel)
    )

    def phantom(size: int):
        return PHANTOMS["ellipses"](size, np.random.default_rng(3))

    scan = simulate(phantom, geometry, grid, noise, rng=np.random.default_rng(0), attenuation=attenuation)
    return scan if weights else replace(scan, weights=None)


@pytest.mark.parametrize(("growth", "found"), [(0.0, {0.0}), (0.4, {0.2, 0.4, 0.7}), (1.0, {0.7, 1.0})])
def test_the_growth_of_normal_residuals_is_found(growth, found):
    rng = np.random.default_rng(1)
    p, beside = rng.uniform(0, 3, 4000), 1e-4 * rng.uniform(0, 1, 4000)
    residual = rng.standard_normal(4000) * np.sqrt(1e-3 * variance_of(p, growth) + beside)
    assert growth_of(residual, p, beside) in found


def test_few_rays_or_none_tell_no_growth():
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 3, 30)
    assert growth_of(rng.standard_normal(30) * np.sqrt(variance_of(p, 1.0)), p, np.zeros(30)) == 0
    assert growth_of(np.zeros(0), np.zeros(0), np.zeros(0)) == 0
    assert growth_of(np.zeros(30), p, np.zeros(30)) == 0


@pytest.mark.parametrize("fan", [False, True])
def test_rays_of_counts_without_weights_are_weighed_as_the_counts_would_weigh_them(fan):
    noise = PhotonNoise(500)
    known, scan = scan_of(noise, fan=fan, weights=True), scan_of(noise, fan=fan)
    found = weighed_by_counts(scan, SIZE, CPU)
    assert found.provenance.noise_growth >= 0.4
    assert any("no weights" in text for text in found.warnings)
    off = np.log(found.weights / found.weights.mean()) - np.log(known.weights / known.weights.mean())
    # Of the counts alone, whose own noise is in their weights, 0.6 without weights.
    assert np.sqrt(np.mean(off**2)) < 0.25


def test_a_gpu_weighs_as_the_host_does(gpu):
    scan = scan_of(PhotonNoise(500), n=20)
    there, here = (weighed_by_counts(scan, 24, device) for device in (gpu, CPU))
    assert there.provenance.noise_growth == here.provenance.noise_growth > 0
    np.testing.assert_allclose(there.weights, here.weights, rtol=1e-3)


def test_scans_whose_noise_does_not_grow_stay_as_they_are():
    for scan in (
        scan_of(RelativeNoise(0.01)),
        scan_of(RelativeNoise(0.2)),
        scan_of(RelativeNoise(0.05), n=4),
        scan_of(PhotonNoise(500), attenuation=0.03),
        scan_of(PhotonNoise(500), weights=True),
    ):
        assert weighed_by_counts(scan, SIZE, CPU) is scan


@pytest.mark.filterwarnings("error")
def test_line_integrals_in_other_units_stay_as_they_are():
    scan = scan_of(PhotonNoise(500))
    for factor in (50, 1e4, 1e30):
        other = replace(scan, projections=(factor * scan.projections).astype(np.float32))
        assert weighed_by_counts(other, SIZE, CPU) is other


def test_dead_columns_stay_dead():
    scan = scan_of(PhotonNoise(500))
    weights = np.ones_like(scan.projections)
    weights[:, 30:32] = 0
    found = weighed_by_counts(replace(scan, weights=weights), SIZE, CPU)
    assert found.provenance.noise_growth and not found.weights[:, 30:32].any()


def test_intervals_hold_unseen_rays_through_thick_parts_and_the_image_is_better(monkeypatch):
    full = scan_of(PhotonNoise(300))
    used, unseen = full.select(np.arange(0, 60, 3)), full.select(np.setdiff1d(np.arange(60), np.arange(0, 60, 3)))

    def judged() -> tuple[float, float]:
        result = ctuq.reconstruct(used, method="tv", size=SIZE)
        others = match_detector(unseen, result.grid)
        mean, variance = predict_views(result, ctuq.ray_transform(result.grid, others.geometry, backend="matrix"))
        thick = mean > np.quantile(mean, 0.8)
        off = np.abs(others.projections - mean)[thick] / np.sqrt(variance[thick])
        return float(np.mean(off < 1.96)), float(result.scores["truth"]["psnr"])

    held, psnr = judged()
    monkeypatch.setattr(job, "weighed_by_counts", lambda scan, *_: scan)
    held_without, psnr_without = judged()
    assert held > 0.87 > held_without + 0.03, (held, held_without)
    assert psnr > psnr_without + 2, (psnr, psnr_without)


def test_other_views_that_say_only_which_rays_count_have_growing_noise_too():
    scan = scan_of(PhotonNoise(500), n=20)
    result = ctuq.reconstruct(scan, method="tv", size=24)
    A = ctuq.ray_transform(result.grid, result.scan.geometry, backend="matrix")
    ones = np.ones(A.range.shape, np.float32)
    (mean, plain), (_, by_ones), (_, by_own) = (predict_views(result, A, w) for w in (None, ones, 2 * ones))
    np.testing.assert_allclose(plain, by_ones)
    growth = result.scan.provenance.noise_growth
    np.testing.assert_allclose(plain - by_own, result.sigma2 * (variance_of(mean, growth) - 0.5), rtol=1e-6)


def test_another_programs_image_is_calibrated_with_noise_that_grows():
    full, held = scan_of(PhotonNoise(300)), np.arange(1, 60, 6)
    used = np.arange(0, 60, 3)
    both = full.select(np.union1d(used, held))
    views = np.flatnonzero(np.isin(np.union1d(used, held), held))
    image = ctuq.reconstruct(full.select(used), method="tv", size=SIZE, uncertainty=False)
    alike = replace(both, weights=np.ones_like(both.projections) * (1 + 1e-6))
    shown = []
    for scan in (both, alike):
        result = ctuq.calibrate(image.mean, 0.05 * image.mean.max(), scan, views, grid=image.grid)
        unseen = full.select(np.setdiff1d(np.arange(60), np.union1d(used, held)))
        A = ctuq.ray_transform(image.grid, unseen.geometry, backend="matrix")
        mean = A(torch.from_numpy(image.mean)).numpy()
        noise = result.sigma2 * variance_of(mean, result.scan.provenance.noise_growth)
        thick = mean > np.quantile(mean, 0.9)
        shown.append(np.mean((unseen.projections - mean)[thick] ** 2 / noise[thick]))
        assert bool(result.scan.provenance.noise_growth) == (scan is both)
    # Noise alone, whose variance in the thickest rays is told as less than half where all rays count alike.
    assert shown[1] > 2 * shown[0]


def test_a_result_is_known_again_and_keeps_its_growth(tmp_path):
    scan = scan_of(PhotonNoise(500), n=20)
    options = ReconstructOptions("tv", size=24)
    result = ctuq.reconstruct(scan, options=options)
    result.save(tmp_path / "r.h5")
    again = ctuq.Result.load(tmp_path / "r.h5")
    assert again.scan.provenance.noise_growth == result.scan.provenance.noise_growth > 0
    assert job.made_by(again, scan, options)
    other = replace(scan, projections=scan.projections + np.float32(1e-3))
    assert not job.made_by(again, other, options)
    assert any("no weights" in text for text in again.warnings)


def test_all_slices_of_a_stack_are_weighed_by_the_growth_of_one():
    one = scan_of(PhotonNoise(400), n=24)
    g = one.geometry
    geometry = Parallel3D(angles=g.angles, rows=3, columns=g.columns, pixel=g.pixel)
    rows = np.stack([one.projections, scan_of(PhotonNoise(400), n=24, attenuation=0.12).projections, one.projections])
    grid = VolumeGrid((3, SIZE, SIZE), FIELD / SIZE)
    scan = VolumeScan(rows, geometry, grid=grid)
    result = reconstruct_stack(scan, "tv", size=24)
    assert growth_in(one.binned(1), 24, CPU) > 0
    assert any("no weights" in text for text in result.warnings)
    assert np.isfinite(result.std).all()
    quiet = reconstruct_stack(replace(scan, weights=np.exp(-rows).astype(np.float32)), "tv", size=24)
    assert not any("no weights" in text for text in quiet.warnings)


def test_views_are_foretold_in_any_unit():
    # Electron counts of 28,000 in place of line integrals had no variance: nothing times an infinite exponential.
    scan, unit = scan_of(RelativeNoise(0.02), n=40), 1e4
    loud = replace(scan, projections=unit * scan.projections, truth=None)
    found = []
    for given, scale in ((replace(scan, truth=None), 1.0), (loud, unit)):
        result = ctuq.reconstruct(given.select(np.arange(0, 40, 2)), "tv", size=24, samples=64)
        rest = match_detector(given.select(np.arange(1, 40, 2)), result.grid)
        A = ctuq.ray_transform(result.grid, rest.geometry, backend="matrix")
        found.append([part / scale for part in (predict_views(result, A)[0], np.sqrt(predict_views(result, A)[1]))])
    assert np.isfinite(found[1][1]).all()
    np.testing.assert_allclose(found[1][0], found[0][0], atol=0.02 * np.abs(found[0][0]).max())
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=0.15)
