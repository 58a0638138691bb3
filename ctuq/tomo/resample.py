"""Images and volumes moved from one grid to another by exact averages over pixels."""

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import VolumeGrid


def resample(image: NDArray, grid: VolumeGrid, target: VolumeGrid) -> NDArray[np.float32]:
    """Average an image over the pixels of another grid; outside the image there is nothing.

    Parameters
    ----------
    image : array, shape ``grid.shape``, (y, x) or (z, y, x)
    grid, target : VolumeGrid

    Returns
    -------
    array of float32, shape ``target.shape``
    """
    if grid == target:
        return np.asarray(image, np.float32)
    found = np.asarray(image, np.float64)
    for axis in range(found.ndim):
        shares = _shares(_edges(grid, axis), _edges(target, axis))
        found = np.moveaxis(np.tensordot(shares, found, (1, axis)), 0, axis)
    return found.astype(np.float32)


def _edges(grid: VolumeGrid, axis: int) -> NDArray:
    """Borders of the pixels along an axis in the order of their index, in mm; along y they are counted downwards."""
    name = axis - len(grid.shape)
    centre = grid.centre[-1 - name]
    middle = -centre if name == -2 else centre
    n = grid.shape[axis]
    return middle + (np.arange(n + 1) - n / 2) * grid.voxel


def _shares(source: NDArray, target: NDArray) -> NDArray:
    """Share of each target interval (row) that each source interval covers, for increasing borders."""
    low = np.maximum(source[None, :-1], target[:-1, None])
    high = np.minimum(source[None, 1:], target[1:, None])
    return np.maximum(high - low, 0) / np.diff(target)[:, None]
