"""The ray transform of volumes, and who computes it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import BackendError
from ctuq.linops.memory import available_memory, in_parts, require_memory
from ctuq.linops.operator import LinearOperator, Space
from ctuq.tomo.footprint import require_shadow
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.cache import cached_matrix, default_directory
from ctuq.tomo.rays.compiled import CompiledPair, has_numba
from ctuq.tomo.rays.entries import expected_entries
from ctuq.tomo.rays.joseph import Rays, build_volume_matrix, rays_of
from ctuq.tomo.rays.matrix import MatrixPair
from ctuq.tomo.rays.planes import PlanesPair
from ctuq.tomo.rays.stack import StackPair, slice_of
from ctuq.tomo.rays.transform import Pair, multiply
from ctuq.tomo.space import Parallel3D, VolumeGeometry

_BACKENDS = ("auto", "matrix", "stack", "numba", "torch")
# Bytes of the matrix and its transpose, as `Rays.entries` counts them, up to which they are worth holding: beside compiled
# kernels only small ones are (at 64^3 equally fast, and 0.9 GiB), beside torch's sampling, twelve times slower, larger ones.
_SMALL, _LARGE = 2**28, 2**31
_PAIR, _BUILT = 16, 32
_WORTH_CACHING = 1.5e7
_ADVICE = "choose fewer voxels, fewer views or bin the detector"


class VolumeTransform(LinearOperator):
    """``A`` maps volumes ``(..., z, y, x)`` in 1/mm to projections ``(..., row, angle, column)``; ``A.T`` back-projects.

    It is differentiable and works under every transform of torch.func.

    Attributes
    ----------
    grid : VolumeGrid
    geometry : ConeBeam, Parallel3D or FreeBeam
    backend : {"matrix", "stack", "numba", "torch"}
        Who computes it; all are Joseph's method.
    exact_transpose : bool
        True of all of them.
    """

    exact_transpose = True

    def __init__(self, grid: VolumeGrid, geometry: VolumeGeometry, backend: str, device: torch.device, pair: Pair):
        self.grid, self.geometry, self.backend = grid, geometry, backend
        self.domain = Space(grid.shape, torch.float32, device)
        self.range = Space(geometry.shape, torch.float32, device)
        self._pair = pair

    @property
    def device(self) -> torch.device:
        """Where volumes and projections live."""
        return self.domain.device

    def _apply(self, x: Tensor) -> Tensor:
        return self._product(x, transposed=False).reshape(len(x), *self.range.shape)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._product(y, transposed=True).reshape(len(y), *self.domain.shape)

    def _product(self, x: Tensor, *, transposed: bool) -> Tensor:
        """Of all at once, or in as many parts as the device's memory asks for."""
        parts = list[Tensor]()
        count = max(1, len(x))
        in_parts(count, count, lambda some: parts.append(multiply(x[some].flatten(1), self._pair, transposed=transposed)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def subset(self, indices: Sequence[int] | NDArray) -> "VolumeTransform":
        """The ray transform of the chosen views."""
        return volume_transform(self.grid, self.geometry.subset(indices), backend=self.backend, device=self.device)

    def __reduce__(self):
        return _again, (self.grid, self.geometry, self.backend, str(self.device))


def volume_transform(
    grid: VolumeGrid,
    geometry: VolumeGeometry,
    *,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    cache: Path | str | None = None,
) -> VolumeTransform:
    """The ray transform of volumes on ``grid``, in 1/mm, to projections of ``geometry``; see `ctuq.tomo.ray_transform`.

    Parameters
    ----------
    grid : VolumeGrid
    geometry : ConeBeam, Parallel3D or FreeBeam
    backend : {"auto", "matrix", "stack", "numba", "torch"}
        "stack" is the matrix of one slice for all, of parallel rays square to the axis; "matrix" a sparse matrix and its
        transpose; "numba" compiled kernels on a CPU without a matrix (extra ``volumes``); "torch" the same on any device.
    device : torch.device or str
    cache : path, optional
        Directory for built matrices; by default the user's cache directory, for those that take seconds to build.

    Raises
    ------
    BackendError
        If the backend is unknown, or not for this geometry or device.
    GeometryError
        If views miss the volume, or the source lies inside it.
    ResourceError
        If the matrix, or the volume with what products of it take, does not fit in memory.
    """
    device = torch.device(device)
    require_shadow(grid, geometry)
    rays = rays_of(grid, geometry)
    chosen = chosen_backend(grid, geometry, rays, device) if backend == "auto" else backend
    makers: dict[str, Callable[[], Pair]] = {
        "matrix": lambda: _matrix(grid, geometry, rays, device, cache),
        "stack": lambda: _stack(grid, geometry, device),
        "numba": lambda: _compiled(rays, device),
        "torch": lambda: PlanesPair(rays, device),
    }
    if chosen not in makers:
        raise BackendError(f"There is no ray transform of volumes {backend!r}; choose one of {', '.join(_BACKENDS)}.")
    return VolumeTransform(grid, geometry, chosen, device, makers[chosen]())


def chosen_backend(grid: VolumeGrid, geometry: VolumeGeometry, rays: Rays, device: torch.device) -> str:
    """Who computes fastest within the memory that is left."""
    left = available_memory(device)
    room = float("inf") if left is None else left / 2
    if isinstance(geometry, Parallel3D) and geometry.upright:
        slices = _PAIR * expected_entries(slice_of(grid), geometry.plane)
        if slices <= min(_LARGE, room):
            return "stack"
    compiled = has_numba() and device.type == "cpu"
    if _PAIR * rays.entries <= min(_SMALL if compiled else _LARGE, room):
        return "matrix"
    return "numba" if compiled else "torch"


def _matrix(grid: VolumeGrid, geometry: VolumeGeometry, rays: Rays, device: torch.device, cache: Path | str | None) -> Pair:
    require_memory(_BUILT * rays.entries, "The ray transform matrix of this volume", _ADVICE)
    if cache is None and rays.entries < _WORTH_CACHING:
        matrix = build_volume_matrix(grid, geometry)
    else:
        matrix = cached_matrix(grid, geometry, build_volume_matrix, default_directory() if cache is None else Path(cache))
    depth, height, width = grid.shape
    # As an image of (z y, x): the matrix numbers large images in tiles of two axes.
    domain = Space((depth * height, width), torch.float32, device)
    return MatrixPair(matrix, domain, Space((1, int(np.prod(geometry.shape))), torch.float32, device))


def _stack(grid: VolumeGrid, geometry: VolumeGeometry, device: torch.device) -> Pair:
    if not (isinstance(geometry, Parallel3D) and geometry.upright):
        raise BackendError("backend='stack' is for parallel rays square to the rotation axis; use backend='auto'.")
    return StackPair(grid, geometry, device)


def _compiled(rays: Rays, device: torch.device) -> Pair:
    if device.type != "cpu":
        raise BackendError(f"backend='numba' runs on a CPU, not on {device}; use backend='torch'.")
    pair = CompiledPair(rays)
    needed = 4 * (pair.copies * float(np.prod(rays.shape)) + 3 * rays.count)
    require_memory(needed, "The volume with its projections", _ADVICE)
    return pair


def _again(grid: VolumeGrid, geometry: VolumeGeometry, backend: str, device: str) -> VolumeTransform:
    return volume_transform(grid, geometry, backend=backend, device=device)
