"""From a fitted network to calibrated error bars: evidence, calibration on held-out views, final posterior."""

import math
import warnings
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.laplace.evidence.hyperprior import Hyperprior
from ctuq.laplace.fit import maximise
from ctuq.laplace.system.problem import Point
from ctuq.scores.gaussian import gaussian_scores
from ctuq.stages import Stages
from ctuq.uncertainty.calibration import Scales, learn_scales
from ctuq.uncertainty.contents import Calibration
from ctuq.uncertainty.left_out import LeftOut
from ctuq.uncertainty.model import ImageModel
from ctuq.uncertainty.posterior import ImagePosterior
from ctuq.uncertainty.prior import FLOORS, ImagePrior
from ctuq.uncertainty.route import EVIDENCE_RAYS, Route, route
from ctuq.uncertainty.solved import SolvedRays

_FLOOR_SHAPE = 0.5
# Over the target's variance. Of several variances the exact search finds the better maxima from little noise; samples at a
# point of too little noise cannot be solved for, and what was solved there bounds the noise from below. A strong hyperprior has
# plateaus, which are fallen into from little noise.
_FIRST_NOISE = {"dense": 1e-3, "em": 1e-1}
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
class ErrorBars:
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
    stages: Stages | None = None,
) -> ErrorBars:
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
    stages : Stages, optional
        Keeps what is dear.
    """
    rng = torch.Generator().manual_seed(0) if rng is None else rng
    stages = Stages() if stages is None else stages
    unseen = torch.isin(model.views, torch.as_tensor(held_out, device=model.views.device))
    if way is None:
        way = route(model.image.numel(), len(unseen), int((~unseen).sum()), 0)
    method = "dense" if way.exact_evidence else "em"

    def maximised() -> dict[str, Any]:
        found = fit_evidence(
            model, ~unseen, variation=variation, rng=rng, method=method, floor_shape=floor_shape, stages=stages
        )
        return {f.name: getattr(found, f.name) for f in fields(found)}

    evidence = Evidence(**stages.once("evidence", maximised, rng=rng))
    scales, calibration = Scales(1, 1, float("inf"), float("inf")), None
    correction = torch.zeros_like(model.mean)
    given = SolvedRays.on(model, evidence.point, noise_by=way.noise_by, stages=stages)
    if len(held_out):
        scales, calibration, correction = _calibrate(given, y, held_out, unseen)
    posterior = ImagePosterior(given, rng=rng)
    left_out = stages.once("leave one out", lambda: _leave_one_out(given, way.left_out))
    return ErrorBars(evidence, posterior, scales, calibration, correction, left_out)


def fit_evidence(
    model: ImageModel,
    fitted: Tensor,
    *,
    variation: float = 0.0,
    rng: torch.Generator,
    method: str = "dense",
    floor_shape: float = _FLOOR_SHAPE,
    stages: Stages | None = None,
) -> Evidence:
    """Maximise the evidence of the fitted rays (boolean, one for each used ray), or `EVIDENCE_RAYS` of them, by the engine.

    Parameters
    ----------
    model : ImageModel
    fitted : Tensor of bool, shape (m,)
    variation : float
        Strength of the TV hyperprior.
    rng : torch.Generator
    method : {"dense", "em"}
        Exactly, or from posterior samples.
    floor_shape : float
        See `log_hyperprior`.
    stages : Stages, optional
        Keeps what the search found at every point: one that was killed loses one of them.
    """
    rays = fitted.nonzero()[:, 0]
    if len(rays) > EVIDENCE_RAYS:
        rays = rays[torch.arange(EVIDENCE_RAYS, device=rays.device) * len(rays) // EVIDENCE_RAYS]
    part = model if len(rays) == len(fitted) else model.part(rays)
    with warnings.catch_warnings():
        # Its advice is for those who build a likelihood; `Evidence.noiseless` is told by the job.
        warnings.filterwarnings("ignore", "The noise fell to")
        found = maximise(
            part.problem(),
            part.prior,
            start=_first_point(part, _FIRST_NOISE["em" if variation else method]),
            method=method,
            rng=rng,
            hyperprior=log_hyperprior(model, variation, floor_shape),
            components=part.components() if method == "dense" else None,
            cap=_CAP,
            memory=stages,
        )
    noiseless = any(name.startswith("noise ") for name in found.capped)
    value, error = found.log_evidence, found.log_evidence_error
    return Evidence(found.psi, float(found.sigma2), value, error, found.converged, method, noiseless)


def _first_point(model: ImageModel, noise: float) -> Point:
    """Where the search starts: the network explains the target's variance, floors a thousandth of it, noise this share."""
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


def _calibrate(given: SolvedRays, y: Tensor, held_out: NDArray[np.int64], unseen: Tensor) -> tuple[Scales, Calibration, Tensor]:
    """Scales from the held-out rays, the record of it, and what these rays add to the image.

    One conditioning on all rays serves calibration and posterior: see `ctuq.uncertainty.left_out`.
    """
    model, new = given.model, unseen.nonzero()[:, 0]
    sigma2, precision = float(given.system.point.sigma2), model.precision[new]
    left = LeftOut.of(given, new)
    T = left.covariance()
    measured = y.reshape(-1)[model.rays[new]].double()
    predicted = model.features.matrix.rows(new)(model.image.reshape(1, -1).double())[0] / precision.sqrt()
    residual, noise = measured - predicted, sigma2 / precision
    signal = (T.diagonal() - 1).clamp(min=0) * noise
    columns = _Columns(model, new, held_out)
    scales = learn_scales(*(columns(values) for values in (residual, signal, noise)))
    correction = _correction(left, T, residual / noise.sqrt(), scales)
    raw, calibrated = signal + noise, scales.image * signal + scales.noise * noise
    calibration = Calibration(
        views=tuple(int(v) for v in held_out),
        image_scale=scales.image,
        noise_scale=scales.noise,
        log_image_scale_sd=scales.log_image_sd,
        log_noise_scale_sd=scales.log_noise_sd,
        raw=gaussian_scores(residual.cpu(), raw.cpu()),
        calibrated=gaussian_scores(residual.cpu(), calibrated.cpu()),
        predictions=np.stack([columns(v) for v in (measured, predicted, raw.sqrt(), calibrated.sqrt())]).astype(np.float32),
        cover_68=scales.cover_68,
        cover_95=scales.cover_95,
    )
    return scales, calibration, correction


def _correction(left: LeftOut, T: Tensor, residual: Tensor, scales: Scales) -> Tensor:
    """Conditional mean of the image's error given the held-out rays' residuals in units of their noise, (y, x), float64.

    With the image's covariance P given the fitted rays scaled by a, and the noise by b, it is
    ``a P b_h^T q`` with ``q = (a (T - I) + b I)^-1 r``.
    """
    total = scales.image * T
    total.diagonal().add_(scales.noise - scales.image)
    return scales.image * left.images_of(torch.linalg.solve(total, residual)[None])[0]


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


def _leave_one_out(given: SolvedRays, rays: int) -> dict[str, float]:
    """Each view predicted from all others, in closed form; of more than so many rays, views spread over the scan."""
    model = given.model
    views = model.views.unique()
    most = max(1, rays * len(views) // max(len(model.views), 1))
    if len(views) > most:
        views = views[torch.linspace(0, len(views) - 1, most).round().long().unique()]
    weighted = given.solve(given.system.target[None])[0]
    residuals, variances = [], []
    for view in views:
        rows = (model.views == view).nonzero()[:, 0]
        block = LeftOut.of(given, rows).covariance()
        scale = (given.system.point.sigma2[0].to(weighted) / model.precision[rows]).sqrt()
        residuals.append(scale * (block @ weighted[rows]))
        variances.append(scale.square() * block.diagonal())
    return gaussian_scores(torch.cat(residuals).cpu(), torch.cat(variances).cpu())
