import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from ctuq.design import A_OPTIMAL, EIG, DenseCovariance
from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.rows import ViewRows
from ctuq.design.strategies import equidistant, exhaustive, golden, nested, random
from ctuq.errors import InputError

ANGLES = np.arange(60) * np.pi / 60


def independent(rng):
    """Six views that see different unknowns, so that gains add and greedy is optimal."""
    rows = ViewRows(sp.csr_array(sp.eye_array(12)), 6)
    S = torch.diag(torch.rand(12, generator=rng, dtype=torch.float64))
    return GivenViews.start(rows, DenseCovariance(S), torch.ones(6, 2, dtype=torch.float64), region=torch.ones(12).double())


def by_greed(state, criterion, n):
    views, gain = [], 0.0
    for _ in range(n):
        scores = criterion(state).clone()
        scores[views] = -1
        views.append(int(scores.argmax()))
        gain += float(scores.max())
        state = state.given(views[-1])
    return sorted(views), gain


@pytest.mark.parametrize("criterion", [EIG, A_OPTIMAL])
def test_greedy_is_exhaustive_where_gains_add(criterion, rng):
    start = independent(rng)
    views, gain = exhaustive(start, criterion, 3)
    greedy_views, greedy_gain = by_greed(start, criterion, 3)
    assert views.tolist() == greedy_views
    assert gain == pytest.approx(greedy_gain, rel=1e-12)


@pytest.mark.parametrize("criterion", [EIG, A_OPTIMAL])
def test_exhaustive_is_the_best_of_all_subsets(start, criterion):
    def worth(subset):
        state = start
        for v in subset:
            state = state.given(v)
        if criterion is EIG:
            return float(torch.linalg.slogdet(start.covariance())[1] - torch.linalg.slogdet(state.covariance())[1]) / 2
        return float(((start.variance - state.variance) * start.region).sum())

    totals = {subset: worth(subset) for subset in itertools.combinations(range(start.rows.views), 2)}
    views, gain = exhaustive(start, criterion, 2)
    assert tuple(views) == max(totals, key=totals.__getitem__)
    assert gain == pytest.approx(max(totals.values()), rel=1e-6)
    assert by_greed(start, criterion, 2)[1] <= gain + 1e-12


def test_exhaustive_search_refuses_what_it_cannot_finish(start, monkeypatch):
    monkeypatch.setattr("ctuq.design.strategies._MOST_SUBSETS", 20)
    with pytest.raises(InputError, match="subsets"):
        exhaustive(start, EIG, 2)


def test_equidistant_angles_are_placed_anew_for_every_count():
    assert equidistant(ANGLES, 5).tolist() == [0, 12, 24, 36, 48]
    assert equidistant(ANGLES, 10).tolist() == list(range(0, 60, 6))
    seven = np.diff(np.append(np.sort(equidistant(ANGLES, 7)), 60))
    assert set(seven.tolist()) == {8, 9}


def test_nested_angles_extend_one_another():
    seven, nine = nested(ANGLES, 7), nested(ANGLES, 9)
    assert nine[:7].tolist() == seven.tolist()
    pilot = equidistant(ANGLES, 5)
    more = nested(ANGLES, 5, taken=pilot)
    assert sorted([*pilot, *more]) == list(range(0, 60, 6))


def test_golden_steps_are_of_the_golden_ratio():
    fine = np.arange(100_000) * np.pi / 100_000
    steps = np.diff(golden(fine, 6)) / 100_000 % 1
    np.testing.assert_allclose(steps, (5**0.5 - 1) / 2, atol=2e-5)
    assert golden(fine, 3, taken=[0]).tolist() == golden(fine, 4)[1:].tolist()


def test_full_turn_is_spread_over_a_full_turn():
    circle = np.arange(120) * 2 * np.pi / 120
    assert equidistant(circle, 4, period=2 * np.pi).tolist() == [0, 30, 60, 90]
    assert nested(circle, 4, period=2 * np.pi).tolist() == [0, 60, 30, 90]


@pytest.mark.parametrize("n", [1, 20, 50])
def test_no_strategy_repeats_a_view(n):
    taken = [3, 17, 40]
    rng = np.random.default_rng(0)
    for views in (nested(ANGLES, n, taken=taken), golden(ANGLES, n, taken=taken), random(ANGLES, n, rng=rng, taken=taken)):
        assert len({*views.tolist(), *taken}) == n + 3
    assert len(set(equidistant(ANGLES, n).tolist())) == n


def test_random_views_follow_the_seed():
    one, again, other = (random(ANGLES, 8, rng=np.random.default_rng(s)).tolist() for s in (1, 1, 2))
    assert one == again != other


def test_more_views_than_candidates_are_refused():
    for choose in (equidistant, nested, golden, lambda a, n: random(a, n, rng=np.random.default_rng(0))):
        with pytest.raises(InputError, match="candidates"):
            choose(ANGLES, 61)
