"""A slice by the deep image prior: what it will take, the fit, and error bars by its linear model."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor, nn

from ctuq.linops.memory import available_memory
from ctuq.pipeline.bars import asked_errors, asks_for, doubts_of_bars
from ctuq.pipeline.image.classical import Smoothness, classical, smooth_image
from ctuq.pipeline.image.freed import Joint, iterations_again, may_be_taken, of_all_views, of_any_flux
from ctuq.pipeline.image.one_material import errors_left
from ctuq.pipeline.image.outside import made_at_image, outside_blocks
from ctuq.pipeline.image.rings import Rings
from ctuq.pipeline.image.with_bars import with_bars
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.outlook import Outlook
from ctuq.pipeline.running.plan import FIT_BYTES, Plan, Speeds, priced, route_of, speeds_of_fit, with_refit
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.threads import take_threads
from ctuq.pipeline.subpixel import ray_noise
from ctuq.pipeline.views import SplitViews
from ctuq.recon.dip import Data, Generator, generator, trial_step, tries
from ctuq.recon.holdout import split
from ctuq.scores.gaussian import image_scores
from ctuq.systematics.build import possible
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.calibration.unseen import bytes_of_room
from ctuq.uncertainty.estimate import estimate, named
from ctuq.uncertainty.hidden_errors import doubts_of_errors
from ctuq.uncertainty.model.route import Route
from ctuq.uncertainty.restricted import NOTES, routed
from ctuq.uncertainty.results.image import Result

_log = logging.getLogger(__name__)


def by_network(
    run: Run[ReconstructOptions],
    base: Result,
    data: Data,
    views: SplitViews,
    *,
    moves: bool,
    rings: Rings,
    smooth: Smoothness,
) -> Result:
    """The result of a fit, with error bars where they are asked for; ``base`` is what is known before it."""
    drawn = run.rng.get_state()
    fit, stop = split(data, views.held, rng=run.rng)
    if run.options.bars and asks_for("flux", run.options.systematics, base.scan):
        fit, stop = of_any_flux(fit), of_any_flux(stop)
    stop = replace(stop, beside=smooth.misfit)
    generate, start = generator(fit, run.options.dip, rng=run.rng)
    checkpoint, stages = run.checkpoint, run.stages
    checkpoint.threads = take_threads(run.options.threads, partial(trial_step, generate, start, fit), checkpoint.threads)
    if run.options.bars:
        kept_route = None if checkpoint.way is None else checkpoint.way[0]
        rays = {"weights": data.weights, "grid": data.A.grid, "fit": fit}
        plan = plan_of_network(run, base.scan, views, generate=generate, start=start, chosen=kept_route, **rays)
        checkpoint.way = (plan.route, plan.products) if checkpoint.way is None else checkpoint.way
        base, run.outlook = replace(base, plan=plan.record()), Outlook(plan.seconds)
    checkpoint.begin()
    with run.clock("dip"):
        state = run.fit(generate, start, (fit, stop))
        image = generate(state.best)[0].detach()
    del fit, stop  # Their matrices: 1 GiB for all views of the tooth at 512 x 512, beside those that error bars take.
    told = base.warnings + views.notes + smooth.told(float(state.best_misfit[0]))
    base = replace(base, mean=image.cpu().numpy(), history=state.looks, warnings=told)
    if checkpoint.way is None:
        return replace(base, scores={} if base.truth is None else {"truth": image_scores(base.mean, base.truth)})
    asked = errors_left(run, asked_errors(run.options.systematics, base.scan))
    noise = ray_noise(data, smooth_image(run, data, base.comparisons["tv"], smooth.strength))
    given = (*rings.blocks(data.y.shape), *outside_blocks(asked, data, base.scan, base.comparisons["tv"]))
    last = Joint(run, data, views, generate, made_at_image(asked), drawn, noise, moves, given).freed(state)
    model, evidence = last.model, last.evidence
    given = {"rng": run.rng, "way": checkpoint.way[0], "stages": stages, "evidence": evidence}
    with run.clock("evidence"):
        found = estimate(model, last.data.y, views.held, **given)
    doubts = doubts_of_bars(model, evidence, found.posterior.error) + doubts_of_errors((*model.blocks, *model.hidden))
    told = base.warnings + doubts + NOTES.get(run.options.bars, ()) + last.notes + noise.told
    base = replace(base, history=last.state.looks, warnings=told, subpixel=noise.share(1.0))
    if last.removed is not None:
        shown = of_all_views(last, found.posterior, views.held)
        less = rings.with_others(data.y - shown.y)
        comparisons = classical(run, shown, base.scan, strength=smooth.strength, less=less)
        removed = rings.with_others(last.removed).cpu().numpy().astype(np.float32)
        base = replace(base, comparisons=comparisons, removed=removed)
    result = with_bars(run, base, model.image, found, named(model.prior, found.evidence.psi))
    return replace(result, systematics=rings.told(result.systematics))


def plan_of_network(
    run: Run[ReconstructOptions],
    scan: Scan,
    views: SplitViews,
    *,
    weights: Tensor,
    grid: VolumeGrid,
    fit: Data,
    generate: Generator,
    start: dict[str, Tensor],
    speeds: Speeds | None = None,
    chosen: Route | None = None,
) -> Plan:
    """What the error bars will take, told before the fit; by the route that a run began with, if it is resumed.

    Parameters
    ----------
    run, scan, views
    weights : Tensor, shape (angle, column)
        Of the rays.
    grid : VolumeGrid
        Of the image.
    fit, generate, start
        Rays that are fitted, network and its first weights; at any size where the speeds are given.
    speeds : Speeds, optional
        By default measured.
    chosen : Route, optional
    """
    chosen = _route(run, weights, grid, views, generate.module(start)[0]) if chosen is None else chosen
    options = run.options.dip
    asked = may_be_taken(possible(errors_left(run, asked_errors(run.options.systematics, scan)), scan.geometry))
    speeds = speeds_of_fit(fit, generate, start) if speeds is None else speeds
    made = priced(chosen, speeds, tries(fit, options) * options.expected, fit_bytes=FIT_BYTES * chosen.pixels)
    beside = bytes_of_room(scan.geometry, grid.shape, chosen.rays)
    made = with_refit(replace(made, bytes=made.bytes + beside), speeds, iterations_again(options), asked)
    if "gains" in run.timings:
        made = replace(made, seconds={"gains": run.timings["gains"], **made.seconds})
    _log.info("Plan: %s", made)
    return made


def _route(run: Run[ReconstructOptions], weights: Tensor, grid: VolumeGrid, views: SplitViews, network: nn.Module) -> Route:
    memory = available_memory(run.device)
    found = route_of(weights, views.fitted, grid.size, network, prior=run.options.prior, memory=memory)
    return routed(found, run.options.bars, network)
