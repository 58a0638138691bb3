"""What a reconstruction leaves behind: the image, how sure it is, and everything needed to judge and repeat it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Scan


@dataclass(frozen=True)
class Calibration:
    """Two scales learned on held-out views, and how the held-out rays were predicted with and without them.

    Parameters
    ----------
    views : tuple of int
        Indices (into the scan that was reconstructed) of the views that the network never saw.
    image_scale, noise_scale : float
        Factors on the image covariance and on the noise variance.
    log_image_scale_sd, log_noise_scale_sd : float
        Standard deviation of the logarithm of each, from the curvature of the likelihood over views.
    raw, calibrated : mapping of str to float
        Predictive scores of the held-out rays (`ctuq.scores.gaussian.gaussian_scores`) before and after.
    predictions : array of float32, shape (4, views, columns)
        Measured, predicted, raw std and calibrated std of each held-out ray.
    """

    views: tuple[int, ...]
    image_scale: float
    noise_scale: float
    log_image_scale_sd: float
    log_noise_scale_sd: float
    raw: Mapping[str, float]
    calibrated: Mapping[str, float]
    predictions: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Result:
    """A reconstruction with its uncertainty.

    Parameters
    ----------
    mean : array of float32, shape (y, x)
        Attenuation in 1/mm.
    scan : Scan
        The views that were used, with geometry, weights, truth if there is one, and provenance.
    grid : VolumeGrid
        The grid of ``mean``.
    method : str
        "dip", "fbp", "sirt", "cgls" or "tv".
    std : array of float32, shape (y, x), optional
        Standard deviation of each pixel in 1/mm, calibrated where ``calibration`` is given; None without uncertainty.
    std_raw : array of float32, shape (y, x), optional
        The same before calibration.
    std_error : float
        Relative Monte Carlo error of ``std``; 0 where it is exact.
    samples : array of float32, shape (sample, y, x), optional
        Draws from the posterior, calibrated as ``std``.
    sigma2 : float
        Noise variance of a ray of weight 1, calibrated.
    prior : mapping of str to float
        Prior hyperparameters.
    log_evidence : float
        Of the fitted views, nats; NaN without uncertainty.
    calibration : Calibration, optional
        None when no view was held out.
    scores : mapping of str to mapping of str to float
        Trust figures by name: "truth" (against the truth), "held_out" (rays of unseen views), "leave_one_angle_out".
    comparisons : mapping of str to array of float32 (y, x)
        Classical reconstructions of the same views.
    truth : array of float32, shape (y, x), optional
        The scan's truth on ``grid``.
    history : mapping of str to array
        What the fit logged: "iteration", "loss", "held_out_loss".
    timings : mapping of str to float
        Wall seconds of each stage.
    settings : mapping of str to str, float or int
        Every option of the run.
    versions : mapping of str to str
        Of ctuq and the libraries.
    warnings : tuple of str
        One sentence each: what the user should know before trusting the figures.
    """

    mean: NDArray[np.float32]
    scan: Scan
    grid: VolumeGrid
    method: str
    std: NDArray[np.float32] | None = None
    std_raw: NDArray[np.float32] | None = None
    std_error: float = 0.0
    samples: NDArray[np.float32] | None = None
    sigma2: float = float("nan")
    prior: Mapping[str, float] = field(default_factory=dict)
    log_evidence: float = float("nan")
    calibration: Calibration | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    comparisons: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    truth: NDArray[np.float32] | None = None
    history: Mapping[str, NDArray] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str | float | int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one HDF5 file, see `ctuq.uncertainty.storage.save`."""
        from ctuq.uncertainty import storage

        storage.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Result":
        """Read what `save` wrote, see `ctuq.uncertainty.storage.load`."""
        from ctuq.uncertainty import storage

        return storage.load(path)
