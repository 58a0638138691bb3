"""Calibrated error bars for the image of any program, from views that it was not given."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError
from ctuq.recon.noise import noise_std
from ctuq.scores.gaussian import truth_scores
from ctuq.surroundings import undisturbed
from ctuq.systematics.catalogue import DEFAULT, hidden_wishes
from ctuq.tomo.arrays import as_array, is_finite
from ctuq.tomo.count_noise import growth_of, told_of, variance_of
from ctuq.tomo.field import doubts_of_field
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.backends import ray_transform
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.resample import resample
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.calibration.held_out import fill_gaps, record_of
from ctuq.uncertainty.calibration.likeness import doubts_of_samples, turned
from ctuq.uncertainty.calibration.scales import ScalePrior, learn_scales
from ctuq.uncertainty.calibration.spread import Spread
from ctuq.uncertainty.hidden_errors import HiddenErrors
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.image import Result
from ctuq.versions import versions_of

TWO_SIDED = ScalePrior(lowest=-np.inf)
"""Of bars of which nothing is known: they may as well be too long.

On simulated scans of three phantoms over 90 and 180 degrees (24 pixels, TV, one or three held-out views) error bars that are
far too long, a constant of 0.3 of the maximum, gain 0.5 to 0.7 nats a ray of unseen views over the one-sided prior, and 1.0 to
1.3 a pixel of the truth. Those of a bootstrap are too short; they lose 0.1 a ray, and 95 % intervals of pixels hold 35 and 54 %
in place of 50 and 66: there ``cautious`` is better. A prior twice as wide differs by 0.13 a ray at most, either way."""
_DIRECTIONS, _BATCH = 192, 256
_RATHER, _OFF, _EXPLAINED = 0.5, 1.5, 0.5
_LEAST_NOISE = 1e-3
_LIBRARIES = ("ctuq", "numpy", "scipy")


@undisturbed()
def calibrate(
    image: ArrayLike,
    samples_or_covariance: Any,
    scan: Scan,
    held_out: ArrayLike,
    *,
    grid: VolumeGrid | None = None,
    sigma2: float | None = None,
    cautious: bool = False,
    method: str = "another program",
    systematics: str = DEFAULT,
) -> Result:
    """Error bars of any reconstruction, scaled by how it predicts views that it has not seen.

    Two scales are learned, as in ctuq's own reconstructions: one of the image's covariance, one of the noise's variance. Here
    that of the image may be below 1: of a program that is not ours nothing is known of which way its error bars are wrong. Rays
    average over the fine errors of an image, so that a scale below 1 is surer of sums over many pixels than of one pixel.

    Parameters
    ----------
    image : array, shape (y, x)
        Attenuation in 1/mm, row 0 at the largest y; made from the views of ``scan`` without those of ``held_out``.
    samples_or_covariance : array, number, or object with samples
        How sure the program is: samples (n, y, x) of a posterior or of a bootstrap, or CUQIpy's ``Samples``; the pixels'
        covariance (y * x, y * x); or a standard deviation in 1/mm, one for each pixel (y, x) or one for all. Only their
        deviations from their own mean count.
    scan : Scan
        All views, those that the image was made from and those that it was not.
    held_out : array of int or bool
        Which views of the scan the image was made without.
    grid : VolumeGrid, optional
        Where the pixels lie, ``VolumeGrid((y, x), pixel_in_mm)``; by default the scan's, if the image fits it.
    sigma2 : float, optional
        Noise variance of a ray of weight 1, if it is known; by default it is read from the projections.
    cautious : bool
        Let the image's scale not fall below 1, as for ctuq's own images: for error bars that are known to be rather too short,
        such as those of a bootstrap.
    method : str
        What to call the program in reports.
    systematics : str
        Errors of the scanner that no ray tells, and no held-out view either: beam hardening by default, unless the scan's beam
        is monochromatic; ``none`` for none.

    Returns
    -------
    Result
        With the same image; ``std``, ``samples``, ``covariance`` and ``draw`` are calibrated. ``calibration`` has both scales,
        their width, the scores on the held-out rays and what intervals then cover; ``save`` and ``ctuq report`` make pages.

    Raises
    ------
    InputError
        If shapes do not fit, no held-out view is left with a ray that counts, or an error is named that rays would tell.

    Examples
    --------
    >>> held = np.arange(4, scan.n_angles, 10)  # doctest: +SKIP
    >>> used = scan.select(np.setdiff1d(np.arange(scan.n_angles), held))  # doctest: +SKIP
    >>> image, samples = another_program(used)  # doctest: +SKIP
    >>> result = ctuq.calibrate(image, samples, scan, held, grid=grid)  # doctest: +SKIP
    >>> result.calibration.image_scale, result.std  # doctest: +SKIP
    """
    mean, views = _image(image), _held_views(scan, held_out)
    wanted = hidden_wishes(systematics, "other programs' images", of=scan.provenance)
    result = calibrated_alone(
        mean, samples_or_covariance, scan, views, grid=grid, sigma2=sigma2, cautious=cautious, method=method
    )
    if not wanted:
        return result
    A = ray_transform(result.grid, scan.geometry)
    y = torch.from_numpy(scan.projections.astype(np.float32))
    weights = torch.ones_like(y) if result.scan.weights is None else torch.from_numpy(result.scan.weights.astype(np.float32))
    hidden = HiddenErrors.of(wanted, A, y, weights, result.mean)
    return hidden.within(result, rng=torch.Generator().manual_seed(0))


def calibrated_alone(
    mean: NDArray[np.float64],
    samples_or_covariance: Any,
    scan: Scan,
    views: NDArray[np.int64],
    *,
    grid: VolumeGrid | None = None,
    sigma2: float | None = None,
    cautious: bool = False,
    method: str,
) -> Result:
    """As `calibrate`, without errors that no ray tells; an image and views that were checked."""
    place = _grid_of(mean, scan, grid)
    spread = Spread.of(samples_or_covariance, mean.shape)
    A = ray_transform(place, scan.geometry.subset(views))
    signal = _variances(A, spread)
    scan = _weighed(scan, signal, A, mean, views)
    held = _Held.of(scan, views)
    found, noise = _calibrated(A, mean, signal, held, sigma2=sigma2, prior=ScalePrior() if cautious else TWO_SIDED)
    base = Result(
        mean=mean.astype(np.float32),
        scan=scan,
        grid=place,
        method=method,
        sigma2=found.noise_scale * noise,
        calibration=found,
        scores={"held_out": found.calibrated, "held_out_raw": found.raw},
        truth=None if scan.truth is None or scan.grid is None else resample(scan.truth, scan.grid, place),
        settings={"error_bars": spread.kind, "cautious": cautious, "method": method},
        versions=versions_of(*_LIBRARIES),
        warnings=(
            *scan.warnings,
            *doubts_of_field(scan, place),
            *spread.doubts,
            *doubts_of_samples(spread, mean),
            *_doubts(A, mean, held),
        ),
    )
    return _with_bars(base, spread, found.image_scale**0.5)


@dataclass(frozen=True, eq=False)
class _Held:
    """The held-out views: their scan and indices, what they measured, their weights, and which rays count, (view, column)."""

    scan: Scan
    views: NDArray[np.int64]
    measured: NDArray[np.float64]
    weights: NDArray[np.float64]
    used: NDArray[np.bool_]

    @classmethod
    def of(cls, scan: Scan, views: NDArray[np.int64]) -> "_Held":
        measured = scan.projections[views].astype(np.float64)
        weights = np.ones_like(measured) if scan.weights is None else scan.weights[views].astype(np.float64)
        return cls(scan, views, measured, weights, weights > 0)

    def on_detector(self, values: NDArray) -> NDArray[np.float64]:
        """Values of the rays that count, in their places; the others have their neighbours'."""
        out = np.full(self.used.shape, np.nan)
        out[self.used] = values
        fill_gaps(out)
        return out


def _weighed(scan: Scan, signal: NDArray, A: RayTransform, mean: NDArray, views: NDArray[np.int64]) -> Scan:
    """The scan with weights, where it has none and its held-out rays' noise grows as that of counts does; else itself.

    ``signal`` are the variances that the error bars of the image, ``mean``, give these rays; ``A`` is of these views.
    """
    if scan.weights is not None:
        return scan
    predicted = _projected(A, mean[None])[0]
    growth = growth_of(scan.projections[views] - predicted, predicted, signal)
    if not growth:
        return scan
    line_integrals = _projected(ray_transform(A.grid, scan.geometry), mean[None])[0]
    weights = (1 / variance_of(line_integrals, growth)).astype(np.float32)
    grown = replace(scan, weights=weights, provenance=scan.provenance.grown(growth))
    return grown.warned(told_of(line_integrals, growth))


def _calibrated(
    A: RayTransform, mean: NDArray, signal: NDArray, held: _Held, *, sigma2: float | None, prior: ScalePrior
) -> tuple[Calibration, float]:
    """The scales with all that the held-out rays say of them, and the noise variance of a ray of weight 1 before them."""
    used, predicted = held.used, _projected(A, mean[None])[0]
    noise = _noise(held.scan, sigma2, (held.measured - predicted)[used])
    rays = (held.measured[used], predicted[used], signal[used], noise / held.weights[used])
    residual, image, others = (held.on_detector(values) for values in (rays[0] - rays[1], rays[2], rays[3]))
    scales = learn_scales(residual, image, others, prior=prior)
    return record_of(rays, held.views, scales, on_detector=held.on_detector), noise


def _with_bars(base: Result, spread: Spread, scale: float) -> Result:
    shape = base.mean.shape
    raw = np.sqrt(spread.variance()).reshape(shape).astype(np.float32)
    directions, waves = spread.directions(_DIRECTIONS)
    samples = None
    if spread.kind == "samples":
        deviations = spread.values * (scale * np.sqrt(len(spread.values) - 1))
        samples = (base.mean + deviations.reshape(-1, *shape)).astype(np.float32)
    std = (scale * raw).astype(np.float32)
    scores = dict(base.scores)
    if base.truth is not None:
        scores |= {"truth": truth_scores(base.mean, std, base.truth), "truth_raw": truth_scores(base.mean, raw, base.truth)}
    bars = {"std": std, "std_raw": raw, "std_error": spread.error, "samples": samples}
    return replace(base, **bars, directions=np.float32(scale) * directions, waves=waves, scores=scores)


def _image(image: ArrayLike) -> NDArray[np.float64]:
    mean = as_array(image, "The image holds")
    if mean.ndim != 2 or min(mean.shape) < 2:
        raise InputError(f"The image has shape {mean.shape}; give one slice (y, x) of 2 pixels or more along each axis.")
    if not np.isfinite(mean).all():
        raise InputError(
            f"The image holds {int((~np.isfinite(mean)).sum())} values that are NaN or infinite; repair them first."
        )
    return mean


def _grid_of(mean: NDArray, scan: Scan, grid: VolumeGrid | None) -> VolumeGrid:
    found = scan.grid if grid is None else grid
    if found is None or found.shape != mean.shape:
        what = "says not where its pixels lie" if found is None else f"is not on the grid of {found.shape}"
        raise InputError(f"The image of {mean.shape} {what}; give grid=VolumeGrid({mean.shape}, pixel_in_mm).")
    return found


def _held_views(scan: Scan, held_out: ArrayLike) -> NDArray[np.int64]:
    """Their indices, once each, in order; those without a ray that counts are left out."""
    if not isinstance(scan, Scan):
        raise InputError(f"Error bars are calibrated on a Scan of one slice, not on {type(scan).__name__}; see ctuq.read.")
    asked, n = np.asarray(held_out), scan.n_angles
    if asked.dtype == bool and asked.shape != (n,):
        raise InputError(f"The mask of held-out views has shape {asked.shape}, and the scan has {n} views.")
    asked = np.flatnonzero(asked) if asked.dtype == bool else asked.reshape(-1)
    if not asked.size or not np.issubdtype(asked.dtype, np.integer):
        raise InputError("Name the held-out views by their indices in the scan, or by a mask; at least one is needed.")
    if asked.min() < 0 or asked.max() >= n:
        raise InputError(f"The held-out views are {asked.min()} to {asked.max()}; the scan has 0 to {n - 1}.")
    views = np.unique(asked).astype(np.int64)
    if asked.size == n > 2 and views.max() <= 1:
        raise InputError(
            f"The held-out views are {n} numbers 0 and 1 for {n} views: give a mask of bool, or the views' numbers."
        )
    if len(views) == n:
        raise InputError(f"All {n} views are held out, so that none is left for the image; hold out some, such as every tenth.")
    useful = views if scan.weights is None else views[scan.weights[views].max(axis=1) > 0]
    if not useful.size:
        raise InputError(f"All rays of the {len(views)} held-out views have weight 0; hold others out.")
    return useful


def _projected(A: RayTransform, images: NDArray) -> NDArray[np.float64]:
    return A(torch.from_numpy(images.astype(np.float32))).double().numpy()


def _variances(A: RayTransform, spread: Spread) -> NDArray[np.float64]:
    """Of each ray through the image, (view, column)."""
    pixels = spread.values.shape[-1]
    if spread.kind == "samples":
        parts = (spread.values[i : i + _BATCH] for i in range(0, len(spread.values), _BATCH))
        return np.sum([(_projected(A, part.reshape(-1, *spread.shape)) ** 2).sum(0) for part in parts], axis=0)
    out, rays = np.zeros(A.range.size), np.eye(1, A.range.size, dtype=np.float32)[0]
    for first in range(0, A.range.size, _BATCH):
        index = np.arange(first, min(first + _BATCH, A.range.size))
        unit = np.zeros((len(index), len(rays)), np.float32)
        unit[np.arange(len(index)), index] = 1
        rows = A.T(torch.from_numpy(unit).reshape(-1, *A.range.shape)).double().numpy().reshape(-1, pixels)
        out[index] = np.sum(spread.times(rows) * rows, axis=1)
    return np.maximum(out, 0).reshape(A.range.shape)


def _noise(scan: Scan, given: float | None, residual: NDArray) -> float:
    """Noise variance of a ray of weight 1."""
    if given is not None:
        if not (is_finite(given) and given > 0):
            raise InputError(f"The noise variance sigma2 must be a positive number, got {given!r}.")
        return float(given)
    weights = None if scan.weights is None else torch.tensor(scan.weights)
    found = float(noise_std(torch.tensor(scan.projections), weights)) ** 2
    return max(found, _LEAST_NOISE * float(np.mean(residual**2)), 1e-30)


def _doubts(A: RayTransform, mean: NDArray, held: _Held) -> tuple[str, ...]:
    """Whether the image is another's, turned, or in another unit: then the error bars measure that."""
    others = turned(mean)
    rays, measured = _projected(A, np.stack([mean, *others.values()]))[:, held.used], held.measured[held.used]
    misses = np.sqrt(np.mean((measured - rays) ** 2, axis=1))
    best = int(np.argmin(misses[1:]))
    notes = ()
    if misses[1 + best] < _RATHER * misses[0]:
        ratio, name = misses[0] / misses[1 + best], list(others)[best]
        notes += (
            f"The image {name} explains the held-out views {ratio:.1f} times better: its row 0 must lie at the largest y.",
        )
    slope = float(measured @ rays[0] / max(float(rays[0] @ rays[0]), 1e-300))
    if not notes and not 1 / _OFF < slope < _OFF:
        notes += (
            f"The held-out rays are {slope:.3g} times those of the image: it must be attenuation in 1/mm on a grid in mm.",
        )
    explained = 1 - float(misses[0] ** 2 / max(float(np.mean(measured**2)), 1e-300))
    if not notes and explained < _EXPLAINED:
        share = 100 * max(explained, 0)
        notes += (f"The image explains {share:.0f} % of the held-out rays' mean square: it may be of another scan.",)
    return notes
