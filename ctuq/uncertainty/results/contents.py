"""What a result holds: plain data, as a file keeps them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctuq.pictures import in_words
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Scan


@dataclass(frozen=True, repr=False)
class Calibration:
    """Two scales learned on held-out views, and how the held-out rays were predicted with and without them.

    Parameters
    ----------
    views : tuple of int
        Indices (into the scan that was reconstructed) of the views that the network never saw.
    image_scale, noise_scale : float
        Factors on the image covariance and on the noise variance.
    log_image_scale_sd, log_noise_scale_sd : float
        Standard deviation of the logarithm of each.
    raw, calibrated : mapping of str to float
        Predictive scores of the held-out rays (`ctuq.scores.gaussian.gaussian_scores`) before and after.
    predictions : array of float32, shape (4, views, columns) or (4, views, rows, columns)
        Measured, predicted, raw std and calibrated std of each held-out ray; of volumes on a lattice of the detector.
    cover_68, cover_95 : tuple of float
        Range, true with a probability of about 90 %, of the share of unseen rays that the 68 and 95 % intervals cover, as few
        held-out views leave the scales unsure; NaN in results of an older ctuq.
    edge_ratio : float
        By what the variances at the image's edges and in its flat parts were moved apart, the scale between them unchanged; 1
        where that is not learned.
    """

    views: tuple[int, ...]
    image_scale: float
    noise_scale: float
    log_image_scale_sd: float
    log_noise_scale_sd: float
    raw: Mapping[str, float]
    calibrated: Mapping[str, float]
    predictions: NDArray[np.float32]
    cover_68: tuple[float, float] = (float("nan"), float("nan"))
    cover_95: tuple[float, float] = (float("nan"), float("nan"))
    edge_ratio: float = 1.0

    def __repr__(self) -> str:
        count, before, after = len(self.views), self.raw.get("rms_z", math.nan), self.calibrated.get("rms_z", math.nan)
        rows = (
            ("views", f"{count} held-out view{'s' * (count != 1)}"),
            ("scales", f"variance of the image × {self.image_scale:.3g}, of the noise × {self.noise_scale:.3g}"),
            ("scores", f"rms z {before:.2f}, {after:.2f} with them"),
        )
        return in_words(type(self).__name__, rows)


@dataclass(frozen=True)
class Systematic:
    """A systematic error of the scan, as the posterior has it.

    Parameters
    ----------
    unit : str
    of : str
        "scan", "view", "column" or "cell" (outside of the image, row by row): what ``values`` has a number for.
    values, std : array of float64, shape (n,)
        Mean and standard deviation, in the unit.
    width : float
        Prior standard deviation of each number before its smooth part is taken out.
    learned : bool
        Whether the evidence learned the width from the scan; else it is what was given.
    hidden : bool
        Whether an image can hold the error as well.
    share : float
        Of the image's variance inside the object, what would be gone if this error were known.
    samples : array of float32, shape (sample, n)
        Drawn together with the image's.
    taken : array of float64, shape (n,), optional
        What was taken out of the rays before the image was fitted again; ``values`` are of the whole. None for nothing.
    effect : array of float32, shape (y, x), optional
        Of a hidden error: how far a standard deviation of it puts the image beside the truth, 1/mm.
    """

    unit: str
    of: str
    values: NDArray[np.float64]
    std: NDArray[np.float64]
    width: float
    learned: bool
    hidden: bool
    share: float
    samples: NDArray[np.float32]
    taken: NDArray[np.float64] | None = None
    effect: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Contents:
    """The fields of a `ctuq.Result`, which says what each of them is."""

    mean: NDArray[np.float32]
    scan: Scan
    grid: VolumeGrid
    method: str
    std: NDArray[np.float32] | None = None
    std_raw: NDArray[np.float32] | None = None
    std_error: float = 0.0
    samples: NDArray[np.float32] | None = None
    directions: NDArray[np.float32] | None = None
    waves: int = 0
    sigma2: float = float("nan")
    subpixel: float = 0.0
    prior: Mapping[str, float] = field(default_factory=dict)
    log_evidence: float = float("nan")
    log_evidence_error: float = 0.0
    calibration: Calibration | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    comparisons: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    truth: NDArray[np.float32] | None = None
    history: Mapping[str, NDArray] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    plan: Mapping[str, str | float | int | bool] = field(default_factory=dict)
    settings: Mapping[str, str | float | int | bool | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    systematics: Mapping[str, Systematic] = field(default_factory=dict)
    removed: NDArray[np.float32] | None = None
