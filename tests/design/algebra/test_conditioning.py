import pytest
import torch
from brute import conditioned, matrices

from ctuq.design import DenseCovariance
from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.covariance import FactorCovariance
from ctuq.design.algebra.rows import ViewRows
from ctuq.errors import InputError
from ctuq.linops.local import localised

ORDER = [3, 1, 6, 0]


def test_block_conditioning_equals_conditioning_from_scratch(start, S, rows, precision, region):
    state = start
    for k, v in enumerate(ORDER):
        state = state.given(v)
        exact = conditioned(S, rows, precision, ORDER[: k + 1])
        torch.testing.assert_close(state.covariance(), exact, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(state.variance, exact.diagonal(), rtol=1e-6, atol=1e-9)
        for u, M in enumerate(matrices(rows)):
            torch.testing.assert_close(state.blocks[u], M @ exact @ M.T, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(state.squared[u], (M @ exact) @ (region * (M @ exact)).T, rtol=1e-6, atol=1e-9)


def test_conditioning_keeps_the_prior_it_started_from(start):
    before = start.blocks.clone(), start.variance.clone()
    start.given(2).given(5)
    assert start.views == ()
    torch.testing.assert_close(start.blocks, before[0], rtol=0, atol=0)
    torch.testing.assert_close(start.variance, before[1], rtol=0, atol=0)


def test_order_of_the_views_does_not_matter(start):
    one, other = start, start
    for v in ORDER:
        one = one.given(v)
    for v in ORDER[::-1]:
        other = other.given(v)
    torch.testing.assert_close(one.blocks, other.blocks, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("scale", "radius"), [(0.0, 0), (0.3, 0), (0.3, 1)])
def test_factor_is_conditioned_as_the_matrix_it_stands_for(rows, precision, region, rng, scale, radius):
    Q = torch.randn(5, rows.size, generator=rng, dtype=torch.float64)
    left = localised(torch.randn(40, rows.size, generator=rng), (1, rows.size), radius)
    beside = left.scaled(scale).plus(scale * torch.rand(rows.size, generator=rng, dtype=torch.float64))
    S = Q.T @ Q + beside.matrix()
    low = GivenViews.start(rows, FactorCovariance(Q, beside), precision, region=region)
    dense = GivenViews.start(rows, DenseCovariance(S), precision, region=region)
    for v in ORDER:
        torch.testing.assert_close(low.blocks, dense.blocks, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(low.squared, dense.squared, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(low.variance, dense.variance, rtol=1e-8, atol=1e-9)
        low, dense = low.given(v), dense.given(v)
    torch.testing.assert_close(low.covariance(), dense.covariance(), rtol=1e-7, atol=1e-9)


def test_measured_precision_replaces_the_planned_one(start, S, rows, precision):
    measured = precision.clone()
    measured[4] *= 7
    state = start.given(4, measured[4])
    torch.testing.assert_close(state.covariance(), conditioned(S, rows, measured, [4]), rtol=1e-8, atol=1e-10)


def test_blocks_stay_accurate_at_a_signal_a_million_times_the_noise(rows, S):
    precision = torch.full((rows.views, rows.rays), 1e6, dtype=torch.float64)
    state = GivenViews.start(rows, DenseCovariance(S), precision)
    for v in range(6):
        state = state.given(v)
    exact = conditioned(S, rows, precision, range(6))
    M = matrices(rows)[7]
    torch.testing.assert_close(state.blocks[7], M @ exact @ M.T, rtol=1e-6, atol=1e-9)


def test_misfits_are_refused(rows, S, precision):
    with pytest.raises(InputError, match="unknowns"):
        GivenViews.start(rows, DenseCovariance(S[:5, :5]), precision)
    with pytest.raises(InputError, match="shape"):
        GivenViews.start(rows, DenseCovariance(S), precision[:3])
    with pytest.raises(InputError, match="finite"):
        GivenViews.start(rows, DenseCovariance(S), precision.log())
    with pytest.raises(InputError, match="equal size"):
        ViewRows(rows._matrix[:-1], rows.views)
