"""Image and systematic errors fitted together: rays are freed of what they tell, and the network is fitted again."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import ctuq
from ctuq.app.report.catalogue import pictures_of
from ctuq.app.report.page import render_report
from ctuq.pipeline.image.freed import log_odds, told_too_far, without_own
from ctuq.recon.dip import Data, DIPOptions
from ctuq.systematics.taken import Taken
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, radians, ray_transform
from ctuq.tomo.phantoms import PHANTOMS

SETTINGS = {"size": 16, "field": 24.0, "samples": 100, "directions": 0, "dip": DIPOptions(iterations=150)}
OFF, NOISE = 0.75, 0.01
ASKED = "axis,flux,hardening=0.01"


@pytest.fixture(scope="module")
def scan():
    """Fifteen noisy views of ellipses, the axis half a pixel beside where it is said to be, and of drifting flux."""
    rng = np.random.default_rng(0)
    grid, fine = VolumeGrid((16, 16), 1.5), VolumeGrid((48, 48), 0.5)
    image = 0.05 * PHANTOMS["ellipses"](48, rng).astype(np.float32)
    told = ParallelBeam(angles=radians(np.arange(0, 180, 12.0)), columns=24, pixel=1.5)
    A = ray_transform(fine, replace(told, axis_offset=OFF), backend="matrix")
    flux = 5 * NOISE * rng.standard_normal(len(told.angles))
    rays = A(torch.from_numpy(image)).numpy() + NOISE * rng.standard_normal(told.shape) - flux[:, None]
    truth = image.reshape(16, 3, 16, 3).mean((1, 3))
    return flux, Scan(rays.astype(np.float32), told, truth=truth, grid=grid)


@pytest.fixture(scope="module")
def made(scan):
    return ctuq.reconstruct(scan[1], systematics="none", **SETTINGS), ctuq.reconstruct(scan[1], systematics=ASKED, **SETTINGS)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_the_image_is_that_of_rays_without_the_errors(made):
    plain, freed = made
    assert rms(freed.mean - freed.truth) < 0.8 * rms(plain.mean - plain.truth)
    for name in ("fbp", "tv"):
        errors = [rms(r.comparisons[name] - r.truth) for r in made]
        assert errors[1] < errors[0]
    assert "All images are of rays without" in " ".join(freed.warnings)
    assert "All images are of rays without" not in " ".join(plain.warnings)
    assert freed.plan["again for"] == "axis, flux" and float(freed.plan["seconds again"]) > 0
    assert "each, if one is found wrong: axis, flux" in render_report(freed, {}) and "again for" not in plain.plan


def test_intervals_are_of_the_whole_error(made, scan):
    axis, flux = (made[1].systematics[name] for name in ("axis", "flux"))
    assert abs(axis.values[0] - OFF) < 4 * axis.std[0] < 0.4
    assert abs(axis.taken[0] - OFF) < 0.2
    assert np.corrcoef(flux.values, scan[0])[0, 1] > 0.95
    np.testing.assert_allclose(axis.samples.mean(0), axis.values, atol=0.6 * axis.std[0])


def test_held_out_views_keep_their_own_errors_and_hidden_ones_stay(made, scan):
    freed = made[1]
    held = list(freed.calibration.views)
    assert np.all(freed.systematics["flux"].taken[held] == 0)
    fitted = np.setdiff1d(np.arange(len(scan[0])), held)
    assert np.all(freed.systematics["flux"].taken[fitted] != 0)
    assert freed.systematics["hardening"].taken is None
    # What is seen of a held-out view in what was taken out is the axis, which all views have.
    flux = freed.systematics["flux"].taken / 100
    np.testing.assert_allclose(freed.removed.mean(1) + flux, 0, atol=0.2 * np.abs(flux).max())
    np.testing.assert_array_equal(freed.calibration.predictions[0], freed.scan.projections[held])


def test_flux_of_held_out_views_is_not_in_images_beside_the_fit(scan, made):
    """A step to half: held-out views keep it in the rays, and it stops no fit and is in no image."""
    step = np.where(np.arange(len(scan[0])) < 7, 0.0, np.log(0.5))
    wrong = replace(scan[1], projections=(scan[1].projections - step[:, None]).astype(np.float32))
    found = ctuq.reconstruct(wrong, systematics=ASKED, **SETTINGS)
    held = list(found.calibration.views)
    np.testing.assert_array_equal(found.calibration.predictions[0], wrong.projections[held])
    assert np.all(np.abs(0.01 * found.systematics["flux"].values - step - scan[0]) < 5 * 0.01 * found.systematics["flux"].std)
    for name in ("fbp", "tv"):
        assert rms(found.comparisons[name] - found.truth) < 1.3 * rms(made[1].comparisons[name] - found.truth)
    assert rms(found.mean - found.truth) < 1.5 * rms(made[1].mean - found.truth)


def test_an_error_that_is_a_view_s_own_counts_for_no_misfit(scan, rng):
    A = ray_transform(scan[1].grid, scan[1].geometry, backend="matrix")
    x, y = torch.rand(1, 16, 16, generator=rng), torch.rand(1, *A.range.shape, generator=rng)
    weights, effect = torch.rand(y.shape, generator=rng), torch.rand(A.range.shape, generator=rng)
    stop = without_own(Data(A, y, weights), x[0], ["axis", "flux"])
    assert len(stop.own) == 1 and without_own(Data(A, y, weights), x[0], ["axis"]).own == ()
    stop = replace(stop, own=(effect,))
    off = torch.randn(1, len(scan[0]), 1, generator=rng)
    moved = replace(stop, y=y + off * effect)
    assert float(moved.misfit(x)) == pytest.approx(float(stop.misfit(x)), rel=1e-4)
    r, e, w = ((A(x) - y).double(), effect.double(), weights.double())
    left = r - e * ((w * e * r).sum(-1, keepdim=True) / (w * e * e).sum(-1, keepdim=True))
    assert float(stop.misfit(x)) == pytest.approx(float((w * left.square()).mean() / w.mean()), rel=1e-4)


def test_what_was_taken_out_is_shown_and_kept(made, tmp_path):
    plain, freed = made
    assert "removed" in [p.name for p in pictures_of(freed)] and "removed" not in [p.name for p in pictures_of(plain)]
    assert "The images are of rays without it" in render_report(freed, {})
    freed.save(tmp_path / "r.h5")
    again = ctuq.Result.load(tmp_path / "r.h5")
    np.testing.assert_array_equal(again.removed, freed.removed)
    np.testing.assert_array_equal(again.systematics["axis"].taken, freed.systematics["axis"].taken)
    assert again.systematics["hardening"].taken is None
    assert plain.removed is None


def test_a_run_that_is_killed_between_fits_comes_to_the_same(made, scan, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def stop(progress):
        if "without systematic errors" in progress.message and progress.done >= 100:
            raise KilledError

    monkeypatch.setattr("ctuq.stages._WORTH", 0.0)
    path = tmp_path / "c.h5"
    with pytest.raises(KilledError):
        ctuq.reconstruct(scan[1], systematics=ASKED, checkpoint=path, progress=stop, **SETTINGS)
    again = ctuq.reconstruct(scan[1], systematics=ASKED, checkpoint=path, **SETTINGS)
    np.testing.assert_array_equal(again.mean, made[1].mean)
    np.testing.assert_array_equal(again.systematics["axis"].values, made[1].systematics["axis"].values)
    np.testing.assert_array_equal(again.samples, made[1].samples)


def test_nothing_is_taken_out_where_nothing_is_wrong(noisy_scan):
    settings = SETTINGS | {"samples": 4}
    found = ctuq.reconstruct(noisy_scan, systematics="axis,flux", **settings)
    assert found.removed is None and all(e.taken is None for e in found.systematics.values())
    assert found.history["iteration"][-1] <= SETTINGS["dip"].iterations


def test_angles_and_shifts_beyond_a_pixel_are_told_to_be_hints():
    grid = VolumeGrid((16, 20), 1.5)
    angles, shifts = torch.tensor([0.02, -0.13], dtype=torch.float64), torch.tensor([0.1, -1.4], dtype=torch.float64)
    far = told_too_far(Taken({"jitter": angles, "shift": shifts, "axis": shifts[1:]}), grid)
    assert len(far) == 1 and "(angle of each view)" in far[0] and "by 1.3 pixels" in far[0]
    assert "(shift of each view along the detector)" in told_too_far(Taken({"shift": 2 * shifts}), grid)[0]
    assert told_too_far(Taken({"jitter": angles[:1]}), grid) == ()


def test_odds_of_an_error_are_the_ratio_of_evidences(rng):
    N, variance, noise = torch.randn(9, 3, generator=rng, dtype=torch.float64), 0.7, 0.2
    y = N @ torch.tensor([0.5, -1.0, 0.3]).double() + noise**0.5 * torch.randn(9, generator=rng, dtype=torch.float64)
    covariance = torch.linalg.inv(N.T @ N / noise + torch.eye(3) / variance)
    mean = covariance @ N.T @ y / noise

    def evidence(s):
        K = s * N @ N.T + noise * torch.eye(9)
        return float(torch.distributions.MultivariateNormal(torch.zeros(9).double(), K).log_prob(y))

    found = log_odds(mean, covariance, variance)
    assert found == pytest.approx(evidence(variance) - evidence(0.0)) and math.isfinite(found)
