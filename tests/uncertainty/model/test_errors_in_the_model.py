"""Systematic errors as a part of the linear model, against dense algebra."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from images import prior_covariance, rays_matrix, some_point

from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.priors.sensitivity import derivatives
from ctuq.systematics.block import Block
from ctuq.uncertainty.calibration.held_out import HeldOut
from ctuq.uncertainty.calibration.scales import Scales, learn_scales
from ctuq.uncertainty.estimate import fit_evidence
from ctuq.uncertainty.model.left_out import Beside, LeftOut
from ctuq.uncertainty.model.linear import image_model
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays

SCALE = 0.04


def close(a, b, tolerance=1e-5):
    return float((a - b).norm()) <= tolerance * float(b.norm())


@pytest.fixture
def blocks(tiny):
    """One number of known size, and one of each view whose size is learned."""
    A, y, _, image, _ = tiny
    p = A(image).double()
    views = torch.eye(len(y), dtype=torch.float64).repeat_interleave(y.shape[1], 0)
    return Block("axis", -p.square().reshape(-1, 1) / p.max(), 0.1, False), Block("flux", -views, 0.01, True)


@pytest.fixture
def build(tiny, blocks):
    def made(chosen=blocks, rank=64, y=None):
        A, measured, weights, image, jacobian = tiny
        rng = torch.Generator().manual_seed(0)
        given = {"image": image, "jacobian": jacobian, "scale": SCALE, "prior": "isotropic", "rank": rank, "rng": rng}
        return image_model(A, measured if y is None else y, weights, **given).with_errors(chosen)

    return made


def written_out(model, point):
    """Rays of image and errors (m, d + e), and the prior covariance of both."""
    root, d = model.precision.sqrt(), model.image.numel()
    N = model.features.basis[:, model.factor.rank :] / root[:, None]
    H = torch.cat([rays_matrix(model), N], 1)
    C = model.prior.mixing(point.psi)
    rank = model.factor.rank
    assert float(C[:rank, rank:].abs().max()) == 0
    small = replace(model, prior=replace(model.prior, errors=()))
    S = prior_covariance(small, torch.cat([point.psi[:3], point.psi[4:]]))
    return H, torch.block_diag(S, C[rank:, rank:]), point.sigma2[0] / model.precision, d


def dense_posterior(model, point, rows=None):
    H, S, noise, _ = written_out(model, point)
    if rows is not None:
        H, noise = H[rows], noise[rows]
    K = H @ S @ H.T + torch.diag(noise)
    return S - S @ H.T @ torch.linalg.solve(K, H @ S)


@pytest.mark.parametrize("rank", [64, 20])
def test_joint_posterior_of_image_and_errors_is_the_textbook_formula(rank, build, rng):
    model = build(rank=rank)
    point = some_point(model, floors=(1e-5, 0.05))
    found, d = ImagePosterior(SolvedRays.on(model, point), rng=rng), model.image.numel()
    P = dense_posterior(model, point)
    assert close(found.covariance(), P[:d, :d], 1e-4)
    assert close(found.std().flatten(), P.diagonal()[:d].sqrt(), 1e-4)
    assert close(found.given.errors()[1], P[d:, d:], 1e-4)
    assert close(found.errors()[2], P[d:, :d], 1e-4)


def test_means_of_the_errors_are_the_textbook_formula(build):
    model = build()
    point = some_point(model)
    H, S, noise, d = written_out(model, point)
    K = H @ S @ H.T + torch.diag(noise)
    mean = S @ H.T @ torch.linalg.solve(K, model.target / model.precision.sqrt())
    given = SolvedRays.on(model, point)
    assert close(given.errors()[0], mean[d:], 1e-4)
    assert close(given.mean().flatten(), mean[:d], 1e-4)


def test_components_derivatives_and_evidence_are_brute_force_s(build, rng):
    model = build()
    point = some_point(model)
    H, S, noise, _ = written_out(model, point)
    root = model.precision.sqrt()
    K = H @ S @ H.T * root[:, None] * root
    own = torch.tensordot(model.prior.coefficients(point.psi), model.components(), 1)
    assert close(own, K)
    latent = model.features.dense()
    assert close(torch.stack(list(model.prior.components(latent))), model.components())
    value = ExactExpectation(model.problem(), model.prior, components=model.components())(point).log_evidence
    t = model.target / root
    exact = torch.distributions.MultivariateNormal(torch.zeros_like(t), H @ S @ H.T + torch.diag(noise)).log_prob(t)
    assert value == pytest.approx(float(exact), rel=1e-8)
    vectors = torch.randn(2, model.features.domain.size, generator=rng, dtype=torch.float64)
    assert model.prior.names[3] == "flux"
    move = torch.zeros_like(point.psi)
    move[3] = 1e-4
    change = model.prior.covariance(vectors, point.psi + move) - model.prior.covariance(vectors, point.psi - move)
    assert close(list(derivatives(model.prior, point.psi, vectors))[3], change / 2e-4, 1e-6)


def given_image(model, point, times=1.0):
    """Covariance of the errors if the image were known; known variances times a number."""
    H, S, noise, d = written_out(model, point)
    factors = torch.cat([torch.full((b.columns.shape[1],), 1 if b.learned else times) for b in model.blocks])
    prior = factors * S[d:, d:].diagonal()
    return torch.linalg.inv(torch.diag(1 / prior) + H[:, d:].T @ (H[:, d:] / noise[:, None]))


@pytest.mark.parametrize("kind", ["one by one", "beside"])
def test_left_out_rays_are_predicted_with_their_errors(kind, build):
    model = build(rank=20)
    point = some_point(model, floors=(1e-5, 0.05))
    rows = (model.views == 4).nonzero()[:, 0]
    others = (model.views != 4).nonzero()[:, 0]
    given = SolvedRays.on(model, point)
    left = LeftOut.of(given, rows) if kind == "one by one" else Beside.of(given, rows, noise_by="float64")
    H, S, noise, _ = written_out(model, point)
    P = dense_posterior(model, point, others)
    T = H[rows] @ P @ H[rows].T + torch.diag(noise[rows])
    assert close(left.variances(torch.arange(len(rows))), T.diagonal() / noise[rows], 1e-4)
    t, K = model.target / model.precision.sqrt(), H[others] @ S @ H[others].T + torch.diag(noise[others])
    innovation = t[rows] - H[rows] @ S @ H[others].T @ torch.linalg.solve(K, t[others])
    assert close(left.innovations(torch.arange(len(rows))), innovation / noise[rows].sqrt(), 1e-4)


def test_joint_samples_have_the_joint_covariance(build, rng):
    model = build()
    point = some_point(model, floors=(1e-5, 0.05))
    images, errors = ImagePosterior(SolvedRays.on(model, point), rng=rng).joint_deviations(20000, rng=rng)
    P, both = dense_posterior(model, point), torch.cat([images.flatten(1), errors], 1).double()
    size = P.diagonal().sqrt()
    found = both.T @ both / len(both) / size / size[:, None]
    assert float((found - P / size / size[:, None]).abs().max()) < 0.05


def test_the_image_is_as_unsure_as_an_error_that_hides_in_it(build, tiny, rng):
    A, _, _, image, _ = tiny
    pattern = image.double() - image.double().mean()
    before = None
    for width in (1e-3, 1.0, 3.0):
        hidden = Block("axis", A(pattern.float()).double().reshape(-1, 1), width, False)
        model = build([hidden])
        found = ImagePosterior(SolvedRays.on(model, some_point(model)), rng=rng)
        if before is None:
            before = found.covariance()
            continue
        sd = float(found.given.errors()[1].sqrt())
        assert 0.5 * width < sd <= width  # the rays hardly tell it from the image
        share = pattern.flatten() @ (found.covariance() - before) @ pattern.flatten() / pattern.square().sum() ** 2
        assert float(share.sqrt()) == pytest.approx(sd, rel=0.3)  # and the image moves along it, the other way
        assert float(found.errors()[2] @ pattern.flatten()) < 0


@pytest.mark.parametrize("rank", [64, 20])
def test_a_hidden_error_moves_the_image_as_the_estimator_moves_with_the_rays(rank, build, blocks, rng):
    """By brute force: an error's rays, given to the linear estimator, whose image is then wrong by that much."""
    hidden, a = replace(blocks[0], name="hardening", hidden=True), 4.0
    model = build([hidden, blocks[1]], rank=rank)
    point = some_point(model, floors=(1e-5, 0.05))
    plain = build([blocks[1]], rank=rank)
    H, S, noise, d = written_out(plain, point)
    P, N = dense_posterior(plain, point), hidden.columns[model.rays]
    moved = hidden.width * (S @ H.T @ torch.linalg.solve(H @ S @ H.T + torch.diag(noise), N))
    own = given_image(plain, point)
    P[d:, d:] += own / a - own
    expected = P + moved @ moved.T / a
    found = ImagePosterior(SolvedRays.on(model, point), rng=rng, scale=a)
    assert close(found.covariance(), expected[:d, :d], 1e-4)
    assert close(found.std().flatten(), expected.diagonal()[:d].sqrt(), 1e-4)
    mean, covariance, cross = found.errors()
    assert float(mean[-1]) == 0 and float(covariance[-1, -1]) == pytest.approx(hidden.width**2 / a)
    assert close(covariance[:-1, :-1], expected[d:, d:], 1e-4)
    assert close(cross[-1:], -hidden.width * moved[:d].T / a, 1e-4)
    images, errors = found.joint_deviations(20000, rng=rng)
    both = torch.cat([images.flatten(1), errors], 1).double()
    exact = torch.cat([torch.cat([expected[:d, :d], cross.T], 1), torch.cat([cross, covariance], 1)])
    size = exact.diagonal().sqrt()
    assert float(((both.T @ both / len(both) - exact) / size / size[:, None]).abs().max()) < 0.05


def test_what_is_known_of_an_error_is_not_scaled_with_the_image(build, rng):
    model, a = build(), 7.0
    point = some_point(model)
    scaled = ImagePosterior(SolvedRays.on(model, point).with_errors_over(a), rng=rng)
    H, S, noise, d = written_out(model, point)
    S = a * S
    S[d:, d:] = torch.diag(torch.cat([S[d:, d:].diagonal()[:-1], S[d:, d:].diagonal()[-1:] / a]))
    K = H @ S @ H.T + a * torch.diag(noise)
    P = S - S @ H.T @ torch.linalg.solve(K, H @ S)
    assert close(a * scaled.covariance(), P[:d, :d], 1e-4)
    assert close(a * scaled.given.errors()[1], P[d:, d:], 1e-4)


def test_the_scale_of_the_image_is_that_of_what_the_image_makes_of_errors(build, rng):
    """Of an image that is off by ``a P``, and errors that rays tell beside it: the law of total variance, written out."""
    model, a = build(), 7.0
    point = some_point(model, floors=(1e-5, 0.05))
    found = ImagePosterior(SolvedRays.on(model, point).with_errors_over(a), rng=rng, scale=a)
    small = replace(model, prior=replace(model.prior, errors=found.model.prior.errors))
    H, _, noise, d = written_out(small, point)
    P, V = dense_posterior(small, point)[:d, :d], given_image(small, point, a)
    told = given_image(small, point) @ H[:, d:].T / noise
    by_image = told @ H[:, :d]
    expected = V + a * by_image @ P @ by_image.T
    assert 0.1 < float(V.trace() / expected.trace()) < 0.9
    _, covariance, cross = found.errors()
    assert close(a * covariance, expected, 1e-4)
    assert close(cross, -by_image @ P, 1e-4)
    images, errors = found.joint_deviations(20000, rng=rng)
    both = torch.cat([images.flatten(1), errors], 1).double()
    exact = torch.cat([torch.cat([P, cross.T], 1), torch.cat([cross, expected / a], 1)])
    size = exact.diagonal().sqrt()
    assert float(((both.T @ both / len(both) - exact) / size / size[:, None]).abs().max()) < 0.05


def test_a_block_never_lowers_the_largest_evidence(build, blocks, rng):
    every = torch.ones(len(build(()).target), dtype=torch.bool)
    best = {}
    for name, chosen in (("none", ()), ("flux", blocks[1:])):
        best[name] = fit_evidence(build(chosen), every, rng=rng, floor_shape=0.0).value
    assert best["flux"] >= best["none"] - 1e-3


def test_the_evidence_finds_the_size_of_an_error_of_each_view(build, blocks, tiny, rng):
    y = tiny[1]
    flux = 0.5 * torch.randn(len(y), generator=rng)
    model = build(blocks[1:], y=y - flux[:, None])
    found = fit_evidence(model, torch.ones(len(model.target), dtype=torch.bool), rng=rng)
    mean, covariance = SolvedRays.on(model, found.point).errors()
    assert float(found.psi[3].exp()) == pytest.approx(float(flux.square().mean()), rel=0.6)
    used = [v for v in range(len(y)) if v in model.views.tolist()]
    z = (mean - flux)[used] / covariance.diagonal().sqrt()[used]
    assert float(z.square().mean().sqrt()) < 2
    assert float((mean - flux)[used].norm()) < 0.3 * float(flux[used].norm())


def test_evidence_from_samples_learns_the_size_that_the_exact_one_learns(build, blocks, tiny, rng):
    y = tiny[1] - 0.3 * torch.randn(len(tiny[1]), 1, generator=rng)
    model = build([*blocks, replace(blocks[0], name="hardening", hidden=True)], y=y)
    every = torch.ones(len(model.target), dtype=torch.bool)
    exact, sampled = (fit_evidence(model, every, rng=rng, method=name) for name in ("dense", "em"))
    assert float(sampled.psi[3] - exact.psi[3]) == pytest.approx(0, abs=0.5)
    assert sampled.value == pytest.approx(exact.value, abs=3 + 3 * sampled.error)


@pytest.mark.parametrize("kind", ["one by one", "beside"])
def test_held_out_rays_are_predicted_as_by_a_fit_to_rays_without_the_errors(kind, build, tiny):
    """The errors that the others tell; of the image, what the plain linear estimator makes of their rays."""
    model = build(rank=20)
    point = some_point(model, floors=(1e-5, 0.05))
    given = SolvedRays.on(model, point)

    def without(rows):
        return LeftOut.of(given, rows) if kind == "one by one" else Beside.of(given, rows, noise_by="float64")

    held = HeldOut.of(without, model, tiny[1], np.array([4, 7]), float(point.sigma2[0]), most=1000)
    rows, others = ((torch.isin(model.views, torch.tensor([4, 7])) == wanted).nonzero()[:, 0] for wanted in (True, False))
    H, S, noise, d = written_out(model, point)
    t = model.target / model.precision.sqrt()
    errors = (S @ H[others].T @ torch.linalg.solve(H[others] @ S @ H[others].T + torch.diag(noise[others]), t[others]))[d:]
    A, Sx, N = H[:, :d], S[:d, :d], H[:, d:]
    left, taken = tiny[1].flatten()[model.rays].double() - A @ model.image.double().flatten(), torch.zeros(len(A)).double()
    for s in (slice(0, len(errors) - 1), slice(len(errors) - 1, len(errors))):
        rays = N[:, s] @ errors[s]
        taken += (1 - (model.precision * rays * left).sum() / (model.precision * rays * rays).sum()).clamp(0, 1) * rays
    absorbed = Sx @ A.T @ torch.linalg.solve(A @ Sx @ A.T + torch.diag(noise), taken)
    assert close(held.left.errors(), errors, 1e-4)
    assert close(held.absorbed, absorbed, 1e-4)
    predicted = A[rows] @ (model.image.double().flatten() - absorbed) + N[rows] @ errors
    assert close(held.predicted, predicted, 1e-4)


@pytest.mark.parametrize("kind", ["one by one", "beside"])
def test_a_held_out_view_s_own_error_says_nothing_of_the_image_s_scale(kind, build, tiny):
    """Of rectangles the scale was 1.4 beside flux of ten times the noise and 4.9 at the noise's own; without its share, 6.1."""
    scan, views = tiny[1].double(), np.array([4, 7])
    y = scan.clone()
    y[views] -= torch.tensor([[0.3], [-0.2]], dtype=torch.float64)
    point, found = some_point(build(rank=20), floors=(1e-5, 0.05)), []
    for rays in (scan, y):
        model = build(rank=20, y=rays)
        given = SolvedRays.on(model, point)

        def without(rows, given=given):
            return LeftOut.of(given, rows) if kind == "one by one" else Beside.of(given, rows, noise_by="float64")

        found.append(HeldOut.of(without, model, rays, views, float(point.sigma2[0]), most=1000))
    assert close(found[1].predicted, found[0].predicted, 1e-9)
    assert float((found[1].measured - found[0].measured).abs().max()) > 0.15
    plain, wrong = (held.facts() for held in found)
    for a, b in ((plain[i], wrong[i]) for i in range(3)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(plain[3].residual, wrong[3].residual, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(plain[3].variance, wrong[3].variance, rtol=1e-5)
    assert learn_scales(*plain).image == pytest.approx(learn_scales(*wrong).image)
    # Rays are foretold with the error in them, which no scale of the image multiplies.
    own = float(point.psi[3].exp())
    assert found[0].own.numpy() == pytest.approx(own, rel=1e-6)
    told = found[0].calibration(Scales(9.0, 1.0, 0.0, 0.0)).predictions[3] ** 2
    whole = found[0].on_detector(9 * (found[0].signal - own) + own + found[0].noise)
    np.testing.assert_allclose(told, whole, rtol=1e-4)


def test_what_was_taken_out_of_the_rays_is_counted_once(build, blocks, tiny):
    """Errors are those of the whole, and the image holds what is left of them alone."""
    flux = torch.linspace(-0.02, 0.03, len(tiny[1]), dtype=torch.float64)
    taken = (blocks[1].columns @ flux).reshape(tiny[1].shape)
    plain = build()
    freed = build((), y=tiny[1].double() - taken).with_errors(blocks, {"flux": flux})
    assert close(freed.target, plain.target, 1e-6)
    point = some_point(plain)
    before, after = SolvedRays.on(plain, point), SolvedRays.on(freed, point)
    assert close(after.errors()[0], before.errors()[0], 1e-6)
    assert close(after.errors()[1], before.errors()[1], 1e-9)
    whole = torch.cat([flux, flux.new_zeros(1)])
    assert close(freed.taken, whole, 1e-12)
    assert float(after.absorbed(whole).abs().max()) < 1e-12 < float(before.absorbed(whole).abs().max())
    assert close(freed.with_errors(()).target, build((), y=tiny[1].double() - taken).target, 1e-6)
    rows = (freed.views == 4).nonzero()[:, 0]
    left = LeftOut.of(after, rows)
    absorbed, rays = left.systematic()
    assert close(rays, freed.features.basis[rows, freed.factor.rank :] @ (left.errors() - whole), 1e-9)
    assert close(absorbed, after.absorbed(left.errors()), 1e-9)
