"""Arrays and numbers from a caller's hands."""

import math
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ctuq.errors import InputError


def as_numbers(values: Any, what: str) -> Any:
    """The values themselves, of which none is masked or complex.

    NumPy drops a mask without a word, and imaginary parts with a warning: what lies under a mask would count.

    Raises
    ------
    InputError
        ``what`` is its subject and verb, such as "The weights hold".
    """
    if np.ma.is_masked(values):
        raise InputError(
            f"{what} {np.ma.count_masked(values)} masked values; fill them with numbers (.filled), and give bad rays weight 0."
        )
    if np.iscomplexobj(values):
        raise InputError(f"{what} complex numbers; give their real part.")
    return values


def as_array(values: Any, what: str, dtype: DTypeLike = np.float64) -> NDArray:
    """An array of floating-point numbers; errors and ``what`` as of `as_numbers`, also for texts and rows of unequal length."""
    try:
        return np.asarray(as_numbers(values, what), dtype)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} what is not an array of numbers; give real numbers, and as many in each row.") from error


def is_finite(value: Any) -> bool:
    """Whether it is one real number, and finite; texts and None are not."""
    try:
        return math.isfinite(value)
    except (TypeError, ValueError):
        return False


def as_whole(value: Any, what: str) -> int:
    """A number that must be whole, as Python has it; ``what`` is the subject, such as "The number of draws".

    Raises
    ------
    InputError
        If it is a fraction, true or false, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{what} is a whole number, not {value!r}.")
    return int(value)
