"""The compiled form of Joseph's method as a pair of products, its views shared by threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import BackendError
from ctuq.tomo.rays.joseph import Rays


def has_numba() -> bool:
    """Whether the extra ``volumes`` is installed."""
    return find_spec("numba") is not None


def separable(rays: Rays) -> bool:
    """Whether all rays of a detector column run through one line of the plane, and none steeper than along x or y.

    So it is where rows are stacked along z: circular orbits and helices with a detector that stands upright.
    """
    table = rays.table
    scale = np.abs(table[:, 6:12]).max()
    if np.abs(table[:, [8, 9, 10]]).max() > 1e-12 * scale:
        return False
    ends = [rays.of_view(view)[1].reshape(rays.rows, rays.columns, 3)[[0, -1]] for view in range(len(table))]
    rays_at_ends = np.abs(np.stack(ends))
    return bool((rays_at_ends[..., 2] < rays_at_ends[..., :2].max(-1)).all())


class CompiledPair:
    """Projection and transpose of flat volumes (k, z * y * x) to flat projections (k, row * angle * column), on a CPU.

    Raises
    ------
    BackendError
        If numba is not installed.
    """

    def __init__(self, rays: Rays):
        if not has_numba():
            raise BackendError("The compiled ray transform needs numba: pip install 'ctuq[volumes]', or use backend='torch'.")
        self._rays, self._upright = rays, separable(rays)

    @property
    def copies(self) -> int:
        """How many volumes are held at once, at most."""
        return 2 + torch.get_num_threads()

    def multiply(self, x: Tensor, transposed: bool) -> Tensor:
        one = self._back_project if transposed else self._project
        out = np.empty((len(x), self._outputs(transposed)), np.float32)
        for made, value in zip(out, x.detach().numpy(), strict=True):
            made[:] = one(value)
        return torch.from_numpy(out)

    def _outputs(self, transposed: bool) -> int:
        down, across = self._rays.finer
        return int(np.prod(self._rays.shape)) if transposed else self._rays.count // (down * across)

    def _project(self, volume: NDArray) -> NDArray[np.float32]:
        from ctuq.tomo.rays import kernels

        rays = self._rays
        if self._upright:
            volume = np.ascontiguousarray(volume.reshape(rays.shape).transpose(1, 2, 0)).reshape(-1)
        else:
            volume = np.ascontiguousarray(volume)
        kernel: Any = kernels.project_upright if self._upright else kernels.project_any
        out = np.zeros(self._layout, np.float32)
        _shared_by_threads(len(rays.table), lambda first, last, _: kernel(volume, *self._arguments, first, last, out))
        out = out.transpose(2, 0, 1) if self._upright else out
        down, across = rays.finer
        pooled = out.reshape(rays.rows // down, down, len(rays.table), rays.columns // across, across)
        return np.ascontiguousarray(pooled.mean(axis=(1, 4)) if rays.finer != (1, 1) else out).reshape(-1)

    def _back_project(self, projections: NDArray) -> NDArray[np.float32]:
        from ctuq.tomo.rays import kernels

        rays, (down, across) = self._rays, self._rays.finer
        values = projections.reshape(rays.rows // down, len(rays.table), rays.columns // across)
        if rays.finer != (1, 1):
            values = values.repeat(down, axis=0).repeat(across, axis=2) / np.float32(down * across)
        values = np.ascontiguousarray(values.transpose(1, 2, 0) if self._upright else values)
        kernel: Any = kernels.back_project_upright if self._upright else kernels.back_project_any
        threads = min(torch.get_num_threads(), len(rays.table))
        totals = np.zeros((threads, int(np.prod(rays.shape))), np.float32)
        _shared_by_threads(
            len(rays.table), lambda first, last, thread: kernel(values, *self._arguments, first, last, totals[thread])
        )
        total = totals[0] if threads == 1 else totals.sum(axis=0)
        if not self._upright:
            return total
        depth, height, width = rays.shape
        return np.ascontiguousarray(total.reshape(height, width, depth).transpose(2, 0, 1)).reshape(-1)

    @property
    def _layout(self) -> tuple[int, int, int]:
        rays = self._rays
        return (len(rays.table), rays.columns, rays.rows) if self._upright else (rays.rows, len(rays.table), rays.columns)

    @property
    def _arguments(self) -> tuple[Any, ...]:
        rays = self._rays
        return rays.shape, rays.table, rays.diverging, rays.rows, rays.columns, rays.voxel


def _shared_by_threads(views: int, work: Callable[[int, int, int], None]) -> None:
    """``work(first, last, thread)`` for ranges of views, one a thread of torch's number."""
    threads = min(torch.get_num_threads(), views)
    if threads == 1:
        work(0, views, 0)
        return
    ends = np.linspace(0, views, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(work, int(a), int(b), n) for n, (a, b) in enumerate(pairwise(ends))]
    for each in done:
        each.result()
