"""Joseph's method in plain torch, on any device: planes of the volume sampled by ``grid_sample``, and the exact transpose."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ctuq.tomo.rays.joseph import Rays, majors, minor_axes

_CHUNK_BYTES = 2**26
_AXIS = (3, 2, 1)
"""Axes of a batch (k, z, y, x) that x, y and z are."""
_BILINEAR, _ZEROS = 0, 0
_NOWHERE = 9.0


class PlanesPair:
    """Projection and transpose of flat volumes (k, z * y * x) to flat projections (k, row * angle * column).

    Rays of a view that share their major axis are sampled at once in so many planes as fit into 64 MiB. Sampling and
    its gradient use the same places, so the transpose is exact to rounding.
    """

    def __init__(self, rays: Rays, device: torch.device):
        self._rays, self._device = rays, device

    def multiply(self, x: Tensor, transposed: bool) -> Tensor:
        return self._back_project(x.detach()) if transposed else self._project(x.detach())

    def _project(self, x: Tensor) -> Tensor:
        k, rays = len(x), self._rays
        volume = x.reshape(k, *rays.shape)
        planes: dict[int, Tensor] = {}
        out = x.new_zeros(k, len(rays.table), rays.rows * rays.columns)
        for view, major, chosen, chunks, length in self._parts(k):
            if major not in planes:
                planes[major] = volume.movedim(_AXIS[major], 0).contiguous()
            total = torch.zeros(k, len(chosen), dtype=x.dtype, device=x.device)
            for first, last, places in chunks:
                sampled = grid_sample(planes[major][first:last], places, padding_mode="zeros", align_corners=False)
                total += sampled.sum((0, 2))
            out[:, view, chosen] = total * length
        return _pooled(out.reshape(k, -1, rays.rows, rays.columns), rays).swapaxes(1, 2).reshape(k, -1)

    def _back_project(self, y: Tensor) -> Tensor:
        k, rays = len(y), self._rays
        spread = _spread(y, rays).reshape(k, len(rays.table), -1)
        planes: dict[int, Tensor] = {}
        for view, major, chosen, chunks, length in self._parts(k):
            if major not in planes:
                a, b = minor_axes(major)
                sizes = rays.shape[::-1]
                planes[major] = y.new_zeros(sizes[major], k, sizes[b], sizes[a])
            value = (spread[:, view, chosen] * length)[None, :, None]
            for first, last, places in chunks:
                gradient = value.expand(last - first, -1, -1, -1).contiguous()
                into, _ = torch.ops.aten.grid_sampler_2d_backward(
                    gradient, planes[major][first:last], places, _BILINEAR, _ZEROS, False, [True, False]
                )
                planes[major][first:last] += into
        total = y.new_zeros(k, *rays.shape)
        for major, values in planes.items():
            total += values.movedim(0, _AXIS[major])
        return total.reshape(k, -1)

    def _parts(self, k: int) -> Iterator[tuple[int, int, Tensor, Iterator[tuple[int, int, Tensor]], Tensor]]:
        """View, major axis, its rays, where they meet its planes chunk by chunk, and their lengths in a plane's step."""
        rays = self._rays
        sizes = rays.shape[::-1]
        for view in range(len(rays.table)):
            start, ray = rays.of_view(view)
            which = majors(ray)
            for major in np.unique(which):
                chosen, (a, b) = np.flatnonzero(which == major), minor_axes(int(major))
                ray_m, start_m = ray[chosen], start[chosen]
                length = np.linalg.norm(ray_m, axis=1) / np.abs(ray_m[:, major]) * rays.voxel
                slopes = ray_m[:, [a, b]] / ray_m[:, [major]]
                # Where the ray meets plane 0, in float64: from a source far away float32 would lose the difference.
                meets = start_m[:, [a, b]] - start_m[:, [major]] * slopes
                ahead = np.stack([start_m[:, major], np.sign(ray_m[:, major])])
                lines = self._tensor(np.concatenate([meets.T, slopes.T, ahead]))
                chunks = self._chunks(lines, (sizes[major], sizes[a], sizes[b]), k)
                yield view, int(major), torch.from_numpy(chosen).to(self._device), chunks, self._tensor(length)

    def _chunks(self, lines: Tensor, sizes: tuple[int, int, int], k: int) -> Iterator[tuple[int, int, Tensor]]:
        p0, q0, slope_p, slope_q, source, sign = lines
        count, across, down = sizes
        step = max(1, _CHUNK_BYTES // (4 * len(p0) * (4 + 2 * k)))
        for first in range(0, count, step):
            last = min(count, first + step)
            plane = torch.arange(first, last, dtype=p0.dtype, device=p0.device)[:, None]
            p, q = p0 + plane * slope_p, q0 + plane * slope_q
            places = torch.stack([(2 * p + 1) / across - 1, (2 * q + 1) / down - 1], dim=-1)
            if self._rays.diverging:
                places = torch.where(((plane - source) * sign > 0)[..., None], places, _NOWHERE)
            yield first, last, places[:, None]

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self._device)


def _pooled(y: Tensor, rays: Rays) -> Tensor:
    """Rays (k, angle, row, column) to the means of their pixels."""
    if rays.finer == (1, 1):
        return y
    return torch.nn.functional.avg_pool2d(y, rays.finer)


def _spread(y: Tensor, rays: Rays) -> Tensor:
    """The transpose of `_pooled`, from flat projections (k, row * angle * column)."""
    (down, across), views = rays.finer, len(rays.table)
    pixels = y.reshape(len(y), rays.rows // down, views, rays.columns // across).swapaxes(1, 2)
    if rays.finer == (1, 1):
        return pixels
    return pixels.repeat_interleave(down, 2).repeat_interleave(across, 3) / (down * across)
