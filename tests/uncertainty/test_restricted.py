"""The network's Laplace approximation with less in it, beside closed forms."""

import pytest
import torch
from images import prior_covariance, rays_matrix, some_point
from torch import nn

from ctuq.errors import InputError
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.uncertainty.estimate import Evidence, fit_evidence
from ctuq.uncertainty.model.linear import image_model
from ctuq.uncertainty.model.route import route
from ctuq.uncertainty.restricted import PlugIn, diagonal_deviations, restricted, routed

SCALE = 0.04


def plug_in_by_hand(model, weights, point):
    """Misfit of the image as it is, the weights' own penalty, and the determinant of the rays' covariance."""
    M, noise = rays_matrix(model), point.sigma2[0] / model.precision
    K = M @ prior_covariance(model, point.psi) @ M.T + torch.diag(noise)
    residual = (model.target - model.matrix((model.image.double() - model.mean).reshape(1, -1))[0]) / model.precision.sqrt()
    variance = model.prior.of_weights(point.psi).exp()[0]
    penalty = weights.double().square().sum() / variance
    determinant = torch.logdet(2 * torch.pi * K)
    return float(-0.5 * ((residual.square() / noise).sum() + penalty + determinant))


@pytest.mark.parametrize("rank", [64, 20])
def test_the_plug_in_evidence_has_the_trained_weights_in_it(rank, make, tiny):
    model, weights = make(rank=rank), tiny[4].weights
    found, point = PlugIn(model, weights), some_point(model)
    assert found.value_and_slope(point)[0] == pytest.approx(plug_in_by_hand(model, weights, point), rel=1e-6)


@pytest.mark.parametrize("prior", ["isotropic", "layerwise", "filter", "g"])
def test_its_slope_is_that_of_its_value(prior, make, tiny):
    found = PlugIn(make(prior, 20), tiny[4].weights)
    point = some_point(make(prior, 20))
    _, slope, _ = found.value_and_slope(point)
    for i in range(len(slope)):
        step = torch.zeros(len(slope), dtype=torch.float64)
        step[i] = 1e-4
        ahead, behind = (found.value_and_slope(point.moved(point.vector + s * step))[0] for s in (1, -1))
        assert float(slope[i]) == pytest.approx((ahead - behind) / 2e-4, rel=1e-3, abs=1e-3)


def test_trained_weights_ask_for_another_variance_than_the_evidence_does(make, tiny, rng):
    model = make(rank=20)
    every = torch.ones(len(model.target), dtype=torch.bool)
    exact = fit_evidence(model, every, rng=rng)
    other = fit_evidence(model, every, rng=rng, evidence_by=lambda part: PlugIn(part, tiny[4].weights))
    assert abs(float(other.psi[0] - exact.psi[0])) > 0.1
    assert other.value <= exact.value + 1e-6  # what is told is the exact evidence, and that of the other point is lower


def test_one_layer_alone_has_the_covariance_of_its_own_jacobian(tiny):
    A, y, weights, image, _ = tiny
    rng = torch.Generator().manual_seed(1)
    network = UNet(UNetOptions(channels=(4, 4), skips=(2,)), rng)
    inputs = torch.rand(1, 1, 8, 8, generator=rng)
    names, evidence_by = restricted("last-layer", network)
    assert names == ["out.weight"] and evidence_by is None
    _, jacobian = jacobian_of(network, inputs, parameters=names)
    given = dict(image=image, jacobian=jacobian, scale=SCALE, prior="isotropic", rank=8, rng=rng)
    model = image_model(A, y, weights, **given)
    J = SCALE * jacobian.dense().double().reshape(64, -1)
    F, C = model.factor.basis.double(), model.factor.components[0]
    assert J.shape[1] == 4 and model.factor.missed == 0
    torch.testing.assert_close(F @ C @ F.T, J @ J.T, rtol=1e-4, atol=1e-8)
    way = routed(route(64, 80, 60, 500), "last-layer", network)
    assert way.rank == 4


def test_without_memory_for_the_exact_evidence_plug_in_weights_are_refused():
    network = nn.Conv2d(1, 1, 3)
    way = route(64, 80, 60, 9, memory=0)
    assert not way.exact_evidence
    with pytest.raises(InputError, match="plug-in need the exact evidence"):
        routed(way, "plug-in", network)
    assert routed(way, "laplace", network) is way


def test_a_diagonal_laplace_has_the_variance_of_independent_weights(make, tiny, rng):
    jacobian, model = tiny[4], make()
    point = some_point(model)
    evidence = Evidence(point.psi, float(point.sigma2), 0.0, 0.0, True, "dense")
    draws = diagonal_deviations(model, evidence, jacobian, SCALE, count=2000, rng=rng).double().flatten(1)
    J = SCALE * jacobian.dense().double().reshape(64, -1)
    rays = model.matrix(J.T.contiguous()).T
    variance = 1 / (1 / model.prior.of_weights(point.psi).exp()[0] + rays.square().sum(0) / float(point.sigma2))
    exact = (J.square() * variance).sum(1).sqrt()
    torch.testing.assert_close(draws.std(0), exact, rtol=0.12, atol=0.0)
    with pytest.raises(InputError, match="independent weights"):
        diagonal_deviations(make("filter"), evidence, jacobian, SCALE, count=2, rng=rng)


def test_notes_are_of_kinds_that_there_are():
    from ctuq.pipeline.running.options import KINDS
    from ctuq.uncertainty.restricted import NOTES

    assert set(NOTES) <= set(KINDS["dip"])


def test_all_other_kinds_have_all_weights():
    assert restricted("laplace", nn.Conv2d(1, 1, 3)) == (None, None)
