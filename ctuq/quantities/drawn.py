"""Any function of the image, from as many draws of the posterior as its tolerance asks."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.quantities.quantity import LEVEL, Quantity, checked_level
from ctuq.text import shortened

TOLERANCE = 0.03
MOST = 8192
_FEWEST, _BATCH_PIXELS = 64, 2**22
POSTERIOR = "posterior"
DRAWS_ALONE = (
    "The interval of a function is that of the draws alone, and what the image does to edges is not in it: for means use "
    "region."
)
"""Means over masks that follow edges had a 16th to a 58th of the standard deviation that `linear.mean_of` gives them."""

Function = Callable[[NDArray[np.float32]], float]


class _Drawable(Protocol):
    """What draws images."""

    @property
    def mean(self) -> NDArray[np.float32]: ...
    def draw(self, n: int, *, seed: int = 0) -> NDArray[np.float32]: ...


def measured(
    result: _Drawable,
    function: Function,
    *,
    name: str = "function",
    unit: str = "",
    level: float = LEVEL,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Quantity:
    """A function of the image: mean, standard deviation and central interval of its values at draws (GUM Supplement 1).

    Parameters
    ----------
    result : Result
    function : callable
        Takes an image (y, x) in 1/mm and gives a number.
    tolerance : float
        Relative error of the standard deviation by the draws at which these end.
    """
    at_mean = answer_of(function, result.mean, "image")
    values, _ = values_at_draws(
        result, lambda images: np.array([answer_of(function, image, "image") for image in images]), tolerance, seed
    )
    return _of_values(values, at_mean, name=name, unit=unit, level=level)


def answer_of(function: Function, image: Any, what: str) -> float:
    """The number that a caller's function gives of a copy of an image, as it may write into what it is given.

    Raises
    ------
    InputError
        If it is no function or gives no finite number; ``what`` is "image" or "volume".
    """
    if not callable(function):
        raise InputError(f"Give a function that takes the {what} and gives a number, not {shortened(repr(function), 40)}.")
    told = function(np.array(image))
    try:
        number = float(told)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        got = shortened(repr(told), 40)
        raise InputError(f"The function must give one finite number for each {what}; for this result it gives {got}.")
    return number


def values_at_draws(
    result: _Drawable, function: Callable[[NDArray[np.float32]], NDArray], tolerance: float = TOLERANCE, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Values (n,) of a function of images (k, y, x) at draws, until their standard deviation is known to ``tolerance``.

    Also the relative error of that.

    Raises
    ------
    InputError
        If the tolerance is out of range, or the function does not give finite numbers.
    """
    if not 0.005 <= tolerance < 1:
        raise InputError(f"The tolerance is a relative error from 0.005 to below 1, such as 0.03, got {tolerance}.")
    batch = max(1, min(_FEWEST, _BATCH_PIXELS // result.mean.size))
    values = np.zeros(0)
    while len(values) < MOST:
        drawn = np.asarray(function(result.draw(batch, seed=seed + len(values))), np.float64)
        if drawn.shape != (batch,) or not np.isfinite(drawn).all():
            raise InputError("The function must give one finite number for an image; of a draw it does not.")
        values = np.concatenate([values, drawn])
        if len(values) >= _FEWEST and _relative_error(values) <= tolerance:
            break
    return values, _relative_error(values)


def square_about(value: float, values: NDArray[np.float64]) -> float:
    """Mean square distance of the values at draws from that of the image.

    A threshold does not do on the average of draws what it does to the image: over arcs of 90 degrees, where draws are far
    apart, intervals from their variance alone held 83 % of areas and 89 % of centres; so it is 88 and 94 %.
    """
    return float(np.mean((values - value) ** 2))


def _relative_error(values: NDArray[np.float64]) -> float:
    """Of the standard deviation of values, from their kurtosis: ``sqrt((kurtosis - 1) / 4 n)``; 0 where they are all one."""
    centred = values - values.mean()
    variance = float(np.mean(centred**2))
    if variance <= 1e-24 * float(np.mean(values**2)) or variance == 0:
        return 0.0
    kurtosis = float(np.mean(centred**4)) / variance**2
    return math.sqrt(max(kurtosis - 1, 1.0) / (4 * len(values)))


def _of_values(values: NDArray[np.float64], at_mean: float, *, name: str, unit: str, level: float) -> Quantity:
    """The quantity that draws of it make."""
    level = checked_level(level)
    low, high = (float(end) for end in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
    sd = float(values.std(ddof=1))
    notes: tuple[str, ...] = (DRAWS_ALONE,)
    if not low <= at_mean <= high:
        notes += (
            f"The image itself has {at_mean:.4g}, outside of the interval: the function answers to roughness, which draws have "
            "and the image has not; do not trust this interval.",
        )
    return Quantity(
        name,
        float(values.mean()),
        sd,
        float("nan") if sd == 0 else (high - low) / 2 / sd,
        (low, high),
        level,
        unit,
        draws=len(values),
        monte_carlo_error=_relative_error(values),
        budget={POSTERIOR: sd**2},
        notes=notes,
    )
