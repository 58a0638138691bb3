"""Checks of what is told: a projection that does not match is refused before anything changes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.problem import DesignProblem
from ctuq.errors import InputError


def rays(values: ArrayLike, count: int, columns: int, name: str) -> NDArray[np.float32]:
    """Projections or weights of ``count`` views, (count, columns), all finite.

    Raises
    ------
    InputError
        With the shape or the number of bad values.
    """
    try:
        array = np.asarray(values, np.float32)
    except (ValueError, TypeError) as error:
        raise InputError(f"The {name} are not an array of numbers.") from error
    array = array[None] if array.ndim == 1 and count == 1 else array
    if array.shape != (count, columns):
        raise InputError(f"The {name} have shape {array.shape}; {count} angles of this detector need {(count, columns)}.")
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError(f"The {name} hold {bad} values that are NaN or infinite; repair them or reject the angle.")
    return array


def weights_of(values: ArrayLike, count: int, columns: int) -> NDArray[np.float32]:
    """Weights of ``count`` views: finite, not negative, and not all zero.

    Raises
    ------
    InputError
    """
    weights = rays(values, count, columns, "weights")
    if (weights < 0).any() or not weights.any():
        raise InputError("The weights of the rays must be non-negative and not all zero.")
    return weights


def refuse_repeats(problem: DesignProblem, known: Sequence[int] | NDArray[np.int64], views: NDArray[np.int64]) -> None:
    """Refuse a view that was told before, or is told twice at once.

    Raises
    ------
    InputError
        With the angle.
    """
    if problem.repeat:
        return
    seen = {int(v) for v in known}
    for view in views.tolist():
        if view in seen:
            angle = np.rad2deg(problem.angles[view])
            raise InputError(f"The angle {angle:g} degrees was told before; reject it first to replace its projection.")
        seen.add(view)
