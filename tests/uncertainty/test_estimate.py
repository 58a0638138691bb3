import numpy as np
import pytest
import torch

from ctuq.laplace import DensePosterior, PathwisePosterior
from ctuq.uncertainty import estimate as module
from ctuq.uncertainty.calibration import Scales
from ctuq.uncertainty.estimate import estimate

HELD = np.array([1, 4, 7])


@pytest.fixture
def fixed_scales(monkeypatch):
    """Scales (3, 0.5), whatever the held-out views say."""
    monkeypatch.setattr(module, "learn_scales", lambda *_: Scales(3.0, 0.5, 0.1, 0.1))


def image_prior(model, found):
    """Prior covariance (64, 64) of the image, by responding to each pixel's unit vector through the dense Jacobian."""
    J = model.scale * model.jacobian.dense().double().reshape(64, -1)
    return model.prior.covariance(J, found.evidence.psi) @ J.T + torch.diag(model.misfit(found.evidence))


def rays_matrix(model):
    return model.project(torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)).T


@pytest.mark.parametrize("space", ["image", "projection"])
def test_correction_is_the_conditional_mean_given_the_held_out_rays(space, make, tiny, fixed_scales):
    model = make(space=space)
    found = estimate(model, tiny[1], HELD)
    M, noise = rays_matrix(model), found.evidence.sigma2 * model.noise
    new = torch.isin(model.view, torch.from_numpy(HELD))
    seen = ~new
    S = image_prior(model, found)
    P = torch.linalg.inv(torch.linalg.inv(S) + M[seen].T @ (M[seen] / noise[seen, None]))
    residual = tiny[1].flatten()[model.rays].double()[new] - M[new] @ model.image.flatten().double()
    total = 3.0 * M[new] @ P @ M[new].T + torch.diag(0.5 * noise[new])
    correction = 3.0 * P @ M[new].T @ torch.linalg.solve(total, residual)
    miss = found.correction.flatten() - correction
    assert float(correction.norm()) > 0
    assert float(miss.norm()) < 1e-2 * float(correction.norm())


@pytest.mark.parametrize(("space", "kind"), [("image", DensePosterior), ("projection", PathwisePosterior)])
def test_posterior_is_of_all_views(space, kind, make, tiny):
    model = make(space=space)
    found = estimate(model, tiny[1], HELD)
    M, noise = rays_matrix(model), found.evidence.sigma2 * model.noise
    S = torch.linalg.inv(torch.linalg.inv(image_prior(model, found)) + M.T @ (M / noise[:, None]))
    assert isinstance(found.posterior, kind)
    draws = found.posterior.deviations(4000, rng=torch.Generator().manual_seed(0)).double().flatten(1)
    torch.testing.assert_close(draws.square().mean(0).sqrt(), S.diagonal().sqrt(), rtol=0.06, atol=0)


def test_record_of_the_calibration_is_of_the_held_out_rays(make, tiny, fixed_scales):
    model = make()
    found = estimate(model, tiny[1], HELD)
    record = found.calibration
    measured, predicted, raw, calibrated = record.predictions
    assert record.views == (1, 4, 7)
    assert (record.image_scale, record.noise_scale) == (3.0, 0.5)
    np.testing.assert_allclose(measured, tiny[1][HELD].numpy(), rtol=1e-6)
    np.testing.assert_allclose(predicted, tiny[0](model.image)[HELD].numpy(), rtol=1e-4)
    assert (raw > 0).all() and (calibrated > 0).all()
    z = (measured - predicted) / calibrated
    assert record.calibrated["rms_z"] == pytest.approx(np.sqrt(np.mean(z**2)), rel=1e-4)


def test_rays_without_weight_in_a_held_out_view_repeat_their_neighbours(make, tiny):
    model = make()
    found = estimate(model, tiny[1], np.array([2, 7]))
    measured = found.calibration.predictions[0]
    assert not (model.rays == 23).any()
    assert measured[0, 3] == pytest.approx((measured[0, 2] + measured[0, 4]) / 2)
    assert np.isfinite(found.calibration.predictions).all()


def test_evidence_sees_only_the_fitted_rays(make, tiny):
    model, changed = make(), tiny[1].clone()
    changed[HELD] += 0.5
    before = estimate(model, tiny[1], HELD).evidence
    model.target[torch.isin(model.view, torch.from_numpy(HELD))] += 0.5
    after = estimate(model, changed, HELD).evidence
    assert after.value == before.value
    assert estimate(model, changed, np.zeros(0, np.int64)).evidence.value != before.value


def test_nothing_held_out_means_nothing_calibrated(make, tiny):
    found = estimate(make(), tiny[1], np.zeros(0, np.int64))
    assert found.calibration is None
    assert (found.scales.image, found.scales.noise) == (1, 1)
    assert float(found.correction.abs().max()) == 0


def test_leave_one_angle_out_is_a_prediction_of_each_view_from_the_others(make, tiny):
    model = make()
    found = estimate(model, tiny[1], HELD)
    K = model.prior_covariance(found.evidence) + torch.diag(found.evidence.sigma2 * model.noise)
    z = []
    for view in model.view.unique():
        out, rest = model.view == view, model.view != view
        gain = K[out][:, rest] @ torch.linalg.inv(K[rest][:, rest])
        variance = (K[out][:, out] - gain @ K[rest][:, out]).diagonal()
        z.append((model.target[out] - gain @ model.target[rest]) / variance.sqrt())
    assert found.leave_one_out["rms_z"] == pytest.approx(float(torch.cat(z).square().mean().sqrt()), rel=1e-6)


def test_variation_hyperprior_shrinks_the_variance(make, tiny):
    model = make()
    free, held = (estimate(model, tiny[1], HELD, variation=v).evidence for v in (0.0, 1e4))
    assert float(held.psi) < float(free.psi)
