"""One function that makes a ray transform, and chooses who computes it."""

from pathlib import Path
from typing import overload

import torch

from ctuq.errors import BackendError, InputError
from ctuq.linops.memory import available_memory, require_memory
from ctuq.tomo.coverage import require_coverage
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.rays.astra_cuda import AstraCudaRayTransform
from ctuq.tomo.rays.cache import cached_matrix, default_directory
from ctuq.tomo.rays.entries import build_matrix, expected_entries
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform, volume_transform
from ctuq.tomo.space import AreaBeam, VolumeGeometry

_BACKENDS = ("auto", "matrix", "astra-cuda")

# 8 bytes an entry for each of the matrix, its tiled copy, its transpose, and one more while they are made.
_BYTES_PER_ENTRY = 32
_WORTH_CACHING = 2e6


@overload
def ray_transform(
    grid: VolumeGrid,
    geometry: Geometry,
    *,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    cache: Path | str | None = None,
) -> RayTransform: ...
@overload
def ray_transform(
    grid: VolumeGrid,
    geometry: VolumeGeometry,
    *,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    cache: Path | str | None = None,
) -> VolumeTransform: ...
def ray_transform(
    grid: VolumeGrid,
    geometry: Geometry | VolumeGeometry,
    *,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    cache: Path | str | None = None,
) -> RayTransform | VolumeTransform:
    """The ray transform of images on ``grid``, in 1/mm, to sinograms of ``geometry``, or of volumes to their projections.

    Parameters
    ----------
    grid : VolumeGrid
        Of an image (y, x), or of a volume (z, y, x) for the geometries with an area detector.
    geometry : ParallelBeam, FanBeam, ConeBeam, Parallel3D or FreeBeam
    backend : {"auto", "matrix", "astra-cuda"}
        "matrix" keeps a sparse matrix and its exact transpose on any device; "astra-cuda" computes on the fly on a GPU
        and serves reconstruction only; "auto" takes the matrix, and ASTRA only on a GPU whose memory the matrix would not fit.
        Volumes have others, see `ctuq.tomo.rays.volume.volume_transform`.
    device : torch.device or str
    cache : path, optional
        Directory for built matrices; by default the user's cache directory, for matrices that take seconds to build.

    Raises
    ------
    BackendError
        If the backend is unknown, or a GPU is asked for and there is none.
    GeometryError
        If views miss the image, or the source lies inside it.
    ResourceError
        If the matrix does not fit in memory.
    """
    if isinstance(geometry, AreaBeam):
        return volume_transform(grid, geometry, backend=backend, device=_device(device), cache=cache)
    if backend not in _BACKENDS:
        raise BackendError(f"There is no ray transform backend {backend!r}; choose one of {', '.join(_BACKENDS)}.")
    device = _device(device)
    require_coverage(grid, geometry)
    if backend == "astra-cuda" or (backend == "auto" and device.type == "cuda" and not _fits(grid, geometry, device)):
        return AstraCudaRayTransform(grid, geometry, device)
    entries = expected_entries(grid, geometry)
    advice = "choose a smaller image, fewer views or bin the detector"
    require_memory(_BYTES_PER_ENTRY * entries, "The ray transform matrix", advice)
    if cache is None and entries < _WORTH_CACHING:
        matrix = build_matrix(grid, geometry)
    else:
        matrix = cached_matrix(grid, geometry, build_matrix, default_directory() if cache is None else Path(cache))
    return MatrixRayTransform(matrix, grid, geometry, device)


def _fits(grid: VolumeGrid, geometry: Geometry, device: torch.device) -> bool:
    left = available_memory(device)
    return left is None or 16 * expected_entries(grid, geometry) < left


def _device(device: torch.device | str) -> torch.device:
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"There is no device {str(device)!r}; use 'cpu', 'cuda' or 'cuda:0'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"The device {str(device)!r} was asked for, and PyTorch finds no GPU; use device='cpu'.")
    return device
