"""Images moved from one grid to another by exact area averages."""

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import VolumeGrid


def resample(image: NDArray, grid: VolumeGrid, target: VolumeGrid) -> NDArray[np.float32]:
    """Average an image over the pixels of another grid; outside the image there is nothing.

    Parameters
    ----------
    image : array, shape ``grid.shape``, (y, x)
    grid, target : VolumeGrid

    Returns
    -------
    array of float32, shape ``target.shape``
    """
    if grid == target:
        return np.asarray(image, np.float32)
    # Edges along y are counted downwards, as rows are.
    down = _shares(-_edges(grid, axis=0), -_edges(target, axis=0))
    across = _shares(_edges(grid, axis=1), _edges(target, axis=1))
    return (down @ np.asarray(image, np.float64) @ across.T).astype(np.float32)


def _edges(grid: VolumeGrid, axis: int) -> NDArray:
    """Pixel borders in mm: from the top row for axis 0, from the left column for axis 1."""
    left, _, _, top = grid.extent
    steps = np.arange(grid.shape[axis] + 1) * grid.voxel
    return top - steps if axis == 0 else left + steps


def _shares(source: NDArray, target: NDArray) -> NDArray:
    """Share of each target interval (row) that each source interval covers, for increasing borders."""
    low = np.maximum(source[None, :-1], target[:-1, None])
    high = np.minimum(source[None, 1:], target[1:, None])
    return np.maximum(high - low, 0) / np.diff(target)[:, None]
