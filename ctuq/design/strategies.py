"""Designs to compare with: equidistant, golden ratio, random, exhaustive; and an adaptive one grown in simulation.

All choose among V candidate views of given angles and return views in the order they are taken. Angles count modulo ``period``:
half a turn for parallel rays, which a view from behind repeats, a full turn for a fan.
"""

from collections.abc import Callable, Sequence
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.criteria import Criterion
from ctuq.design.designer import Designer
from ctuq.errors import InputError

Views = NDArray[np.int64]
_GOLDEN = (5**0.5 - 1) / 2
_MOST_SUBSETS = 200_000


def equidistant(angles: NDArray[np.float64], n: int, *, period: float = np.pi) -> Views:
    """``n`` views as evenly as the candidates allow, placed anew for every count: it must be known in advance.

    The first candidate's angle is one of them; each other place takes the nearest candidate that is still free. Hard to beat
    where an object has no direction: over half a turn best on the walnut up to 20 angles (25.4 dB, adaptive ones 24.7 to 25.1).
    """
    _enough(angles, n)
    return _nearest_free(angles, angles[0] + period * np.arange(n) / n, period, ())


def nested(angles: NDArray[np.float64], n: int, *, period: float = np.pi, taken: Sequence[int] | Views = ()) -> Views:
    """``n`` more views, each the candidate farthest from all taken so far: equidistant angles that can be grown."""
    _enough(angles, n + len(taken))
    chosen = [int(v) for v in taken]
    start = len(chosen)
    if not chosen:
        chosen.append(0)
    while len(chosen) < start + n:
        gaps = _distance(angles[:, None], angles[None, chosen], period).min(1)
        gaps[chosen] = -1
        # Of places equally far, the first: rounding must not choose.
        chosen.append(int(np.flatnonzero(gaps >= gaps.max() - 1e-9)[0]))
    return np.array(chosen[start : start + n], np.int64)


def golden(angles: NDArray[np.float64], n: int, *, period: float = np.pi, taken: Sequence[int] | Views = ()) -> Views:
    """``n`` more views in steps of the golden ratio of the period (Koehler 2004), each to the nearest free candidate.

    The sequence starts at the first candidate, or a step after the last view taken.
    """
    _enough(angles, n + len(taken))
    first = angles[0] if not len(taken) else angles[taken[-1]] + period * _GOLDEN
    return _nearest_free(angles, first + period * _GOLDEN * np.arange(n), period, taken)


def random(angles: NDArray[np.float64], n: int, *, rng: np.random.Generator, taken: Sequence[int] | Views = ()) -> Views:
    """``n`` more views, drawn without repetition."""
    _enough(angles, n + len(taken))
    free = np.setdiff1d(np.arange(len(angles)), np.asarray(taken, np.int64))
    return rng.choice(free, n, replace=False).astype(np.int64)


def exhaustive(given: GivenViews, criterion: Criterion, n: int) -> tuple[Views, float]:
    """The best ``n`` views together, by trying all subsets: for tiny problems.

    The worth of a subset is the sum of the scores of its views, each given those before it: for the information gain and the
    A-optimal gain that is the gain of all at once, in whatever order.

    Returns
    -------
    views : array of int, ascending
    gain : float

    Raises
    ------
    InputError
        If there are more than 200,000 subsets.
    """
    free = np.arange(given.rows.views)
    if comb(len(free), n) > _MOST_SUBSETS:
        raise InputError(f"{comb(len(free), n)} subsets are too many to try; give at most {_MOST_SUBSETS}.")
    _enough(free, n)
    best, views = -np.inf, ()

    def extend(state: GivenViews, gain: float, chosen: tuple[int, ...], rest: Views) -> None:
        nonlocal best, views
        scores = criterion(state)
        for i, view in enumerate(rest[: len(rest) - (n - len(chosen)) + 1]):
            total = gain + float(scores[view])
            if len(chosen) + 1 < n:
                extend(state.given(int(view)), total, (*chosen, int(view)), rest[i + 1 :])
            elif total > best:
                best, views = total, (*chosen, int(view))

    extend(given, 0.0, (), free)
    return np.array(views, np.int64), best


def grow(designer: Designer, measure: Callable[[NDArray[np.float64]], ArrayLike], total: int, *, batch: int = 1) -> None:
    """Ask, measure and tell until ``total`` views are measured or the advice is to stop.

    Parameters
    ----------
    designer : Designer
        Told of its pilot views.
    measure : callable
        ``measure(angles)``: projections (k, n) at angles (k,), in radians, or degrees of a designer with ``degrees``.
    total : int
    batch : int
        Angles asked for at once.
    """
    while len(designer.state.views) < total:
        suggestion = designer.ask(min(batch, total - len(designer.state.views)))
        if suggestion.stop:
            return
        designer.tell(suggestion.angles, measure(suggestion.angles))


def _nearest_free(
    angles: NDArray[np.float64], wanted: NDArray[np.float64], period: float, taken: Sequence[int] | Views
) -> Views:
    busy = np.zeros(len(angles), bool)
    busy[np.asarray(taken, np.int64)] = True
    chosen = []
    for angle in wanted:
        gaps = np.where(busy, np.inf, _distance(angles, angle, period))
        chosen.append(int(np.flatnonzero(gaps <= gaps.min() + 1e-9)[0]))
        busy[chosen[-1]] = True
    return np.array(chosen, np.int64)


def _distance(a: NDArray[np.float64], b: NDArray[np.float64] | float, period: float) -> NDArray[np.float64]:
    offset = np.abs(a - b) % period
    return np.minimum(offset, period - offset)


def _enough(angles: NDArray, n: int) -> None:
    if not 0 <= n <= len(angles):
        raise InputError(f"{n} views were asked for, and there are {len(angles)} candidates.")
