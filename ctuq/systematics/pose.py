"""Errors of where axis, object and source are: differences of the projector between two geometries."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ctuq.tomo import ray_transform
from ctuq.tomo.geometry import FanBeam, Geometry
from ctuq.tomo.rays.transform import RayTransform

_STEP = 0.5
"""Of a pixel, that the image's rim moves. Projectors are kinked where a ray passes from one pixel to the next: of two smooth
spots in a fan the derivative by the axis is 8 % off over a tenth of a pixel, 0.8 % over a half, 1.2 % over one."""


def _reach(A: RayTransform) -> float:
    """Half the image's width in mm."""
    return 0.5 * max(A.grid.shape) * A.grid.voxel


def by_axis(A: RayTransform, image: Tensor) -> Tensor:
    """What a mm of the axis along the detector's columns changes in every ray: (angle, column), float64."""

    def moved(geometry: Geometry, step: float) -> Geometry:
        return replace(geometry, axis_offset=geometry.axis_offset + step)

    return _difference(A, image, moved, _STEP * A.grid.voxel)


def by_angle(A: RayTransform, image: Tensor) -> Tensor:
    """What a radian of each view's angle changes in its rays."""

    def turned(geometry: Geometry, step: float) -> Geometry:
        return replace(geometry, angles=geometry.angles + step)

    return _difference(A, image, turned, _STEP * A.grid.voxel / _reach(A))


def by_distance(A: RayTransform, image: Tensor) -> Tensor:
    """What a mm of a fan's source to axis changes, the detector's distance from the source staying."""
    assert isinstance(A.geometry, FanBeam)
    share = _STEP * A.grid.voxel / _reach(A)

    def farther(geometry: Geometry, step: float) -> Geometry:
        assert isinstance(geometry, FanBeam)
        return replace(geometry, source_to_axis=geometry.source_to_axis + step)

    free = A.geometry.source_to_detector - A.geometry.source_to_axis
    return _difference(A, image, farther, min(share * A.geometry.source_to_axis, 0.5 * free))


def without_frame(angles: Tensor, tell: Tensor | None = None) -> Tensor:
    """Shifts of views that are no motion of the whole object: orthonormal, (views, k).

    A shift alike in all views is the axis; one as cosine and sine of the angle moves the object, and the image with it. That
    holds for the views that tell of shifts: with the others among them, a motion of 0.6 mm in fitted views was paid for by
    shifts of 4 mm in three held-out ones, and the image moved by a quarter of a pixel.

    Parameters
    ----------
    angles : Tensor, shape (views,)
    tell : Tensor of bool, shape (views,), optional
        Views from which shifts are learned; by default all. Each of the others has one of its own.
    """
    return _beside(torch.stack([torch.ones_like(angles), angles.cos(), angles.sin()], 1), tell)


def without_turn(tell: Tensor) -> Tensor:
    """Angles of views that are no turn of the whole object, of views of which those that ``tell`` fix how it lies."""
    return _beside(torch.ones(len(tell), 1, dtype=torch.float64), tell)


def _beside(frame: Tensor, tell: Tensor | None) -> Tensor:
    """Orthonormal columns beside those of the frame in views that tell, and one for each other view."""
    if tell is None or bool(tell.all()):
        return complement(frame)
    among, others = tell.nonzero()[:, 0], (~tell).nonzero()[:, 0]
    inside = complement(frame[among])
    basis = inside.new_zeros(len(frame), inside.shape[1] + len(others))
    basis[among, : inside.shape[1]] = inside
    basis[others, inside.shape[1] + torch.arange(len(others))] = 1.0
    return basis


def complement(directions: Tensor) -> Tensor:
    """Orthonormal columns (n, n - rank) beside the columns of (n, k)."""
    vectors, sizes, _ = torch.linalg.svd(directions.double(), full_matrices=True)
    rank = int((sizes > 1e-9 * math.sqrt(len(directions))).sum())
    return vectors[:, rank:].contiguous()


def _difference(A: RayTransform, image: Tensor, changed: Callable[[Geometry, float], Geometry], step: float) -> Tensor:
    def rays(by: float) -> Tensor:
        return ray_transform(A.grid, changed(A.geometry, by), device=A.device, backend="matrix")(image.float()).double()

    # One after the other: each has a matrix of its own, of 0.8 GiB for all views of the tooth at 512 x 512.
    return (rays(step) - rays(-step)) / (2 * step)
