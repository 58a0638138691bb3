"""What lies outside of an image: its share of each ray, from a coarse image of everything."""

import numpy as np
import torch
from torch import Tensor

from ctuq.recon.iterative import sirt
from ctuq.tomo.field import half_width
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.backends import ray_transform
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.resample import resample

_CELLS, _ITERATIONS = 160, 100


@torch.no_grad()
def outside_rays(A: RayTransform, y: Tensor, *, weights: Tensor, reach: float) -> Tensor:
    """Line integrals of what lies outside of ``A.grid``.

    A non-negative SIRT image x of the whole object, on 160 pixels at most, explains the rays as B x; taken out of it are its
    averages R x over the pixels of the grid, so that B x - A R x is left.

    Parameters
    ----------
    A : RayTransform
    y, weights : Tensor, shape (angle, column)
    reach : float
        Radius of the object about the axis, mm.
    """
    half = half_width(A.grid, A.geometry, reach)
    cells = int(np.clip(np.ceil(2 * half / A.grid.voxel), 2, _CELLS))
    grid = VolumeGrid((cells, cells), 2 * half / cells)
    B = ray_transform(grid, A.geometry, device=y.device)
    image = sirt(B, y, weights=weights, iterations=_ITERATIONS)
    inside = torch.from_numpy(resample(image.cpu().numpy(), grid, A.grid)).to(y)
    return B(image) - A(inside)
