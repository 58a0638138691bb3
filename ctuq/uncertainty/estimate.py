"""From a fitted network to calibrated error bars: evidence, calibration on held-out views, final posterior."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.laplace import Conditioning, DensePosterior, Evidence, PathwisePosterior, expected_floor, maximise_dense
from ctuq.scores.gaussian import gaussian_scores
from ctuq.uncertainty.calibration import Scales, learn_scales
from ctuq.uncertainty.result import Calibration
from ctuq.uncertainty.tangent import TangentModel


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the tangent model says of one scan.

    Parameters
    ----------
    evidence : Evidence
    posterior : DensePosterior or PathwisePosterior
        Given all views, raw: multiply its covariance by ``scales.image``.
    scales : Scales
        (1, 1) without calibration.
    calibration : Calibration, optional
    correction : Tensor, shape (y, x), float64
        What the held-out views add to the network's image.
    leave_one_out : dict of str to float
        Scores of closed-form leave-one-angle-out predictions by the raw tangent model.
    """

    evidence: Evidence
    posterior: DensePosterior | PathwisePosterior
    scales: Scales
    calibration: Calibration | None
    correction: Tensor
    leave_one_out: dict[str, float]


def fit_evidence(model: TangentModel, fitted: Tensor, variation: float) -> Evidence:
    """Maximise the evidence of the fitted rays (boolean, one for each kept ray), then take the expected floors."""
    rows = fitted.nonzero()[:, 0]
    components = torch.stack([_block(K, rows) for K in model.components])
    misfits = [_block(K, rows) for K in model.misfits]
    t, noise = model.target[rows], model.noise[rows]
    hyperprior = model.variation_prior(variation) if variation else None
    found = maximise_dense(components, t, model.prior, misfits=misfits, noise=noise, log_hyperprior=hyperprior)
    a = model.prior.coefficients(found.psi).to(components)
    K = torch.tensordot(a, components, 1) + torch.diag(found.sigma2 * noise)
    rounding = torch.finfo(torch.float32).eps
    floors = []
    for misfit, unit in zip(misfits, (float(model.image.abs().max()) ** 2, 1.0), strict=True):
        floors.append(expected_floor(K, misfit, t, rounding * unit))
        K += floors[-1] * misfit
    return replace(found, floors=tuple(floors))


def _block(K: Tensor, rows: Tensor) -> Tensor:
    return K if len(rows) == len(K) else K[rows][:, rows]


def estimate(model: TangentModel, y: Tensor, held_out: NDArray[np.int64], *, variation: float = 0.0) -> Estimate:
    """Evidence on the fitted views, scales from the held-out ones, posterior given all.

    Parameters
    ----------
    model : TangentModel
        Of all views; its image was fitted to those that are not held out.
    y : Tensor, shape (angle, column)
    held_out : array of int
        Views that the network never saw; empty for no calibration.
    variation : float
        Strength of the TV hyperprior; 0 leaves it out.
    """
    unseen = torch.isin(model.view, torch.as_tensor(held_out)).to(y.device)
    evidence = fit_evidence(model, ~unseen, variation)
    posterior = model.posterior(evidence)
    loo = _leave_one_out(model, evidence)
    if not len(held_out):
        zero = torch.zeros(model.shape, dtype=torch.float64, device=y.device)
        return Estimate(evidence, posterior, Scales(1, 1, float("inf"), float("inf")), None, zero, loo)
    scales, calibration, correction = _calibrate(model, y, held_out, evidence)
    return Estimate(evidence, posterior, scales, calibration, correction, loo)


def _calibrate(
    model: TangentModel, y: Tensor, held_out: NDArray[np.int64], evidence: Evidence
) -> tuple[Scales, Calibration, Tensor]:
    """Scales from the held-out rays, the record of it, and what these rays add to the image."""
    unseen = torch.isin(model.view, torch.as_tensor(held_out)).to(y.device)
    seen, new = (~unseen).nonzero()[:, 0], unseen.nonzero()[:, 0]
    K = model.prior_covariance(evidence)
    noise = evidence.sigma2 * model.noise
    given = Conditioning.of(K[seen][:, seen], noise[seen])
    cross = K[new][:, seen]
    covariance = given.predict(cross, K[new][:, new])
    measured = y.reshape(-1)[torch.as_tensor(model.rays, device=y.device)].double()[new]
    predicted = model.project(model.image)[new]
    residual = measured - predicted
    signal = covariance.diagonal().clamp(min=0)
    rows = [_by_view(values, model, new, held_out, y.shape[1]) for values in (residual, signal, noise[new])]
    scales = learn_scales(*rows)
    total = scales.image * covariance + torch.diag(scales.noise * noise[new])
    delta = torch.zeros(1, len(K), dtype=torch.float64, device=y.device)
    delta[0, new] = torch.linalg.solve(total, residual)
    delta[0, seen] = -given.solve(delta[:, new] @ cross)[0]
    correction = scales.image * model.respond(evidence, delta)[0]
    raw, calibrated = signal + noise[new], scales.image * signal + scales.noise * noise[new]
    table = torch.stack([measured, predicted, raw.sqrt(), calibrated.sqrt()]).cpu().numpy()
    calibration = Calibration(
        views=tuple(int(v) for v in held_out),
        image_scale=scales.image,
        noise_scale=scales.noise,
        log_image_scale_sd=scales.log_image_sd,
        log_noise_scale_sd=scales.log_noise_sd,
        raw=gaussian_scores(residual.cpu(), raw.cpu()),
        calibrated=gaussian_scores(residual.cpu(), calibrated.cpu()),
        predictions=np.stack([_by_view(torch.from_numpy(v), model, new.cpu(), held_out, y.shape[1]) for v in table]).astype(
            np.float32
        ),
    )
    return scales, calibration, correction


def _by_view(values: Tensor, model: TangentModel, rows: Tensor, views: NDArray, columns: int) -> NDArray[np.float64]:
    """Kept rays of the held-out views as (view, column); rays that were left out repeat their neighbour's value."""
    out = np.full((len(views), columns), np.nan)
    place = {int(v): i for i, v in enumerate(views)}
    rays = model.rays[rows.cpu().numpy()]
    out[[place[int(r) // columns] for r in rays], rays % columns] = values.cpu().numpy()
    for row in out:
        known = np.isfinite(row)
        row[~known] = np.interp(np.flatnonzero(~known), np.flatnonzero(known), row[known])
    return out


def _leave_one_out(model: TangentModel, evidence: Evidence) -> dict[str, float]:
    conditioning = Conditioning.of(model.prior_covariance(evidence), evidence.sigma2 * model.noise)
    residual, variance = conditioning.leave_out(model.target, model.view.to(model.target.device))
    return gaussian_scores(residual.cpu(), variance.cpu())
