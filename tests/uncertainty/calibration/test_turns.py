"""Held-out views in turn: against conditioning by hand, and what their scales are then worth."""

import math

import numpy as np
import pytest
import torch

from ctuq.uncertainty.calibration.scales import learn_scales
from ctuq.uncertainty.calibration.turns import LOG_RATIOS, Turns, in_turn


def rays(views: int = 3, columns: int = 7, *, shared: float = 4.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariance in units of the noise, with it, of views that share an error; and the view of each ray."""
    rng = torch.Generator().manual_seed(3)
    root = torch.randn(views * columns, views * columns, generator=rng, dtype=torch.float64)
    common = torch.ones(views * columns, 1, dtype=torch.float64)
    T = root @ root.T / (views * columns) + shared * common @ common.T + torch.eye(views * columns, dtype=torch.float64)
    return T, torch.arange(views).repeat_interleave(columns)


@pytest.mark.parametrize("at", [0, 12, 20, 27, len(LOG_RATIOS) - 1])
def test_each_view_is_conditioned_on_the_others(at: int) -> None:
    T, views = rays()
    residual = torch.randn(len(T), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    off, variance = in_turn(T, residual, views)
    M = T + (math.exp(LOG_RATIOS[at]) - 1) * torch.eye(len(T), dtype=torch.float64)
    for view in range(3):
        own, others = views == view, views != view
        gain = torch.linalg.solve(M[others][:, others], M[others][:, own]).T
        torch.testing.assert_close(off[at, own], residual[own] - gain @ residual[others], rtol=1e-7, atol=1e-7)
        expected = (M[own][:, own] - gain @ M[others][:, own]).diagonal()
        torch.testing.assert_close(variance[at, own], expected, rtol=1e-7, atol=1e-9)


def turns_of(T: torch.Tensor, residual: torch.Tensor, views: torch.Tensor) -> Turns:
    count = len(views.unique())
    return Turns(*(found.reshape(len(LOG_RATIOS), count, -1).numpy() for found in in_turn(T, residual, views)))


@pytest.mark.parametrize("log_ratio", [-14.0, -3.1, 0.4, 9.9, 13.0])
def test_sums_between_and_beyond_the_ratios_are_those_of_the_ratio_itself(log_ratio: float) -> None:
    T, views = rays()
    residual = torch.randn(len(T), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    squares, logs = turns_of(T, residual, views).sums(np.array([log_ratio]))
    inverse = torch.linalg.inv(T + (math.exp(log_ratio) - 1) * torch.eye(len(T), dtype=torch.float64))
    wanted = [0.0, 0.0]
    for view in range(3):
        own = views == view
        block = torch.linalg.inv(inverse[own][:, own])
        variance = block.diagonal()
        off = block @ (inverse @ residual)[own]
        wanted[0] += float((off.square() / variance).sum())
        wanted[1] += float(variance.log().sum())
    assert squares[0] == pytest.approx(wanted[0], rel=0.02)
    assert logs[0] == pytest.approx(wanted[1], abs=0.2)


def test_what_all_views_share_does_not_lengthen_error_bars() -> None:
    """A common offset far beyond the model's: given the others, each view is predicted well, and so would an unseen one be."""
    T, views = rays(4, 60, shared=25.0)
    rng = torch.Generator().manual_seed(6)
    signal = T - torch.eye(len(T), dtype=torch.float64)
    own = signal - 25.0
    residual = torch.linalg.cholesky(own + torch.eye(len(T), dtype=torch.float64)) @ torch.randn(
        len(T), generator=rng, dtype=torch.float64
    )
    residual += 40.0
    columns = (4, 60)
    facts = (residual.reshape(columns).numpy(), signal.diagonal().reshape(columns).numpy(), np.ones(columns))
    alone, together = learn_scales(*facts), learn_scales(*facts, turns_of(T, residual, views))
    assert alone.image > 20
    assert together.image < 2


def test_a_gaussian_that_is_as_the_model_says_keeps_its_scales() -> None:
    T, views = rays(6, 80)
    rng = torch.Generator().manual_seed(7)
    residual = torch.linalg.cholesky(T) @ torch.randn(len(T), generator=rng, dtype=torch.float64)
    shape = (6, 80)
    facts = (residual.reshape(shape).numpy(), (T.diagonal() - 1).reshape(shape).numpy(), np.ones(shape))
    found = learn_scales(*facts, turns_of(T, residual, views))
    assert 1 <= found.image < 1.6
    assert found.noise == pytest.approx(1.0, rel=0.4)
