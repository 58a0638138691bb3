import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.baselines.markov import edge_field, smooth_field
from ctuq.baselines.pixels import KernelField, PixelMatern
from ctuq.baselines.variances import learn_variance
from ctuq.uncertainty import gaussian_bars as bars
from ctuq.uncertainty.gaussian_bars import SOFTNESS, best_of, gaussian_bars, learn_edges
from ctuq.uncertainty.model import gaussian as module
from ctuq.uncertainty.model.gaussian import ROUTES, PixelRays
from ctuq.uncertainty.model.omitted import omit

SIGNAL, SIGMA2 = 3e-4, 2e-4


@pytest.fixture(scope="module")
def rays(tiny):
    A, y, weights, image, _ = tiny
    return PixelRays.of(A, y, weights, image)


@pytest.fixture(scope="module")
def exact(rays):
    """Posterior mean and covariance of all rays by brute force, and a field."""
    field = smooth_field(tuple(rays.image.shape), 4.0, torch.device("cpu"))
    M = rays.matrix.dense(0, len(rays.target))
    P = torch.linalg.inv(M.T @ M / SIGMA2 + field.dense_precision() / SIGNAL)
    return field, M, P, P @ (M.T @ rays.target) / SIGMA2


@pytest.fixture(params=list(ROUTES))
def posterior(request, rays, exact, rng):
    return ROUTES[request.param](rays, exact[0], signal=SIGNAL, sigma2=SIGMA2, rng=rng)


def test_every_route_has_the_posterior_of_the_formula(posterior, exact, rng):
    _, _, P, mean = exact
    torch.testing.assert_close(posterior.covariance(), P, rtol=1e-4, atol=1e-4 * float(P.max()))
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-4, atol=1e-5 * float(mean.abs().max()))
    rtol = 6 * posterior.error or 1e-6
    torch.testing.assert_close(posterior.std().flatten(), P.diagonal().sqrt(), rtol=rtol, atol=0)
    n = 4000
    drawn = posterior.draws(n, rng=rng)
    scale = P.diagonal().sqrt()
    assert float(((drawn.T @ drawn / n - P) / torch.outer(scale, scale)).abs().max()) < 6 / n**0.5
    assert posterior.draws(0, rng=rng).shape == (0, 64)
    assert posterior.deviations(3, rng=rng).shape == (3, 8, 8)


def test_standard_deviations_by_draws_say_how_far_off_they_are(rays, exact, rng, monkeypatch):
    monkeypatch.setattr(module, "_EXACT_STD", 0)
    found = ROUTES["rays"](rays, exact[0], signal=SIGNAL, sigma2=SIGMA2, rng=rng)
    off = found.std().flatten() / exact[2].diagonal().sqrt() - 1
    assert 0.01 < float(off.square().mean().sqrt()) < 2 * found.error < 0.1


def test_omitted_rays_are_what_the_others_say_of_them(posterior, rays, exact):
    field, M, _, _ = exact
    rows = torch.tensor([3, 10, 11, 40])
    others = torch.ones(len(M), dtype=torch.bool)
    others[rows] = False
    left, h = M[others], M[rows]
    P = torch.linalg.inv(left.T @ left / SIGMA2 + field.dense_precision() / SIGNAL)
    mean = P @ left.T @ rays.target[others] / SIGMA2
    T = h @ P @ h.T / SIGMA2 + torch.eye(4, dtype=torch.float64)
    found, index = omit(posterior, rows), torch.tensor([0, 2, 3])
    torch.testing.assert_close(found.variances(index), T.diagonal()[index], rtol=1e-3, atol=0)
    torch.testing.assert_close(found.joint(index), T[index][:, index], rtol=1e-3, atol=1e-4)
    off = (rays.target[rows] - h @ mean) / SIGMA2**0.5
    torch.testing.assert_close(found.innovations(index), off[index], rtol=1e-3, atol=1e-3)
    a, b = 1.7, 0.4
    expected = a * P @ h.T @ torch.linalg.solve(a * h @ P @ h.T + b * SIGMA2 * torch.eye(4).double(), off * SIGMA2**0.5)
    torch.testing.assert_close(
        found.correction(off, a, b).flatten(), expected, rtol=2e-3, atol=1e-3 * float(expected.abs().max())
    )


def test_conjugate_gradients_begin_near_the_posterior(rays, exact, rng, monkeypatch):
    """From the prior alone they take more steps: 1.6 times as many of 64 pixels, five to ten times of 16,384."""
    posterior = ROUTES["cg"](rays, exact[0], signal=1e3 * SIGNAL, sigma2=1e-2 * SIGMA2, rng=rng)
    steps, products = {}, posterior.precision_times
    for name, field in (("near", exact[0].with_precision), ("prior", lambda more: exact[0])):
        count = []
        fresh = ROUTES["cg"](rays, exact[0], signal=posterior.signal, sigma2=posterior.sigma2, rng=rng)
        monkeypatch.setattr(fresh, "precision_times", lambda x, count=count: count.append(1) or products(x))
        monkeypatch.setattr(type(exact[0]), "with_precision", lambda self, more, field=field: field(more))
        fresh.solved(exact[1][:4], 1e-3)
        steps[name] = len(count)
    assert steps["near"] < 0.75 * steps["prior"]


def test_a_field_with_more_precision_is_that_of_the_sum(exact, rng):
    more = torch.rand(64, generator=rng, dtype=torch.float64)
    x = torch.randn(3, 64, generator=rng, dtype=torch.float64)
    for field in (exact[0], KernelField(PixelMatern((8, 8), 4.0), torch.device("cpu"))):
        expected = torch.linalg.solve(field.dense_precision() + torch.diag(more), x.T).T
        torch.testing.assert_close(field.with_precision(more).times(x), expected)


def test_omitted_rays_are_told_apart_by_a_share_of_each_pixel(posterior, exact, rng):
    field, M, _, _ = exact
    rows = torch.tensor([3, 10, 11, 40])
    others = torch.ones(len(M), dtype=torch.bool)
    others[rows] = False
    left, h = M[others], M[rows]
    P = torch.linalg.inv(left.T @ left / SIGMA2 + field.dense_precision() / SIGNAL)
    share = torch.rand(8, 8, generator=rng, dtype=torch.float64)
    marked = h * share.flatten()
    index = torch.tensor([0, 2, 3])
    found = omit(posterior, rows).apart(share, index)
    for part, expected in zip(found, (h @ P @ h.T, marked @ P @ h.T, marked @ P @ marked.T), strict=True):
        torch.testing.assert_close(
            part, expected[index][:, index] / SIGMA2, rtol=2e-3, atol=2e-4 * float(expected.max()) / SIGMA2
        )


def test_held_out_views_scale_edges_apart(tiny, rays, exact, rng, monkeypatch):
    """Predictions are those of a posterior of the fitted rays that is longer at edges; what they add to the image is not."""
    share = torch.rand(8, 8, generator=rng, dtype=torch.float64)
    monkeypatch.setattr(bars, "edge_map", lambda image: share)
    y, held_out = tiny[1], np.array([1, 4])
    learned = replace(learn_edges(rays, rays.image), field=exact[0])
    learned = replace(learned, found=replace(learned.found, signal=SIGNAL, noise=SIGMA2))
    found, made = gaussian_bars(rays, learned, y, held_out, route="pixels", by_region=True, rng=rng)
    assert found.edges is not None and found.calibration is not None
    assert found.calibration.edge_ratio == pytest.approx(math.exp(found.edges.log_ratio)) and found.edges.log_ratio != 0
    torch.testing.assert_close(found.posterior.covariance(), exact[2], rtol=1e-6, atol=1e-9)
    fitted = ~torch.isin(rays.views, torch.tensor(held_out))
    M, h, T = exact[1][fitted], exact[1][~fitted], found.edges.root.flatten()
    P = torch.linalg.inv(M.T @ M / SIGMA2 + exact[0].dense_precision() / SIGNAL)
    precision, (a, b) = rays.precision[~fitted], (found.scales.image, found.scales.noise)
    raw, calibrated = (torch.as_tensor(found.calibration.predictions[i]).double().square().flatten() for i in (2, 3))
    torch.testing.assert_close(raw, ((h @ P @ h.T).diagonal() + SIGMA2) / precision, rtol=1e-4, atol=0)
    signal = ((h * T) @ P @ (h * T).T).diagonal()
    torch.testing.assert_close(calibrated, (a * signal + b * SIGMA2) / precision, rtol=1e-4, atol=0)
    off = (rays.target[~fitted] - h @ made.image.flatten().double()) / SIGMA2**0.5
    added = omit(found.posterior, (~fitted).nonzero()[:, 0]).correction(off, a, b)
    torch.testing.assert_close(found.correction, added, rtol=1e-3, atol=1e-5 * float(added.abs().max()))


def test_the_field_of_the_largest_evidence_is_taken_with_its_variances(rays):
    fields = [({"softness (1/mm)": e}, edge_field(rays.image, e)) for e in (1e-4, 1e-2)]
    found = best_of(rays, fields)
    M, one = rays.matrix.dense(0, len(rays.target)), torch.ones_like(rays.target)
    each = [learn_variance(M @ torch.linalg.inv(f.dense_precision()) @ M.T, rays.target, one) for _, f in fields]
    assert found.found.value == pytest.approx(max(v.value for v in each), rel=1e-6)
    assert found.named["variance"] == found.found.signal
    largest = float(rays.image.max())
    assert learn_edges(rays, rays.image).named["softness (1/mm)"] in [pytest.approx(s * largest) for s in SOFTNESS]


@pytest.mark.parametrize("held", [[], [1, 4]])
def test_the_image_is_of_the_fitted_rays_and_the_posterior_of_all(held, tiny, rays, exact, rng):
    y, held_out = tiny[1], np.array(held, dtype=int)
    learned = replace(learn_edges(rays, rays.image), field=exact[0])
    learned = replace(learned, found=replace(learned.found, signal=SIGNAL, noise=SIGMA2))
    found, made = gaussian_bars(rays, learned, y, held_out, route="pixels", rng=rng)
    fitted = ~torch.isin(rays.views, torch.tensor(held_out))
    M = exact[1][fitted]
    P = torch.linalg.inv(M.T @ M / SIGMA2 + exact[0].dense_precision() / SIGNAL)
    expected = (P @ M.T @ rays.target[fitted] / SIGMA2).float()
    torch.testing.assert_close(made.image.flatten(), expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    torch.testing.assert_close(found.posterior.covariance(), exact[2], rtol=1e-6, atol=1e-9)
    assert (found.calibration is None) == (not held)
    if held:
        assert found.calibration.views == (1, 4) and found.scales.image >= 1
        # At scales of 1 image and correction are the mean of all rays.
        rows = (~fitted).nonzero()[:, 0]
        off = (rays.target[rows] - exact[1][rows] @ expected.double()) / SIGMA2**0.5
        whole = made.image.double() + omit(found.posterior, rows).correction(off, 1.0, 1.0)
        torch.testing.assert_close(whole.flatten(), exact[3], rtol=1e-3, atol=1e-4 * float(exact[3].max()))
    assert math.isfinite(found.leave_one_out["log_likelihood"])
