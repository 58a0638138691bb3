"""The predictive distribution of views that were never measured."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ctuq.errors import InputError
from ctuq.systematics.build import effects_of, told_in
from ctuq.systematics.taken import Taken
from ctuq.tomo import ray_transform
from ctuq.tomo.arrays import as_array
from ctuq.tomo.count_noise import variance_of
from ctuq.tomo.geometry import Geometry
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.subpixel import subpixel_variance
from ctuq.uncertainty.results.image import Result


def predict_views(
    result: Result, A: RayTransform, weights: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of each ray of other views, noise included.

    Parameters
    ----------
    result : Result
        With samples; the relative Monte Carlo error of the image's part of the variance is ``sqrt(2 / samples)``.
    A : RayTransform
        Of the other views, on the result's grid, as the scanner is said to be: what is known to be wrong with it is put right,
        and the rotation axis is where the fit put it.
    weights : array, shape (angle, column), optional
        Relative precision of each ray; None means ones. A ray of weight 0 has an infinite variance. Where they are 0 and 1
        alone, noise that was found to grow with attenuation grows here, too.

    Returns
    -------
    mean, variance : array of float64, shape (angle, column)

    Raises
    ------
    InputError
        If the result holds no samples, the grids differ, or the weights are of another shape, negative or not finite.
    """
    if result.samples is None or len(result.samples) == 0:
        raise InputError("The result holds no samples; reconstruct with --samples 64 or more to predict other views.")
    if A.grid != result.grid:
        raise InputError(f"The ray transform is on {A.grid}, the result on {result.grid}; build it with result.grid.")
    given = np.ones(A.range.shape) if weights is None else _checked(weights, A.range.shape)
    A, rest = _scanner(result, A)
    mean = A(torch.from_numpy(result.mean).to(A.device)).double()
    deviations = A(torch.from_numpy(result.samples - result.mean).to(A.device)).double()
    own = torch.zeros_like(mean)
    if result.systematics:
        mean, deviations, own = _with_errors(result, A, (mean, deviations), rest)
    growth = result.scan.provenance.noise_growth if np.isin(given, (0, 1)).all() else 0.0
    noise = np.full(given.shape, np.inf)
    np.divide(np.float64(result.sigma2) * variance_of(mean.cpu().numpy(), growth), given, out=noise, where=given > 0)
    if result.subpixel:
        noise = noise + result.subpixel * subpixel_variance(result.mean, _matrix(A), A.geometry)
    variance: NDArray[np.float64] = (deviations.square().mean(0) + own).cpu().numpy() + noise
    return mean.cpu().numpy(), variance


def _checked(weights: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    given = as_array(weights, "The weights hold")
    if given.shape != shape:
        raise InputError(f"The weights have shape {given.shape}; the views need {shape}, one for each ray.")
    if not (np.isfinite(given).all() and given.min() >= 0):
        raise InputError("The weights of the rays must be finite and not negative; give bad rays weight 0.")
    return given


def _matrix(A: RayTransform) -> sp.csr_array:
    return A.matrix if isinstance(A, MatrixRayTransform) else build_matrix(A.grid, A.geometry)


def _scanner(result: Result, A: RayTransform) -> tuple[RayTransform, Mapping[str, Tensor]]:
    """The transform of the scanner with the errors that were taken out, and what is left of the estimates, inside units."""
    values = {name: told_in(name) * torch.from_numpy(found.values) for name, found in result.systematics.items()}
    # Of what hides in the image and was taken out, views are foretold without it, as they are once it is taken out of them.
    hidden = {name for name, found in result.systematics.items() if found.hidden}
    values |= {name: torch.zeros_like(values[name]) for name in hidden}
    known = {name for name, found in result.systematics.items() if found.of == "scan" and found.taken is not None}
    moved = Taken({name: values[name] for name in known})
    geometry = moved.scanner(_placed(result, A.geometry))
    if geometry == A.geometry:
        return A, values
    A = ray_transform(A.grid, geometry, device=A.device, backend="matrix")
    return A, {name: torch.zeros_like(value) if moved.moved(name) else value for name, value in values.items()}


def _placed(result: Result, geometry: Geometry) -> Geometry:
    """The geometry with the rotation axis where the fit began, if it is the scan's from before."""
    move, now = result.scan.provenance.axis_move, result.scan.geometry.detector_offset
    if abs(geometry.detector_offset - now) <= abs(geometry.detector_offset - (now + move)):
        return geometry
    return replace(geometry, detector_offset=geometry.detector_offset - move)


def _with_errors(
    result: Result, A: RayTransform, image: tuple[Tensor, Tensor], rest: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Rays of mean and samples with the systematic errors, and the variance of those that are new in each view.

    Those of the scan and of its columns are drawn together with the image, which holds the other way what an error may have
    done to it. What errors that no ray tells do to the image is left out: an image that hides hardening foretells the rays that
    it was made from, and what it cannot hide is in the residuals of held-out rays, which sized the error bars. Drawn together,
    of a head with line integrals up to 3.8 that part alone was 1.6 times what rays missed by (rms z 0.68).
    """
    mean, deviations = image
    own = torch.zeros_like(mean)
    hiding = {name: found.effect for name, found in result.systematics.items() if found.hidden and found.effect is not None}
    for name, effect in hiding.items():
        found = result.systematics[name]
        z = torch.from_numpy(found.samples[:, :1, None] - found.values[:1]).to(mean) / found.width
        deviations = deviations - z * A(torch.from_numpy(effect).to(A.device)).to(mean)
    # What lies outside of the image is in no ray that is foretold.
    known = [name for name, found in result.systematics.items() if found.of != "cell" and name not in hiding]
    for name, effect in effects_of(known, A, torch.from_numpy(result.mean).to(A.device)).items():
        found, unit = result.systematics[name], told_in(name)
        if found.of == "view":
            own = own + (found.width * unit * effect).square()
            continue
        if found.of == "column" and len(found.values) != mean.shape[1]:
            raise InputError(f"The views have {mean.shape[1]} columns, the result's {len(found.values)}; bin them alike.")
        mean = mean + rest[name].to(mean) * effect
        off = torch.from_numpy(found.samples).to(mean) - torch.from_numpy(found.values).to(mean)
        deviations = deviations + unit * off[:, None] * effect
    return mean, deviations, own
