"""What was told to a designer: checked, as tensors, what rays to come will weigh, and a model conditioned on it."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.design.problem import DesignProblem
from ctuq.design.state import DesignState, degrees_of
from ctuq.errors import InputError
from ctuq.tomo.arrays import as_array


def checked_rays(values: ArrayLike, count: int, view: tuple[int, ...], name: str) -> NDArray[np.float32]:
    """Projections or weights of ``count`` views of this shape each, (count, *view), all finite.

    Raises
    ------
    InputError
        With the shape or the number of bad values.
    """
    array = as_array(values, f"The {name} hold", np.float32)
    array = array[None] if array.ndim == len(view) and count == 1 else array
    if array.shape != (count, *view):
        raise InputError(f"The {name} have shape {array.shape}; {count} angles of this detector need {(count, *view)}.")
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError(f"The {name} hold {bad} values that are NaN or infinite; repair them or reject the angle.")
    return array


def checked_weights(values: ArrayLike, count: int, view: tuple[int, ...]) -> NDArray[np.float32]:
    """Weights of ``count`` views: finite, not negative, and not all zero.

    Raises
    ------
    InputError
    """
    weights = checked_rays(values, count, view, "weights")
    if (weights < 0).any() or not weights.any():
        raise InputError("The weights of the rays must be non-negative and not all zero.")
    return weights


def measurements_of(problem: DesignProblem, state: DesignState) -> Measurements:
    """The measured views as tensors on the ray transform's device."""
    y, weights = (torch.tensor(a, dtype=torch.float32, device=problem.A.device) for a in (state.projections, state.weights))
    return Measurements(problem.A, state.views, y, weights)


def _expected_weights(problem: DesignProblem, model: GaussianModel | None, measured: Measurements) -> Tensor:
    """Relative precision of every ray of every view, on the scale of the measured weights.

    Weights are proportional to the dose; where they are photon counts also to ``exp(-A x)`` of the model's image x. Detector
    columns that counted for nothing in every measured view will count for nothing again.

    Returns
    -------
    Tensor, float64, shape (V, n)
    """
    doses = torch.from_numpy(problem.doses)[:, None]
    weights = doses.expand(problem.A.geometry.shape)
    seen, known = torch.from_numpy(measured.views), measured.weights.cpu().double()
    if problem.exposure.counts and model is not None and model.image is not None:
        weights = doses * torch.exp(-problem.A(model.image.float()).double()).cpu()
        # Of the measured rays where there are some; otherwise a mean weight of 1, as counts are normalised to.
        used = known > 0
        scale = known[used].mean() / weights[seen][used].mean() if len(seen) else 1 / weights.mean()
        weights = weights * scale
    if len(seen):
        weights = torch.where((known > 0).any(0), weights, 0.0)
    return weights


def taken_in(
    problem: DesignProblem,
    state: DesignState,
    angles: ArrayLike,
    projections: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    model: GaussianModel | None = None,
    sense: int = 1,
    anyway: bool = False,
) -> DesignState:
    """What a design has come to with new projections.

    Parameters
    ----------
    problem : DesignProblem
    state : DesignState
    angles : array, shape (k,) or one number, radians
    projections, weights : array, shape (k, n) or (n,)
        Without weights, what exposure and model predict.
    model : GaussianModel, optional
    sense : int
        -1 where the scanner counts its angles clockwise.
    anyway : bool
        Take in views inside of forbidden arcs, too.

    Raises
    ------
    InputError
        If an angle is no candidate, lies in a forbidden arc or was told before, or an array has the wrong shape or holds NaN.
    """
    views, rays = problem.index(angles), (problem.A.geometry.columns,)
    y = checked_rays(projections, len(views), rays, "projections")
    if weights is None:
        weights = _expected_weights(problem, model, measurements_of(problem, state))[torch.from_numpy(views)].numpy()
    w = checked_weights(weights, len(views), rays)
    _refuse_repeats(problem, state, views, sense)
    if not anyway:
        _refuse_forbidden(problem, views, sense)
    told = replace(
        state,
        views=np.concatenate([state.views, views]),
        projections=np.concatenate([state.projections, y]),
        weights=np.concatenate([state.weights, w]),
        spent=state.spent + float(problem.doses[views].sum()),
        position=float(problem.angles[views[-1]]),
    )
    return told.noted("tell", f"{len(views)} projections were taken in.", problem.angles[views])


def taken_back(problem: DesignProblem, state: DesignState, angles: ArrayLike, reason: str, *, retry: bool) -> DesignState:
    """What a design has come to without projections that turned out bad, or after exposures that failed; they cost their dose.

    Parameters
    ----------
    problem : DesignProblem
    state : DesignState
    angles : array, radians
    reason : str
        For the log.
    retry : bool
        Whether these angles may be asked for again.
    """
    views = problem.index(angles)
    kept, failed = ~np.isin(state.views, views), views[~np.isin(views, state.views)]
    dose = float(problem.doses[failed].sum())
    counted = f" {failed_exposures(len(failed), dose)}" if len(failed) else ""
    rest = replace(
        state,
        views=state.views[kept],
        projections=state.projections[kept],
        weights=state.weights[kept],
        banned=state.banned if retry else (*state.banned, *views.tolist()),
        spent=state.spent + dose,
        position=float(problem.angles[views[-1]]),
    )
    return rest.noted("reject", reason or f"{len(views)} projections were rejected.{counted}", problem.angles[views])


def failed_exposures(count: int, dose: float) -> str:
    """What rejected angles count for of which there was no projection, in a sentence."""
    if count == 1:
        return f"One had no projection: it is counted as a failed exposure, dose {dose:g}."
    return f"{count} had no projection: they are counted as failed exposures, dose {dose:g}."


def condition_on_all(problem: DesignProblem, state: DesignState, model: GaussianModel) -> GivenViews:
    """A model given all measured views, with the weights that the others are expected to have."""
    region = problem.region_weights if problem.criterion.regional else None
    start = GivenViews.start(problem.rows, model.covariance, _planned(problem, state, model), region=region)
    return condition_on_new(problem, start, state, model)


def condition_on_new(problem: DesignProblem, given: GivenViews, state: DesignState, model: GaussianModel) -> GivenViews:
    """A model given the first of the measured views, given the rest as well; what others will weigh is foreseen anew."""
    if len(given.views) < len(state.views):
        given = replace(given, precision=_planned(problem, state, model))
    for view, weights in zip(state.views[len(given.views) :], state.weights[len(given.views) :], strict=True):
        given = given.given(int(view), torch.from_numpy(weights).double() / model.sigma2)
    return given


def _planned(problem: DesignProblem, state: DesignState, model: GaussianModel) -> Tensor:
    return _expected_weights(problem, model, measurements_of(problem, state)) / model.sigma2


def _refuse_repeats(problem: DesignProblem, state: DesignState, views: NDArray[np.int64], sense: int) -> None:
    """Refuse a view that was told before, or is told twice at once."""
    if problem.repeat:
        return
    numbers, known = views.tolist(), set(state.views.tolist())
    for place, view in enumerate(numbers):
        degrees = float(degrees_of(problem.angles[view], sense))
        if view in known:
            raise InputError(f"The angle {degrees:.6g}° was told before; reject it first to replace its projection.")
        if view in numbers[:place]:
            raise InputError(f"The angle {degrees:.6g}° stands twice among the new views; leave one out or average them.")


def _refuse_forbidden(problem: DesignProblem, views: NDArray[np.int64], sense: int) -> None:
    """Refuse a view that the scanner was said not to take: an angle may be mistyped, or its projection spoilt."""
    angles = problem.angles[views]
    inside = np.zeros(len(views), bool)
    for arc in problem.forbidden:
        inside |= arc.contains(angles)
    if inside.any():
        first = float(degrees_of(angles[inside][0], sense))
        raise InputError(
            f"The angle {first:.6g}° lies in a forbidden arc; check it, or take its view in anyway (--anyway, anyway=True)."
        )
