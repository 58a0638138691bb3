"""The pilot views of a session: equidistant, among what the scanner may do."""

import numpy as np
from numpy.typing import NDArray

from ctuq.design.area import FlatViews
from ctuq.design.problem import DesignProblem
from ctuq.design.state import RAISED, DesignState, Suggestion
from ctuq.design.strategies import equidistant, nested
from ctuq.errors import BudgetExhausted, InputError
from ctuq.tomo.geometry import ParallelBeam
from ctuq.tomo.space import Parallel3D


def pilot_suggestion(problem: DesignProblem, state: DesignState, available: NDArray[np.bool_], wanted: int) -> Suggestion:
    """The pilot views that are not measured yet, by angle; others in place of those that failed.

    Parameters
    ----------
    problem : DesignProblem
    state : DesignState
        Fewer than ``wanted`` views are measured.
    available : array of bool, shape (V,)
        Views that can be asked for now.
    wanted : int
        Pilot views in all.

    Raises
    ------
    InputError
        If none can be asked for.
    """
    need = wanted - len(state.views)
    places = np.flatnonzero(problem.allowed)
    if len(places) < wanted:
        raise InputError(f"{wanted} pilot views were asked for, and {len(places)} candidate angles are allowed.")
    planned = places[equidistant(problem.angles[places], wanted, period=_period(problem))]
    views = [int(v) for v in np.sort(planned) if available[v] and v not in state.views][:need]
    views += _more(problem, available, [*state.views.tolist(), *views], need - len(views))
    if problem.budget is not None:
        spent = state.spent + np.cumsum(problem.doses[views])
        views = views[: int((spent <= problem.budget * (1 + 1e-9)).sum())]
    if not views:
        left = int(available.sum())
        told = f"None of the {need} pilot views that are missing can be measured"
        if problem.budget is None:
            raise InputError(f"{told}: {left} angles are left.")
        raise BudgetExhausted(f"{told}: {state.spent:g} of the dose budget are spent, and {left} angles are left; {RAISED}.")
    chosen = np.array(views, np.int64)
    return Suggestion(
        problem.angles[chosen],
        chosen,
        np.zeros((0, problem.views)),
        available,
        np.zeros(0),
        problem.criterion.unit,
        error=float("nan"),
        stop=False,
        reason=f"Go on: {len(state.views)} of {wanted} pilot views are measured; gains can be predicted when all are.",
    )


def _more(problem: DesignProblem, available: NDArray[np.bool_], taken: list[int], n: int) -> list[int]:
    """``n`` further available views, each as far from all others as can be."""
    free = [int(v) for v in np.flatnonzero(available) if v not in taken]
    if n < 1 or not free:
        return []
    pool = np.array([*taken, *free])
    first = nested(problem.angles[pool], min(n, len(free)), period=_period(problem), taken=list(range(len(taken))))
    return pool[first].tolist()


def _period(problem: DesignProblem) -> float:
    """Angles after which views repeat: half a turn for parallel rays, a turn for a fan, less where candidates span less."""
    seen = problem.A.geometry
    beam = seen.beam if isinstance(seen, FlatViews) else seen
    parallel = isinstance(beam, ParallelBeam) or (isinstance(beam, Parallel3D) and beam.upright)
    natural = np.pi if parallel else 2 * np.pi
    angles = np.sort(problem.angles)
    return min(natural, float(np.ptp(angles)) * len(angles) / max(len(angles) - 1, 1)) or natural
