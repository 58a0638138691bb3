"""Quantities of volumes, whose results keep samples and no covariance: few, so that their number decides the interval."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError
from ctuq.quantities.drawn import POSTERIOR
from ctuq.quantities.quantity import LEVEL, Quantity, checked_level

_FEWEST = 8


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
    from scipy.special import stdtrit

    level, n = checked_level(level), 0 if samples is None else len(samples)
    if samples is None or n < _FEWEST:
        raise InputError(f"The volume's result holds {n} samples, and {_FEWEST} are the fewest to measure by.")
    values = np.array([float(function(np.asarray(samples[i]))) for i in range(n)])
    if not np.isfinite(values).all():
        raise InputError("The function must give one finite number for a volume; of a sample it does not.")
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    factor = float(stdtrit(n - 1, (1 + level) / 2))
    interval = (mean - factor * sd, mean + factor * sd)
    return Quantity(name, mean, sd, factor, interval, level, unit, n, 1 / math.sqrt(2 * (n - 1)), budget={POSTERIOR: sd**2})


def mean_of_volume(samples: Any, mask: ArrayLike, *, name: str, level: float = LEVEL) -> Quantity:
    """Mean attenuation of a region of a volume, 1/mm.

    Parameters
    ----------
    samples : array or dataset, shape (n, z, y, x), optional
    mask : array, shape (z, y, x)
        True or false, or the share of each voxel that counts.
    """
    shares, shape = np.asarray(mask, np.float64), None if samples is None else samples.shape[1:]
    if shape is not None and shares.shape != shape:
        raise InputError(f"The mask has shape {shares.shape}; give one of the voxels that have samples, {shape}.")
    if not (np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1 and shares.sum() > 0):
        raise InputError("A mask holds true and false, or shares from 0 to 1, and some voxel that counts; this one does not.")
    weights = shares / shares.sum()
    return of_samples(samples, lambda volume: float(np.sum(weights * volume)), name=name, unit="1/mm", level=level)
