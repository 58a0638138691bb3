"""Volumes: from a scan of an area detector to its image in three axes, by the classical methods, without error bars."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import GeometryError, InputError
from ctuq.linops.memory import require_memory
from ctuq.pipeline.devices import device_of
from ctuq.pipeline.options import library_versions
from ctuq.pipeline.volume_doubts import doubts_of_volume, left_outside, middle_row
from ctuq.recon import VOLUMES
from ctuq.recon.fdk import require_circle
from ctuq.tomo.field import choose_grid
from ctuq.tomo.footprint import require_shadow, volume_grid
from ctuq.tomo.geometry import MOST_PIXELS, VolumeGrid
from ctuq.tomo.rays.joseph import rays_of
from ctuq.tomo.rays.volume import chosen_backend, volume_transform
from ctuq.tomo.space import FreeBeam
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.volume_result import VolumeResult

_ITERATIONS = {"fdk": 1, "sirt": 200, "cgls": 50}
# Volumes and projections that are held at once, the result's file among them (it is made in memory).
_HELD = {"fdk": (4.0, 8.0), "sirt": (7.0, 6.0), "cgls": (8.0, 6.0)}
_BASE = 500 * 2**20
_FDK_SECONDS = 3e-8
"""A voxel and view, measured on one thread at 64^3."""


@dataclass(frozen=True)
class VolumeOptions:
    """Options of a volume's reconstruction.

    Parameters
    ----------
    method : {"fdk", "sirt", "cgls"}
    size : int
        Voxels along x and y; as many along z as the detector's rows see.
    field : float, "all" or "common", optional
        Width in mm, as in `ctuq.pipeline.ReconstructOptions`.
    iterations : int, optional
        Of SIRT (200 by default) and, at most, of CGLS (50).
    device : str
    threads : int, optional
        Processor threads; by default as torch is set.
    """

    method: str = "fdk"
    size: int = 128
    field: float | str | None = None
    iterations: int | None = None
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self):
        if self.method == "dip":
            raise InputError(
                "Error bars of volumes, and the deep image prior, are not there yet; choose --method fdk, sirt or cgls."
            )
        if self.method not in VOLUMES:
            raise InputError(f"There is no method {self.method!r} for volumes; choose one of {', '.join(VOLUMES)}.")
        if not 2 <= self.size <= MOST_PIXELS:
            raise InputError(f"The volume's size must be 2 to {MOST_PIXELS} voxels, got {self.size}.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"The threads must be a positive whole number, got {self.threads}.")
        if self.iterations is not None and not 1 <= self.iterations <= 100_000:
            raise InputError(f"The iterations must be 1 to 100,000, got {self.iterations}.")


@dataclass(frozen=True)
class VolumePlan:
    """What a volume will take.

    Parameters
    ----------
    grid : VolumeGrid
    backend : str
        Who computes the ray transform.
    bytes : float
        Peak memory of the process.
    seconds : float
        From a projection and back-projection of two views, measured.
    """

    grid: VolumeGrid
    backend: str
    bytes: float
    seconds: float

    def __str__(self) -> str:
        took = f"{self.seconds / 60:.1f} min" if self.seconds >= 90 else f"{max(self.seconds, 1):.0f} s"
        return f"Rays by {self.backend}. About {took} and {self.bytes / 2**30:.1f} GiB."


def _volume_of(scan: VolumeScan, options: VolumeOptions) -> VolumeGrid:
    """The grid that a scan is reconstructed on: the scan's own, else what its rays see of the object.

    Raises
    ------
    GeometryError
        If the scan's vectors are free and it has no grid, or no ray passes the axis.
    """
    geometry = scan.geometry
    if geometry.columns < 2:
        raise GeometryError("A detector of one column says nothing of what lies where across it: no volume can be made of it.")
    if scan.grid is not None and options.field is None:
        return scan.grid.resized(options.size)
    if isinstance(geometry, FreeBeam):
        raise GeometryError("The scan's vectors are free and it has no grid of its own, so nobody knows what to reconstruct.")
    usual = volume_grid(geometry, options.size)
    plane = choose_grid(middle_row(scan), options.size, options.field)
    height = usual.shape[0] * usual.voxel
    return VolumeGrid((max(1, round(height / plane.voxel)), *plane.shape), plane.voxel, usual.centre)


def plan_volume(scan: VolumeScan, options: VolumeOptions) -> VolumePlan:
    """What reconstructing a scan will take, from two of its views.

    Raises
    ------
    CtuqError
        As `reconstruct_volume`.
    """
    grid, device = _volume_of(scan, options), device_of(options.device)
    if options.method == "fdk":
        require_circle(scan.geometry)
    require_shadow(grid, scan.geometry)
    rays = rays_of(grid, scan.geometry)
    backend = chosen_backend(grid, scan.geometry, rays, device)
    volumes, projections = _HELD[options.method]
    needed = 4 * (volumes * grid.size + projections * scan.projections.size)
    needed += {"matrix": 24 * rays.entries, "numba": 4.0 * grid.size * torch.get_num_threads()}.get(backend, 0.0)
    if options.method == "fdk":
        seconds = _FDK_SECONDS * grid.size * scan.n_angles
        return VolumePlan(grid, "no projector (FDK)", _BASE + needed, seconds)
    require_memory(needed, "This volume", "choose a smaller --size or fewer views", device)
    some = np.unique([0, scan.n_angles // 2])
    part = scan.geometry.subset(some)
    A = volume_transform(grid, part, backend=backend, device=device)
    x = torch.zeros(A.domain.shape, device=device)
    taken = []
    for _ in range(3):  # the first one loads compiled code
        began = time.perf_counter()
        A.T(A(x))
        taken.append(time.perf_counter() - began)
    once = min(taken) * scan.n_angles / len(some)
    iterations = options.iterations or _ITERATIONS[options.method]
    return VolumePlan(grid, backend, _BASE + needed, once * iterations)


def reconstruct_volume(
    scan: VolumeScan,
    *,
    options: VolumeOptions | None = None,
    method: str | None = None,
    size: int | None = None,
    plan: VolumePlan | None = None,
) -> VolumeResult:
    """A volume from its scan.

    Parameters
    ----------
    scan : VolumeScan
    options : VolumeOptions, optional
    method, size : optional
        Instead of those of the options.
    plan : VolumePlan, optional
        As `plan_volume` made it of this scan and these options; else it is made.

    Raises
    ------
    InputError, GeometryError
        If the method is unknown or not for this geometry, or views miss the volume.
    ResourceError
        If it does not fit into memory.
    """
    options = options or VolumeOptions()
    changed = {name: value for name, value in (("method", method), ("size", size)) if value is not None}
    options = replace(options, **changed)
    if options.threads:
        torch.set_num_threads(options.threads)
    timings: dict[str, float] = {}
    with _clock(timings, "plan"):
        plan = plan_volume(scan, options) if plan is None else plan
    device, grid = device_of(options.device), plan.grid
    require_memory(plan.bytes - _BASE, "This volume", "choose a smaller --size or fewer views")
    with _clock(timings, "ray transform"):
        A = volume_transform(grid, scan.geometry, backend="torch" if options.method == "fdk" else "auto", device=device)
    y, weights = (None if a is None else torch.from_numpy(a.copy()).to(device) for a in (scan.projections, scan.weights))
    settings = {} if options.method == "fdk" else {"iterations": options.iterations or _ITERATIONS[options.method]}
    solve: Callable = VOLUMES[options.method]
    with _clock(timings, options.method):
        mean = solve(A, y, weights=weights, **settings).cpu().numpy()
    outside = () if options.method == "fdk" else left_outside(A, scan)
    return VolumeResult(
        mean=mean,
        grid=grid,
        geometry=scan.geometry,
        method=options.method,
        provenance=scan.provenance,
        truth=scan.truth if scan.truth is not None and scan.grid == grid else None,
        scores=_scores(mean, scan, grid),
        timings=timings,
        settings={"size": options.size, "field": str(options.field), "backend": A.backend, "device": str(device), **settings},
        versions=library_versions(),
        warnings=tuple(dict.fromkeys((*scan.warnings, *doubts_of_volume(scan, grid), *outside))),
    )


def _scores(mean: NDArray, scan: VolumeScan, grid: VolumeGrid) -> Mapping[str, float]:
    """Root mean square error and signal to noise against a truth on the same grid."""
    if scan.truth is None or scan.grid != grid:
        return {}
    error = float(np.sqrt(np.mean((mean - scan.truth) ** 2, dtype=np.float64)))
    peak = float(scan.truth.max())
    return {"rmse": error, "psnr": float(20 * np.log10(peak / error)) if error > 0 < peak else float("inf")}


@contextmanager
def _clock(timings: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    timings[stage] = time.perf_counter() - began
