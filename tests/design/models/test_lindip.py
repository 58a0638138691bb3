from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.design import Designer, DesignProblem, DesignState, Edges, LinDIPOptions, LinearisedDIP, Measurements, Sum, learner
from ctuq.design.algebra.covariance import DenseCovariance, FactorCovariance
from ctuq.design.models import lindip
from ctuq.design.models.lindip import linear_of, model_of, retrain
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform
from ctuq.uncertainty.estimate import estimate
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays

SIZE = 12
NETWORK = UNetOptions(channels=(4, 4), skips=(2,))
OPTIONS = LinDIPOptions(dip=DIPOptions(network=NETWORK, iterations=80), warm_iterations=50)


@pytest.fixture(scope="module")
def measured():
    """Five of ten views of a square."""
    geometry = ParallelBeam(angles=np.arange(10) * np.pi / 10, columns=17, pixel=1.0)
    A = ray_transform(VolumeGrid((SIZE, SIZE), 1.0), geometry, backend="matrix")
    image = torch.zeros(SIZE, SIZE)
    image[3:8, 4:9] = 0.5
    y = A(image) + 0.05 * torch.randn(10, 17, generator=torch.Generator().manual_seed(0))
    views = np.arange(0, 10, 2)
    return Measurements(A, views, y[views], torch.ones(5, 17))


@pytest.fixture(scope="module")
def fit(measured):
    return retrain(measured, OPTIONS)


def dense_prior(linear, fitted):
    """``F C F^T`` and the floors by brute force, float64."""
    F = torch.eye(SIZE**2, dtype=torch.float64) if linear.factor.basis is None else linear.factor.basis.double()
    return F @ linear.prior.mixing(fitted.evidence.psi) @ F.T + linear.misfit(fitted.evidence.psi).matrix()


def test_covariance_of_the_image_is_that_of_the_linear_model(measured, fit):
    fitted, linear = fit
    model = model_of(linear, fitted)
    assert isinstance(model.covariance, DenseCovariance) and "exact in image space" in model.note
    torch.testing.assert_close(model.covariance.matrix, dense_prior(linear, fitted))
    assert model.sigma2 == fitted.evidence.sigma2


def test_the_jacobian_behind_it_is_the_networks(measured, fit):
    fitted, linear = fit
    generate = lindip._generator_of(fitted, OPTIONS.dip)
    _, jacobian = jacobian_of(*generate.module(fitted.parameters))
    J = float(generate.scale[0]) * jacobian.dense().double().reshape(SIZE**2, -1)
    expected = fitted.evidence.psi[0].exp() * J @ J.T + linear.misfit(fitted.evidence.psi).matrix()
    gap = model_of(linear, fitted).covariance.matrix - expected
    assert float(gap.norm() / expected.norm()) < 1e-5


def test_given_the_measured_views_it_is_the_posterior_of_the_product(measured, fit):
    fitted, linear = fit
    posterior = ImagePosterior(SolvedRays.on(linear, fitted.evidence.point), rng=torch.Generator())
    state = DesignState.empty(17)
    problem = DesignProblem(A=measured.A)
    state = replace(state, views=measured.views, projections=measured.y.numpy(), weights=measured.weights.numpy())
    given = Designer(problem, model_of(linear, fitted), state=state).conditioned
    torch.testing.assert_close(given.covariance(), posterior.covariance(), rtol=1e-4, atol=1e-4 * float(given.variance.max()))
    torch.testing.assert_close(given.variance.sqrt().reshape(SIZE, SIZE), posterior.std(), rtol=1e-4, atol=0)


def test_scales_of_held_out_views_widen_covariance_and_noise(measured):
    options = LinDIPOptions(dip=OPTIONS.dip, held_out=2)
    fitted, linear = retrain(measured, options)
    model = model_of(linear, fitted)
    torch.testing.assert_close(model.covariance.matrix, fitted.scales.image * dense_prior(linear, fitted))
    assert model.sigma2 == pytest.approx(fitted.scales.noise * fitted.evidence.sigma2)
    assert fitted.scales.log_image_sd < np.inf


def test_covariance_that_does_not_fit_becomes_a_factor_near_it(measured, fit):
    fitted, whole = fit
    options = LinDIPOptions(dip=OPTIONS.dip, memory=0, rank=120)
    linear = linear_of(measured, fitted, options)
    model = model_of(linear, fitted)
    assert isinstance(model.covariance, FactorCovariance)
    eye, exact = torch.eye(SIZE**2, dtype=torch.float64), dense_prior(whole, fitted)
    torch.testing.assert_close(model.covariance.times(eye), dense_prior(linear, fitted), rtol=1e-6, atol=1e-12)
    assert float((model.covariance.times(eye) - exact).norm() / exact.norm()) < 0.01
    assert "rank 120" in model.note


def test_fit_restored_without_fitting_gives_the_same_model(measured):
    dip = LinearisedDIP(LinDIPOptions(dip=OPTIONS.dip, prior="g"))
    model = dip(measured)
    again = LinearisedDIP(dip.options, dip.fitted).restored(measured)
    torch.testing.assert_close(again.covariance.matrix, model.covariance.matrix, rtol=1e-4, atol=1e-9)
    assert again.sigma2 == model.sigma2
    assert again.hyperparameters == model.hyperparameters


def test_next_fit_starts_from_the_weights_of_the_last(measured, fit):
    fitted, _ = fit
    options = LinDIPOptions(dip=OPTIONS.dip, warm_iterations=1)
    warm, _ = retrain(measured, options, warm=fitted)
    cold, _ = retrain(measured, LinDIPOptions(dip=DIPOptions(network=NETWORK, iterations=1)))
    assert float((warm.image - fitted.image).norm()) < 0.05 * float((cold.image - fitted.image).norm())
    torch.testing.assert_close(warm.inputs, fitted.inputs)


def test_image_is_the_prior_mean_and_the_tangent_at_the_weights(fit):
    fitted, linear = fit
    generate = lindip._generator_of(fitted, OPTIONS.dip)
    _, jacobian = jacobian_of(*generate.module(fitted.parameters))
    image = model_of(linear, fitted).mean + float(generate.scale[0]) * jacobian(jacobian.weights[None])[0]
    torch.testing.assert_close(image, fitted.image, rtol=1e-5, atol=1e-6)


def test_sum_has_both_covariances_at_factors_that_raise_the_evidence(measured, fit):
    fitted, linear = fit
    dip = model_of(linear, fitted)
    edges = Edges()(measured)
    total = Sum((lambda m: dip, lambda m: edges))(measured)
    a, b = (total.hyperparameters[f"factor {i}"] for i in (1, 2))
    expected = a * dip.covariance.matrix + b * edges.covariance.matrix
    torch.testing.assert_close(total.covariance.matrix, expected, rtol=1e-8, atol=1e-12)
    M = torch.from_numpy(measured.matrix().toarray())
    t = measured.target() - M @ dip.mean.flatten().double()

    def evidence(x, y, sigma2):
        K = M @ (x * dip.covariance.matrix + y * edges.covariance.matrix) @ M.T + sigma2 * torch.eye(
            len(t), dtype=torch.float64
        )
        return float(torch.distributions.MultivariateNormal(torch.zeros_like(t), K).log_prob(t))

    best = evidence(a, b, total.sigma2)
    for change in ((1.3, 1, 1), (0.7, 1, 1), (1, 1.3, 1), (1, 0.7, 1), (1, 1, 1.3), (1, 1, 0.7)):
        assert evidence(a * change[0], b * change[1], total.sigma2 * change[2]) < best + 0.01


def test_named_learners_are_of_the_priors_they_name(measured):
    options = LinDIPOptions(dip=DIPOptions(network=NETWORK, iterations=10))
    assert "variance" in learner("lindip", dip=options)(measured).hyperparameters
    assert "g" in learner("gprior", dip=options)(measured).hyperparameters
    assert {"factor 1", "factor 2"} <= set(learner("lindip+edges", dip=options)(measured).hyperparameters)


def test_what_design_does_not_ask_is_not_computed(measured, monkeypatch):
    """No view is predicted from all others, no ray solved where nothing is held out; the numbers are the product's."""

    def never(*args, **kwargs):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(SolvedRays, "on", never)
        fitted, linear = retrain(measured, OPTIONS)
    found = estimate(linear, measured.y, np.zeros(0, np.int64), rng=torch.Generator().manual_seed(5))
    torch.testing.assert_close(fitted.evidence.psi, found.evidence.psi)
    with monkeypatch.context() as patch:
        patch.setattr("ctuq.uncertainty.estimate.leave_one_out", never)
        fitted, linear = retrain(measured, LinDIPOptions(dip=OPTIONS.dip, held_out=2))
    held = lindip._held(measured, 2)
    found = estimate(linear, measured.y, held)
    assert fitted.scales == found.scales
    added = fitted.image - linear.image
    torch.testing.assert_close(added, found.correction.float(), rtol=1e-4, atol=1e-6)
