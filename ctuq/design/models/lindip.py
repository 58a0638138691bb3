"""The linearised Deep Image Prior as an image covariance for design: the product's linear model of the views so far."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.design.algebra.covariance import Covariance, DenseCovariance, FactorCovariance
from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.errors import InputError
from ctuq.linops.gaussian import stable_cholesky
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.linops.memory import require_memory
from ctuq.pipeline.running.checkpoint import Checkpoint
from ctuq.recon.dip import DIPOptions, Generator, generator
from ctuq.recon.holdout import default_views, held_views, split, useful_views
from ctuq.recon.unet import UNet
from ctuq.stages import Stages, name_of
from ctuq.tomo.geometry import bytes_of
from ctuq.uncertainty.calibration.held_out import calibrate_by_views, of_views
from ctuq.uncertainty.calibration.scales import UNSCALED, Scales
from ctuq.uncertainty.estimate import Evidence, by_size, kept_evidence, leaving_out, named
from ctuq.uncertainty.model.linear import ImageModel, image_model
from ctuq.uncertainty.model.solved import SolvedRays

_ENOUGH_VIEWS = 12


@dataclass(frozen=True)
class LinDIPOptions:
    """How the network is fitted, and how its covariance is held.

    Parameters
    ----------
    dip : DIPOptions
    warm_iterations : int
        Most iterations of a fit that starts from the weights of the one before.
    prior : str
        Of the weights: "isotropic", "layerwise", "filter" or "g".
    variation : float
        Strength of the TV hyperprior; 0 leaves it out.
    held_out : int, optional
        Measured views that stop the fit and scale the error bars; by default none below 12 views, then
        `ctuq.recon.holdout.default_views`. With none, one ray in twenty stops the fit and nothing is scaled: of five
        pilot views none can be spared.
    rank : int
        Of the network's factor, where an exact Jacobian does not fit. It has to hold what all views to come can learn, and not
        what the measured ones did, so that it is larger than that of a reconstruction: rank 1,000 leaves 0.1 % of the prior
        variance at 96 x 96 and takes 31 CPU s.
    memory : int
        Bytes that an exact covariance and its Jacobian may take.
    seed : int
    """

    dip: DIPOptions = field(default_factory=DIPOptions)
    warm_iterations: int = 500
    prior: str = "isotropic"
    variation: float = 0.0
    held_out: int | None = None
    rank: int = 2000
    memory: int = 4 * 2**30
    seed: int = 0

    def with_prior(self, prior: str) -> "LinDIPOptions":
        """The same with another prior of the weights."""
        return replace(self, prior=prior)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A network fitted to some views, and what its linear model learned from them: all that a covariance needs.

    Parameters
    ----------
    parameters : dict of str to Tensor, (1, ...) each
    inputs : Tensor, shape (1, 1, 1, y, x)
    scale : Tensor, shape (1,)
        As in `ctuq.recon.dip.Generator`.
    image : Tensor, shape (y, x)
        In 1/mm, with what the held-out views add.
    evidence : Evidence
    scales : Scales
        Of the covariance and the noise; (1, 1) if nothing was held out.
    iterations : int
        Of the fit.
    by_noise : bool
        Whether total variation weighs by all the noise in it, as in the fits that go on from it.
    """

    parameters: dict[str, Tensor]
    inputs: Tensor
    scale: Tensor
    image: Tensor
    evidence: Evidence
    scales: Scales
    iterations: int
    by_noise: bool = False


class LinearisedDIP:
    """Learns a `GaussianModel` by fitting the network and maximising the evidence; the next fit starts from the last one.

    Parameters
    ----------
    options : LinDIPOptions
    fitted : Fitted, optional
        Of an earlier session.
    folder : Path, optional
        Where a fit is kept while it is made, so that one that was killed goes on.
    """

    def __init__(self, options: LinDIPOptions | None = None, fitted: Fitted | None = None, *, folder: Path | None = None):
        self.options = LinDIPOptions() if options is None else options
        self.fitted, self._folder = fitted, folder

    def __call__(self, measured: Measurements) -> GaussianModel:
        fitted, linear = retrain(measured, self.options, warm=self.fitted, folder=self._folder)
        model = model_of(linear, fitted)
        self.fitted = fitted
        return model

    def restored(self, measured: Measurements) -> GaussianModel:
        """The model of ``fitted`` without a fit, from the views that it was learned from.

        Raises
        ------
        InputError
            If nothing was fitted.
        """
        if self.fitted is None:
            raise InputError("There is no fit to restore; learn from projections first.")
        return model_of(linear_of(measured, self.fitted, self.options), self.fitted)


def retrain(
    measured: Measurements, options: LinDIPOptions, *, warm: Fitted | None = None, folder: Path | None = None
) -> tuple[Fitted, ImageModel]:
    """Fit the network to the measured views, from the weights of the last fit if there was one, and learn the evidence.

    Parameters
    ----------
    measured : Measurements
    options : LinDIPOptions
    warm : Fitted, optional
        Its input and scale are kept, so that its weights mean the same image.
    folder : Path, optional
        For what is done, until it is of no more use.
    """
    checkpoint = _checkpoint(folder, measured, options, warm)
    rng = torch.Generator().manual_seed(options.seed + len(measured.views))
    held = _held(measured, options.held_out)
    fit, stop = split(measured.data, held, rng=rng)
    if warm is None:
        settings = options.dip
        generate, start = generator(fit, settings, rng=rng)
    else:
        settings = replace(options.dip, iterations=options.warm_iterations, by_noise=bool(warm.by_noise))
        generate, start = _generator_of(warm, settings), warm.parameters
    state = checkpoint.fit(generate, start, (fit, stop), settings)
    image = generate(state.best)[0].detach()
    linear = _linear(generate, state.best, image, measured, options, stages=checkpoint.stages)
    evidence, scales, correction = _learned(linear, measured.y, held, options.variation, rng=rng, stages=checkpoint.stages)
    fit_by = int(state.best_iteration.max()), state.best_by_noise
    image = (image.double() + correction).float()
    return Fitted(state.best, generate.inputs, generate.scale, image, evidence, scales, *fit_by), linear


def linear_of(measured: Measurements, fitted: Fitted, options: LinDIPOptions) -> ImageModel:
    """The linear model of a fit made before, without fitting anything: the products with the network that its factor takes."""
    generate = _generator_of(fitted, options.dip)
    with torch.no_grad():
        image = generate(fitted.parameters)[0]
    return _linear(generate, fitted.parameters, image, measured, options)


def model_of(linear: ImageModel, fitted: Fitted) -> GaussianModel:
    """The image's covariance at the evidence's maximum, as the product's error bars are made from it.

    That is ``a (F C F^T + V)``: the network's factor, the floors with what it leaves out, and the scale a that held-out views
    found. It is the covariance before any view, and not the engine's posterior: a design takes one view after the other, with
    the noise's own scale. At 48 x 48 the engine's posterior of five views takes 3.5 CPU s, 35 views by `GivenViews` with all
    that is asked of them 2.0 (``experiments.benchmarks.design --parts published --size 48``).

    Parameters
    ----------
    linear : ImageModel
        Of the measured views.
    fitted : Fitted
        Gives the hyperparameters.
    """
    evidence, scales, factor = fitted.evidence, fitted.scales, linear.factor
    C, beside = scales.image * linear.prior.mixing(evidence.psi).cpu(), linear.misfit(evidence.psi).scaled(scales.image).cpu()
    pixels = linear.image.numel()
    covariance: Covariance
    if factor.basis is None:
        covariance, note = DenseCovariance(C + beside.matrix()), f"{pixels} pixels: exact in image space"
    else:
        Q = stable_cholesky(C).T @ factor.basis.T.cpu().double()
        covariance = FactorCovariance(Q, beside, factor.missed)
        whose = "single pixels" if beside.root is None else "pixels and their neighbours"
        left = f"leaves {factor.missed:.1%} of the variance to {whose}"
        note = f"{pixels} pixels: a factor of rank {factor.rank}, which {left}"
    sigma2 = scales.noise * evidence.sigma2
    values = named(linear.prior, evidence.psi) | {"sigma2": sigma2, "image scale": scales.image}
    return GaussianModel(covariance, sigma2, fitted.image, linear.mean.float(), values, note)


def _learned(
    linear: ImageModel, y: Tensor, held: NDArray[np.int64], variation: float, *, rng: torch.Generator, stages: Stages
) -> tuple[Evidence, Scales, Tensor]:
    """Hyperparameters by the views that are not held out; scales, and what is added to the image, by those that are.

    The product's `estimate` without what a design does not ask: given all views by the engine, and each of them by the others.
    """
    fitted = ~of_views(linear, held)
    way = by_size(linear, fitted)
    evidence = kept_evidence(linear, fitted, way=way, rng=rng, stages=stages, variation=variation)
    if not len(held):
        return evidence, UNSCALED, torch.zeros_like(linear.mean)
    given = SolvedRays.on(linear, evidence.point, noise_by=way.noise_by, stages=stages)
    without = leaving_out(given, way, stages)
    scales, _, correction = calibrate_by_views(without, linear, y, held, evidence.sigma2, most=way.held_out)
    return evidence, scales, correction


def _linear(
    generate: Generator,
    parameters: dict[str, Tensor],
    image: Tensor,
    measured: Measurements,
    options: LinDIPOptions,
    *,
    stages: Stages | None = None,
) -> ImageModel:
    _, jacobian = jacobian_of(*generate.module(parameters))
    pixels, weights = image.numel(), jacobian.domain.size
    each = 8.4 * weights + 24 * pixels
    rank = pixels if pixels * each < options.memory else min(options.rank, pixels)
    require_memory(int(rank * each), "The network's covariance", "choose a smaller image for the design", image.device)
    return image_model(
        measured.A.subset(measured.views),
        measured.y,
        measured.weights,
        image=image,
        jacobian=jacobian,
        scale=float(generate.scale[0]),
        prior=options.prior,
        rank=rank,
        # The factor of a restored fit is the one that the evidence was learned with.
        rng=torch.Generator().manual_seed(options.seed),
        stages=stages,
    )


def _checkpoint(folder: Path | None, measured: Measurements, options: LinDIPOptions, warm: Fitted | None) -> Checkpoint:
    """Of this fit alone; a folder that cannot be written to is no error."""
    if folder is None:
        return Checkpoint(None, "")
    A = measured.A
    about = repr((options, A.grid, measured.views.tolist(), torch.get_num_threads()))
    begun = [] if warm is None else [warm.inputs, warm.scale, *warm.parameters.values()]
    told = about + name_of(measured.y, measured.weights, *begun)
    data = hashlib.sha256(told.encode() + bytes_of(A.geometry)).hexdigest()
    return Checkpoint(folder / f"{data[:20]}.h5", data, needed=False)


def _generator_of(fitted: Fitted, options: DIPOptions) -> Generator:
    return Generator(UNet(options.network, torch.Generator()), fitted.inputs, fitted.scale)


def _held(measured: Measurements, wanted: int | None) -> NDArray[np.int64]:
    """The places of the held-out views among the measured ones."""
    useful = useful_views(measured.weights.cpu())
    default = default_views(len(useful)) if len(useful) >= _ENOUGH_VIEWS else 0
    return held_views(measured.A.geometry.angles[measured.views], useful, default if wanted is None else wanted)
