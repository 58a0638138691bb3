import numpy as np
import pytest
import torch
from images import prior_covariance, rays_matrix, some_point

from ctuq.laplace.priors.sensitivity import derivatives, pair_products
from ctuq.uncertainty.model.factor import PRIORS

SCALE = 0.04


def close(a, b, tolerance=1e-5):
    return float((a - b).norm()) <= tolerance * float(b.norm())


@pytest.mark.parametrize("rank", [64, 20])
def test_rays_of_weight_zero_are_left_out(rank, make, tiny):
    model = make(rank=rank)
    used = tiny[2].flatten() > 0
    assert not used.all()
    assert model.rays.tolist() == used.nonzero().flatten().tolist()
    assert model.views.tolist() == [ray // 10 for ray in model.rays.tolist()]


@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 0), (20, 2)])
@pytest.mark.parametrize("prior", PRIORS)
def test_components_are_the_rays_prior_covariance(rank, radius, prior, make):
    model = make(prior, rank, radius=radius)
    psi, root = some_point(model).psi, model.precision.sqrt()
    M = rays_matrix(model) * root[:, None]
    K = torch.tensordot(model.prior.coefficients(psi), model.components(), 1)
    assert close(K, M @ prior_covariance(model, psi) @ M.T)
    H = model.features.dense()
    assert close(torch.stack(list(model.prior.components(H))), model.components())
    assert close(H @ model.prior.covariance(H, psi).T, K)


@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 0), (20, 2)])
def test_latent_vectors_are_pushed_to_images_that_the_features_see(rank, radius, make, rng):
    model = make(rank=rank, radius=radius)
    latent = torch.randn(3, model.features.domain.size, generator=rng, dtype=torch.float64)
    rays = model.features.matrix(model.push(latent).flatten(1))
    assert close(model.features(latent), rays, 1e-5)


@pytest.mark.parametrize("radius", [0, 2])
def test_features_are_transposed(radius, make, rng):
    features = make(rank=20, radius=radius).features
    x = torch.randn(2, features.domain.size, generator=rng, dtype=torch.float64)
    y = torch.randn(2, features.range.size, generator=rng, dtype=torch.float64)
    torch.testing.assert_close((features(x) * y).sum(1), (x * features.T(y)).sum(1))


def test_misfits_are_white_pixels_and_displaced_edges(make, tiny):
    model = make()
    down, right = np.gradient(tiny[3].double().numpy())
    slopes = torch.from_numpy(down**2 + right**2).flatten()
    assert close(model.misfit(some_point(model, floors=(0.3, 2.0)).psi).diagonal, 0.3 + 2 * slopes)


def test_misfit_of_a_displaced_edge_is_its_squared_error(make):
    ramp = torch.arange(8.0).expand(8, 8) * SCALE
    shifted = ramp + 0.1 * SCALE  # the same ramp, a tenth of a pixel to the left
    model = make(image=ramp)
    assert close(
        model.misfit(some_point(model, floors=(1e-30, 0.1**2)).psi).diagonal, (shifted - ramp).square().flatten().double()
    )


@pytest.mark.parametrize("prior", PRIORS)
def test_derivatives_of_the_prior_are_those_of_differences(prior, make, rng):
    model = make(prior, rank=20)
    psi, step = some_point(model).psi, 1e-4
    vectors = torch.randn(2, model.features.domain.size, generator=rng, dtype=torch.float64)
    found = list(derivatives(model.prior, psi, vectors))
    for i in (0, 1, len(psi) - 1):
        move = torch.zeros_like(psi)
        move[i] = step
        change = (model.prior.covariance(vectors, psi + move) - model.prior.covariance(vectors, psi - move)) / (2 * step)
        assert close(found[i], change, 1e-4)
    pairs = pair_products(model.prior, psi, vectors)
    torch.testing.assert_close(pairs[0], vectors @ found[0].T)


def test_root_and_precision_belong_to_the_covariance(make, rng):
    prior = make("filter", rank=20).prior
    psi = prior.start()
    x = torch.randn(2, prior.factor.rank + 128, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(prior.root(prior.root_transpose(x, psi), psi), prior.covariance(x, psi), rtol=1e-6, atol=1e-12)
    inner = prior.covariance(prior.precision(x, psi), psi)
    torch.testing.assert_close(inner, x, rtol=1e-3, atol=1e-3)


def test_variation_hyperprior_has_the_variances_of_pixel_differences(make, tiny):
    J = SCALE * tiny[4].dense().double().reshape(64, -1)
    index = torch.arange(64).reshape(8, 8)
    first = torch.cat([index[:, :-1].reshape(-1), index[:-1].reshape(-1)])
    second = torch.cat([index[:, 1:].reshape(-1), index[1:].reshape(-1)])
    for name in ("layerwise", "filter"):
        model = make(name)
        hyper, psi = model.prior.variation(model.image, 1.0), some_point(model).psi
        weights = model.prior.of_weights(psi)
        D = J[first] - J[second]
        total = model.factor.prior.coefficients(weights) @ hyper.variances
        assert close(total, (D * model.factor.prior.covariance(D, weights)).sum(1))
        assert hyper(weights).isfinite()


@pytest.mark.parametrize("radius", [0, 2])
def test_variation_hyperprior_of_directions_is_that_of_the_exact_jacobian(radius, make):
    exact, factor = make(), make(rank=50, radius=radius)
    weights = exact.prior.of_weights(some_point(exact).psi)
    a, b = (float(m.prior.variation(m.image, 10.0)(weights).detach()) for m in (exact, factor))
    assert b == pytest.approx(a, rel=0.02)
