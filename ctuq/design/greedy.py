"""Greedy choice of several views, each as if those before it had been measured."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.problem import DesignProblem

# Views that mirror each other in a symmetric object tie to rounding, and a run from a cache must choose as the first one did.
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Picks:
    """Views in the order they were chosen; the scores of all views before each choice, and which could be chosen, (n, V)."""

    views: NDArray[np.int64]
    scores: NDArray[np.float64]
    free: NDArray[np.bool_]

    @property
    def gains(self) -> NDArray[np.float64]:
        """The score of each pick, given those before it, (n,)."""
        return self.scores[np.arange(len(self.views)), self.views]


def greedy(
    given: GivenViews,
    problem: DesignProblem,
    n: int,
    *,
    available: Callable[[float, list[int]], NDArray[np.bool_]],
    spent: float = 0.0,
    position: float | None = None,
) -> Picks:
    """Pick up to ``n`` views with the best score for their cost, conditioning inside the batch.

    Parameters
    ----------
    given : GivenViews
        The model given what was measured.
    problem : DesignProblem
    n : int
    available : callable
        ``available(spent, picked)``: which views can be picked, (V,).
    spent : float
        Dose so far.
    position : float, optional
        Where the stage stands, radians.
    """
    picked: list[int] = []
    scores: list[NDArray[np.float64]] = []
    frees: list[NDArray[np.bool_]] = []
    for _ in range(n):
        free = available(spent, picked)
        if not free.any():
            break
        if picked:
            given = given.given(picked[-1])
        scores.append(problem.criterion(given).numpy())
        cost = problem.doses + problem.turning.between(position, problem.angles)
        best = best_view(scores[-1] / cost, free, problem.angles)
        picked.append(best)
        frees.append(free)
        spent, position = spent + problem.doses[best], float(problem.angles[best])
    table = np.stack(scores) if scores else np.zeros((0, problem.views))
    return Picks(np.array(picked, np.int64), table, np.stack(frees) if frees else np.zeros((0, problem.views), bool))


def best_view(values: NDArray[np.float64], available: NDArray[np.bool_], angles: NDArray[np.float64]) -> int:
    """The best available view; of those that differ by rounding only, the one of the smallest angle."""
    best = values[available].max()
    ties = np.flatnonzero(available & (values >= best - _TIE * abs(best)))
    return int(ties[angles[ties].argmin()])
