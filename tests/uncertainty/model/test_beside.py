"""Errors of the scanner that no ray tells, beside the posterior of a Gaussian prior."""

from dataclasses import replace

import pytest
import torch

from ctuq.baselines.markov import smooth_field
from ctuq.systematics.block import Block
from ctuq.uncertainty.calibration.edges import EdgePosterior, EdgeScale
from ctuq.uncertainty.model.beside import BesideHidden
from ctuq.uncertainty.model.gaussian import ROUTES, PixelRays

SIGNAL, SIGMA2, WIDTH = 3e-4, 2e-4, 0.1


@pytest.fixture(scope="module")
def rays(tiny):
    A, y, weights, image, _ = tiny
    return PixelRays.of(A, y, weights, image)


@pytest.fixture(scope="module")
def hidden(tiny):
    A, _, _, image, _ = tiny
    p = A(image.float()).double().reshape(-1, 1)
    return Block("hardening", p.square(), WIDTH, False, hidden=True), Block(
        "scatter", torch.ones_like(p), 0.01, False, hidden=True
    )


@pytest.fixture(params=list(ROUTES))
def plain(request, rays, rng):
    field = smooth_field(tuple(rays.image.shape), 4.0, torch.device("cpu"))
    return ROUTES[request.param](rays, field, signal=SIGNAL, sigma2=SIGMA2, rng=rng)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_covariance_holds_what_each_error_does_to_the_image(plain, hidden, rays, scale, rng):
    """By brute force: rays with a standard deviation of the error more make another mean, and the truth stays."""
    found = BesideHidden.of(plain, hidden, scale)
    moved = []
    for block in hidden:
        more = block.width * block.columns[rays.rays, 0] * rays.precision.sqrt()
        other = type(plain)(replace(rays, target=rays.target + more), plain.field, signal=SIGNAL, sigma2=SIGMA2, rng=rng)
        moved.append(plain.mean - other.mean)
    h = torch.stack(moved)
    whole = plain.covariance() + h.T @ h / scale
    largest = float(whole.abs().max())
    torch.testing.assert_close(scale**0.5 * found.hidden_images().flatten(1), h, rtol=1e-3, atol=1e-4 * float(h.abs().max()))
    torch.testing.assert_close(found.covariance(), whole, rtol=1e-3, atol=1e-4 * largest)
    exact = whole.diagonal().sqrt()
    torch.testing.assert_close(found.std().flatten(), exact, rtol=6 * plain.error + 1e-3, atol=0)
    assert found.hidden == hidden and found.error == plain.error and found.shape == plain.shape


def test_draws_of_image_and_errors_belong_together(plain, hidden, rng):
    scale = 2.5
    found = BesideHidden.of(plain, hidden, scale)
    n = 4000
    images, errors = found.joint_deviations(n, rng=rng)
    assert images.shape == (n, 8, 8) and errors.shape == (n, 2)
    # Scaled, an error has its own width, whatever the image's scale.
    widths = torch.tensor([block.width for block in hidden])
    torch.testing.assert_close(scale**0.5 * errors.std(0), widths, rtol=0.05, atol=0)
    spread = images.double().flatten(1).square().mean(0).sqrt()
    torch.testing.assert_close(spread, found.covariance().diagonal().sqrt(), rtol=0.08, atol=0)
    left = images.double() - found.of_hidden(errors)
    torch.testing.assert_close(left.flatten(1).square().mean(0).sqrt(), plain.covariance().diagonal().sqrt(), rtol=0.08, atol=0)
    assert found.draws(3, rng=rng).shape == (3, 64)
    several = found.deviations(n, rng=rng).double().flatten(1).square().mean(0).sqrt()
    torch.testing.assert_close(several, spread, rtol=0.1, atol=0)


def test_errors_are_not_stretched_at_edges(plain, hidden):
    found, edges = BesideHidden.of(plain, hidden, 2.0), EdgeScale(torch.rand(8, 8, dtype=torch.float64), 1.5)
    stretched = EdgePosterior(plain, edges)
    both = found.around(stretched)
    h = found.hidden_images().flatten(1)
    torch.testing.assert_close(both.hidden_images().flatten(1), h)
    torch.testing.assert_close(both.covariance(), stretched.covariance() + h.T @ h)
    assert both.of_hidden(torch.ones(1, 2)).shape == (1, 8, 8)


def test_without_errors_it_is_the_posterior_itself(plain):
    assert BesideHidden.of(plain, (), 1.0) is plain
