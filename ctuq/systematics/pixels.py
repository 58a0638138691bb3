"""What an edge inside of a pixel does to the rays, which square pixels of one value each do not have.

A pixel that an edge crosses has a mean between the values of both sides, and a part of either: to first order the rays see a
dipole. Of a straight edge between values m and M and a pixel of value f its moment is
(f - m) (M - f) / (M - m) / 2 of the pixel's width, along the image's slope. Nobody knows how an edge lies, and no ray tells
it from the object: it is considered in the error bars.

Of rectangles on 20 x 20 pixels and views of 2 % of noise angles of views at true ones were told off by 1.2 of their standard
deviation (rms), of held-out views by 1.8 and 4.1; of the same where the object has square pixels, too, by 0.5 and 0.7.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ctuq.tomo import ray_transform
from ctuq.tomo.rays.transform import RayTransform

_LEADING, _BEYOND = 128, 16
"""Directions that error bars take at most, each of which is a solve of all rays; and what is drawn beyond them."""
_STEP = 0.5
_FAINT = 1e-6


def dipoles(A: RayTransform, image: Tensor) -> Tensor:
    """What edges inside of pixels do to the rays, in independent directions: (angle * column, k), float64.

    Parameters
    ----------
    A : RayTransform
    image : Tensor, shape (y, x)
    """
    moved = _Moved(A, moments(image.double()) * A.grid.voxel)
    count = min(_LEADING + _BEYOND, image.numel(), moved.cos.numel() * A.geometry.shape[1])
    rng = torch.Generator().manual_seed(0)
    rays = moved.rays(torch.randn(count, *image.shape, generator=rng, dtype=torch.float64).to(image.device))
    # The range of drawn rays, once more through the projector and back: the leading directions stand out.
    basis = torch.linalg.qr(rays.T)[0]
    basis = torch.linalg.qr(moved.rays(moved.pixels(basis.T)).T)[0]
    left, sizes, _ = torch.linalg.svd(moved.pixels(basis.T).flatten(1), full_matrices=False)
    kept = sizes > _FAINT * sizes[0].clamp(min=torch.finfo(sizes.dtype).tiny)
    return (basis @ left[:, kept] * sizes[kept])[:, :_LEADING]


def moments(image: Tensor) -> Tensor:
    """Along x and y (upwards), in pixels: (2, y, x)."""
    pad = torch.nn.functional.pad(image[None, None], (1, 1, 1, 1), mode="replicate")
    most = torch.nn.functional.max_pool2d(pad, 3, 1)[0, 0]
    least = -torch.nn.functional.max_pool2d(-pad, 3, 1)[0, 0]
    tiny = torch.finfo(image.dtype).tiny
    size = 0.5 * (image - least) * (most - image) / (most - least).clamp(min=tiny)
    wide = pad[0, 0]
    slope = torch.stack([wide[1:-1, 2:] - wide[1:-1, :-2], wide[:-2, 1:-1] - wide[2:, 1:-1]])
    return size * slope / slope.norm(dim=0).clamp(min=tiny)


class _Moved:
    """Rays of moments of all pixels: how rays change as a pixel moves along the detector, times its moment along it."""

    def __init__(self, A: RayTransform, moments: Tensor):
        step, geometry = _STEP * A.grid.voxel, A.geometry
        beside = [replace(geometry, axis_offset=geometry.axis_offset + side) for side in (step, -step)]
        self._sides = [ray_transform(A.grid, moved, device=A.device, backend="matrix") for moved in beside]
        self._twice, self._moments = 2 * step, moments
        angles = torch.tensor(geometry.angles, dtype=torch.float64, device=moments.device)[:, None]
        self.cos, self.sin = angles.cos(), angles.sin()

    def rays(self, factors: Tensor) -> Tensor:
        """Of factors of each pixel's moment (k, y, x), (k, angle * column)."""
        along = [self._difference(factors * moment, transposed=False) for moment in self._moments]
        return (self.cos * along[0] + self.sin * along[1]).flatten(1)

    def pixels(self, rays: Tensor) -> Tensor:
        """The transpose, (k, y, x)."""
        rays = rays.reshape(len(rays), *self._sides[0].geometry.shape)
        along = [self._difference(turn * rays, transposed=True) for turn in (self.cos, self.sin)]
        return along[0] * self._moments[0] + along[1] * self._moments[1]

    def _difference(self, values: Tensor, *, transposed: bool) -> Tensor:
        ahead, behind = ((side.T if transposed else side)(values.float()).double() for side in self._sides)
        return (ahead - behind) / self._twice
