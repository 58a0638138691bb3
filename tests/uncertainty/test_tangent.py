import numpy as np
import pytest
import scipy.stats
import torch

from ctuq.errors import InputError, ResourceError
from ctuq.laplace import Evidence, maximise_dense
from ctuq.linops import memory
from ctuq.uncertainty.tangent import PRIORS, TangentModel, plan

SCALE = 0.04


def dense(tiny):
    """The used rays' matrix, the image's Jacobian, the target and the relative noise, written out in float64."""
    A, y, weights, image, jacobian = tiny
    used = weights.flatten() > 0
    M = torch.from_numpy(A.matrix.toarray()).double()[used]
    J = SCALE * jacobian.dense().double().reshape(64, -1)
    f = image.flatten().double()
    return M, J, y.flatten().double()[used] - M @ (f - J @ jacobian.weights.double()), 1 / weights.flatten().double()[used]


def some_evidence(model, floor=1e-6, displacement=0.05, sigma2=1e-4):
    psi = torch.linspace(-1, 1, len(model.prior.names), dtype=torch.float64)
    shift = torch.log(1e-2 / model.components.diagonal(dim1=1, dim2=2).mean()) * model.prior.is_variance
    return Evidence(psi + shift, (floor, displacement), sigma2, 0.0, (), True)


def textbook(tiny, model, evidence):
    """(S^-1 + M^T R^-1 M)^-1 with the prior covariance S of the image."""
    M, J, _, noise = dense(tiny)
    S = model.prior.covariance(J, evidence.psi) @ J.T + torch.diag(model.misfit(evidence))
    return torch.linalg.inv(torch.linalg.inv(S) + M.T @ (M / (evidence.sigma2 * noise)[:, None]))


def close(a, b, tolerance=1e-5):
    return float((a - b).norm()) <= tolerance * float(b.norm())


@pytest.mark.parametrize("prior", PRIORS)
def test_both_spaces_give_the_same_components_and_target(prior, make, tiny):
    image, projection = make(prior, "image"), make(prior, "projection")
    M, J, target, noise = dense(tiny)
    assert image.components.shape == projection.components.shape
    for model in (image, projection):
        assert close(model.target, target)
        assert close(model.noise, noise)
        psi = some_evidence(model).psi
        K = torch.tensordot(model.prior.coefficients(psi), model.components, 1)
        assert close(K, model.prior.covariance(M @ J, psi) @ (M @ J).T)
    for a, b in zip(image.components, projection.components, strict=True):
        assert close(a, b)


def test_misfits_are_white_pixels_and_displaced_edges(make, tiny):
    M, model = dense(tiny)[0], make()
    down, right = np.gradient(tiny[3].double().numpy())
    slopes = torch.from_numpy(down**2 + right**2).flatten()
    assert close(model.misfits[0], M @ M.T)
    assert close(model.misfits[1], M @ torch.diag(slopes) @ M.T)
    assert close(model.misfit(some_evidence(model, floor=0.3, displacement=2.0)), 0.3 + 2 * slopes)


def test_misfit_of_a_displaced_edge_is_its_squared_error(make, tiny):
    ramp = torch.arange(8.0).expand(8, 8) * SCALE
    shifted = ramp + 0.1 * SCALE  # the same ramp, a tenth of a pixel to the left
    model = make(image=ramp)
    assert close(model.misfit(some_evidence(model, 0.0, 0.1**2)), (shifted - ramp).square().flatten().double())


@pytest.mark.parametrize("space", ["image", "projection"])
def test_rays_of_weight_zero_are_left_out(space, make, tiny):
    model = make(space=space)
    used = tiny[2].flatten() > 0
    assert not used.all()
    assert model.rays.tolist() == used.nonzero().flatten().tolist()
    assert model.view.tolist() == [ray // 10 for ray in model.rays.tolist()]
    assert model.components.shape[1:] == (int(used.sum()),) * 2


@pytest.mark.parametrize("prior", PRIORS)
def test_posterior_in_image_space_is_the_textbook_formula(prior, make, tiny):
    model = make(prior, "image")
    evidence = some_evidence(model)
    assert close(model.posterior(evidence).covariance, textbook(tiny, model, evidence), 1e-4)


@pytest.mark.parametrize("prior", ["isotropic", "filter"])
def test_draws_from_projection_space_have_the_textbook_covariance(prior, make, tiny, rng):
    model = make(prior, "projection")
    evidence = some_evidence(model, floor=1e-4)
    S = textbook(tiny, model, evidence)
    n = 1500
    Z = model.posterior(evidence).deviations(n, rng=rng).double().flatten(1)
    distances = (Z @ torch.linalg.inv(S) * Z).sum(1).numpy()
    assert scipy.stats.kstest(distances, scipy.stats.chi2(64).cdf).pvalue > 1e-3
    miss = (Z.T @ Z / n - S).square().sum() / ((S.square().sum() + S.trace() ** 2) / n)
    assert 1 / 3 < float(miss) < 3


def test_spaces_agree_on_the_evidence(make):
    found = []
    for space in ("image", "projection"):
        model = make("layerwise", space)
        found.append(maximise_dense(model.components, model.target, model.prior, misfits=model.misfits, noise=model.noise))
    assert found[0].value == pytest.approx(found[1].value, abs=0.02)


@pytest.mark.parametrize("prior", ["isotropic", "filter"])
def test_response_is_the_prior_covariance_of_image_and_rays(prior, make, tiny, rng):
    M, J, _, _ = dense(tiny)
    delta = torch.randn(3, len(M), generator=rng, dtype=torch.float64)
    for space in ("image", "projection"):
        model = make(prior, space)
        evidence = some_evidence(model)
        S = model.prior.covariance(J, evidence.psi) @ J.T + torch.diag(model.misfit(evidence))
        assert close(model.respond(evidence, delta).flatten(1), delta @ M @ S)


def test_projection_and_backprojection_are_transposed(make, tiny, rng):
    model, M = make(), dense(tiny)[0]
    images = torch.randn(2, 8, 8, generator=rng)
    rays = torch.randn(3, len(M), generator=rng, dtype=torch.float64)
    assert close(model.project(images), images.flatten(1).double() @ M.T)
    assert close(model.project(images[0]), images[0].flatten().double() @ M.T)
    assert close(model.backproject(rays).flatten(1), rays @ M)


def test_too_little_memory_is_refused_before_any_product(monkeypatch, tiny):
    A, y, weights, image, jacobian = tiny

    def fail(*_):
        raise AssertionError("a product was made")

    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    monkeypatch.setattr(type(jacobian), "_apply_transpose", fail)
    with pytest.raises(ResourceError, match="choose a smaller image"):
        TangentModel(A, y, weights, image=image, jacobian=jacobian, scale=SCALE, prior="isotropic")


def test_unknown_prior_is_refused(tiny):
    A, y, weights, image, jacobian = tiny
    with pytest.raises(InputError, match="isotropic"):
        TangentModel(A, y, weights, image=image, jacobian=jacobian, scale=SCALE, prior="horseshoe")


@pytest.mark.parametrize(
    ("pixels", "rays", "space"),
    [(4096, 10, "image"), (9000, 4500, "image"), (9001, 4500, "projection"), (16384, 900, "projection")],
)
def test_plan_is_exact_for_small_images_and_for_many_rays(pixels, rays, space):
    chosen = plan(pixels, rays, 1000, 1)
    assert chosen.space == space
    assert chosen.rows == (pixels if space == "image" else rays)


def test_memory_of_a_plan_holds_features_and_components():
    for pixels, rays in ((400, 900), (16384, 900)):
        few, many, layers = (plan(pixels, rays, weights, count) for weights, count in ((1000, 1), (2000, 1), (2000, 6)))
        assert many.bytes - few.bytes >= 4 * few.rows * 1000
        assert layers.bytes - many.bytes >= 8 * 5 * rays**2


@pytest.mark.parametrize("prior", ["layerwise", "filter"])
def test_variation_hyperprior_has_the_variances_of_pixel_differences(prior, make, tiny):
    model = make(prior)
    hyper = model.variation_prior(1.0)
    _, J, _, _ = dense(tiny)
    D = torch.zeros(112, 64, dtype=torch.float64)
    index = torch.arange(64).reshape(8, 8)
    pairs = [(index[i, j], index[i, j + 1]) for i in range(8) for j in range(7)]
    pairs += [(index[i, j], index[i + 1, j]) for i in range(7) for j in range(8)]
    for row, (first, second) in enumerate(pairs):
        D[row, first], D[row, second] = 1, -1
    psi = some_evidence(model).psi
    total = model.prior.coefficients(psi) @ hyper.variances
    assert close(total, (D @ (model.prior.covariance(J, psi) @ J.T) * D).sum(1))
    assert len(hyper.owners) == len(model.components)
    assert sorted(set(hyper.owners)) == model.prior.is_variance.nonzero().flatten().tolist()
    assert hyper(psi).isfinite()


def test_variation_hyperprior_needs_image_space(make):
    with pytest.raises(InputError, match="image space"):
        make(space="projection").variation_prior(1.0)
