"""Whether a region holds a connected part of some size above, or below, a level: an inclusion, or a void.

Of each draw of the image the largest connected part is found, and the share of draws where it is large enough is the
probability. Draws alone know nothing of what an image does to edges, so that each is also wrong in the ways of
`ctuq.quantities.discrepancy`, at random: the level by a share of the largest values, all edges outwards or inwards, and thin
structures fainter than they are.
"""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.quantities import discrepancy
from ctuq.quantities.linear import one_limit
from ctuq.quantities.quantity import Quantity, counted_probability
from ctuq.quantities.regions import Region, shares_of
from ctuq.tomo.geometry import VolumeGrid

TOLERANCE, MOST = 0.01, 8192
_BATCH, _BATCH_PIXELS = 64, 2**22
_SMALL = 9
"""Pixels, three by three: what is smaller is thin in every direction, and an image may hold it at less than its contrast."""


class _Drawable(Protocol):
    @property
    def mean(self) -> NDArray[np.float32]: ...
    @property
    def grid(self) -> VolumeGrid: ...
    def draw(self, n: int, *, seed: int = 0) -> NDArray[np.float32]: ...


def probability_of_part(
    result: _Drawable,
    region: Region,
    at_least: float,
    *,
    above: float | None = None,
    below: float | None = None,
    name: str = "probability",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Quantity:
    """Probability that a connected part of at least so many mm^2 of a region lies above, or below, an attenuation."""
    limit, sign = one_limit(above, below), 1 if above is not None else -1
    if not 0.001 <= tolerance < 0.5:
        raise InputError(f"The tolerance is the error of a probability from 0.001 to below 0.5, such as 0.01, got {tolerance}.")
    weights, pixel = shares_of(region, result.grid), result.grid.voxel**2
    require_size(at_least, float(weights.sum()) * pixel, pixel, "mm^2", "pixel")
    box = _box(weights)
    wrong, weights, rng = _Wrong(result.mean, limit, box), weights[box], np.random.default_rng([seed, 1])
    batch, hits, draws = max(1, min(_BATCH, _BATCH_PIXELS // result.mean.size)), 0, 0
    while draws < MOST:
        images = wrong.of(result.draw(batch, seed=seed + draws)[(slice(None), *box)], rng)
        hits += int(np.count_nonzero(largest_parts(sign * images > 0, weights) * pixel >= at_least))
        draws += batch
        if counted_probability(name, hits, draws).monte_carlo_error <= tolerance:
            break
    shown = float(largest_parts(sign * (result.mean[box].astype(np.float64) - limit)[None] > 0, weights)[0]) * pixel
    return counted_probability(name, hits, draws, notes=_notes(hits / draws, shown, at_least, pixel))


def largest_parts(inside: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Size in pixels of the largest connected part of each image (k, ...), 0 without one.

    Pixels are connected by their faces, and count by the share of them that lies in the region, however small: without those
    of less than a half, a part that filled a disc of 30 pixels was told to be impossible.
    """
    from scipy.ndimage import label

    found = np.zeros(len(inside))
    for i, image in enumerate(inside & (weights > 0)):
        parts: NDArray = label(image)[0]  # pyright: ignore[reportIndexIssue, reportAssignmentType]
        found[i] = np.bincount(parts.ravel(), weights.ravel())[1:].max(initial=0.0)
    return found


def require_size(at_least: float, whole: float, pixel: float, unit: str, what: str) -> None:
    """Refuse a size that no part of a region can have, or that is below what an image shows.

    Raises
    ------
    InputError
    """
    if not (math.isfinite(at_least) and at_least >= pixel):
        raise InputError(f"A part's size is at least one {what}, {pixel:.4g} {unit}, got {at_least:g}.")
    if at_least > whole:
        raise InputError(f"No part of {at_least:g} {unit} lies in a region of {whole:.4g} {unit}; ask for a smaller one.")


class _Wrong:
    """Draws as they may be wrong: a level, edges and thin structures that all pixels of a draw share."""

    def __init__(self, mean: NDArray, limit: float, box: tuple[slice, ...]):
        from scipy.ndimage import grey_closing, grey_opening, maximum_filter, minimum_filter

        x = mean.astype(np.float64)
        self._limit, self._slack = limit, discrepancy.SLACK * discrepancy.top_of(x)
        self._mean, self._slope = x[box], discrepancy.slope(x)[box]
        self._low, self._high = (extreme(x, 3)[box] for extreme in (minimum_filter, maximum_filter))
        self._thin = (2 * x - grey_opening(x, (3, 3)) - grey_closing(x, (3, 3)))[box]

    def of(self, images: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
        """How far each pixel lies above the level."""
        level, shift, faded = rng.standard_normal((3, len(images), 1, 1))
        # An edge that moves makes no pixel brighter than its neighbours are.
        moved = np.clip(self._mean + discrepancy.SHIFT * shift * self._slope, self._low, self._high) - self._mean
        return images - self._limit - self._slack * level + moved + discrepancy.FADED * np.abs(faded) * self._thin


def _box(weights: NDArray[np.float64]) -> tuple[slice, ...]:
    """The smallest part of the image that holds the region."""
    ends = [np.flatnonzero(weights.any(axis=1 - axis)) for axis in range(2)]
    return tuple(slice(int(places[0]), int(places[-1]) + 1) for places in ends)


def _notes(share: float, shown: float, at_least: float, pixel: float) -> tuple[str, ...]:
    told = ()
    if at_least < _SMALL * pixel:
        told += (
            f"A part of {at_least:g} mm^2 is smaller than {_SMALL} pixels ({_SMALL * pixel:.3g} mm^2): the image may not show "
            "it, and roughness of draws may look like it.",
        )
    if (shown >= at_least) != (share > 0.5):
        told += (f"The largest such part that the image itself shows has {shown:.3g} mm^2.",)
    return told
