"""Other error bars: images that differ (by networks, views, noise or weights that are drawn), or one number for all pixels.

Each gives an image of the fitted views and how sure it is of it; held-out views then scale that as those of any program.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import InputError
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.linops.memory import available_memory
from ctuq.pipeline.bars import linear_model
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.plan import route_of
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.views import SplitViews
from ctuq.recon import CLASSICAL
from ctuq.recon.dip import Data, DIPOptions, Generator, dip, generator
from ctuq.recon.dropout import dropped
from ctuq.recon.holdout import split
from ctuq.recon.langevin import langevin
from ctuq.recon.noise import noise_std
from ctuq.recon.strength import chosen_strength
from ctuq.systematics.catalogue import Wish
from ctuq.tomo.rays.transform import RayTransform
from ctuq.uncertainty.calibration.directions import UnseenDirections
from ctuq.uncertainty.calibration.foreign import calibrated_alone
from ctuq.uncertainty.calibration.held_out import of_views
from ctuq.uncertainty.estimate import kept_evidence
from ctuq.uncertainty.hidden_errors import HiddenErrors
from ctuq.uncertainty.restricted import NOTES, diagonal_deviations
from ctuq.uncertainty.results.image import Result

_NOT_SEEN = (
    "{}, and error bars of the kind {} know nothing of edges across these: they "
    "are far too short there; take edges or gmrf of the method tv, or laplace of dip."
)

MEMBERS, NETWORKS = 32, 8
_DROPPED, _DRAWS = 0.05, 128
_WALK = {"steps": 1000, "skipped": 200, "every": 10}
_ONE = 0.05
"""A constant standard deviation over the image's rms: where calibration starts from."""

Spread = tuple[NDArray[np.float64], NDArray[np.float64]]
"""An image, and what `ctuq.calibrate` takes of it: samples, or a standard deviation."""


def _constant(run: Run[ReconstructOptions], data: Data, views: SplitViews) -> Spread:
    """The method's image, and one variance for all pixels."""
    image = _images(run, data, views, torch.ones(1, len(views.fitted)))[0]
    return image, np.full(image.shape, _ONE * float(np.sqrt(np.mean(image**2))))


def _bootstrap(run: Run[ReconstructOptions], data: Data, views: SplitViews) -> Spread:
    """The method's image, and those of as many views drawn with replacement: one that is drawn twice has twice its weight."""
    n, count = len(views.fitted), NETWORKS if run.options.method == "dip" else MEMBERS
    drawn = torch.randint(n, (count, n), generator=run.rng)
    times = torch.nn.functional.one_hot(drawn, n).sum(1).float()
    images = _images(run, data, views, torch.cat([torch.ones(1, n), times]))
    return images[0], images[1:]


def _ensemble(run: Run[ReconstructOptions], data: Data, views: SplitViews) -> Spread:
    """The mean of networks that start from random weights, and each of them."""
    options = replace(run.options.dip, start="random")
    images = _networks(run, data, views, torch.ones(NETWORKS, len(views.fitted)), options)
    return images.mean(0), images


def _noise(run: Run[ReconstructOptions], data: Data, views: SplitViews) -> Spread:
    """The method's image, and those of its rays with their noise added once more, each ray's by its weight."""
    count = NETWORKS if run.options.method == "dip" else MEMBERS
    weights = data.weights[torch.as_tensor(views.fitted, device=data.y.device)]
    std = noise_std(data.y, data.weights) * weights.clamp_min(torch.finfo(weights.dtype).tiny).rsqrt() * (weights > 0)
    added = torch.randn(count, *weights.shape, generator=run.rng, device=run.rng.device).to(std) * std
    times = torch.ones(count + 1, len(views.fitted))
    images = _images(run, data, views, times, torch.cat([torch.zeros_like(added[:1]), added]))
    return images[0], images[1:]


def _begun(
    run: Run[ReconstructOptions], data: Data, views: SplitViews
) -> tuple[Generator, dict[str, Tensor], tuple[Data, Data]]:
    """A network with the weights that its fit starts from, and the views of the fit and those that stop it."""
    parts = split(data, views.held, rng=run.rng)
    return *generator(parts[0], run.options.dip, rng=run.rng), parts


def _dropout(run: Run[ReconstructOptions], data: Data, views: SplitViews) -> Spread:
    """The mean of a network's draws with channels left out, as in its fit, and each of them (Gal and Ghahramani 2016)."""
    generate, start, parts = _begun(run, data, views)

    def drawn() -> Tensor:
        with dropped(generate.network, _DROPPED, rng=run.rng):
            last = deque(dip(generate, start, *parts, run.options.dip), maxlen=1).pop()
            return torch.stack([generate(last.best)[0].detach() for _ in range(_DRAWS)])

    images = run.stages.once("dropout", drawn, rng=run.rng).cpu().numpy().astype(np.float64)
    return images.mean(0), images


def _sgld(run: Run[ReconstructOptions], data: Data, views: SplitViews) -> Spread:
    """The mean of images along a walk over the weights from where the fit ended, and each of them."""
    generate, start, parts = _begun(run, data, views)
    state = run.fit(generate, start, parts)
    noise = float(noise_std(data.y, data.weights)) ** 2
    walk = partial(langevin, generate, state.best, parts[0], noise=noise, rng=run.rng, **_WALK)
    images = run.stages.once("walk", walk, rng=run.rng).cpu().numpy().astype(np.float64)
    return images.mean(0), images


def _diagonal(run: Run[ReconstructOptions], data: Data, views: SplitViews) -> Spread:
    """The network's image, and draws of a diagonal Laplace approximation at the evidence of all weights."""
    generate, start, parts = _begun(run, data, views)
    state = run.fit(generate, start, parts)
    network, inputs = generate.module(state.best)
    way = route_of(
        data.weights, views.fitted, data.A.grid.size, network, prior=run.options.prior, memory=available_memory(run.device)
    )
    given = {"prior": run.options.prior, "rank": way.rank, "rng": run.rng, "stages": run.stages}
    model = linear_model(data, generate, state.best, progress=run.products, **given)
    fitted = ~of_views(model, views.held)
    evidence = kept_evidence(model, fitted, way=way, rng=run.rng, stages=run.stages, variation=run.options.variation)
    part, jacobian = model.part(fitted.nonzero()[:, 0]), jacobian_of(network, inputs)[1]
    drawn = partial(diagonal_deviations, part, evidence, jacobian, float(generate.scale[0]), count=_DRAWS, rng=run.rng)
    draws = run.stages.once("diagonal", drawn, rng=run.rng).cpu().numpy().astype(np.float64)
    image = model.image.cpu().numpy().astype(np.float64)
    return image, image + draws


SPREADS: dict[str, Callable[[Run[ReconstructOptions], Data, SplitViews], Spread]] = {
    "constant": _constant,
    "bootstrap": _bootstrap,
    "noise": _noise,
    "ensemble": _ensemble,
    "dropout": _dropout,
    "sgld": _sgld,
    "diagonal": _diagonal,
}


def _images(
    run: Run[ReconstructOptions], data: Data, views: SplitViews, times: Tensor, added: Tensor | None = None
) -> NDArray[np.float64]:
    """Images (k, y, x) of the fitted views by the method of the run, views weighted ``times`` (k, view).

    ``added`` (k, view, column) is what their rays have beside what was measured.
    """
    if run.options.method == "dip":
        return _networks(run, data, views, times, run.options.dip, added=added)
    A, fitted = data.A.subset(views.fitted), torch.as_tensor(views.fitted, device=data.y.device)
    y, weights = data.y[fitted], data.weights[fitted]
    method = partial(CLASSICAL[run.options.method], **run.options.steps)
    if run.options.method == "tv" and len(views.held):
        strength, _ = chosen_strength(*split(data, views.held, rng=run.rng))
        method = partial(method, strength=strength)
    out = []
    for i, each in enumerate(times.to(y)):
        run.tell("Images", i, len(times))
        # Filtered back-projection takes no weights: views are drawn by their number alone.
        used = A if run.options.method != "fbp" else A.subset(np.repeat(np.arange(len(each)), each.long().cpu().numpy()))
        rays = y if added is None else y + added[i]
        if run.options.method == "fbp":
            image = method(used, rays.repeat_interleave(each.long(), 0))
        else:
            image = method(A, rays, weights=weights * each[:, None])
        out.append(image)
    run.tell("Images", len(times), len(times))
    return torch.stack(out).cpu().numpy().astype(np.float64)


def _networks(
    run: Run[ReconstructOptions],
    data: Data,
    views: SplitViews,
    times: Tensor,
    options: DIPOptions,
    *,
    added: Tensor | None = None,
) -> NDArray[np.float64]:
    """Images (k, y, x) of networks fitted side by side, each stopped by the held-out views."""
    fit, stop = split(data, views.held, rng=run.rng)
    count = len(times)

    def repeated(part: Data) -> Data:
        return Data(part.A, part.y.expand(count, *part.y.shape[1:]), part.weights.expand(count, *part.weights.shape[1:]))

    fit, stop = repeated(fit), repeated(stop)
    y = fit.y if added is None else fit.y + added.to(fit.y)
    fit = replace(fit, y=y, weights=fit.weights * times.to(fit.weights)[:, :, None])
    generate, start = generator(fit, options, rng=run.rng)

    def fitted() -> Tensor:
        last = deque(dip(generate, start, fit, stop, options), maxlen=1).pop()
        with torch.no_grad():
            return generate(last.best)

    return run.stages.once("networks", partial(fitted), rng=run.rng).cpu().numpy().astype(np.float64)


def with_spread(
    run: Run[ReconstructOptions],
    base: Result,
    data: Data,
    views: SplitViews,
    *,
    hidden: tuple[Wish, ...],
    strength: float | None,
) -> Result:
    """Error bars by images that differ, or one number, scaled on held-out views; without these there are none.

    Parameters
    ----------
    run, base, data, views
    hidden : tuple of Wish
        Errors that no ray tells, which are put beside what held-out views scale.
    strength : float, optional
        Of total variation, by which these are seen.
    """
    if not len(views.held):
        raise InputError(
            f"Error bars of the kind {run.options.bars} need held-out views; give more views, or --calibration-views."
        )
    run.checkpoint.begin()
    with run.clock(run.options.bars or ""):
        image, spread = SPREADS[run.options.bars or ""](run, data, views)
    scan = replace(base.scan, projections=data.y.cpu().numpy())
    with run.clock("calibration"):
        found = calibrated_alone(
            np.asarray(image, np.float64), spread, scan, views.held, grid=base.grid, cautious=True, method=base.method
        )
    names = ("mean", "std", "std_raw", "std_error", "samples", "directions", "waves", "sigma2", "calibration", "scores")
    doubts = tuple(text for text in found.warnings if text not in base.warnings) + NOTES.get(run.options.bars, ())
    unseen = UnseenDirections.of(base.scan.geometry, base.mean.shape, data.y.device)
    if unseen is not None:
        doubts += (_NOT_SEEN.format(unseen.lacking, run.options.bars),)
    made = replace(base, **{name: getattr(found, name) for name in names}, warnings=base.warnings + doubts)
    assert isinstance(data.A, RayTransform)
    errors = HiddenErrors.of(hidden, data.A, data.y, data.weights, made.mean, strength=strength)
    return errors.within(made, rng=run.rng, draws=run.options.samples)
