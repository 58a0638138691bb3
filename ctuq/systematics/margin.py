"""What lies outside of an image, in cells: what an estimate of it may miss of the rays.

Rays through an object that reaches beyond the image, or beyond the detector, see more than the image holds. What lies outside
is estimated from a coarse image of everything and taken out of the rays (`ctuq.recon.outside`). That estimate is wrong by a
smooth part, which the image takes for its own: cupping, which no view tells from the object.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.systematics.block import Block
from ctuq.systematics.catalogue import KINDS
from ctuq.tomo.field import half_width
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.rays.transform import RayTransform

_CELLS, _FINE = 8, 1.5
"""Cells across everything, and what they are made of over the image's pixels."""
_ROUNDING = 1e-6


def margin(A: RayTransform, image: torch.Tensor, reach: float, width: float | None = None) -> Block:
    """The block of what lies outside: the attenuation of square cells, an eighth of everything wide.

    Parameters
    ----------
    A : RayTransform
        Of the image.
    image : Tensor, shape (y, x)
        In 1/mm; its root mean square says how large attenuations are.
    reach : float
        Radius of the object about the axis, mm.
    width : float, optional
        Prior standard deviation of a cell, 1/mm; by default that.
    """
    half = half_width(A.grid, A.geometry, reach)
    parts = max(2, math.ceil(2 * half / (_CELLS * _FINE * A.grid.voxel)))
    n = _CELLS * parts
    grid = VolumeGrid((n, n), 2 * half / n)
    places = (np.arange(n) + 0.5) * grid.voxel - half
    x, y = np.meshgrid(places, -places)
    left, right, bottom, top = A.grid.extent
    inside = np.outer(_overlap(-places, grid.voxel, bottom, top), _overlap(places, grid.voxel, left, right))
    outside = np.where(inside < 1 - _ROUNDING, 1 - inside, 0) * (np.hypot(x, y) < half)
    row, column = np.divmod(np.arange(n * n), n)
    cell = row // parts * _CELLS + column // parts
    cells = np.zeros((n * n, _CELLS**2), np.float32)
    cells[np.arange(n * n), cell] = outside.ravel()
    columns = torch.from_numpy(np.asarray(build_matrix(grid, A.geometry) @ cells)).double().to(A.device)
    columns = columns[:, (columns != 0).any(0)]
    kind = KINDS["truncation"]
    usual = kind.width * float(image.double().square().mean().sqrt())
    return Block("truncation", columns, usual if width is None else width, False, kind.hidden)


def _overlap(places: NDArray, width: float, low: float, high: float) -> NDArray:
    """Of intervals of this width about places, the share that lies between two others."""
    shared = np.minimum(places + width / 2, high) - np.maximum(places - width / 2, low)
    return np.clip(shared / width, 0, 1)
