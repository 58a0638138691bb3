"""The linearised Deep Image Prior as an image covariance for design: fit, evidence, and the covariance of all candidates."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.design.algebra.covariance import Covariance, DenseCovariance, low_rank
from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.errors import InputError
from ctuq.laplace import Evidence, gram
from ctuq.linops.jacobian.network import linearise
from ctuq.recon.dip import Data, DIPOptions, Generator, dip, generator
from ctuq.recon.unet import UNet
from ctuq.uncertainty.calibration import Scales, choose_views, default_views
from ctuq.uncertainty.estimate import estimate
from ctuq.uncertainty.tangent import TangentModel

_APART = 0.05
_BATCH = 64
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
        `ctuq.uncertainty.calibration.default_views`. With none, one ray in twenty stops the fit and nothing is scaled: of five
        pilot views none can be spared.
    rank : int
        Of the factor, where the exact covariance does not fit.
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
    """A network fitted to some views, and what its tangent model learned from them: all that a covariance needs.

    Parameters
    ----------
    parameters : dict of str to Tensor, (1, ...) each
    inputs : Tensor, shape (1, 1, 1, y, x)
    scale : Tensor, shape (1,)
        As in `ctuq.recon.dip.Generator`.
    image : Tensor, shape (y, x)
        In 1/mm, with what the held-out views add.
    mean : Tensor, shape (y, x)
        Prior mean of the tangent model, ``f - J theta``.
    evidence : Evidence
    scales : Scales
        Of the covariance and the noise; (1, 1) if nothing was held out.
    iterations : int
        Of the fit.
    """

    parameters: dict[str, Tensor]
    inputs: Tensor
    scale: Tensor
    image: Tensor
    mean: Tensor
    evidence: Evidence
    scales: Scales
    iterations: int


class LinearisedDIP:
    """Learns a `GaussianModel` by fitting the network and maximising the evidence; the next fit starts from the last one.

    Parameters
    ----------
    options : LinDIPOptions
    fitted : Fitted, optional
        Of an earlier session.
    """

    def __init__(self, options: LinDIPOptions | None = None, fitted: Fitted | None = None):
        self.options = LinDIPOptions() if options is None else options
        self.fitted = fitted

    def __call__(self, measured: Measurements) -> GaussianModel:
        fitted, tangent = retrain(measured, self.options, warm=self.fitted)
        model = model_of(tangent, fitted, measured, self.options)
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
        return model_of(tangent_of(measured, self.fitted, self.options), self.fitted, measured, self.options)


def retrain(measured: Measurements, options: LinDIPOptions, *, warm: Fitted | None = None) -> tuple[Fitted, TangentModel]:
    """Fit the network to the measured views, from the weights of the last fit if there was one, and learn the evidence.

    Parameters
    ----------
    measured : Measurements
    options : LinDIPOptions
    warm : Fitted, optional
        Its input and scale are kept, so that its weights mean the same image.
    """
    rng = torch.Generator().manual_seed(options.seed + len(measured.views))
    fit, stop, held = _split(measured, options.held_out, rng)
    if warm is None:
        settings = options.dip
        generate, start = generator(fit, settings, rng=rng)
    else:
        settings = replace(options.dip, iterations=options.warm_iterations)
        generate, start = _generator_of(warm, settings), warm.parameters
    *_, state = dip(generate, start, fit, stop, settings)
    image = generate(state.best)[0].detach()
    tangent = _tangent(generate, state.best, image, measured, options)
    found = estimate(tangent, measured.y, held, variation=options.variation)
    best = int(state.best_iteration.max())
    mean = image - tangent.scale * tangent.jacobian(tangent.jacobian.weights[None])[0]
    image = (image.double() + found.correction).float()
    fitted = Fitted(state.best, generate.inputs, generate.scale, image, mean, found.evidence, found.scales, best)
    return fitted, tangent


def tangent_of(measured: Measurements, fitted: Fitted, options: LinDIPOptions) -> TangentModel:
    """The tangent model of a fit made before, without fitting anything: one product with the network a ray or pixel."""
    generate = _generator_of(fitted, options.dip)
    with torch.no_grad():
        image = generate(fitted.parameters)[0]
    return _tangent(generate, fitted.parameters, image, measured, options)


def model_of(tangent: TangentModel, fitted: Fitted, measured: Measurements, options: LinDIPOptions) -> GaussianModel:
    """The covariance of image or candidate rays under the tangent model, held exactly where it fits.

    Parameters
    ----------
    tangent : TangentModel
        Of the measured views.
    fitted : Fitted
        Gives the hyperparameters.
    measured : Measurements
        Its ray transform is of all candidates.
    options : LinDIPOptions
    """
    covariance, space, note = _covariance(tangent, fitted, measured, options)
    evidence, scales = fitted.evidence, fitted.scales
    sigma2 = scales.noise * evidence.sigma2
    floors = {f"floor {i + 1}": value for i, value in enumerate(evidence.floors)}
    values = evidence.named(tangent.prior) | floors | {"sigma2": sigma2, "image scale": scales.image}
    return GaussianModel(covariance, sigma2, fitted.image, fitted.mean, values, space, note)


def _covariance(
    tangent: TangentModel, fitted: Fitted, measured: Measurements, options: LinDIPOptions
) -> tuple[Covariance, str, str]:
    """The scaled prior covariance in the cheapest space that fits: pixels, candidate rays, or a factor."""
    evidence, scale = fitted.evidence, fitted.scales.image
    pixels, rays, weights = measured.A.grid.size, int(np.prod(measured.A.geometry.shape)), tangent.jacobian.domain.size
    floor = scale * tangent.misfit(evidence).cpu()

    def exact(features: Tensor) -> Tensor:
        return scale * gram(tangent.prior.root_transpose(features, evidence.psi)).cpu()

    if tangent.plan.space == "image":
        S = exact(tangent.features)
        S.diagonal().add_(floor)
        return DenseCovariance(S), "image", f"{pixels} pixels: exact in image space"
    fits = min(pixels, rays) * (8.4 * weights + 24 * min(pixels, rays)) < options.memory
    if fits and pixels <= rays:
        S = exact(_features(tangent, sp.csr_array(sp.eye_array(pixels))))
        S.diagonal().add_(floor)
        return DenseCovariance(S), "image", f"{pixels} pixels, {rays} candidate rays: exact in image space"
    if fits:
        M = sp.csr_array(measured.A.matrix, dtype=np.float64)
        G = exact(_features(tangent, M)) + torch.from_numpy(((M * floor.numpy()[None]) @ M.T).toarray())
        return DenseCovariance(G), "rays", f"{pixels} pixels, {rays} candidate rays: exact among the rays"
    rank = min(options.rank, pixels)
    rng = torch.Generator().manual_seed(options.seed)
    factor = low_rank(_products(tangent, evidence, scale), pixels, rank, rng=rng, white=floor)
    return factor, "image", f"{pixels} pixels: a factor of rank {rank}, which misses {factor.missed:.1%} of the variance"


def _products(tangent: TangentModel, evidence: Evidence, scale: float) -> Callable[[Tensor], Tensor]:
    """Rows times ``scale J Sigma J^T``: two products with the network each."""

    def times(x: Tensor) -> Tensor:
        theta = tangent.jacobian.T(x.to(tangent.image).reshape(-1, *tangent.shape))
        images = tangent.jacobian(tangent.prior.covariance(theta, evidence.psi))
        return scale * tangent.scale**2 * images.flatten(1).cpu().double()

    return times


def _features(tangent: TangentModel, rows: sp.csr_array) -> Tensor:
    """``rows J``, float32, in the image's unit."""
    count = len(rows.indptr) - 1
    features = torch.empty(count, tangent.jacobian.domain.size, dtype=torch.float32, device=tangent.image.device)
    for start in range(0, count, _BATCH):
        images = torch.from_numpy(rows[start : start + _BATCH].toarray()).to(tangent.image)
        features[start : start + _BATCH] = tangent.jacobian.T(images.reshape(-1, *tangent.shape))
    return features.mul_(tangent.scale)


def _tangent(
    generate: Generator, parameters: dict[str, Tensor], image: Tensor, measured: Measurements, options: LinDIPOptions
) -> TangentModel:
    _, jacobian = linearise(*generate.module(parameters))
    return TangentModel(
        measured.A.subset(measured.views),
        measured.y,
        measured.weights,
        image=image,
        jacobian=jacobian,
        scale=float(generate.scale[0]),
        prior=options.prior,
    )


def _generator_of(fitted: Fitted, options: DIPOptions) -> Generator:
    return Generator(UNet(options.network, torch.Generator()), fitted.inputs, fitted.scale)


def _split(measured: Measurements, wanted: int | None, rng: torch.Generator) -> tuple[Data, Data, NDArray[np.int64]]:
    """Rays to fit, rays that stop the fit, and the places of the held-out views among the measured ones."""
    A, y, weights = measured.A.subset(measured.views), measured.y, measured.weights
    useful = np.flatnonzero(weights.amax(1).cpu().numpy() > 0)
    default = default_views(len(useful)) if len(useful) >= _ENOUGH_VIEWS else 0
    count = default if wanted is None else wanted
    if count:
        held = useful[choose_views(measured.A.geometry.angles[measured.views][useful], count)[1]]
        seen = np.setdiff1d(np.arange(len(measured.views)), held)
        fit, stop = (Data(A.subset(v), y[torch.from_numpy(v)][None], weights[torch.from_numpy(v)][None]) for v in (seen, held))
        return fit, stop, held
    apart = (torch.rand(y.shape, generator=rng) < _APART).to(y)
    fit, stop = (Data(A, y[None], (weights * share)[None]) for share in (1 - apart, apart))
    return fit, stop, np.zeros(0, np.int64)
