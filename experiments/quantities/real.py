"""The same questions of two real discs whose holes were segmented: areas, centres and widths of the holes, area of all."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import ctuq
from ctuq.errors import InputError
from ctuq.quantities import Circle
from ctuq.quantities.lines import line
from ctuq.quantities.regions import shares_of
from ctuq.tomo.resample import resample
from experiments.quantities.asked import TOLERANCE, Row, row

Truth = NDArray[np.float64]
_BESIDE = 2.0
"""Pixels of the image that a region reaches beyond its hole."""
_SMALLEST = 12.0
"""Pixels of the image that a hole has at least."""


def rows(result: ctuq.Result, fine: Truth, grid: ctuq.VolumeGrid) -> Iterator[Row]:
    """Of one disc: ``fine`` is its attenuation where there is material, on its own ``grid``."""
    half = float(fine.max()) / 2
    left, right, bottom, top = result.grid.extent
    whole = Circle((left + right) / 2, (bottom + top) / 2, 0.999 * min(right - left, top - bottom) / 2)
    weights = shares_of(whole, grid)
    truth = float(np.sum(weights * (fine > half)) / weights.sum())
    yield row("share of an area", result.fraction(whole, above=half, tolerance=TOLERANCE), truth, where="disc")
    holes, count = ndimage.label(ndimage.binary_fill_holes(fine > half) & (fine <= half))
    reach = round(_BESIDE * result.grid.voxel / grid.voxel)
    for number in range(1, count + 1):
        hole = holes == number
        if hole.sum() * grid.voxel**2 < _SMALLEST * result.grid.voxel**2:
            continue
        others = ndimage.binary_dilation((holes > 0) & ~hole, iterations=reach)
        yield from _of_hole(result, hole, ndimage.binary_dilation(hole, iterations=reach) & ~others, grid, half)


def _of_hole(
    result: ctuq.Result, hole: NDArray[np.bool_], around: NDArray[np.bool_], grid: ctuq.VolumeGrid, half: float
) -> Iterator[Row]:
    left, _, _, top = grid.extent
    down, right = (np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0))
    mask = resample(around.astype(np.float32), grid, result.grid).clip(0, 1)
    area = float(mask.sum()) * result.grid.voxel**2
    truth = float(hole.sum()) * grid.voxel**2
    yield row("share of an area", result.fraction(mask, below=half, tolerance=TOLERANCE), truth / area, where="hole")
    rows_, columns = np.nonzero(hole)
    places = (left + (columns.mean() + 0.5) * grid.voxel, top - (rows_.mean() + 0.5) * grid.voxel)
    with suppress(InputError):  # the image may have no hole there
        for quantity, place in zip(result.centre(mask, below=half, tolerance=TOLERANCE), places, strict=True):
            yield row("centre", quantity, float(place), where="hole")
    reach = _BESIDE * result.grid.voxel
    x, y = (float(place) for place in places)
    across = (left + right[0] * grid.voxel - reach, y), (left + (right[-1] + 1) * grid.voxel + reach, y)
    upwards = (x, top - (down[-1] + 1) * grid.voxel - reach), (x, top - down[0] * grid.voxel + reach)
    for ends in (across, upwards):
        try:
            found = result.thickness(*ends, tolerance=TOLERANCE)
            along = line(grid, *ends, step=grid.voxel / 4)
        except InputError:
            continue
        inside = along.positions[along.values(hole.astype(np.float64)) > 0.5]
        yield row("thickness", found, float(np.ptp(inside)) if inside.size else 0.0, where="hole")
