"""Image and systematic errors together: rays are freed of the errors that they tell, and the network is fitted again to these.

A network that is fitted to rays with an error holds what it can of it: double edges of an axis, rings of gains. The linear
model at that fit says which errors there are and how large. Those whose evidence is strong are taken out, the fit goes on from
its weights to the rays without them, and the model is made again there, with the scanner where it is now thought to be; until
what is found anew is small beside the noise. What the rays do not tell from the image is never taken out.

Errors are estimated from the fitted views alone. A held-out view whose flux, angle or shift is its own stays as it was
measured: to the model it is unknown, with the variance that the others have, and nothing of that view has gone into what
foretells it.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.linops.jacobian.network import ProductChoice
from ctuq.pipeline.bars import linear_model
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.plan import MOST_FITS
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.subpixel import RayNoise
from ctuq.pipeline.views import SplitViews
from ctuq.recon.dip import Data, DIPOptions, DIPState, Generator, dip
from ctuq.recon.holdout import split
from ctuq.stages import Stages, Under
from ctuq.systematics.block import Block
from ctuq.systematics.build import GIVEN, blocks_of, effects_of
from ctuq.systematics.catalogue import KINDS, STRONG, UNSURE, Wish
from ctuq.systematics.taken import Taken
from ctuq.tomo import ray_transform
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.uncertainty.calibration.held_out import of_views
from ctuq.uncertainty.estimate import Evidence, EvidenceOf, kept_evidence
from ctuq.uncertainty.model.covariance import ImageCovariance
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.route import Route
from ctuq.uncertainty.model.solved import SolvedRays
from ctuq.uncertainty.restricted import restricted

Transform = RayTransform | VolumeTransform
_STILL, _SMALL = 0.3, 0.1
"""Errors stand still where each changes the rays by less than this share of the noise (rms), or of what it does to them."""
_ITERATIONS = 300
_TOO_FAR = (
    "Systematic errors ({}) come out so large that the image's rim moves by {:.1f} pixels. Beyond one pixel they are told "
    "worse than their intervals say: check the geometry in the file, and take them for a hint."
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Freed:
    """The model at the last fit.

    Parameters
    ----------
    model : ImageModel
    evidence : Evidence
        Of its fitted views.
    data : Data
        Rays without the errors, with the transform of the scanner as it is thought to be.
    state : DIPState
        Of the last fit.
    removed : Tensor, float64, shape (angle, column), optional
        What the errors have done to the rays; None where nothing was taken out.
    notes : tuple of str
    """

    model: ImageModel
    evidence: Evidence
    data: Data
    state: DIPState
    removed: Tensor | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Joint:
    """What fits of one scan have in common.

    Parameters
    ----------
    run, views, generate
    data : Data
        As measured, of all views.
    asked : tuple of Wish
        Systematic errors.
    drawn : Tensor
        State of the random numbers from which the first fit's rays were chosen: those that stopped it stop the others.
    noise : RayNoise
        Of the linear model; fits take the weights of ``data``.
    moves : bool
        Whether the ray transform can be made for another geometry.
    given : tuple of Block
        What else is considered in the error bars.
    """

    run: Run[ReconstructOptions]
    data: Data
    views: SplitViews
    generate: Generator
    asked: tuple[Wish, ...]
    drawn: Tensor
    noise: RayNoise
    moves: bool
    given: tuple[Block, ...] = ()

    def freed(self, state: DIPState) -> Freed:
        """The model of a first fit, after further fits where errors were asked for that the rays tell."""
        taken, used, rounds = Taken(moves=self.moves), self.data, 0
        while True:
            model, used = self._model(used.A, state, taken, self._stages(rounds))
            fitted = ~of_views(model, self.views.held)
            evidence = self._evidence(model, fitted, state, self._stages(rounds))
            found, change = self._found(model, evidence, fitted, taken)
            if not found or change <= 1 or rounds == MOST_FITS:
                break
            taken, rounds = found, rounds + 1
            used = _without(self.data, taken, model)
            _log.info("The network is fitted again to rays without %s.", ", ".join(taken.values))
            with self.run.clock("dip"):
                state = self._again(state, used, taken, self._stages(rounds))
        if not taken:
            return Freed(model, evidence, self.data, state)
        moved = used.A(model.image).double() - self.data.A(model.image).double()
        removed = moved + (self.data.y - used.y).double()
        notes = (*_notes(taken, rounds, change), *told_too_far(taken, self.data.A.grid))
        return Freed(model, evidence, used, state, removed, notes)

    def _stages(self, rounds: int) -> Stages:
        return Under(self.run.stages, f"freed {rounds}") if rounds else self.run.stages

    @property
    def _way(self) -> tuple[Route, ProductChoice]:
        assert self.run.checkpoint.way is not None
        return self.run.checkpoint.way

    def _model(self, A: Transform, state: DIPState, taken: Taken, stages: Stages) -> tuple[ImageModel, Data]:
        """The linear model at a fit, and the rays without what was taken out, by the blocks at this image."""
        run, (way, choice) = self.run, self._way
        with torch.no_grad():
            image = self.generate(state.best)[0].detach()
        # Refused, if they are, before the products are made.
        blocks = (*blocks_of(self.asked, A, image, self.data.weights, self.views.held), *self.given)
        used = Data(A, _less(self.data.y, taken.rays(blocks)), self.data.weights)
        with run.clock("jacobian"):
            given = {"prior": run.options.prior, "rank": way.rank, "rng": run.rng, "stages": stages, "choice": choice}
            given |= {"parameters": self._restricted(state)[0], "progress": run.products}
            model = linear_model(replace(used, weights=self.noise.weights), self.generate, state.best, **given)
        return (model.with_errors(blocks, taken.factors(blocks)) if blocks else model), used

    def _restricted(self, state: DIPState) -> tuple[Sequence[str] | None, EvidenceOf | None]:
        """Weights that may be wrong, and what else their evidence is maximised by."""
        return restricted(self.run.options.bars, self.generate.module(state.best)[0])

    def _evidence(self, model: ImageModel, fitted: Tensor, state: DIPState, stages: Stages) -> Evidence:
        run = self.run
        with run.clock("evidence"):
            run.tell("Evidence", 0, 1)
            given = {"variation": run.options.variation, "rng": run.rng, "way": self._way[0], "stages": stages}
            found = kept_evidence(model, fitted, evidence_by=self._restricted(state)[1], **given)
            run.tell("Evidence", 1, 1, f"log evidence {found.value:.1f}")
        return found

    def _found(self, model: ImageModel, evidence: Evidence, fitted: Tensor, taken: Taken) -> tuple[Taken, float]:
        """What the fitted views say of the errors that they tell; and how much that changes the rays, 1 for hardly."""
        if not model.blocks:
            return taken, 0.0
        with self.run.clock("evidence"):
            part, noise_by = model.part(fitted.nonzero()[:, 0]), self._way[0].noise_by
            # By name of what is solved: the calibration solves the same rays, and takes these up.
            given = SolvedRays.on(part, evidence.point, noise_by=noise_by, stages=self.run.stages)
            mean, covariance = (v.cpu() for v in given.errors())
            if part.hidden:
                # An axis may be what is left of gains, and is not taken out for it.
                beside = given.response(part.hidden_columns())[1].cpu()
                covariance = covariance + beside.T @ beside
        variances, rank, values = model.prior.error_variances(evidence.psi).tolist(), model.factor.rank, dict(taken.values)
        left, change = model.left_of(mean), 0.0
        for block, variance, s in zip(model.blocks, variances, model.prior.error_slices, strict=True):
            own = slice(s.start - rank, s.stop - rank)
            if not _may_leave(block.name):
                continue
            if block.name in values or log_odds(mean[own], covariance[own, own], variance) >= STRONG:
                values[block.name] = block.told(mean[own])
                moved, whole = (_rms(model.features.basis[:, s] @ v[own].to(model.target)) for v in (left, mean))
                change = max(change, moved / max(_STILL * evidence.sigma2**0.5, _SMALL * whole, 1e-300))
        return replace(taken, values=values), change

    def _again(self, state: DIPState, data: Data, taken: Taken, stages: Stages) -> DIPState:
        """A fit that goes on from weights to other rays."""
        run, rng = self.run, torch.Generator().manual_seed(0).set_state(self.drawn)
        with torch.no_grad():
            image = self.generate(state.best)[0].detach()
        fit, stop = split(data, self.views.held, rng=rng)
        stop = without_own(stop, image, taken.values) if len(self.views.held) else stop
        options = replace(run.options.dip, iterations=iterations_again(run.options.dip), by_noise=state.best_by_noise)

        def made() -> dict[str, Any]:
            last = None
            for last in dip(self.generate, state.best, fit, stop, options):
                run.tell("Deep Image Prior", last.iteration, options.length, "without systematic errors")
            assert last is not None
            return {"best": last.best, "history": last.history}

        found = stages.once("fit", made)
        history = found["history"].clone()
        history[:, 0] += state.history[-1, 0]
        best = {name: value.to(data.y.device) for name, value in found["best"].items()}
        return replace(state, best=best, history=torch.cat([state.history, history]))


def of_any_flux(part: Data) -> Data:
    """Rays of a first fit, whose views may each be off by a number: flux that falls to half ends no fit, and is in no image."""
    return without_own(part, part.y.new_zeros(part.A.grid.shape), ("flux",))


def without_own(part: Data, image: Tensor, names: Iterable[str]) -> Data:
    """Rays whose errors of single views count for nothing, in what is fitted or stops a fit.

    What a held-out view has of its own says nothing of an image. Of ellipses whose flux fell to half from one view to the next
    a fit was stopped at once by held-out views that still had it: 18.6 dB, and 27.9 so.

    Parameters
    ----------
    part : Data
    image : Tensor, shape (y, x)
        At which errors are linearised.
    names : iterable of str
        Errors that were taken out of the fitted views.
    """
    own = [name for name in names if KINDS[name].of == "view"]
    if not own:
        return part
    assert isinstance(part.A, RayTransform)
    return replace(part, own=tuple(effect.to(part.y) for effect in effects_of(own, part.A, image).values()))


def of_all_views(last: Freed, posterior: ImageCovariance, held: NDArray[np.int64]) -> Data:
    """Rays of which the held-out views, too, are without errors of their own: those of which images without a fit are made.

    Parameters
    ----------
    last : Freed
    posterior : ImageCovariance
        Given the rays of all views.
    held : array of int
    """
    assert isinstance(posterior, ImagePosterior)
    model, y = last.model, last.data.y
    left, rays = model.left_of(posterior.given.errors()[0]), torch.zeros(y.numel(), dtype=torch.float64, device=y.device)
    for block, s in zip(model.blocks, model.prior.error_slices, strict=True):
        if KINDS[block.name].of == "view" and model.taken is not None:
            own = slice(s.start - model.factor.rank, s.stop - model.factor.rank)
            rays += (block.columns @ left[own].to(block.columns)) * bool(model.taken[own].any())
    views = torch.zeros(len(y), 1, dtype=y.dtype, device=y.device)
    views[torch.as_tensor(held, device=y.device)] = 1
    return replace(last.data, y=y - views * rays.reshape(y.shape).to(y))


def iterations_again(options: DIPOptions) -> int:
    """Of a fit that goes on to rays without errors, at most."""
    return min(_ITERATIONS, options.length)


def may_be_taken(wanted: Sequence[Wish]) -> tuple[str, ...]:
    """Names of the errors that a fit may find and take out of the rays; gains are, before it."""
    return tuple(wish.name for wish in wanted if wish.name not in GIVEN and _may_leave(wish.name))


def _may_leave(name: str) -> bool:
    return name not in UNSURE and not KINDS[name].hidden and KINDS[name].of != "cell"


def told_too_far(taken: Taken, grid: VolumeGrid) -> tuple[str, ...]:
    """What to know of angles and shifts of views that lie beyond the pixel over which their derivative is made.

    Parameters
    ----------
    taken : Taken
    grid : VolumeGrid
        Of the image.
    """
    told = ()
    for name, rim in (("jitter", 0.5 * max(grid.shape)), ("shift", 1 / grid.voxel)):
        pixels = rim * float(taken.values[name].abs().max()) if name in taken.values else 0.0
        if pixels > 1:
            told += (_TOO_FAR.format(KINDS[name].what, pixels),)
    return told


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _less(y: Tensor, rays: Tensor | float) -> Tensor:
    return y - rays.reshape(y.shape).to(y) if isinstance(rays, Tensor) else y


def log_odds(mean: Tensor, covariance: Tensor, variance: float) -> float:
    """Log of how much more probable the rays are with an error than without, at the same hyperparameters otherwise.

    The density of no error before the rays over that after them (Dickey, Annals of Mathematical Statistics 1971).

    Parameters
    ----------
    mean, covariance : Tensor, float64, shape (k,) and (k, k)
        Given the rays.
    variance : float
        Of each factor before.
    """
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    values = values.clamp(min=1e-12 * variance)
    z = (mean @ vectors).square() / values
    return 0.5 * float((z + (values / variance).log()).sum())


def _without(data: Data, taken: Taken, model: ImageModel) -> Data:
    """Rays and transform without these errors; derivatives are those of the last model."""
    A = data.A
    assert isinstance(A, RayTransform)
    geometry = taken.scanner(A.geometry)
    if geometry != A.geometry:
        A = ray_transform(A.grid, geometry, device=A.device, backend="matrix")
    return Data(A, _less(data.y, taken.rays(model.blocks)), data.weights)


def _notes(taken: Taken, rounds: int, change: float) -> tuple[str, ...]:
    names = [KINDS[name].what for name in taken.values]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    notes = (f"All images are of rays without what the scanner did wrong ({listed}): error bars and report have what it was.",)
    if change > 1:
        notes += (f"After {rounds} fits the systematic errors did not stand still: they are linearised at the last one.",)
    return notes
