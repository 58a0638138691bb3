"""Filtered back-projection of volumes: Feldkamp, Davis and Kress for cones, slice by slice for parallel rays."""

from dataclasses import replace
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from ctuq.errors import GeometryError, InputError
from ctuq.recon.fbp import (
    continued,
    cut_ends,
    filtered_rays,
    open_ends,
    pixel_centres,
    ramp,
    ray_factors,
    require_window,
)
from ctuq.tomo.coverage import detector_columns
from ctuq.tomo.footprint import detector_pixels
from ctuq.tomo.geometry import FanBeam, VolumeGrid
from ctuq.tomo.rays.stack import slice_of
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.tomo.space import ConeBeam, Parallel3D, VolumeGeometry

_CHUNK_BYTES = 2**26


@torch.no_grad()
def fdk(A: VolumeTransform, y: Tensor, *, weights: Tensor | None = None, window: str = "hann") -> Tensor:
    """Filtered back-projection on ``A.grid`` of a circular scan: full turns, short scans, shifted, rolled, leaning detectors.

    Parameters
    ----------
    A : VolumeTransform
        Gives grid and geometry; its product is not used.
    y : Tensor, shape (..., row, angle, column)
        Line integrals.
    weights : Tensor, optional
        Taken for the common signature, and not used: the filter treats every ray alike.
    window : str
        As in `ctuq.recon.fbp`.

    Returns
    -------
    Tensor, shape (..., z, y, x)
        Attenuation in 1/mm. It is exact in the plane of the source's circle only: the further above or below, the more of what
        changes along z is lost. Beyond the detector's first and last row the projections are taken to go on as they end.

    Raises
    ------
    GeometryError
        If the orbit is no circle about the z axis: vectors are free, or the axis leans.
    InputError
        If the window is unknown or the projections' shape is not the geometry's.

    Notes
    -----
    L. A. Feldkamp, L. C. Davis and J. W. Kress, J. Opt. Soc. Am. A 1, 612 (1984). Rays measured twice share their weight as
    those of the middle plane do (`ctuq.recon.redundancy`, in place of D. L. Parker, Med. Phys. 9, 254, 1982). A detector that
    is turned is first resampled to one that stands upright.
    """
    require_window(window)
    geometry = require_circle(A.geometry)
    if tuple(y.shape[-3:]) != geometry.shape:
        raise InputError(f"The projections have shape {tuple(y.shape)}, but the geometry says (..., {geometry.shape}).")
    grid = A.grid
    batch = y.reshape(-1, *geometry.shape)
    batch, upright = _upright(batch, geometry)
    plane, image = upright.plane, slice_of(grid)
    places = detector_columns(plane, pixel_centres(image))
    margin = int(np.ceil(max(0.0, -places.min(), places.max() - plane.columns + 1))) + 1
    factors = ray_factors(plane) * _rise(upright)[:, None]
    rays = (batch * torch.from_numpy(factors).to(batch)).flatten(0, 1)
    rays, beyond = continued(rays, cut_ends(batch.flatten(0, 1)) & open_ends(plane))
    filtered = filtered_rays(rays, ramp(image, plane, margin, beyond, window), margin, beyond)
    volume = _back_project(filtered.reshape(*batch.shape[:3], -1), grid, upright, places + margin)
    return volume.reshape(*y.shape[:-3], *grid.shape)


def is_circle(geometry: VolumeGeometry) -> TypeGuard[ConeBeam | Parallel3D]:
    """Whether source and detector go round an upright z axis, which FDK is for."""
    return isinstance(geometry, ConeBeam) or (isinstance(geometry, Parallel3D) and not geometry.axis_tilt)


def require_circle(geometry: VolumeGeometry) -> ConeBeam | Parallel3D:
    """The geometry, if FDK is for it.

    Raises
    ------
    GeometryError
        With what to use instead.
    """
    if is_circle(geometry):
        return geometry
    leans = isinstance(geometry, Parallel3D)
    kind = f"an axis that leans by {np.rad2deg(geometry.axis_tilt):.4g} degrees" if leans else "free vectors"
    raise GeometryError(f"FDK is for circular orbits about an upright axis, and this scan has {kind}; use SIRT or CGLS.")


def _upright(y: Tensor, geometry: ConeBeam | Parallel3D) -> tuple[Tensor, ConeBeam | Parallel3D]:
    """Projections (k, row, angle, column) as a detector without roll, tilt and yaw would show them, and its geometry."""
    if geometry.upright:
        return y, geometry
    turns = {"roll": 0.0} | ({"tilt": 0.0, "yaw": 0.0} if isinstance(geometry, ConeBeam) else {})
    upright = replace(geometry, **turns)
    _, centre, column, row = np.split(upright.vectors()[0], 4)
    c = np.arange(geometry.columns) - (geometry.columns - 1) / 2
    r = np.arange(geometry.rows) - (geometry.rows - 1) / 2
    points = (centre + r[:, None, None] * row + c[None, :, None] * column).reshape(-1, 3)
    rows, columns = detector_pixels(geometry.subset([0]), points)
    # The places are the same in all views: the detector turns with the source.
    places = _normalised(torch.from_numpy(rows[0]), torch.from_numpy(columns[0]), geometry.rows, geometry.columns)
    k, _, views, _ = y.shape
    pictures = y.permute(0, 2, 1, 3).reshape(1, k * views, geometry.rows, geometry.columns)
    places = places.to(y).reshape(1, geometry.rows, geometry.columns, 2)
    turned = grid_sample(pictures, places, align_corners=True, padding_mode="border")
    return turned.reshape(k, views, geometry.rows, geometry.columns).permute(0, 2, 1, 3), upright


def _rise(geometry: ConeBeam | Parallel3D) -> NDArray[np.float64]:
    """Cosines of rays that rise out of the plane, over those of the rays below them in the plane, (row, column)."""
    plane = geometry.plane
    if not isinstance(plane, FanBeam):
        return np.ones((geometry.rows, geometry.columns))
    r = (np.arange(geometry.rows) - (geometry.rows - 1) / 2) * geometry.row_pitch + geometry.row_offset
    level = np.hypot(plane.source_to_detector, plane.positions())
    return level / np.hypot(level, r[:, None])


def _back_project(q: Tensor, grid: VolumeGrid, geometry: ConeBeam | Parallel3D, places: NDArray) -> Tensor:
    """Sum over views of ``q`` (k, row, angle, column), interpolated where voxels fall, over the squared magnification."""
    k, rows, views, columns = q.shape
    depth, height, width = grid.shape
    pixels, volume = pixel_centres(slice_of(grid)), q.new_zeros(k, depth, height * width)
    z = grid.places()[0]
    step = max(1, _CHUNK_BYTES // (4 * height * width * (4 + k)))
    for view in range(views):
        closeness = _closeness(geometry, view, pixels)
        scale = geometry.plane.magnification * closeness / geometry.row_pitch
        across, up = (torch.from_numpy(values).to(q) for values in (places[view], scale))
        weight = torch.from_numpy(closeness**2).to(q)
        level = (rows - 1) / 2 - geometry.row_offset / geometry.row_pitch
        for first in range(0, depth, step):
            heights = torch.from_numpy(z[first : first + step]).to(q)
            row = level + heights[:, None] * up
            at = _normalised(row, across.expand_as(row), rows, columns)
            picture = q[:, None, :, view]
            sampled = grid_sample(picture, at.expand(k, -1, -1, -1), align_corners=True, padding_mode="border")
            volume[:, first : first + step] += sampled[:, 0] * weight
    return volume.reshape(k, *grid.shape)


def _closeness(geometry: ConeBeam | Parallel3D, view: int, pixels: NDArray) -> NDArray[np.float64]:
    """Distance from the source to the axis over that to each pixel (x, y), along the central ray; 1 for parallel rays."""
    if isinstance(geometry, Parallel3D):
        return np.ones(len(pixels))
    angle = geometry.angles[view]
    along = np.array([-np.sin(angle), np.cos(angle)])
    return 1 / (1 + pixels @ along / geometry.source_to_axis)


def _normalised(rows: Tensor, columns: Tensor, n_rows: int, n_columns: int) -> Tensor:
    """Places on a picture as ``grid_sample`` counts them, from -1 at the first pixel's centre to 1 at the last's."""
    ends = max(n_columns - 1, 1), max(n_rows - 1, 1)
    return torch.stack([2 * columns / ends[0] - 1, 2 * rows / ends[1] - 1], dim=-1)
