"""Quantities of volumes, whose results keep samples and no covariance: few, so that their number decides the interval."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.quantities.discrepancy import leaking
from ctuq.quantities.drawn import DRAWS_ALONE, POSTERIOR, answer_of
from ctuq.quantities.linear import one_limit, with_leak
from ctuq.quantities.parts import largest_parts
from ctuq.quantities.quantity import LEVEL, Quantity, checked_level, counted_probability

UNIT = "1/mm"
_FEWEST = 8
_SAMPLES_ALONE = (
    "It counts the volume's {n} samples alone, which know nothing of what the image does to edges: parts whose level is near "
    "half way between two materials are told best."
)


def of_samples(
    samples: Any, function: Callable[[NDArray[np.float32]], float], *, name: str, unit: str = "", level: float = LEVEL
) -> Quantity:
    """A function of the volume by its stored samples.

    So few samples (n) know their standard deviation to ``1 / sqrt(2 (n - 1))``, which `Quantity.monte_carlo_error` tells, and
    the interval is Student's t of n - 1 degrees of freedom, longer than a Gaussian's.

    Parameters
    ----------
    samples : array or dataset, shape (n, z, y, x), optional
    function : callable
        Takes a sample (z, y, x) in 1/mm, gives a number.
    """
    n = require_samples(samples)
    values = np.array([answer_of(function, samples[i], "volume") for i in range(n)])
    told = _student(values, float(values.mean()), name=name, unit=unit, level=level)
    return replace(told, notes=(DRAWS_ALONE,))


def linear_of_samples(mean: NDArray, samples: Any, weights: NDArray, *, name: str, level: float = LEVEL) -> Quantity:
    """A linear functional: its value is the volume's own, its standard deviation that of the samples and of edges.

    Parameters
    ----------
    mean : array, shape (z, y, x)
        Of the voxels that have samples.
    samples : array or dataset, shape (n, z, y, x), optional
    weights : array, shape (z, y, x)
    """
    values = values_of(samples, weights[None])[:, 0]
    at = weights != 0
    value = float(np.sum(weights[at] * mean[at], dtype=np.float64))
    if not math.isfinite(value):
        raise InputError("The region has voxels that could not be made and are NaN; choose one without them.")
    ends = [np.flatnonzero(at.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    near = tuple(slice(max(int(places[0]) - 1, 0), int(places[-1]) + 2) for places in ends)
    leak = float(np.sum(weights[near] * leaking(np.nan_to_num(mean[near]))))
    return with_leak(_student(values, value, name=name, unit=UNIT, level=level), leak)


def values_of(samples: Any, functionals: NDArray) -> NDArray[np.float64]:
    """Values of linear functionals (k, z, y, x) at each sample, (n, k)."""
    n, flat = require_samples(samples), np.asarray(functionals, np.float64).reshape(len(functionals), -1)
    if flat.shape[1] != int(np.prod(samples.shape[1:])):
        raise InputError(
            f"The functionals have shape {np.shape(functionals)}; give (n, {', '.join(map(str, samples.shape[1:]))})."
        )
    if not np.isfinite(flat).all():
        raise InputError("The functionals hold values that are NaN or infinite; give the weight of each voxel.")
    return np.stack([flat @ np.asarray(samples[i], np.float64).ravel() for i in range(n)])


def covariance_error(n: int) -> float:
    """Relative standard error of each variance that n Gaussian samples give, ``sqrt(2 / (n - 1))``."""
    return math.sqrt(2 / (n - 1))


def probability_of_samples(
    quantity: Quantity, *, above: float | None = None, below: float | None = None, name: str = "probability"
) -> Quantity:
    """Probability that a quantity by samples lies above, or below, a number, by Student's t of their number."""
    from scipy.special import stdtr

    limit, n = one_limit(above, below), quantity.draws
    z = (quantity.value - limit) / max(quantity.standard_uncertainty, 1e-300)
    share = float(stdtr(n - 1, z if above is not None else -z))
    none = math.nan
    # What the error of the standard deviation does to the probability, by the slope of Student's distribution.
    slope = abs(float(stdtr(n - 1, z * (1 + quantity.monte_carlo_error)) - stdtr(n - 1, z)))
    told = Quantity(name, share, math.sqrt(share * (1 - share)), none, (none, none), none)
    return replace(told, draws=n, monte_carlo_error=slope)


def part_of_samples(
    samples: Any,
    weights: NDArray[np.float64],
    at_least: float,
    *,
    above: float | None = None,
    below: float | None = None,
    name: str = "probability",
) -> Quantity:
    """Share of the samples in which a connected part of at least so many voxels lies above, or below, an attenuation."""
    limit, sign, n = one_limit(above, below), 1 if above is not None else -1, require_samples(samples)
    inside = (sign * (np.asarray(samples[i]) - limit) > 0 for i in range(n))
    hits = sum(float(largest_parts(each[None], weights)[0]) >= at_least for each in inside)
    return counted_probability(name, hits, n, notes=(_SAMPLES_ALONE.format(n=n),))


def require_samples(samples: Any) -> int:
    """How many there are.

    Raises
    ------
    InputError
        If they are too few to measure by.
    """
    n = 0 if samples is None else len(samples)
    if n < _FEWEST:
        raise InputError(f"The volume's result holds {n} samples, and {_FEWEST} are the fewest to measure by.")
    return n


def _student(values: NDArray[np.float64], value: float, *, name: str, unit: str, level: float) -> Quantity:
    from scipy.special import stdtrit

    level, n, sd = checked_level(level), len(values), float(values.std(ddof=1))
    factor = float(stdtrit(n - 1, (1 + level) / 2))
    interval = (value - factor * sd, value + factor * sd)
    return Quantity(name, value, sd, factor, interval, level, unit, n, 1 / math.sqrt(2 * (n - 1)), budget={POSTERIOR: sd**2})
