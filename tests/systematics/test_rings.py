"""Gains of columns from what a smooth image leaves of them: trimmed means, the response, and the posterior over sizes."""

import math

import numpy as np
import pytest
import torch

from ctuq.systematics.catalogue import STRONG
from ctuq.systematics.detector import rough, smooth
from ctuq.systematics.rings import Gains, Response, offsets, rim_of, scatter_of, told_gains

COLUMNS, VIEWS = 24, 15


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def plain(columns=COLUMNS):
    """Of an image that takes nothing of any gain."""
    k = rough(columns).shape[1]
    return Response(torch.eye(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64))


def test_rough_waves_are_orthonormal_and_complete():
    basis = rough(COLUMNS)
    torch.testing.assert_close(basis.T @ basis, torch.eye(COLUMNS - 4, dtype=torch.float64))
    smooth = torch.cos(math.pi * (torch.arange(COLUMNS, dtype=torch.float64)[:, None] + 0.5) / COLUMNS * torch.arange(4))
    assert float((basis.T @ smooth).abs().max()) < 1e-12


def test_offsets_are_trimmed_means_of_used_rays(rng):
    residual = normal(rng, 2, VIEWS, 5)
    used = torch.rand(VIEWS, 5, generator=rng) > 0.3
    used[:, 4] = False
    found = offsets(residual, used.expand(residual.shape))
    for b in range(2):
        for j in range(4):
            own = np.sort(residual[b, used[:, j], j].numpy())
            cut = len(own) // 5
            assert float(found[b, j]) == pytest.approx(own[cut : len(own) - cut].mean())
        assert float(found[b, 4]) == 0


def test_a_few_views_along_an_edge_are_no_gain(rng):
    residual = normal(rng, 30, COLUMNS)
    residual[:3, 10] += 100
    used = torch.ones_like(residual, dtype=torch.bool)
    assert abs(float(offsets(residual, used)[10])) < 1
    assert float(residual.mean(0)[10]) > 9


def test_scatter_is_the_variance_of_the_offsets(rng):
    residual = normal(rng, 400, VIEWS, COLUMNS) * 3
    used = torch.ones(VIEWS, COLUMNS, dtype=torch.bool)
    drawn = offsets(residual, used.expand(residual.shape)).var(0).mean()
    told = torch.stack([scatter_of(r, used) for r in residual[:40]]).mean()
    assert float(told / drawn) == pytest.approx(1, abs=0.2)
    used[:, 3] = False
    found = scatter_of(residual[0], used)
    assert bool(found.isfinite().all()) and float(found[3]) > 1e4 * float(found[4])


def test_the_rim_of_a_disc_is_where_its_mean_projection_kinks():
    s = torch.arange(COLUMNS, dtype=torch.float64) - (COLUMNS - 1) / 2
    rays = (64 - s.square()).clamp(min=0).sqrt().expand(VIEWS, -1)
    rim = rim_of(rays)
    assert float(rim.square().mean()) == pytest.approx(1)
    assert {int(i) for i in rim.topk(4).indices} <= {2, 3, 4, 5, 18, 19, 20, 21}
    assert float(rim_of(torch.zeros(VIEWS, COLUMNS, dtype=torch.float64)).abs().max()) == 0


def test_the_response_of_an_image_is_found_from_draws(rng):
    """An image that takes half of all slow waves and nothing of fast ones."""
    basis = rough(COLUMNS)
    k = basis.shape[1]
    taken = torch.linspace(0.5, 1.0, k, dtype=torch.float64)
    draws = normal(rng, 60, COLUMNS) @ basis @ basis.T
    found = Response.of(draws, (draws @ basis * taken) @ basis.T)
    assert float((found.matrix.diagonal() - taken).abs().max()) < 0.1
    assert float(found.rest.max()) < 0.02


def test_of_a_known_size_the_posterior_is_that_of_a_gaussian(rng):
    """``g | m`` of ``m = g + u``, ``g ~ N(0, s D D^T)``, with the rim's misfit integrated over a grid where it is nothing."""
    basis, s = rough(COLUMNS), 4.0
    variance = 0.5 + torch.rand(COLUMNS, generator=rng, dtype=torch.float64)
    left = basis @ (basis.T @ normal(rng, COLUMNS))
    none = torch.zeros(COLUMNS, dtype=torch.float64)
    found = told_gains(left, plain(), variance, none, math.sqrt(s))
    U = basis.T @ torch.diag(variance) @ basis
    inverse = torch.linalg.inv(U + s * torch.eye(len(U), dtype=torch.float64))
    torch.testing.assert_close(found.values, basis @ (s * inverse @ (basis.T @ left)))
    torch.testing.assert_close(found.covariance, basis @ (s * torch.eye(len(U)) - s**2 * inverse) @ basis.T)
    density = torch.distributions.MultivariateNormal
    zero, seen = torch.zeros(len(U), dtype=torch.float64), basis.T @ left
    with_, without = (density(zero, K).log_prob(seen) for K in (U + s * torch.eye(len(U)), U))
    assert found.log_odds == pytest.approx(float(with_ - without))
    assert found.width == pytest.approx(2.0)


def test_gains_are_told_where_there_are_some_and_intervals_hold_them(rng):
    basis = rough(64)
    one, none = torch.full((64,), 0.01, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    noise = basis @ (basis.T @ (0.1 * normal(rng, 64)))
    true = basis @ (basis.T @ (0.5 * normal(rng, 64)))
    assert told_gains(noise, plain(64), one, none).log_odds < 0
    found = told_gains(true + noise, plain(64), one, none)
    assert found.log_odds > STRONG and 0.3 < found.width < 0.8
    held = (found.values - true).abs() < 1.96 * found.covariance.diagonal().sqrt()
    assert float(held.double().mean()) > 0.85


def test_misfits_at_the_rim_are_no_gains():
    basis, rim = rough(64), torch.zeros(64, dtype=torch.float64)
    rim[[10, 11, 52, 53]] = 4.0
    left = basis @ (basis.T @ (0.5 * rim * torch.tensor([1.0, -1.0]).repeat(32)))
    variance = torch.full((64,), 1e-4, dtype=torch.float64)
    assert told_gains(left, plain(64), variance, rim).log_odds < 0
    assert told_gains(left, plain(64), variance, torch.zeros_like(rim)).log_odds > STRONG


def test_a_scan_without_noise_is_no_error():
    none = torch.zeros(COLUMNS, dtype=torch.float64)
    found = told_gains(none, plain(), none, none)
    assert bool(found.values.isfinite().all()) and float(found.values.abs().max()) == 0 and found.log_odds < STRONG


def test_what_is_left_of_gains_has_their_covariance_and_their_smooth_part(rng):
    basis, broad = rough(COLUMNS), smooth(COLUMNS)
    torch.testing.assert_close(basis @ basis.T + broad @ broad.T, torch.eye(COLUMNS, dtype=torch.float64))
    root = basis @ basis.T @ normal(rng, COLUMNS, COLUMNS)
    gains = Gains(normal(rng, COLUMNS), root @ root.T, 1.0, 3.0)
    shape = torch.Size((3, COLUMNS))
    block = gains.left(shape)
    rays = block.columns @ block.columns.T
    whole = (root @ root.T + 9 * broad @ broad.T).repeat(3, 3)
    assert float((rays - whole).abs().max()) < 1e-3 * float(whole.abs().max())
    assert block.hidden and block.width == 1 and block.spread is not None
    torch.testing.assert_close(gains.rays(shape)[1], -gains.values)
