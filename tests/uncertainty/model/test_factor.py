import pytest
import torch
from images import prior_covariance, rays_matrix, some_point

from ctuq.errors import InputError
from ctuq.uncertainty.model.factor import PRIORS, products_of, rank_of

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
    assert close(prior_covariance(model, psi), weights + model.misfit(psi).matrix())


@pytest.mark.parametrize("prior", PRIORS)
def test_directions_of_the_weights_have_their_images_and_their_share_of_the_prior(prior, make, tiny):
    model, J = make(prior, rank=40), dense_jacobian(tiny)
    factor, psi = model.factor, some_point(model).psi
    if prior in ("isotropic", "layerwise"):
        # Equal weights, of orthonormal directions: the blocks' shares sum to the identity.
        assert close(factor.components.sum(0), torch.eye(40, dtype=torch.float64), 1e-4)
    assert float(torch.linalg.eigvalsh(model.prior.mixing(psi)).min()) > 0
    F, S = factor.basis.double(), J @ J.T
    assert float(torch.linalg.eigvalsh(S - F @ F.T).min()) > -1e-5 * float(S.diagonal().max())


def test_rays_of_the_directions_are_nearly_those_of_the_network(make, tiny):
    J = dense_jacobian(tiny)
    model = make(rank=30)
    A = rays_matrix(model)
    exact, F = A @ J @ J.T @ A.T, A @ model.factor.basis.double()
    values = torch.linalg.eigvalsh(exact).flip(0)
    # The best 30 directions of all leave the sum of the smaller eigenvalues; these leave less than the best 15.
    left = float((exact - F @ F.T).diagonal().sum())
    assert float(values[30:].sum()) <= left * (1 + 1e-6)
    assert left <= float(values[15:].sum())


def test_pixels_stand_for_what_the_directions_miss(make, tiny):
    model, J = make(rank=12), dense_jacobian(tiny)
    F, factor = model.factor.basis.double(), model.factor
    missed = J.square().sum(1) - F.square().sum(1)
    # 64 draws or more of a sum of squares: its relative error is at most (2 / 64)^1/2 = 0.18, and of a pixel's about that.
    assert factor.missed == pytest.approx(float(missed.sum() / J.square().sum()), rel=0.6)
    assert float(factor.rest.diagonal.sum()) == pytest.approx(float(missed.sum()), rel=0.6)
    ratio = factor.rest.diagonal / missed
    assert float(ratio.min()) > 0.4 and float(ratio.max()) < 2
    psi = some_point(model).psi
    assert float(model.prior.floors(psi)[-1]) == pytest.approx(float(psi[0].exp()))


def test_the_target_lies_along_the_directions(make, tiny):
    model = make(rank=5)
    own = SCALE * tiny[4](tiny[4].weights[None]).flatten().double()
    Q = torch.linalg.qr(model.factor.basis[:, :5].double())[0]
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


@pytest.mark.parametrize(
    ("pixels", "rays"), [(256, 100), (1024, 1800), (4096, 1950), (4096, 7800), (16384, 29040), (262144, 15000)]
)
def test_rank_is_of_all_pixels_only_where_that_takes_few_products(pixels, rays):
    rank = rank_of(pixels, rays)
    forward, backward = products_of(pixels, rank, rays)
    assert (rank == pixels) == (forward == 0)
    assert forward + backward <= max(pixels, 2 * 128) + 256
    assert forward + backward <= 2 * 2048 + 256
