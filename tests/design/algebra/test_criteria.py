import numpy as np
import pytest
import torch
from brute import conditioned, matrices

from ctuq.design import A_OPTIMAL, CRITERIA, DIAGONAL_EIG, EIG, ESE, DenseCovariance, box_region
from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.rows import ViewRows
from ctuq.errors import InputError
from ctuq.tomo import VolumeGrid


def entropy(S):
    """Of a Gaussian, up to a constant."""
    return 0.5 * torch.linalg.slogdet(S)[1]


@pytest.mark.parametrize("measured", [[], [5], [5, 0, 2]])
def test_information_gain_is_the_drop_of_entropy(start, S, rows, precision, measured):
    state = start
    for v in measured:
        state = state.given(v)
    now = entropy(conditioned(S, rows, precision, measured))
    drops = [now - entropy(conditioned(S, rows, precision, [*measured, v])) for v in range(rows.views)]
    torch.testing.assert_close(EIG(state), torch.stack(drops), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("measured", [[], [5, 0, 2]])
def test_a_optimal_gain_is_the_drop_of_variance_in_the_region(start, S, rows, precision, region, measured):
    state = start
    for v in measured:
        state = state.given(v)
    now = conditioned(S, rows, precision, measured).diagonal() @ region
    drops = [now - conditioned(S, rows, precision, [*measured, v]).diagonal() @ region for v in range(rows.views)]
    torch.testing.assert_close(A_OPTIMAL(state), torch.stack(drops), rtol=1e-7, atol=1e-9)


def test_squared_error_is_the_trace_from_posterior_samples(start, S, rows, precision):
    state = start.given(2).given(6)
    counts = (precision > 0).double()
    rng = torch.Generator().manual_seed(1)
    root = torch.linalg.cholesky(conditioned(S, rows, precision, [2, 6]))
    draws = torch.randn(20000, len(S), generator=rng, dtype=torch.float64) @ root.T
    for v, M in enumerate(matrices(rows)):
        squares = ((draws @ M.T).square() * counts[v]).sum(1)
        z = (float(squares.mean()) - float(ESE(state)[v])) / float(squares.std() / len(squares) ** 0.5)
        assert abs(z) < 4


def test_diagonal_gain_is_that_of_independent_rays(start, S, rows, precision):
    ignoring = []
    for v, M in enumerate(matrices(rows)):
        ignoring.append(sum(0.5 * torch.log1p(p * (a @ S @ a)) for p, a in zip(precision[v], M, strict=True)))
    torch.testing.assert_close(DIAGONAL_EIG(start), torch.stack(ignoring))
    assert (DIAGONAL_EIG(start) > EIG(start)).all()


def test_a_view_taken_twice_gains_what_the_algebra_says(start, rows, precision):
    scale = precision[3].sqrt()
    values = torch.linalg.eigvalsh(scale[:, None] * start.blocks[3] * scale).clamp(min=0)
    again = 0.5 * torch.log((1 + 2 * values) / (1 + values)).sum()
    assert float(EIG(start.given(3))[3]) == pytest.approx(float(again), rel=1e-8)
    # Every direction is known at least twice as well as by a single view with no prior: at most log(2) / 2 nats a ray.
    assert float(again) < 0.5 * np.log(2) * rows.rays


def test_rays_that_count_for_nothing_change_no_score(rows, S, precision, region):
    kept = [v * rows.rays + i for v in range(rows.views) for i in range(rows.rays) if i != 4]
    none, fewer = precision.clone(), precision[:, [i for i in range(rows.rays) if i != 4]]
    none[:, 4] = 0
    dead = GivenViews.start(rows, DenseCovariance(S), none, region=region)
    gone = GivenViews.start(ViewRows(rows._matrix[kept], rows.views), DenseCovariance(S), fewer, region=region)
    for criterion in CRITERIA.values():
        torch.testing.assert_close(criterion(dead.given(2)), criterion(gone.given(2)))


def test_order_of_equal_candidates_does_not_change_the_scores(rows, S, precision, region):
    order = torch.tensor([4, 2, 2, 7, 0, 2])
    matrix = np.concatenate([np.arange(v * rows.rays, (v + 1) * rows.rays) for v in order.tolist()])
    again = ViewRows(rows._matrix[matrix], len(order))
    one = GivenViews.start(rows, DenseCovariance(S), precision, region=region).given(4).given(2)
    other = GivenViews.start(again, DenseCovariance(S), precision[order], region=region).given(0).given(5)
    for criterion in CRITERIA.values():
        torch.testing.assert_close(criterion(other), criterion(one)[order], rtol=1e-10, atol=1e-12)


def test_a_optimal_gain_needs_a_region(rows, S, precision):
    with pytest.raises(InputError, match="region"):
        A_OPTIMAL(GivenViews.start(rows, DenseCovariance(S), precision))


def test_box_is_in_mm_and_y_points_up():
    inside = box_region(VolumeGrid((4, 6), 2.0), (0.0, 6.0, 0.0, 2.0))
    assert inside.tolist() == [[False] * 6, [False, False, False, True, True, True], [False] * 6, [False] * 6]
    with pytest.raises(InputError, match="No pixel"):
        box_region(VolumeGrid((4, 6), 2.0), (7.0, 9.0, 0.0, 2.0))
