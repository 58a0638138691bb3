"""What the blocks make of a kept fit: the defect's interval, the image's error bars, and the rays of unseen views."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import ctuq
from ctuq.scores.gaussian import Z95, gaussian_scores
from ctuq.systematics.build import blocks_of
from ctuq.systematics.catalogue import wishes
from ctuq.uncertainty.estimate import ErrorBars, estimate
from ctuq.uncertainty.model.linear import ImageModel
from experiments.systematics.fits import Kept
from experiments.systematics.scans import Subject

Row = dict[str, float | str]


@dataclass(frozen=True, eq=False)
class Bars:
    """The model with its blocks, what the estimate says, and the views that were held out."""

    model: ImageModel
    found: ErrorBars
    held: NDArray[np.int64]

    @classmethod
    def of(cls, subject: Subject, kept: Kept, text: str) -> "Bars":
        """With the blocks that are asked for, linearised at the kept fit."""
        assert kept.model is not None
        data = kept.data(subject)
        # Gains are in the default as the pipeline tells them, before a fit (`experiments.systematics.rings`).
        asked = [wish for wish in wishes(text) if wish.needed or wish.name != "gain"]
        blocks = blocks_of(asked, data.A, kept.image, kept.weights, kept.held)  # pyright: ignore[reportArgumentType]
        model = kept.model.with_errors(blocks)
        return cls(model, estimate(model, kept.y, kept.held, rng=torch.Generator().manual_seed(0)), kept.held)

    @property
    def std(self) -> NDArray[np.float64]:
        """Of each pixel, calibrated."""
        return self.found.scales.image**0.5 * self.found.posterior.std().numpy()

    @property
    def mean(self) -> NDArray[np.float64]:
        """With what the held-out views add."""
        return (self.model.image.double() + self.found.correction).numpy()

    def errors(self, name: str, *, whole: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of what is told of a block, and its mean factors.

        ``whole`` scales all of the variance as the image's, and not that part alone which the image makes: how it was.
        """
        mean, covariance, _ = self.found.posterior.errors()
        if whole:
            covariance = self.found.posterior.given.errors()[1]  # pyright: ignore[reportAttributeAccessIssue]
        start = 0
        for block in (*self.model.blocks, *self.model.hidden):
            part = slice(start, start + block.columns.shape[1])
            start = part.stop
            if block.name == name:
                spread = torch.eye(part.stop - part.start, dtype=torch.float64) if block.spread is None else block.spread
                sd = (spread @ covariance[part, part] @ spread.T).diagonal().clamp(min=0).sqrt()
                return block.told(mean[part]).numpy(), (self.found.scales.image**0.5 * sd).numpy(), mean[part].numpy()
        raise KeyError(name)


def in_frame(
    defect: str, true: NDArray[np.float64], angles: NDArray[np.float64], held: NDArray[np.int64]
) -> NDArray[np.float64]:
    """True values beside what the fitted views have in common, which is the image's: angles have a turn, shifts a motion.

    Held-out views are told beside the same image. Compared with their own values, of 10 degrees each, three of twenty were off
    by what the others have in common, a degree or two.
    """
    frames = {"jitter": [np.ones_like(angles)], "shift": [np.ones_like(angles), np.cos(angles), np.sin(angles)]}
    if defect not in frames:
        return true
    frame, fitted = np.stack(frames[defect], 1), np.setdiff1d(np.arange(len(true)), held)
    return true - frame @ np.linalg.lstsq(frame[fitted], true[fitted], rcond=None)[0]


def defect_row(subject: Subject, bars: Bars) -> Row:
    """How many of the defect's true values its 95 % intervals hold, and how far these are off."""
    assert subject.true is not None
    mean, sd, _ = bars.errors(subject.defect)
    block = next(b for b in (*bars.model.blocks, *bars.model.hidden) if b.name == subject.defect)
    told = in_frame(subject.defect, subject.true, subject.scan.geometry.angles, bars.held)
    if subject.defect == "gain" and block.spread is not None:
        told = block.told(block.spread.T @ torch.from_numpy(subject.true)).numpy()
    z = (mean - told) / sd
    before = {}
    if subject.defect in {b.name for b in bars.model.blocks}:
        scaled = (mean - told) / bars.errors(subject.defect, whole=True)[1]
        before = {"held_scaled": float(np.mean(np.abs(scaled) <= Z95)), "z_scaled": float(np.sqrt(np.mean(scaled**2)))}
    return {
        "values": len(z),
        "held": float(np.mean(np.abs(z) <= Z95)),
        "z": float(np.sqrt(np.mean(z**2))),
        "true_rms": float(np.sqrt(np.mean(told**2))),
        "error_rms": float(np.sqrt(np.mean((mean - told) ** 2))),
        "sd_rms": float(np.sqrt(np.mean(sd**2))),
        **before,
    }


def truth_row(truth: NDArray, bars: Bars, prefix: str = "") -> Row:
    """Error bars against a truth, inside its object."""
    inside = truth > 0.5 * truth.max()
    scores = gaussian_scores((truth - bars.mean)[inside], bars.std[inside] ** 2)
    row: Row = {f"{prefix}{k}": scores[k] for k in ("cover_68", "cover_95", "rms_z", "log_likelihood")}
    return row | {f"{prefix}std": float(np.median(bars.std[inside])), f"{prefix}rmse": rmse(truth, bars.mean)}


def rmse(truth: NDArray, image: NDArray) -> float:
    """Of all pixels."""
    return float(np.sqrt(np.mean((truth - np.asarray(image, np.float64)) ** 2)))


def unseen_row(subject: Subject, bars: Bars, text: str, samples: int = 512) -> Row:
    """Rays of views that were used for nothing, foretold from joint draws of image and errors.

    What is a view's own (flux, shift, angle) is new in each view, of the learned width; what is the scan's or a column's is
    as the draws have it.
    """
    assert subject.unseen is not None
    A = ctuq.ray_transform(subject.grid, subject.unseen.geometry, backend="matrix")
    images, errors = bars.found.posterior.joint_deviations(samples, rng=torch.Generator().manual_seed(1))
    scale = bars.found.scales.image
    mean_errors = bars.found.posterior.errors()[0]
    image = torch.from_numpy(bars.mean).float()
    expected = A(image).double().flatten()
    deviations = A(scale**0.5 * images).double().flatten(1)
    own = torch.zeros_like(expected)
    here = {b.name: b for b in blocks_of(wishes(text), A, image, torch.ones(A.geometry.shape))}  # pyright: ignore
    variances = dict(
        zip((b.name for b in bars.model.blocks), bars.model.prior.error_variances(bars.found.evidence.psi), strict=True)
    )
    start = 0
    for block in (*bars.model.blocks, *bars.model.hidden):
        part = slice(start, start + block.columns.shape[1])
        start = part.stop
        N = here[block.name].columns
        if block.name in ("flux", "shift", "jitter"):
            own += scale * float(variances[block.name]) * N.square().sum(1)
        else:
            expected = expected + N @ mean_errors[part]
            deviations = deviations + scale**0.5 * errors[:, part].double() @ N.T
    weights = 1.0 if subject.unseen.weights is None else torch.tensor(subject.unseen.weights).double().flatten()
    noise = bars.found.scales.noise * bars.found.evidence.sigma2 / weights
    residual = torch.tensor(subject.unseen.projections).double().flatten() - expected
    scores = gaussian_scores(residual, deviations.square().mean(0) + own + noise)
    return {f"unseen_{k}": scores[k] for k in ("log_likelihood", "rms_z", "cover_95")}


def middle_row(truth: NDArray, bars: Bars, voxel: float) -> Row:
    """The middle of a disc over its rim; and coverage where the attenuation of its one material is estimated at the rim.

    A truth of one material has an attenuation only by the scan itself: least squares of the rays, which hardening lowers, make
    it too small at the rim and too large in the middle.
    """
    inside = truth > 0.98 * truth.max()
    y, x = np.nonzero(truth > 0.1 * truth.max())
    rows, columns = np.indices(truth.shape)
    r = np.hypot(rows - y.mean(), columns - x.mean()) * voxel
    R = float(np.percentile(r[inside], 99))
    middle, rim = inside & (r < 0.4 * R), inside & (r > 0.85 * R)
    level = float(np.median(bars.mean[rim]))
    whole = truth > 0.5 * truth.max()
    scaled = truth * level / truth.max()
    off = np.abs(bars.mean - scaled)[whole] <= Z95 * bars.std[whole]
    return {
        "middle": float(bars.mean[middle].mean() / bars.mean[rim].mean()),
        "middle_std": float(bars.std[middle].mean() / bars.mean[rim].mean()),
        "middle_cover": float(np.mean((np.abs(bars.mean - truth) <= Z95 * bars.std)[middle])),
        "truth_scaled_cover_95": float(off.mean()),
    }
