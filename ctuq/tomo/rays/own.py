"""A projector of one's own as a ray transform: its matrix, and so its exact transpose."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ctuq.errors import BackendError
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.rays.matrix import MatrixRayTransform

_BATCH = 256
_LINEAR = 1e-3
_NOTHING = 1e-7


def matrix_transform(
    project: Callable[[Tensor], Tensor], grid: VolumeGrid, geometry: Geometry, *, device: torch.device | str = "cpu"
) -> MatrixRayTransform:
    """The ray transform of any linear projector: one that another library computes, or that knows a blur of the detector.

    Every pixel is projected once, which takes ``grid.size`` projections; entries below 1e-7 of the largest are left out. Its
    transpose is exact, whatever the library's own back-projection is.

    Parameters
    ----------
    project : callable
        Images (k, y, x), float32 in 1/mm, to line integrals (k, angle, column).
    grid : VolumeGrid
    geometry : ParallelBeam or FanBeam
        Of the views and columns; where the rays run is the projector's own affair.
    device : torch.device or str
        Where the ray transform lives.

    Returns
    -------
    MatrixRayTransform

    Raises
    ------
    BackendError
        If the projector gives another shape, or is not linear.
    """
    parts = []
    for first in range(0, grid.size, _BATCH):
        index = torch.arange(first, min(first + _BATCH, grid.size))
        unit = torch.zeros(len(index), grid.size)
        unit[torch.arange(len(index)), index] = 1
        rays = _projected(project, unit.reshape(-1, *grid.shape), geometry)
        parts.append(sp.csr_array(np.where(np.abs(rays) > _NOTHING * np.abs(rays).max(), rays, 0)))
    matrix = sp.csr_array(sp.vstack(parts, format="csr").T, dtype=np.float32)
    x = torch.rand(2, *grid.shape, generator=torch.Generator().manual_seed(0))
    expected, found = (matrix @ x.reshape(2, -1).numpy().T).T, _projected(project, x, geometry)
    off = float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-300))
    if not off <= _LINEAR:
        raise BackendError(
            f"The projector is not linear: of a random image it makes {off:.1e} (relative) else than of its pixels."
        )
    return MatrixRayTransform(matrix, grid, geometry, device)


def _projected(project: Callable[[Tensor], Tensor], images: Tensor, geometry: Geometry) -> np.ndarray:
    with torch.no_grad():
        rays = torch.as_tensor(project(images)).cpu().float()
    if tuple(rays.shape) != (len(images), *geometry.shape):
        wanted = (len(images), *geometry.shape)
        raise BackendError(f"The projector makes {tuple(rays.shape)} of {tuple(images.shape)}; the geometry asks for {wanted}.")
    return rays.reshape(len(images), -1).numpy()
