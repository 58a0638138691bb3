"""The predictive distribution of views that were never measured."""

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.tomo.rays.transform import RayTransform
from ctuq.uncertainty.result import Result


def predict_views(
    result: Result, A: RayTransform, weights: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of each ray of other views, noise included.

    Parameters
    ----------
    result : Result
        With samples; the relative Monte Carlo error of the image's part of the variance is ``sqrt(2 / samples)``.
    A : RayTransform
        Of the other views, on the result's grid.
    weights : array, shape (angle, column), optional
        Relative precision of each ray; None means ones.

    Returns
    -------
    mean, variance : array of float64, shape (angle, column)

    Raises
    ------
    InputError
        If the result holds no samples, or the grids differ.
    """
    if result.samples is None or len(result.samples) == 0:
        raise InputError("The result holds no samples; reconstruct with --samples 64 or more to predict other views.")
    if A.grid != result.grid:
        raise InputError(f"The ray transform is on {A.grid}, the result on {result.grid}; build it with result.grid.")
    mean = A(torch.from_numpy(result.mean).to(A.device))
    deviations = A(torch.from_numpy(result.samples - result.mean).to(A.device))
    noise = np.float64(result.sigma2) / (1.0 if weights is None else weights.astype(np.float64))
    variance: NDArray[np.float64] = deviations.double().square().mean(0).cpu().numpy() + noise
    return mean.double().cpu().numpy(), variance
