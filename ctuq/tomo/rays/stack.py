"""Parallel rays that run square to the axis: each slice by the matrix of two dimensions, rows between slices interpolated."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.linops.operator import Space
from ctuq.tomo.footprint import pitches
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.entries import build_matrix, joseph_rays
from ctuq.tomo.rays.matrix import MatrixPair
from ctuq.tomo.space import Parallel3D


class StackPair:
    """Projection and transpose of flat volumes (k, z * y * x) to flat projections (k, row * angle * column)."""

    def __init__(self, grid: VolumeGrid, geometry: Parallel3D, device: torch.device):
        self._shape, self._range = grid.shape, geometry.shape
        plane = slice_of(grid)
        matrix = build_matrix(plane, geometry.plane)
        self._pair = MatrixPair(
            matrix, Space(plane.shape, torch.float32, device), Space(geometry.plane.shape, torch.float32, device)
        )
        self._rows = torch.from_numpy(_between_slices(grid, geometry)).to(device)

    def multiply(self, x: Tensor, transposed: bool) -> Tensor:
        """Volumes (k, voxels) to rays (k, row, angle, column), flat, slice by slice through the 2D matrix; or back."""
        k = len(x)
        if transposed:
            slices = self._rows.T @ x.reshape(k, self._range[0], -1)
            return self._pair.multiply(slices.reshape(k * self._shape[0], -1), True).reshape(k, -1)
        sinograms = self._pair.multiply(x.reshape(k * self._shape[0], -1), False)
        return (self._rows @ sinograms.reshape(k, self._shape[0], -1)).reshape(k, -1)


def slice_of(grid: VolumeGrid) -> VolumeGrid:
    """The grid of one slice of a volume."""
    return VolumeGrid(grid.shape[1:], grid.voxel, grid.centre[:2])


def _between_slices(grid: VolumeGrid, geometry: Parallel3D) -> NDArray[np.float32]:
    """What each detector row sees of each slice, (row, z): linear between slices, the mean of several heights if it is wide."""
    finer = joseph_rays(pitches(geometry)[0] / grid.voxel)
    rows = (np.arange(geometry.rows * finer) + 0.5) / finer - 0.5
    heights = geometry.row_offset + (rows - (geometry.rows - 1) / 2) * geometry.row_pitch
    places = (heights - grid.centre[2]) / grid.voxel + (grid.shape[0] - 1) / 2
    share = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(grid.shape[0])))
    return share.reshape(geometry.rows, finer, -1).mean(axis=1).astype(np.float32)
