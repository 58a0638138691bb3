"""The cheap part: what scales learned in different ways are worth on rays, and pixels, that were used for nothing."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.scores.gaussian import Z95, gaussian_scores
from ctuq.uncertainty.calibration.scales import (
    FEWER,
    Range,
    ScalePosterior,
    ScalePrior,
    correlation_time,
    scale_posterior,
    told_coverage,
)
from ctuq.uncertainty.calibration.turns import Turns, in_turn
from experiments.calibration.fits import Fitted

Held = tuple[NDArray, NDArray, NDArray]


@dataclass(frozen=True)
class Choice:
    """How two scales are learned from held-out rays.

    Parameters
    ----------
    prior : ScalePrior, optional
        None leaves both scales at 1.
    fewer : float
        As in `ctuq.uncertainty.calibration.scales.scale_posterior`.
    mean : bool
        Take the posterior means of the scales, so that variances are those of the mixture, in place of the medians.
    turns : bool
        Learn from each held-out view given the others too, in place of the fitted views alone.
    """

    name: str
    prior: ScalePrior | None
    fewer: float = FEWER
    mean: bool = False
    turns: bool = False

    def learn(self, held: Held, turns: Turns | None = None) -> tuple[Range, ScalePosterior | None]:
        """Scales, and their posterior, from residuals and variances (views, columns)."""
        if self.prior is None:
            return (1.0, 1.0), None
        found = scale_posterior(*held, self.prior, fewer=self.fewer, turns=turns if self.turns else None)
        if self.mean:
            a = float(np.exp(found.log_image) @ found.weights.sum(1))
            return (a, float(np.exp(found.log_noise) @ found.weights.sum(0))), found
        (image, _), (noise, _) = found.summary()
        return (float(np.exp(image)), float(np.exp(noise))), found


def together(fit: Fitted, more: Held) -> Held:
    """The held-out rays of a fit and further ones."""
    own = (fit.residual, fit.signal, fit.noise)
    residual, signal, noise = (np.concatenate(pair) for pair in zip(own, more, strict=True))
    return residual, signal, noise


def predicted(fit: Fitted, scales: Range) -> tuple[NDArray, NDArray, NDArray]:
    """Residuals and variances of unseen rays, and the error of the image, by these scales, given all views."""
    a, b = scales
    total = a * fit.total + (b - a) * np.eye(len(fit.total))
    weights = a * np.linalg.solve(total, (fit.residual / np.sqrt(fit.noise)).ravel())
    residual = fit.unseen_residual - fit.unseen_gain @ weights
    correction = (fit.gain @ weights).reshape(fit.image.shape)
    return residual, a * fit.unseen_signal + b * fit.unseen_noise, fit.truth - fit.image - correction


def turns_of(fit: Fitted) -> Turns | None:
    """Each held-out view of a fit given the others; None of a single one."""
    views, columns = fit.residual.shape
    if views < 2:
        return None
    root = np.sqrt(fit.noise)
    of = torch.arange(views).repeat_interleave(columns)
    residual, variance = in_turn(torch.from_numpy(fit.total), torch.from_numpy((fit.residual / root).ravel()), of)
    shape = (-1, views, columns)
    return Turns(residual.numpy().reshape(shape) * root, variance.numpy().reshape(shape) * fit.noise)


def view_scatter(fit: Fitted) -> dict[str, float]:
    """Variance of an unseen view's mean square over that of independent rays of the same correlation, given the fit."""
    gain = fit.unseen_gain.reshape(-1, fit.unseen_gain.shape[-1]).astype(np.float64)
    more = ((gain @ np.linalg.inv(fit.total)) * gain).sum(1).reshape(fit.unseen_signal.shape)
    z = fit.unseen_residual / np.sqrt(fit.unseen_signal + more + fit.unseen_noise)
    squares = (z**2).mean(axis=1)
    alone = 2 * correlation_time(z) / z.shape[1]
    return {"view_scatter": float(squares.var(ddof=1) / squares.mean() ** 2 / alone)}


def scored(fit: Fitted, choice: Choice, held: Held | None = None) -> dict[str, float]:
    """Scales, scores of unseen rays and of the object's pixels, and the ranges of coverage that are told.

    ``held`` are the rays to learn from, by default those that the fit held out.
    """
    turns = turns_of(fit) if choice.turns and held is None else None
    scales, posterior = choice.learn((fit.residual, fit.signal, fit.noise) if held is None else held, turns)
    residual, variance, error = predicted(fit, scales)
    row = {"image_scale": scales[0], "noise_scale": scales[1]} | gaussian_scores(residual, variance)
    if np.isfinite(fit.truth).all():
        inside = fit.truth > 0.05 * fit.truth.max()
        pixels = gaussian_scores(error[inside], scales[0] * fit.image_variance[inside])
        row |= {f"pixel_{name}": value for name, value in pixels.items()}
    if posterior is not None:
        signal = (
            fit.signal
            if turns is None
            else np.maximum(turns.at(np.log(scales[1] / scales[0]))[1] - scales[1] / scales[0] * fit.noise, 0)
        )
        for name, half in (("68", 1.0), ("95", Z95)):
            low, high = told_coverage((fit.residual, signal, fit.noise), posterior, scales, half)
            row |= {f"low_{name}": low, f"high_{name}": high}
    return row
