"""The curve of a hardening beam, least squares with noise of several kinds, and what is for sure inside of an object."""

import math

import numpy as np
import pytest
import torch

from ctuq.systematics.components import solve
from ctuq.systematics.curve import Curve
from ctuq.systematics.material import Parts, first_curve


@pytest.mark.parametrize("curve", [Curve(), Curve(0.02, 0.1, 0.006), Curve(-0.05, 0.08), Curve(0.0, -0.03)])
def test_line_integrals_read_what_they_were_found_from(curve):
    p = np.linspace(0, 3, 50)
    found, slope = curve.line_integrals(curve.read(p))
    np.testing.assert_allclose(found, p, atol=2e-5)
    np.testing.assert_allclose(slope, curve.slope(p), atol=1e-4)
    numeric = (curve.read(p[1:] + 1e-5) - curve.read(p[1:] - 1e-5)) / 2e-5
    np.testing.assert_allclose(curve.slope(p[1:]), numeric, atol=1e-6)


def test_a_curve_that_bends_back_goes_on_as_a_straight_line():
    curve = Curve(0.0, 0.1, 0.0)
    read = np.array([2.4, 2.6, 3.0, 4.0])  # a parabola never reads more than 2.5
    found, slope = curve.line_integrals(read)
    assert (np.diff(found) > 0).all() and slope[-1] == pytest.approx(0.2, rel=0.02)
    assert np.diff(found)[-1] == pytest.approx(1.0 / 0.2, rel=0.02)


def test_factors_are_those_of_least_squares_at_the_sizes_that_are_found():
    rng = torch.Generator().manual_seed(1)
    m, true = 200, torch.tensor([1.0, -2.0], dtype=torch.float64)
    H = torch.randn(m, 2, generator=rng, dtype=torch.float64)
    root = torch.randn(m, 20, generator=rng, dtype=torch.float64)
    fixed = 0.01 * torch.eye(m, dtype=torch.float64)
    kinds = (fixed, torch.eye(m, dtype=torch.float64), root @ root.T)
    K = fixed + 0.04 * kinds[1] + 0.25 * kinds[2]
    y = H @ true + torch.linalg.cholesky(K) @ torch.randn(m, generator=rng, dtype=torch.float64)
    known = torch.zeros(2, dtype=torch.float64)
    found = solve(y, H, kinds, torch.tensor([1.0, 1.0], dtype=torch.float64), known)
    at = fixed + found.sizes[0] * kinds[1] + found.sizes[1] * kinds[2]
    inverse = torch.linalg.inv(at)
    covariance = torch.linalg.inv(H.T @ inverse @ H)
    torch.testing.assert_close(found.covariance, covariance)
    torch.testing.assert_close(found.mean, covariance @ H.T @ inverse @ y)
    assert 0.02 < found.sizes[0] < 0.07 and 0.1 < found.sizes[1] < 0.6
    assert ((found.mean - true).abs() < 4 * found.covariance.diagonal().sqrt()).all()


def test_the_sizes_are_where_the_evidence_is_largest():
    rng = torch.Generator().manual_seed(2)
    m = 60
    H = torch.randn(m, 1, generator=rng, dtype=torch.float64)
    root = torch.randn(m, 10, generator=rng, dtype=torch.float64)
    kinds = (1e-3 * torch.eye(m, dtype=torch.float64), torch.eye(m, dtype=torch.float64), root @ root.T)
    y = 0.3 * torch.randn(m, generator=rng, dtype=torch.float64) + root @ torch.randn(10, generator=rng, dtype=torch.float64)

    def evidence(sizes):
        K = kinds[0] + sizes[0] * kinds[1] + sizes[1] * kinds[2]
        inverse = torch.linalg.inv(K)
        G = H.T @ inverse @ H
        P = inverse - inverse @ H @ torch.linalg.inv(G) @ H.T @ inverse
        return float(-0.5 * (torch.logdet(K) + torch.logdet(G) + y @ P @ y) + 0.5 * math.log(sizes[1]))

    best = solve(y, H, kinds, torch.tensor([1.0, 0.1], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)).sizes.tolist()
    for factor in (0.7, 1.4):
        assert evidence(best) > evidence([best[0] * factor, best[1]])
        assert evidence(best) > evidence([best[0], best[1] * factor])


def test_what_is_inside_lies_two_pixels_from_every_edge_and_from_what_is_denser():
    y, x = np.mgrid[:40, :40] - 19.5
    image = (np.hypot(x, y) < 15) * 1.0 - (np.hypot(x - 6, y) < 3) + (np.hypot(x + 6, y) < 2.5)
    parts = Parts.of(0.05 * image)
    assert parts.level == pytest.approx(0.05) and parts.rough == 0
    assert (parts.inside | parts.air | parts.loose).all() and not (parts.inside & parts.air).any()
    far = (np.hypot(x, y) < 12) & (np.hypot(x - 6, y) > 6.5) & (np.hypot(x + 6, y) > 8.5)
    assert parts.inside[far].all()
    assert not parts.inside[(np.hypot(x - 6, y) < 4.5) | (np.hypot(x + 6, y) < 4) | (np.hypot(x, y) > 13.6)].any()
    assert parts.share.max() == pytest.approx(2) and parts.edge.max() > 0.3


def test_a_first_curve_is_that_of_the_rays_though_the_edge_is_a_pixel_off():
    lengths = np.concatenate([np.zeros(50), np.linspace(1, 40, 400)])
    p = 0.05 * lengths
    y = 0.01 + p - 0.1 * p**2
    edges = np.where(lengths > 0, 2.0, 0.0)
    curve, attenuation = first_curve(np.maximum(lengths - 0.5 * edges, 0), edges, y, 5.0)
    assert (curve.offset, attenuation) == pytest.approx((0.01, 0.05 - 2 * 0.1 * 0.05 * 0.05), rel=0.02)
    assert curve.c == pytest.approx(0.1, rel=0.05)
