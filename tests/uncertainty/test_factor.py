import pytest
import torch
from images import prior_covariance, rays_matrix, some_point

from ctuq.errors import InputError
from ctuq.uncertainty.factor import PRIORS, products_of, rank_of

SCALE = 0.04


def dense_jacobian(tiny):
    return SCALE * tiny[4].dense().double().reshape(64, -1)


def close(a, b, tolerance=1e-5):
    return float((a - b).norm()) <= tolerance * float(b.norm())


@pytest.mark.parametrize("prior", PRIORS)
def test_a_factor_of_all_pixels_is_the_prior_covariance_of_the_network(prior, make, tiny):
    model, J = make(prior), dense_jacobian(tiny)
    psi = some_point(model).psi
    weights = model.factor.prior.covariance(J, model.prior.of_weights(psi)) @ J.T
    assert model.factor.missed == 0
    assert close(model.prior.mixing(psi), weights)
    assert close(prior_covariance(model, psi), weights + torch.diag(model.misfit(psi)))


@pytest.mark.parametrize("prior", PRIORS)
def test_directions_hold_the_network_projected_on_them(prior, make, tiny):
    model, J = make(prior, rank=40), dense_jacobian(tiny)
    factor, psi = model.factor, some_point(model).psi
    Q = factor.basis[:, :40].double()
    assert torch.allclose(Q.T @ Q, torch.eye(40, dtype=torch.float64), atol=1e-5)
    B = Q.T @ J
    weights = factor.prior.covariance(B, model.prior.of_weights(psi)) @ B.T
    assert close(model.prior.mixing(psi)[:40, :40], weights)


def test_pixels_stand_for_what_the_directions_miss(make, tiny):
    model, J = make(rank=12), dense_jacobian(tiny)
    Q, factor = model.factor.basis.double(), model.factor
    missed = J - Q @ (Q.T @ J)
    share = float(missed.square().sum() / J.square().sum())
    # 64 draws of a sum of squares: its relative error is at most (2 / 64)^1/2 = 0.18, and of a pixel's about that.
    assert factor.missed == pytest.approx(share, rel=0.6)
    assert float(factor.rest.sum()) == pytest.approx(float(missed.square().sum()), rel=0.6)
    ratio = factor.rest / missed.square().sum(1)
    assert float(ratio.min()) > 0.4 and float(ratio.max()) < 2
    psi = some_point(model).psi
    assert float(model.prior.floors(psi)[-1]) == pytest.approx(float(psi[0].exp()))


def test_the_target_lies_along_the_directions(make, tiny):
    model = make(rank=5)
    own = SCALE * tiny[4](tiny[4].weights[None]).flatten().double()
    Q = model.factor.basis[:, :5].double()
    assert close(Q @ (Q.T @ own), own, 1e-4)


def test_target_is_the_rays_less_those_of_the_prior_mean(make, tiny):
    model, J = make(), dense_jacobian(tiny)
    mean = tiny[3].flatten().double() - J @ tiny[4].weights.double()
    used = tiny[2].flatten() > 0
    expected = tiny[1].flatten().double()[used] - rays_matrix(model) @ mean
    assert close(model.mean.flatten(), mean)
    assert close(model.target / model.precision.sqrt(), expected)


def test_unknown_prior_is_refused(make):
    with pytest.raises(InputError, match="isotropic"):
        make("horseshoe")


@pytest.mark.parametrize(("pixels", "rays"), [(256, 100), (1024, 1800), (4096, 1950), (16384, 29040), (262144, 15000)])
def test_rank_is_of_all_pixels_only_where_that_takes_few_products(pixels, rays):
    rank = rank_of(pixels, rays)
    forward, backward = products_of(pixels, rank)
    assert rank <= pixels
    assert (rank == pixels) == (forward == 0)
    assert forward + backward <= max(1600, 2 * 640 + 64)
