"""From a fitted network to calibrated error bars: evidence, calibration on held-out views, final posterior."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.laplace.evidence.hyperprior import Hyperprior
from ctuq.laplace.fit import maximise
from ctuq.laplace.system.problem import Point, plus_identity
from ctuq.scores.gaussian import gaussian_scores
from ctuq.uncertainty.calibration import Scales, learn_scales
from ctuq.uncertainty.model import ImageModel
from ctuq.uncertainty.posterior import Conditioned, ImagePosterior
from ctuq.uncertainty.prior import FLOORS, ImagePrior
from ctuq.uncertainty.result import Calibration
from ctuq.uncertainty.route import Route, route

_FLOOR_SHAPE = 0.5
_FIRST_NOISE = 1e-3
_LEFT_OUT = 2048
# Floors lie many decades apart from what the network explains, and a strong hyperprior moves these further.
_CAP = 1e9


@dataclass(frozen=True, eq=False)
class Evidence:
    """Hyperparameters of an `ImagePrior` where evidence times hyperprior is largest, and the evidence there.

    Parameters
    ----------
    psi : Tensor, float64
        Log hyperparameters.
    sigma2 : float
        Noise variance of a ray of weight 1.
    value, error : float
        Log evidence of the fitted rays at this point, nats, and its standard error (0 if exact).
    converged : bool
    method : str
        "dense" (exact) or "em" (from posterior samples).
    noiseless : bool
        Whether the search ended at a bound of the noise: to this model the rays have none.
    """

    psi: Tensor
    sigma2: float
    value: float
    error: float
    converged: bool
    method: str
    noiseless: bool = False

    @property
    def point(self) -> Point:
        """As the engine takes it, with one noise."""
        return Point(self.psi, torch.tensor([self.sigma2], dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the linear model says of one scan.

    Parameters
    ----------
    evidence : Evidence
    posterior : ImagePosterior
        Given all views, raw: multiply its covariance by ``scales.image``.
    scales : Scales
        (1, 1) without calibration.
    calibration : Calibration, optional
    correction : Tensor, shape (y, x), float64
        What the held-out views add to the network's image.
    leave_one_out : dict of str to float
        Scores of closed-form leave-one-angle-out predictions by the raw linear model.
    """

    evidence: Evidence
    posterior: ImagePosterior
    scales: Scales
    calibration: Calibration | None
    correction: Tensor
    leave_one_out: dict[str, float]


def estimate(
    model: ImageModel,
    y: Tensor,
    held_out: NDArray[np.int64],
    *,
    variation: float = 0.0,
    rng: torch.Generator | None = None,
    way: Route | None = None,
    floor_shape: float = _FLOOR_SHAPE,
) -> Estimate:
    """Evidence on the fitted views, scales from the held-out ones, posterior given all.

    Parameters
    ----------
    model : ImageModel
        Of all views; its image was fitted to those that are not held out.
    y : Tensor, shape (angle, column)
    held_out : array of int
        Views that the network never saw; empty for no calibration.
    variation : float
        Strength of the TV hyperprior; 0 leaves it out.
    rng : torch.Generator, optional
        Of seed 0 by default.
    way : Route, optional
        What is exact; by default by size alone.
    floor_shape : float
        See `log_hyperprior`.
    """
    rng = torch.Generator().manual_seed(0) if rng is None else rng
    unseen = torch.isin(model.views, torch.as_tensor(held_out, device=model.views.device))
    if way is None:
        way = route(model.image.numel(), len(unseen), int((~unseen).sum()), 0)
    method = "dense" if way.exact_evidence else "em"
    evidence = fit_evidence(model, ~unseen, variation=variation, rng=rng, method=method, floor_shape=floor_shape)
    scales, calibration = Scales(1, 1, float("inf"), float("inf")), None
    correction = torch.zeros_like(model.mean)
    if len(held_out):
        views = _HeldOut(model, unseen, held_out, way.dense_noise)
        scales, calibration, correction = _calibrate(views, y, evidence, rng)
    given = Conditioned.on(model, evidence.point, dense=way.dense_noise)
    return Estimate(evidence, ImagePosterior(given, rng=rng), scales, calibration, correction, _leave_one_out(given))


def fit_evidence(
    model: ImageModel,
    fitted: Tensor,
    *,
    variation: float = 0.0,
    rng: torch.Generator,
    method: str = "auto",
    floor_shape: float = _FLOOR_SHAPE,
) -> Evidence:
    """Maximise the evidence of the fitted rays (boolean, one for each used ray), by the engine.

    Parameters
    ----------
    model : ImageModel
    fitted : Tensor of bool, shape (m,)
    variation : float
        Strength of the TV hyperprior.
    rng : torch.Generator
    method : {"auto", "dense", "em"}
        See `ctuq.uncertainty.route`.
    floor_shape : float
        See `log_hyperprior`.
    """
    part = model if bool(fitted.all()) else model.part(fitted.nonzero()[:, 0])
    if method == "auto":
        method = "dense" if route(model.image.numel(), len(fitted), len(part.target), 0).exact_evidence else "em"
    with warnings.catch_warnings():
        # Its advice is for those who build a likelihood; `Evidence.noiseless` is told by the job.
        warnings.filterwarnings("ignore", "The noise fell to")
        found = maximise(
            part.problem(),
            part.prior,
            start=first_point(part),
            method=method,
            rng=rng,
            hyperprior=log_hyperprior(model, variation, floor_shape),
            components=part.components() if method == "dense" else None,
            cap=_CAP,
        )
    noiseless = any(name.startswith("noise ") for name in found.capped)
    value, error = found.log_evidence, found.log_evidence_error
    return Evidence(found.psi, float(found.sigma2), value, error, found.converged, method, noiseless)


def first_point(model: ImageModel, noise: float = _FIRST_NOISE) -> Point:
    """Where the search starts: the network explains the target's variance, floors and noise a thousandth of it."""
    variance = float(model.target.square().mean())
    psi = model.prior.start() + math.log(variance) * model.prior.is_variance
    return Point(psi, torch.tensor([noise * variance], dtype=torch.float64))


def log_hyperprior(model: ImageModel, variation: float, floor_shape: float = _FLOOR_SHAPE) -> Hyperprior:
    """The TV hyperprior of the weights, and what keeps each floor off zero.

    The evidence is flat below the misfit that the data can detect, so that its maximum may lie at no misfit at all. The density
    ``p(log floor) = floor_shape * log floor`` (the boundary-avoiding prior of Chung, Rabe-Hesketh, Dorie, Gelman and Liu,
    Psychometrika 2013, a gamma density of shape 2 and no rate on the standard deviation, for ``floor_shape`` 1/2) moves it up
    to where the floor takes one effective dimension, and hardly where the data know the floor.
    """
    tv = model.prior.variation(model.image, variation) if variation else None
    count = len(model.factor.prior.members)

    def log_density(psi: Tensor) -> Tensor:
        value = floor_shape * psi[count : count + len(FLOORS)].sum()
        return value if tv is None else value + tv(model.prior.of_weights(psi))

    return log_density


def named(prior: ImagePrior, psi: Tensor) -> dict[str, float]:
    """Hyperparameters by name, exponentiated."""
    return dict(zip(prior.names, psi.exp().tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """The model with its held-out views, and which of the used rays (boolean) are of these."""

    model: ImageModel
    unseen: Tensor
    views: NDArray[np.int64]
    dense: bool


def _calibrate(held: _HeldOut, y: Tensor, evidence: Evidence, rng: torch.Generator) -> tuple[Scales, Calibration, Tensor]:
    """Scales from the held-out rays, the record of it, and what these rays add to the image."""
    model, new = held.model, held.unseen.nonzero()[:, 0]
    given = Conditioned.on(model.part((~held.unseen).nonzero()[:, 0]), evidence.point, dense=held.dense)
    rows = model.features.matrix.rows(new)
    root = model.precision[new].sqrt()
    measured = y.reshape(-1)[model.rays[new]].double()
    predicted = rows(model.image.reshape(1, -1).double())[0] / root
    residual = measured - predicted
    signal = ImagePosterior(given, rng=rng).variance_of(rows) / root.square()
    del given
    noise = evidence.sigma2 / model.precision[new]
    columns = _Columns(model, new, held.views)
    scales = learn_scales(*(columns(values) for values in (residual, signal, noise)))
    correction = _correction(held, residual * root, evidence, scales)
    raw, calibrated = signal + noise, scales.image * signal + scales.noise * noise
    calibration = Calibration(
        views=tuple(int(v) for v in held.views),
        image_scale=scales.image,
        noise_scale=scales.noise,
        log_image_scale_sd=scales.log_image_sd,
        log_noise_scale_sd=scales.log_noise_sd,
        raw=gaussian_scores(residual.cpu(), raw.cpu()),
        calibrated=gaussian_scores(residual.cpu(), calibrated.cpu()),
        predictions=np.stack([columns(v) for v in (measured, predicted, raw.sqrt(), calibrated.sqrt())]).astype(np.float32),
    )
    return scales, calibration, correction


def _correction(held: _HeldOut, residual: Tensor, evidence: Evidence, scales: Scales) -> Tensor:
    """Conditional mean of the image's error given the held-out rays' whitened residuals, (y, x), float64.

    With the covariance given the fitted rays scaled by a, ``a P A_h^T (a A_h P A_h^T + b N_h)^-1 r``: as the posterior mean of
    a prior scaled by a, from fitted rays of residual 0 and noise a N and held-out rays of residual r and noise b N, it takes
    one solve and no matrix over the held-out rays.
    """
    model, unseen = held.model, held.unseen
    psi = evidence.psi + np.log(scales.image) * model.prior.is_variance
    sigma2 = evidence.sigma2 * torch.tensor([scales.image, scales.noise], dtype=torch.float64)
    given = Conditioned.on(model, Point(psi, sigma2), groups=unseen.long(), dense=held.dense)
    target = torch.zeros_like(model.target)
    target[unseen] = residual / sigma2[1].sqrt()
    delta = given(plus_identity(given.system.dual_gram()), target[None]).value
    return model.push(given.system.covariance(given.system.pull(delta)))[0]


class _Columns:
    """Values of the held-out views' used rays as (view, column); rays that were left out repeat their neighbour's value."""

    def __init__(self, model: ImageModel, rows: Tensor, views: NDArray[np.int64]):
        place = {int(v): i for i, v in enumerate(views)}
        rays = model.rays[rows].cpu().numpy()
        self._row = np.array([place[int(r) // model.columns] for r in rays], dtype=int)
        self._column, self._shape = rays % model.columns, (len(views), model.columns)

    def __call__(self, values: Tensor) -> NDArray[np.float64]:
        out = np.full(self._shape, np.nan)
        out[self._row, self._column] = values.cpu().numpy()
        for row in out:
            known = np.isfinite(row)
            row[~known] = np.interp(np.flatnonzero(~known), np.flatnonzero(known), row[known])
        return out


def _leave_one_out(given: Conditioned) -> dict[str, float]:
    """Each view predicted from all others, in closed form; of many rays, views spread over the scan."""
    model = given.model
    views = model.views.unique()
    most = max(1, int(_LEFT_OUT * len(views) / max(len(model.views), 1)))
    if len(views) > most:
        views = views[torch.linspace(0, len(views) - 1, most).round().long().unique()]
    weighted = given.solve(given.system.target[None])[0]
    residuals, variances = [], []
    for view in views:
        rows = (model.views == view).nonzero()[:, 0]
        unit = torch.zeros(len(rows), len(weighted), dtype=torch.float64, device=weighted.device)
        unit[torch.arange(len(rows)), rows] = 1
        block = torch.linalg.inv(given.solve(unit)[:, rows])
        scale = (given.system.point.sigma2[0].to(weighted) / model.precision[rows]).sqrt()
        residuals.append(scale * (block @ weighted[rows]))
        variances.append(scale.square() * block.diagonal())
    return gaussian_scores(torch.cat(residuals).cpu(), torch.cat(variances).cpu())
