"""Volumes: from a scan of an area detector to its image in three axes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import CtuqError, GeometryError
from ctuq.linops.memory import require_memory
from ctuq.pipeline.running.checkpoint import Checkpoint, digest_of
from ctuq.pipeline.running.devices import device_of
from ctuq.pipeline.running.options import Progress, flat_settings, versions_of_libraries
from ctuq.pipeline.running.outlook import Outlook
from ctuq.pipeline.running.plan import Plan, timed
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.threads import begin_with
from ctuq.pipeline.running.volume_options import ITERATIONS, VolumeOptions
from ctuq.pipeline.views import tensors
from ctuq.pipeline.volume.agreement import kept_agreement
from ctuq.pipeline.volume.bars import plan_of_bars, with_bars
from ctuq.pipeline.volume.counted import weighed_by_counts
from ctuq.pipeline.volume.dip import FitCost, fit_cost, fit_volume
from ctuq.pipeline.volume.doubts import doubts_of_volume, left_outside
from ctuq.pipeline.volume.matched import match_pixels
from ctuq.pipeline.volume.placed import placed, scan_of_middle_row
from ctuq.progress import shown
from ctuq.recon import VOLUMES
from ctuq.recon.dip import Data
from ctuq.recon.fdk import require_circle
from ctuq.recon.holdout import too_few, views_to_hold
from ctuq.surroundings import undisturbed
from ctuq.tomo.field import choose_grid
from ctuq.tomo.footprint import require_shadow, volume_grid
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.joseph import rays_of
from ctuq.tomo.rays.volume import chosen_backend, volume_transform
from ctuq.tomo.resample import resample
from ctuq.tomo.scan import require_scan
from ctuq.tomo.space import FreeBeam
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.results.volume import VolumeResult, require_box

# Volumes and projections that are held at once, the result's file among them (it is made in memory).
_HELD = {"fdk": (4.0, 8.0), "sirt": (7.0, 6.0), "cgls": (8.0, 6.0), "tv": (18.0, 8.0), "dip": (10.0, 10.0)}
_EXPLAINED = 0.5
_ADVICE = "choose a smaller --size or fewer views"
_BASE = 500 * 2**20
_OF_DIP = {"seed", "calibrate", "calibration_views", "uncertainty", "samples", "roi"}
_FDK_SECONDS = 3e-8
"""A voxel and view, measured on one thread at 64^3."""


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
        From a projection and back-projection of two views, and a step of the network on a block, measured.
    iterations : int
        That are counted with.
    sparing : bool
        Whether the network's activations are made twice, as they do not fit into memory.
    bars : Plan, optional
        Of the error bars, whose seconds and bytes are not among these.
    """

    grid: VolumeGrid
    backend: str
    bytes: float
    seconds: float
    iterations: int = 1
    sparing: bool = False
    bars: Plan | None = None

    def __str__(self) -> str:
        if self.bars is not None:
            return f"{self._fit} Then error bars: {self.bars}"
        return self._fit

    @property
    def total(self) -> float:
        """Seconds of all."""
        return self.seconds + (0.0 if self.bars is None else self.bars.total)

    @property
    def peak(self) -> float:
        """Bytes of all."""
        return max(self.bytes, 0 if self.bars is None else self.bars.bytes)

    def record(self) -> dict[str, str | float | int]:
        """Flat, for a results file."""
        bars = {} if self.bars is None else self.bars.record()
        return bars | {"bytes": self.peak, "seconds": self.total, "seconds dip": self.seconds}

    @property
    def _fit(self) -> str:
        took = f"{self.seconds / 60:.1f} min" if self.seconds >= 90 else f"{max(self.seconds, 1):.0f} s"
        steps = f" for {self.iterations} iterations" if self.iterations > 1 else ""
        spared = " Activations are made twice, as there is no room to keep them." if self.sparing else ""
        return f"Rays by {self.backend}. About {took}{steps} and {self.bytes / 2**30:.1f} GiB.{spared}"


def grid_of_volume(scan: VolumeScan, options: VolumeOptions) -> VolumeGrid:
    """The grid that a scan is reconstructed on: the scan's own, else what its rays see of the object.

    Raises
    ------
    GeometryError
        If the scan's vectors are free and it has no grid, or no ray passes the axis.
    """
    require_scan(scan, VolumeScan)
    geometry = scan.geometry
    if geometry.columns < 2:
        raise GeometryError("A detector of one column says nothing of what lies where across it: no volume can be made of it.")
    if scan.grid is not None and options.field is None:
        return scan.grid.resized(options.size)
    if isinstance(geometry, FreeBeam):
        raise GeometryError("The scan's vectors are free and it has no grid of its own, so nobody knows what to reconstruct.")
    usual = volume_grid(geometry, options.size)
    plane = choose_grid(scan_of_middle_row(scan), options.size, options.field)
    height = usual.shape[0] * usual.voxel
    return VolumeGrid((max(1, round(height / plane.voxel)), *plane.shape), plane.voxel, usual.centre)


@undisturbed()
def plan_volume(scan: VolumeScan, options: VolumeOptions) -> VolumePlan:
    """What reconstructing a scan will take, from two of its views and a block of its network.

    Raises
    ------
    CtuqError
        As `reconstruct_volume`.
    """
    scan = placed(scan, options)
    grid, device = grid_of_volume(scan, options), device_of(options.device)
    if options.method == "fdk":
        require_circle(scan.geometry)
    require_shadow(grid, scan.geometry)
    if options.roi is not None:
        require_box(options.roi, grid.shape)
    scan = _as_fitted(scan, grid, options)
    rays = rays_of(grid, scan.geometry)
    backend = chosen_backend(grid, scan.geometry, rays, device)
    volumes, projections = _HELD[options.method]
    fitted = fit_cost(grid, options.dip.network, device) if options.method == "dip" else FitCost(0.0, 0.0, False)
    needed = 4 * (volumes * grid.size + projections * scan.projections.size) + fitted.bytes
    # The fit has a matrix of all views, and one each of those that are fitted and held out.
    matrices = 2 if options.method == "dip" else 1
    needed += {"matrix": 24 * matrices * rays.entries, "numba": 4.0 * grid.size * torch.get_num_threads()}.get(backend, 0.0)
    if options.method == "fdk":
        seconds = _FDK_SECONDS * grid.size * scan.n_angles
        return VolumePlan(grid, "no projector (FDK)", _BASE + needed, seconds)
    require_memory(needed, "This volume", _ADVICE, device)
    once = _pair_seconds(scan, grid, backend, device)
    if options.method == "dip":
        seconds = options.dip.expected * (fitted.seconds + once)
        bars = None
        if options.uncertainty:
            held = _held(scan, options)
            bars = plan_of_bars(scan, grid, held, options, device=device)
        return VolumePlan(grid, backend, _BASE + needed, seconds, options.dip.expected, fitted.sparing, bars)
    iterations = options.iterations or ITERATIONS[options.method]
    return VolumePlan(grid, backend, _BASE + needed, once * iterations, iterations)


def _as_fitted(scan: VolumeScan, grid: VolumeGrid, options: VolumeOptions) -> VolumeScan:
    """The rays that a method is given: the network's are no finer than its voxels."""
    return match_pixels(scan, grid) if options.method == "dip" else scan


def _pair_seconds(scan: VolumeScan, grid: VolumeGrid, backend: str, device: torch.device) -> float:
    """Seconds of a projection and a back-projection of all views, measured on two."""
    some = np.unique([0, scan.n_angles // 2])
    A = volume_transform(grid, scan.geometry.subset(some), backend=backend, device=device)
    x = torch.zeros(A.domain.shape, device=device)
    # The first run loads compiled code.
    return timed(lambda: A.T(A(x)), runs=3) * scan.n_angles / len(some)


@undisturbed()
def reconstruct_volume(
    scan: VolumeScan,
    *,
    options: VolumeOptions | None = None,
    method: str | None = None,
    size: int | None = None,
    plan: VolumePlan | None = None,
    progress: bool | Callable[[Progress], None] | None = None,
    checkpoint: Path | str | None = None,
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
    progress, checkpoint : optional
        As of `ctuq.pipeline.reconstruct`.

    Raises
    ------
    InputError, GeometryError
        If the method is unknown or not for this geometry, views miss the volume, or the projections show nothing.
    ResourceError
        If it does not fit into memory.
    """
    options = options or VolumeOptions()
    changed = {name: value for name, value in (("method", method), ("size", size)) if value is not None}
    options = replace(options, **changed)
    begin_with(options.threads)
    with shown(progress) as tell:
        return _begun(scan, Run(options, tell), plan, checkpoint)


def _begun(scan: VolumeScan, run: Run[VolumeOptions], plan: VolumePlan | None, checkpoint: Path | str | None) -> VolumeResult:
    options = run.options
    with run.clock("plan"):
        plan = plan_volume(scan, options) if plan is None else plan
    require_memory(plan.bytes - _BASE, "This volume", _ADVICE)
    run.checkpoint = Checkpoint.of(checkpoint, scan, options)
    if plan.bars is not None:
        run.outlook = Outlook(plan.bars.seconds)
    if plan.bars is not None and run.checkpoint.way is None:
        run.checkpoint.way = plan.bars.route, plan.bars.products
    run.checkpoint.begin()
    try:
        return _reconstructed(run, scan, plan)
    except CtuqError:
        run.checkpoint.clear_if_new()
        raise


def _reconstructed(run: Run[VolumeOptions], scan: VolumeScan, plan: VolumePlan) -> VolumeResult:
    options, grid = run.options, plan.grid
    whole, scan = scan, _as_fitted(placed(scan, options), grid, options)
    scan = scan if options.method == "fdk" else weighed_by_counts(run, scan)
    with run.clock("ray transform"):
        backend = "torch" if options.method == "fdk" else "auto"
        A = volume_transform(grid, scan.geometry, backend=backend, device=run.device)
    data = Data(A, *tensors(scan, A.device))
    outside = () if options.method == "fdk" else left_outside(A, scan)
    apart = ()
    if options.method != "fdk":
        agreement = kept_agreement(run, scan, grid)
        data, apart = agreement.weighed(data, _held(scan, options)), agreement.told
    truth = None if scan.truth is None or scan.grid is None else resample(scan.truth, scan.grid, grid)
    base = VolumeResult(
        mean=np.zeros(grid.shape, np.float32),
        grid=grid,
        geometry=scan.geometry,
        method=options.method,
        provenance=scan.provenance,
        truth=truth,
        timings=run.timings,
        settings=_settings(options) | {"backend": A.backend, "device": str(run.device)},
        versions=versions_of_libraries(),
        warnings=tuple(dict.fromkeys((*scan.warnings, *doubts_of_volume(whole, grid), *outside, *apart))),
        rays=digest_of(whole),
    )
    result = _with_dip(run, scan, data, plan, base) if options.method == "dip" else _classical(run, data, base)
    return replace(result, scores=_scores(result))


def _classical(run: Run[VolumeOptions], data: Data, base: VolumeResult) -> VolumeResult:
    name = run.options.method
    settings = {} if name == "fdk" else {"iterations": run.options.iterations or ITERATIONS[name]}
    solve = partial(VOLUMES[name], data.A, data.y, weights=data.weights, **settings)
    with run.clock(name):
        mean = run.stages.once(name, solve)
    return replace(base, mean=mean.cpu().numpy(), settings={**base.settings, **settings})


def _with_dip(run: Run[VolumeOptions], scan: VolumeScan, data: Data, plan: VolumePlan, base: VolumeResult) -> VolumeResult:
    held, (_, useful) = _held(scan, run.options), views_to_hold(scan, run.options.calibration_views)
    notes = () if len(held) else (_stopped_by_rays(useful, run.options),)
    with run.clock("dip"):
        found = fit_volume(run, data, held, sparing=plan.sparing)
    if found.explained < _EXPLAINED:
        notes += (
            f"The volume explains {max(0.0, found.explained):.0%} of the mean square of rays that its fit has not seen: it "
            "shows little of the object; check geometry and units, or take more views.",
        )
    mean = found.image.cpu().numpy()
    base = replace(base, mean=mean, history=found.history, held_views=held, warnings=(*base.warnings, *notes))
    if plan.bars is None or run.checkpoint.way is None:
        return base
    return with_bars(run, found, replace(base, plan=plan.record()), run.checkpoint.way)


def _held(scan: VolumeScan, options: VolumeOptions) -> NDArray[np.int64]:
    """The views that are kept out of the fit."""
    held, _ = views_to_hold(scan, options.calibration_views)
    return held if options.calibrate else held[:0]


def _stopped_by_rays(useful: int, options: VolumeOptions) -> str:
    asked = options.calibrate and options.calibration_views is None
    why = too_few(useful) if asked else "No view was held out"
    return f"{why}: the fit was stopped by single rays beside fitted ones, which see over-fitting late."


def volume_made_by(result: VolumeResult, scan: VolumeScan, options: VolumeOptions) -> bool:
    """Whether a result is what `reconstruct_volume` makes of a scan with these options; the number of threads is let pass.

    Parameters
    ----------
    result : VolumeResult
    scan : VolumeScan
    options : VolumeOptions
    """
    same = all(result.settings.get(name) == value for name, value in _settings(options).items())
    steps = None if options.method in ("fdk", "dip") else options.iterations or ITERATIONS[options.method]
    return same and result.settings.get("iterations") == steps and result.rays == digest_of(scan)


def _settings(options: VolumeOptions) -> dict[str, str | float | int]:
    """What was chosen of what has a part in the method's numbers."""
    others = {"threads", "device", "iterations"} | (set() if options.method == "dip" else _OF_DIP)
    chosen = flat_settings(options).items()
    return {k: v for k, v in chosen if k not in others and (options.method == "dip" or not k.startswith("dip."))}


def _scores(result: VolumeResult) -> Mapping[str, float]:
    """Root mean square error and signal to noise against the truth."""
    if result.truth is None:
        return {}
    error = float(np.sqrt(np.mean((result.mean - result.truth) ** 2, dtype=np.float64)))
    peak = float(result.truth.max())
    return {"rmse": error, "psnr": float(20 * np.log10(peak / error)) if error > 0 < peak else float("inf")}
