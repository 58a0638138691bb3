"""Joseph's method in three dimensions: what all its forms share, and its sparse matrix.

A ray is stepped along the axis that it runs along most; in each plane of voxels across that axis it takes the value between
four voxels, linear in both directions (P. M. Joseph, IEEE Trans. Med. Imaging 1, 192, 1982). A pixel that is much wider than
a voxel at the rotation axis takes the mean of several rays. Everything is in index coordinates (x, y, z): whole numbers at
voxels' centres, y downwards.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ctuq.tomo.footprint import pitches
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.entries import joseph_rays
from ctuq.tomo.space import VolumeGeometry


@dataclass(frozen=True, eq=False)
class Rays:
    """All rays of a geometry, in the index coordinates of a grid.

    Parameters
    ----------
    table : array, shape (angle, 12)
        Source or direction, detector centre, steps along columns and along rows.
    diverging : bool
    rows, columns : int
        Of the rays: those of the detector times ``finer``.
    finer : tuple of int
        Rays to a pixel, along rows and along columns.
    shape : tuple of int
        Of the volume, (z, y, x).
    voxel : float
        In mm.
    """

    table: NDArray[np.float64]
    diverging: bool
    rows: int
    columns: int
    finer: tuple[int, int]
    shape: tuple[int, int, int]
    voxel: float

    @property
    def count(self) -> int:
        """How many rays there are."""
        return len(self.table) * self.rows * self.columns

    @property
    def entries(self) -> float:
        """At most so many voxels are met, by all rays together."""
        return 4.0 * max(self.shape[1:]) * self.count

    def of_view(self, view: int) -> tuple[NDArray, NDArray]:
        """Start and direction of each ray, (row * column, 3): the source, or a parallel ray's pixel."""
        first, centre, column, row = np.split(self.table[view], 4)
        c = np.arange(self.columns) - (self.columns - 1) / 2
        r = np.arange(self.rows) - (self.rows - 1) / 2
        pixels = (centre + r[:, None, None] * row + c[None, :, None] * column).reshape(-1, 3)
        if self.diverging:
            return np.broadcast_to(first, pixels.shape), pixels - first
        return pixels, np.broadcast_to(first, pixels.shape)


def rays_of(grid: VolumeGrid, geometry: VolumeGeometry) -> Rays:
    """The rays of a geometry, so many to a pixel as it is voxels wide at the axis."""
    depth, height, width = grid.shape
    voxel, centre = grid.voxel, np.array(grid.centre)
    table = geometry.vectors().reshape(-1, 4, 3)
    table[:, 1] -= centre
    if geometry.diverging:
        table[:, 0] -= centre
    table = table / voxel * [1, -1, 1]
    middle = (np.array([width, height, depth]) - 1) / 2
    table[:, 1] += middle
    if geometry.diverging:
        table[:, 0] += middle
    finer_row, finer_column = (joseph_rays(pitch / voxel) for pitch in pitches(geometry))
    table[:, 2] /= finer_column
    table[:, 3] /= finer_row
    rows, columns = geometry.rows * finer_row, geometry.columns * finer_column
    shape = (depth, height, width)
    return Rays(table.reshape(-1, 12), geometry.diverging, rows, columns, (finer_row, finer_column), shape, voxel)


def majors(directions: NDArray) -> NDArray[np.int64]:
    """The axis along which each ray is stepped: 0, 1, 2 for x, y, z; the first of equals."""
    return np.abs(directions).argmax(axis=-1)


def minor_axes(major: int) -> tuple[int, int]:
    """The two others, the one nearer to x first."""
    return ((1, 2), (0, 2), (0, 1))[major]


def build_volume_matrix(grid: VolumeGrid, geometry: VolumeGeometry) -> sp.csr_array:
    """Intersection lengths in mm of every detector pixel's rays with every voxel.

    Returns
    -------
    csr_array, float32, shape (rows * angles * columns, voxels)
        Rows of the matrix in the order (row, angle, column).
    """
    rays = rays_of(grid, geometry)
    parts = [_view_matrix(rays, view) for view in range(geometry.n_angles)]
    stacked = sp.csr_array(sp.vstack(parts, format="csr"))
    order = np.arange(int(np.prod(geometry.shape))).reshape(geometry.n_angles, geometry.rows, geometry.columns)
    return stacked[order.swapaxes(0, 1).reshape(-1)]


def rows_of_matrix(rays: Rays, index: NDArray) -> sp.csr_array:
    """Rows of `build_volume_matrix` by their flat index (row, angle, column), without the others, (index, voxels)."""
    columns, angles = rays.columns // rays.finer[1], len(rays.table)
    views, pixels = index // columns % angles, index // (columns * angles) * columns + index % columns
    parts, places = [], []
    for view in np.unique(views):
        here = np.flatnonzero(views == view)
        parts.append(_view_matrix(rays, int(view), pixels[here])[pixels[here]])
        places.append(here)
    if not parts:
        return sp.csr_array((0, int(np.prod(rays.shape))), dtype=np.float32)
    order = np.argsort(np.concatenate(places), kind="stable")
    return sp.csr_array(sp.csr_array(sp.vstack(parts, format="csr"))[order])


def _view_matrix(rays: Rays, view: int, pixels: NDArray | None = None) -> sp.csr_array:
    """The matrix of one view, (row * column of the detector, voxels); of these pixels alone, the others' rows are empty."""
    start, ray = rays.of_view(view)
    which, size = majors(ray), int(np.prod(rays.shape))
    wanted = np.ones(len(ray), bool) if pixels is None else np.isin(_pixel(rays, np.arange(len(ray))), pixels)
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))]
    for major in np.unique(which):
        chosen = np.flatnonzero((which == major) & wanted)
        places, values = _met(rays, start[chosen], ray[chosen], int(major))
        used = values > 0
        counts = used.reshape(len(chosen), 4 * rays.shape[2 - major]).sum(axis=1)
        parts.append((np.repeat(_pixel(rays, chosen), counts), places[used], values[used]))
    row, column, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    count = rays.rows * rays.columns // (rays.finer[0] * rays.finer[1])
    # In the order of (row, voxel), rays of one pixel added up.
    matrix = sp.csr_array(sp.coo_array((value, (row, column)), shape=(count, size)))
    matrix.sort_indices()
    return matrix


def _pixel(rays: Rays, ray: NDArray) -> NDArray[np.int64]:
    """The detector pixel of a ray of a view."""
    row, column = np.divmod(ray, rays.columns)
    return row // rays.finer[0] * (rays.columns // rays.finer[1]) + column // rays.finer[1]


def _met(rays: Rays, start: NDArray, ray: NDArray, major: int) -> tuple[NDArray, NDArray]:
    """Voxels and lengths, each (ray, plane, 4): lengths are 0 for what lies outside."""
    size, strides = np.array(rays.shape[::-1]), np.array([1, rays.shape[2], rays.shape[1] * rays.shape[2]])
    a, b = minor_axes(major)
    planes = np.arange(size[major])
    reach = (planes - start[:, major, None]) / ray[:, major, None]
    p, q = (start[:, axis, None] + reach * ray[:, axis, None] for axis in (a, b))
    length = np.linalg.norm(ray, axis=1) / np.abs(ray[:, major]) * rays.voxel / (rays.finer[0] * rays.finer[1])
    weight = np.repeat(length[:, None], len(planes), axis=1)
    if rays.diverging:
        weight[reach <= 0] = 0
    places = np.empty((*p.shape, 4), np.int32)
    values = np.empty((*p.shape, 4), np.float32)
    low_p, low_q = np.floor(p), np.floor(q)
    for corner, (up, uq) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        i, j = low_p + up, low_q + uq
        inside = (i >= 0) & (i < size[a]) & (j >= 0) & (j < size[b])
        share = np.abs(1 - up - (p - low_p)) * np.abs(1 - uq - (q - low_q))
        values[..., corner] = np.where(inside, share * weight, 0)
        places[..., corner] = np.where(inside, i * strides[a] + j * strides[b] + planes * strides[major], 0)
    return places.reshape(-1), values.reshape(-1)
