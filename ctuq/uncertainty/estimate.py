"""From a fitted network to calibrated error bars: evidence, calibration on held-out views, final posterior."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.laplace.evidence.dense import ExactExpectation, maximise_dense
from ctuq.laplace.evidence.hyperprior import Hyperprior
from ctuq.laplace.fit import maximise
from ctuq.laplace.system.problem import Point
from ctuq.stages import Stages
from ctuq.systematics.catalogue import KINDS
from ctuq.uncertainty.calibration.edges import EdgeScale
from ctuq.uncertainty.calibration.held_out import Unseen, Without, calibrate_by_views, leave_one_out, of_views, spread
from ctuq.uncertainty.calibration.scales import UNSCALED, Scales
from ctuq.uncertainty.model.covariance import ImageCovariance
from ctuq.uncertainty.model.left_out import Beside, LeftOut
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.noise import least_noise
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.prior import FLOORS, ImagePrior
from ctuq.uncertainty.model.reduced import reduced
from ctuq.uncertainty.model.route import EVIDENCE_RAYS, Route, evidence_numbers, route, some_of
from ctuq.uncertainty.model.solved import SolvedRays
from ctuq.uncertainty.results.contents import Calibration

_FLOOR_SHAPE = 0.5
# Over the target's variance. Of several variances the exact search finds the better maxima from little noise; samples at a
# point of too little noise cannot be solved for, and what was solved there bounds the noise from below. A strong hyperprior has
# plateaus, which are fallen into from little noise.
_FIRST_NOISE = {"dense": 1e-3, "em": 1e-1}
# Floors lie many decades apart from what the network explains, and a strong hyperprior moves these further.
_CAP = 1e9
_FAINT, _UNCALIBRATED = 0.25, 0.02
# Mean square of held-out views' own errors, over what is expected of it, from which on they are of another size.
_FAR = 4.0

EvidenceOf = Callable[[ImageModel], ExactExpectation]
"""From a model to what its search sees."""


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
    posterior : ImageCovariance
        Given all views, raw: multiply its covariance by ``scales.image``.
    scales : Scales
        (1, 1) without calibration.
    calibration : Calibration, optional
    correction : Tensor, float64
        What the held-out views add to the network's image, and systematic errors take from it.
    leave_one_out : dict of str to float
        Scores of closed-form leave-one-angle-out predictions by the raw linear model.
    edges : EdgeScale, optional
        By which the posterior is longer at edges, where held-out views taught that.
    """

    evidence: Evidence
    posterior: ImageCovariance
    scales: Scales
    calibration: Calibration | None
    correction: Tensor
    leave_one_out: dict[str, float]
    edges: EdgeScale | None = None


def estimate(
    model: ImageModel,
    y: Tensor,
    held_out: NDArray[np.int64],
    *,
    rng: torch.Generator | None = None,
    way: Route | None = None,
    stages: Stages | None = None,
    region: tuple[slice, ...] | None = None,
    correct: bool = True,
    evidence: Evidence | None = None,
) -> ErrorBars:
    """Evidence on the fitted views, scales from the held-out ones, posterior given all.

    Parameters
    ----------
    model : ImageModel
        Of all views; its image was fitted to those that are not held out.
    y : Tensor
        All projections.
    held_out : array of int
        Views that the network never saw; empty for no calibration.
    rng : torch.Generator, optional
        Of seed 0 by default.
    way : Route, optional
        What is exact; by default by size alone.
    stages : Stages, optional
        Keeps what is dear.
    region : tuple of slice, optional
        Pixels whose standard deviation and samples are wanted, by axis; by default all.
    correct : bool
        Whether what held-out views add to the image is wanted.
    evidence : Evidence, optional
        Of this model's fitted views, where it is known; else by `kept_evidence`.
    """
    rng = torch.Generator().manual_seed(0) if rng is None else rng
    stages = Stages() if stages is None else stages
    unseen = of_views(model, held_out)
    way = by_size(model, ~unseen) if way is None else way
    if evidence is None:
        evidence = kept_evidence(model, ~unseen, way=way, rng=rng, stages=stages)
    scales, calibration = UNSCALED, None
    correction = torch.zeros_like(model.mean)
    given = SolvedRays.on(model, evidence.point, noise_by=way.noise_by, stages=stages)
    without = leaving_out(given, way, stages)
    if len(held_out):
        found = calibrate_by_views(without, model, y, held_out, evidence.sigma2, most=way.held_out, correct=correct)
        wider = _with_wider_errors(evidence, model, without, unseen, scale=found[0].image, most=way.held_out)
        if wider is not evidence:
            evidence = wider
            given = SolvedRays.on(model, evidence.point, noise_by=way.noise_by, stages=stages)
            without = leaving_out(given, way, stages)
            found = calibrate_by_views(without, model, y, held_out, evidence.sigma2, most=way.held_out, correct=correct)
        scales, calibration, correction = found
    elif model.blocks and correct:
        correction = -given.absorbed(given.errors()[0]).reshape(correction.shape)
    # What is known of an error's size is not scaled: the whole posterior is multiplied by the image's scale.
    scaled = given.with_errors_over(scales.image)
    drawn_to, a = _drawn_to(way, scales), scales.image
    posterior = ImagePosterior(scaled, rng=rng, stages=stages, region=region, tolerance=drawn_to, scale=a)

    def scored() -> dict[str, float]:
        return leave_one_out(without, model, evidence.sigma2, rays=way.left_out, each=way.left_out_each)

    return ErrorBars(evidence, posterior, scales, calibration, correction, stages.once("leave one out", scored))


def _with_wider_errors(
    evidence: Evidence, model: ImageModel, without: Without, unseen: Tensor, *, scale: float, most: int
) -> Evidence:
    """With larger sizes of errors of single views where those of held-out views are far beyond what fitted ones have.

    The posterior is given all views. Where flux was off by 12 % in a held-out view, and by 0.2 % in fitted ones, it was told as
    6.1 +- 0.1 %, and the other half of it went into the image; so it is 11.9 +- 0.2 %.
    """
    # Others have no error that held-out views alone have, and leaving views out of a dense scan is dear.
    learned = [b for b in model.blocks if b.learned and KINDS[b.name].of == "view"]
    rows = unseen.nonzero()[:, 0]
    if not learned or not len(rows) or not (own := (left := without(rows)).own()).shape[1]:
        return evidence
    some = spread(model, rows, most)
    own = own[some]
    plain = left.joint(some) - own @ own.T
    plain.diagonal().sub_(1)
    T = scale * plain + own @ own.T
    T.diagonal().add_(1)
    weighed = torch.linalg.solve(T, own)
    covariance = torch.linalg.pinv(own.T @ weighed)
    z, variance, psi = covariance @ (weighed.T @ left.innovations(some)), covariance.diagonal(), evidence.psi.clone()
    names = [
        b.name for b, s in zip(model.blocks, model.prior.error_slices, strict=True) for _ in range(_alone(model, s, unseen))
    ]
    for block in learned:
        mine = torch.tensor([name == block.name for name in names], device=z.device)
        if not bool(mine.any()) or float((z[mine].square() / variance[mine]).mean()) < _FAR:
            continue
        count, more = block.columns.shape[1], float((z[mine].square() - variance[mine]).clamp(min=-1).sum())
        psi[model.prior.names.index(block.name)] += math.log1p(max(more, 0.0) / count)
    return evidence if bool((psi == evidence.psi).all()) else replace(evidence, psi=psi)


def _alone(model: ImageModel, errors: slice, unseen: Tensor) -> int:
    """How many of these errors are in rays of unseen views, and in no others."""
    seen = model.features.basis[:, errors] != 0
    return int((seen[unseen].any(0) & ~seen[~unseen].any(0)).sum())


def by_size(model: ImageModel, fitted: Tensor) -> Route:
    """The route of a model of which these used rays (boolean, one for each) are fitted."""
    view = len(fitted) // max(len(model.views.unique()), 1)
    return route(model.image.numel(), len(fitted), int(fitted.sum()), 0, dims=model.image.ndim, view=max(view, 1))


def leaving_out(given: SolvedRays, way: Route, stages: Stages) -> Without:
    """What leaves some of the rays of a solved scan out, by a route."""

    def without(rows: Tensor) -> Unseen:
        if way.leaves_out(len(rows)):
            return LeftOut.of(given, rows)
        return Beside.of(given, rows, noise_by=way.noise_by, stages=stages)

    return without


def _drawn_to(way: Route, scales: Scales) -> float:
    """Monte Carlo error of the standard deviations at which their draws may end; 0 takes all.

    A quarter of what calibration leaves open: half the sd of the image scale's logarithm. It then adds 3 % to that.
    """
    if way.together:
        return 0.0
    return _FAINT * scales.log_image_sd / 2 if math.isfinite(scales.log_image_sd) else _UNCALIBRATED


def kept_evidence(
    model: ImageModel,
    fitted: Tensor,
    *,
    way: Route,
    rng: torch.Generator,
    stages: Stages,
    variation: float = 0.0,
    evidence_by: EvidenceOf | None = None,
) -> Evidence:
    """`fit_evidence` by a route, once, with as much noise as its solves take."""
    given = {"variation": variation, "evidence_by": evidence_by, "stages": stages}

    def maximised() -> dict[str, Any]:
        found = fit_evidence(model, fitted, rng=rng, method="dense" if way.exact_evidence else "em", **given)
        return {f.name: getattr(found, f.name) for f in fields(found)}

    return solvable(Evidence(**stages.once("evidence", maximised, rng=rng)), model, way.noise_by)


def solvable(evidence: Evidence, model: ImageModel, noise_by: str) -> Evidence:
    """With so much noise beside the floors that it is not lost in float32, where that is what solves take.

    Of a scan without noise held-out views make the error bars, whatever the noise: at 32 x 32 they were 1.2e6 times as long, in
    variance, as by rays of 1.6e8 times the noise, and with the noise of this bound the std is 0.5 % from what it was. Without
    it the solves did not converge, and the mean was millions of std off.
    """
    if noise_by == "float64":
        return evidence
    least = least_noise(model.features.matrix, model.misfit(evidence.psi))
    return evidence if evidence.sigma2 >= least else replace(evidence, sigma2=least, noiseless=True)


def fit_evidence(
    model: ImageModel,
    fitted: Tensor,
    *,
    variation: float = 0.0,
    rng: torch.Generator,
    method: str = "dense",
    floor_shape: float = _FLOOR_SHAPE,
    stages: Stages | None = None,
    evidence_by: EvidenceOf | None = None,
) -> Evidence:
    """Maximise the evidence of the fitted rays (boolean, one for each used ray), or `EVIDENCE_RAYS` of them, by the engine.

    Of all rays where these are more than what they tell of, by `ctuq.uncertainty.model.reduced`.

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
    evidence_by : callable, optional
        What is maximised in place of the exact evidence, of the model that it is given, such as
        `ctuq.uncertainty.restricted.PlugIn`.
    """
    rays = fitted.nonzero()[:, 0]
    unknowns = model.image.numel() + model.prior.rank - model.factor.rank
    whole = method == "dense" and evidence_by is None and evidence_numbers(unknowns, len(rays)) == unknowns < len(rays)
    if not whole:
        rays = rays[some_of(len(rays), EVIDENCE_RAYS).to(rays.device)]
    part = model if len(rays) == len(fitted) else model.part(rays)
    if evidence_by is not None:
        return _by(evidence_by(part), part, hyperprior=log_hyperprior(model, variation, floor_shape), stages=stages or Stages())
    with warnings.catch_warnings():
        # Its advice is for those who build a likelihood; `Evidence.noiseless` is told by the job.
        warnings.filterwarnings("ignore", "The noise fell to")
        problem, components = reduced(part) if whole else (part.problem(), part.components() if method == "dense" else None)
        found = maximise(
            problem,
            part.prior,
            start=_first_point(part, _FIRST_NOISE["em" if variation else method]),
            method=method,
            rng=rng,
            hyperprior=log_hyperprior(model, variation, floor_shape),
            components=components,
            cap=_CAP,
            memory=stages,
        )
    noiseless = any(name.startswith("noise ") for name in found.capped)
    value, error = found.log_evidence, found.log_evidence_error
    return Evidence(found.psi, float(found.sigma2), value, error, found.converged, method, noiseless)


def _by(expectation: ExactExpectation, part: ImageModel, *, hyperprior: Hyperprior, stages: Stages) -> Evidence:
    """Where another evidence than the exact one is largest; its value there is the exact one."""
    ended = maximise_dense(
        expectation,
        _first_point(part, _FIRST_NOISE["dense"]),
        learn_noise=True,
        hyperprior=hyperprior,
        keep=lambda point, evaluate: stages.once(f"evidence at {point.digest}", evaluate),
    )
    at = ended.expectation
    assert at.log_evidence is not None
    noiseless = any(name.startswith("noise ") for name in ended.capped)
    return Evidence(at.point.psi, float(at.point.sigma2), at.log_evidence, 0.0, ended.converged, "dense", noiseless)


def _first_point(model: ImageModel, noise: float) -> Point:
    """Where the search starts: the network explains the target's variance, floors a thousandth of it, noise this share."""
    variance = float(model.target.square().mean())
    psi = model.prior.start() + math.log(variance) * model.prior.is_variance
    return Point(psi, torch.tensor([noise * variance], dtype=torch.float64))


def log_hyperprior(model: ImageModel, variation: float, floor_shape: float = _FLOOR_SHAPE) -> Hyperprior:
    """The TV hyperprior of the weights, and what keeps each floor, and each learned size of a systematic error, off zero.

    The evidence is flat below the misfit that the data can detect, so that its maximum may lie at no misfit at all. The density
    ``p(log floor) = floor_shape * log floor`` (the boundary-avoiding prior of Chung, Rabe-Hesketh, Dorie, Gelman and Liu,
    Psychometrika 2013, a gamma density of shape 2 and no rate on the standard deviation, for ``floor_shape`` 1/2) moves it up
    to where the floor takes one effective dimension, and hardly where the data know the floor.
    """
    tv = model.prior.variation(model.image, variation) if variation else None
    count = len(model.factor.prior.members)
    kept_off = len(FLOORS) + sum(e.variance is None for e in model.prior.errors)

    def log_density(psi: Tensor) -> Tensor:
        value = floor_shape * psi[count : count + kept_off].sum()
        return value if tv is None else value + tv(model.prior.of_weights(psi))

    return log_density


def named(prior: ImagePrior, psi: Tensor) -> dict[str, float]:
    """Hyperparameters by name, exponentiated."""
    return dict(zip(prior.names, psi.exp().tolist(), strict=True))
