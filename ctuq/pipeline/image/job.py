"""The stages of a reconstruction, in their order."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ctuq.errors import CtuqError, InputError
from ctuq.pipeline.bars import asked_errors, asks_for, not_in_bars, not_possible
from ctuq.pipeline.counted import unweighed, weighed_by_counts
from ctuq.pipeline.enough import told_of_rays
from ctuq.pipeline.image.agreement import kept_agreement
from ctuq.pipeline.image.classical import classical, smoothness
from ctuq.pipeline.image.edges import EdgePlan, edge_bars, plan_of_edges
from ctuq.pipeline.image.given import as_given
from ctuq.pipeline.image.network import by_network, plan_of_network
from ctuq.pipeline.image.one_material import errors_left, hardening_told, of_one_material, with_removed
from ctuq.pipeline.image.outside import asked_outside
from ctuq.pipeline.image.placed import matched, placed
from ctuq.pipeline.image.rehearsal import rehearsed
from ctuq.pipeline.image.rings import rings_of
from ctuq.pipeline.image.spreads import SPREADS, with_spread
from ctuq.pipeline.image.with_bars import with_bars
from ctuq.pipeline.running.checkpoint import Checkpoint, digest_of
from ctuq.pipeline.running.options import Progress, ReconstructOptions, flat_settings, options_from, versions_of_libraries
from ctuq.pipeline.running.plan import Plan, require_room_for_fit
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.threads import begin_with
from ctuq.pipeline.views import SplitViews, grid_of, match_detector, rays_inside, split_views, tensors
from ctuq.progress import shown
from ctuq.recon.dip import Data, DIPOptions
from ctuq.scores.gaussian import image_scores
from ctuq.surroundings import undisturbed
from ctuq.systematics.build import blocks_of, possible
from ctuq.systematics.catalogue import Wish, hidden_among
from ctuq.tomo import ray_transform
from ctuq.tomo.field import choose_grid, doubts_of_field
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.resample import resample
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.gaussian_bars import OF_PIXELS
from ctuq.uncertainty.hidden_errors import doubts_of_errors
from ctuq.uncertainty.restricted import OF_WEIGHTS
from ctuq.uncertainty.results.image import Result

_BESIDE = ("network", "ray_transform", "options", "progress", "checkpoint")
"""What `reconstruct` takes beside the fields of its options."""
_DEFAULT = ReconstructOptions()
_log = logging.getLogger(__name__)


@undisturbed()
def reconstruct(
    scan: Scan,
    method: str = "dip",
    *,
    size: int = _DEFAULT.size,
    field: float | str | None = _DEFAULT.field,
    uncertainty: bool | str = _DEFAULT.uncertainty,
    samples: int = _DEFAULT.samples,
    directions: int = _DEFAULT.directions,
    calibrate: bool = _DEFAULT.calibrate,
    calibration_views: int | None = _DEFAULT.calibration_views,
    prior: str = _DEFAULT.prior,
    variation: float = _DEFAULT.variation,
    systematics: str = _DEFAULT.systematics,
    material: str = _DEFAULT.material,
    device: str = _DEFAULT.device,
    seed: int = _DEFAULT.seed,
    iterations: int | None = _DEFAULT.iterations,
    threads: int | None = _DEFAULT.threads,
    dip: DIPOptions = _DEFAULT.dip,
    network: nn.Module | None = None,
    ray_transform: RayTransform | None = None,
    options: ReconstructOptions | None = None,
    progress: bool | Callable[[Progress], None] | None = None,
    checkpoint: Path | str | None = None,
    **unknown,
) -> Result:
    """Reconstruct a scan, by default with a Deep Image Prior and calibrated uncertainty.

    Parameters
    ----------
    scan : Scan
    method : str
    size, field, uncertainty, samples, directions, calibrate, calibration_views : optional
    prior, variation, systematics, material, device, seed, iterations, threads, dip : optional
        As the fields of `ReconstructOptions`, which says what each is.
    network : nn.Module, optional
        One's own in place of the U-Net: an image (1, 1, y, x) from an input of the same size. Its fit begins at its weights.
    ray_transform : RayTransform, optional
        One's own, of all views, such as `ctuq.tomo.matrix_transform` makes of any projector; ``size`` and ``field`` are then
        those of its grid.
    options : ReconstructOptions, optional
        All settings at once, in their place.
    progress : bool or callable, optional
        True shows a bar, in a terminal or a notebook; a callable is given a `Progress` now and then.
    checkpoint : path, optional
        HDF5 file that keeps what is done; if it exists, the run goes on from there. Beside it there is a folder
        ``NAME.stages``; both can be removed when the result is in a file.
    **unknown
        Refused: there is no such option.

    Returns
    -------
    Result

    Raises
    ------
    CtuqError
        One sentence: what is wrong, and what to do.

    Examples
    --------
    >>> scan = ctuq.read("scan.h5")  # doctest: +SKIP
    >>> result = ctuq.reconstruct(scan, size=96)  # doctest: +SKIP
    >>> result.mean, result.std  # doctest: +SKIP
    """
    listed = dict(size=size, field=field, uncertainty=uncertainty, samples=samples, directions=directions, calibrate=calibrate)
    listed |= dict(calibration_views=calibration_views, prior=prior, variation=variation, systematics=systematics, seed=seed)
    listed |= dict(material=material, device=device, iterations=iterations, threads=threads)
    listed |= dict(dip=dip if network is None else replace(dip, module=network), **unknown)
    chosen = options_from(method, listed, _BESIDE)
    if options is not None and chosen != replace(_DEFAULT, method=method):
        raise InputError("Give the settings by name or all of them as options, not both.")
    with shown(progress) as tell:
        return _reconstruct(scan, Run(chosen if options is None else options, tell), checkpoint, ray_transform)


def _reconstruct(
    scan: Scan, run: Run[ReconstructOptions], checkpoint: Path | str | None, own: RayTransform | None = None
) -> Result:
    begin_with(run.options.threads)
    scan = placed(as_given(scan), run.options, moves=own is None)
    grid = choose_grid(scan, run.options.size, run.options.field) if own is None else grid_of(own, scan, checkpoint)
    doubts = doubts_of_field(scan, grid) + not_possible(run.options, scan)
    came = match_detector(scan, grid) if own is None else scan
    measured = weighed_by_counts(came, run.options.size, run.device) if own is None else came
    scan = of_one_material(run, measured)
    views = replace(split_views(run.options, scan), told=told_of_rays(scan) + doubts)
    require_room_for_fit(run.options, grid, run.device)
    run.checkpoint = Checkpoint.of(checkpoint, came, run.options)
    run.checkpoint.begin()
    try:
        return with_removed(run, _reconstructed(run, scan, grid, views, own=own), measured)
    except CtuqError:
        run.checkpoint.clear_if_new()
        raise


def _reconstructed(
    run: Run[ReconstructOptions], scan: Scan, grid: VolumeGrid, views: SplitViews, *, own: RayTransform | None = None
) -> Result:
    with run.clock("ray transform"):
        dense = run.options.bars is not None
        A = (
            own
            if own is not None
            else ray_transform(grid, scan.geometry, device=run.device, backend="matrix" if dense else "auto")
        )
    errors = possible(asked_errors(run.options.systematics, scan), scan.geometry)  # refused before the fit
    asked_outside(errors, scan, grid)
    truth = None if scan.truth is None or scan.grid is None else resample(scan.truth, scan.grid, grid)
    every = _rays(run, A, scan)  # What lies outside by all views: else those held out alone do not fit it.
    agreement = kept_agreement(run, every, (wish.name for wish in errors))
    data = agreement.weighed(_rays(run, A, scan, views.held) if len(views.held) else every, views.held)
    rings = rings_of(run, data, views, scan)
    data = rings.taken_from(data)
    smooth = smoothness(run, data, scan, views.held)
    comparisons = classical(run, data, scan, strength=smooth.strength, less=rings.less, mark="without gains")
    method_name = run.options.method
    hidden, unheld = (), ()
    if run.options.bars not in (None, *OF_WEIGHTS):
        hidden = hidden_among(errors_left(run, errors))
        unheld = not_in_bars(scan.provenance.monochromatic, run.hardened, held=[wish.name for wish in hidden])
    base = Result(
        mean=comparisons.get(method_name, np.zeros(grid.shape, np.float32)),
        scan=scan,
        grid=grid,
        method=method_name,
        comparisons={name: image for name, image in comparisons.items() if name != method_name or run.options.bars},
        truth=truth,
        timings=run.timings,
        settings=flat_settings(run.options),
        versions=versions_of_libraries(),
        warnings=scan.warnings + views.told + unheld + agreement.told + rings.notes,
        removed=rings.removed,
    )
    if run.options.bars in OF_PIXELS:
        return _with_prior(run, base, data, views, hidden)
    if run.options.bars in SPREADS:
        made = with_spread(run, base, data, views, hidden=hidden, strength=smooth.strength)
        return replace(made, systematics=hardening_told(run, made.systematics))
    if method_name != "dip":
        return replace(base, scores={} if truth is None else {"truth": image_scores(base.mean, truth)})
    return by_network(run, base, data, views, moves=own is None, rings=rings, smooth=smooth)


@undisturbed()
def plan(scan: Scan, *, options: ReconstructOptions | None = None, **settings) -> Plan | EdgePlan:
    """What a reconstruction with uncertainty would take, without making it: a few seconds of measurement.

    Parameters
    ----------
    scan, options, **settings
        As for `reconstruct`, by default with the method "dip".
    """
    run = Run(options or options_from(str(settings.pop("method", "dip")), settings), None)
    if run.options.bars not in (*OF_WEIGHTS, *OF_PIXELS):
        raise InputError(f"Only error bars of the kinds {', '.join((*OF_WEIGHTS, *OF_PIXELS))} have a plan.")
    given, (scan, grid) = scan, matched(scan, run.options)
    weights = tensors(scan, run.device)[1]
    if run.options.bars in OF_PIXELS:
        A = ray_transform(grid, scan.geometry, device=run.device, backend="matrix")
        return plan_of_edges(A, int((weights > 0).sum()), run.options.bars, iterations=run.options.iterations)
    tried = rehearsed(run, given, scan, grid)
    if tried.gains is not None:
        run.timings["gains"] = tried.gains
    with_rays = {"weights": weights, "grid": grid, "fit": tried.fit, "speeds": tried.speeds}
    return plan_of_network(run, scan, split_views(run.options, scan), generate=tried.generate, start=tried.start, **with_rays)


def _rays(run: Run[ReconstructOptions], A: RayTransform, scan: Scan, held: Sequence[int] | NDArray[np.int64] = ()) -> Data:
    flux = asks_for("flux", run.options.systematics, scan)
    return rays_inside(A, scan, np.asarray(held, np.int64), device=run.device, stages=run.stages, flux=flux)


@undisturbed()
def made_by(result: Result, scan: Scan, options: ReconstructOptions) -> bool:
    """Whether a result is what `reconstruct` makes of a scan with these options; the number of threads is let pass.

    Parameters
    ----------
    result : Result
    scan : Scan
        As it was read, before its columns are averaged for the grid.
    options : ReconstructOptions
    """
    used = of_one_material(Run(options, None), matched(scan, options)[0])
    same = all(result.settings.get(k) == v for k, v in flat_settings(replace(options, threads=None)).items() if k != "threads")
    return same and digest_of(unweighed(result.scan)) == digest_of(unweighed(used))


def _with_prior(run: Run[ReconstructOptions], base: Result, data: Data, views: SplitViews, hidden: tuple[Wish, ...]) -> Result:
    """Error bars by a Gaussian prior over the pixels, with errors that no ray tells."""
    A, kind = data.A, run.options.bars or ""
    assert isinstance(A, RayTransform)
    plan = plan_of_edges(A, int((data.weights > 0).sum()), kind, iterations=run.options.iterations)
    _log.info("Plan: %s", plan)
    run.checkpoint.begin()
    found, rays, learned, noise = edge_bars(run, data, views, plan)
    notes = () if kind == "edges" else (f"The image is the mean of {OF_PIXELS[kind]}, and not that of total variation.",)
    blocks = blocks_of(hidden, A, rays.image, noise.weights)
    notes = views.notes + doubts_of_errors(blocks) + noise.told + notes
    base = replace(base, plan=plan.record(), warnings=base.warnings + notes, subpixel=noise.share(1.0))
    return with_bars(run, base, rays.image, found, learned.named, hidden=blocks)
