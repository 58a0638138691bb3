"""Simulated scans whose projections come from a finer object than the truth they are scored against."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.tomo.geometry import MOST_PIXELS, Geometry, ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.preprocess import projections_from_counts
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.scan import MONOCHROMATIC, SIMULATION, Provenance, Scan

_FIELD_MM, _ATTENUATION = 40.0, 0.05
_MOST_VIEWS = 100_000


@dataclass(frozen=True)
class RelativeNoise:
    """Gaussian noise of one variance: ``level`` times the mean absolute noiseless projection (0.05 is the literature's 5 %)."""

    level: float

    def __post_init__(self):
        if not (np.isfinite(self.level) and self.level >= 0):
            raise InputError(f"The noise level must be 0 or a positive number, got {self.level}; 0.05 means 5 %.")


@dataclass(frozen=True)
class PhotonNoise:
    """Poisson counts with ``photons`` per detector pixel in the open beam, then -log."""

    photons: float

    def __post_init__(self):
        if not (np.isfinite(self.photons) and self.photons >= 1):
            raise InputError(f"The photons of the open beam must be at least 1, got {self.photons}.")


Noise = RelativeNoise | PhotonNoise


def simulate(
    phantom: Callable[[int], NDArray] | NDArray,
    geometry: Geometry,
    grid: VolumeGrid,
    noise: Noise,
    *,
    rng: np.random.Generator,
    finer: int = 2,
    attenuation: float = 1.0,
) -> Scan:
    """A noisy scan of a phantom, with its truth.

    Parameters
    ----------
    phantom : function or array
        ``phantom(size)`` draws the object as a (size, size) image; or the fine image itself, ``finer`` times the grid's size.
    grid : VolumeGrid
        Square grid of the truth; the projections come from one ``finer`` times finer, and the truth is its area average.
    noise : RelativeNoise or PhotonNoise
    rng : numpy Generator
        For the noise only.
    finer : int
        2 or more, so that no reconstruction meets its own discretisation.
    attenuation : float
        Attenuation in 1/mm of the phantom's value 1.

    Returns
    -------
    Scan
        With weights where the noise is Poisson, as `ctuq.tomo.preprocess.projections_from_counts`.

    Raises
    ------
    InputError
        If the grid is not square, the image does not fit it, or no photon gets through anywhere.
    """
    fine_image = _fine_image(phantom, grid, finer) * attenuation
    fine = VolumeGrid(fine_image.shape, grid.voxel / finer, grid.centre)
    truth = fine_image.reshape(grid.shape[0], finer, grid.shape[1], finer).mean(axis=(1, 3))
    clean = (build_matrix(fine, geometry) @ fine_image.ravel().astype(np.float32)).reshape(geometry.shape).astype(np.float64)
    projections, weights = _noisy(clean, noise, rng)
    steps = (f"projected on a grid {finer} times finer than the truth", str(noise))
    provenance = Provenance(SIMULATION, steps=steps, facts={"beam": MONOCHROMATIC})
    return Scan(projections, geometry, weights=weights, truth=truth.astype(np.float32), grid=grid, provenance=provenance)


def phantom_scan(phantom: str, size: int, angles: NDArray[np.float64], *, noise: float, seed: int) -> Scan:
    """A phantom 40 mm wide of attenuation 0.05/mm at value 1, seen by parallel rays as wide as a pixel, with its truth.

    Parameters
    ----------
    phantom : str
        Of `ctuq.tomo.phantoms.PHANTOMS`.
    size : int
        Pixels along x and y of the truth.
    angles : array, radians
    noise : float
        Standard deviation over the mean projection, as in `RelativeNoise`.
    seed : int
        Of the object and the noise.

    Raises
    ------
    InputError
        If size, number of angles or seed are out of range.
    """
    if not 2 <= size <= MOST_PIXELS or len(angles) > _MOST_VIEWS:
        raise InputError(
            f"A simulation has 2 to {MOST_PIXELS} pixels along x and at most {_MOST_VIEWS} angles, got {size}, {len(angles)}."
        )
    if not 0 <= seed < 2**63:
        raise InputError(f"The seed must be between 0 and 2^63 - 1, got {seed}.")
    voxel = _FIELD_MM / size
    geometry = ParallelBeam(angles=angles, columns=int(np.ceil(np.sqrt(2) * size)) + 2, pixel=voxel)
    rng, draw = np.random.default_rng(seed), PHANTOMS[phantom]
    grid, level = VolumeGrid((size, size), voxel), RelativeNoise(noise)
    return simulate(lambda n: draw(n, rng), geometry, grid, level, rng=rng, attenuation=_ATTENUATION)


def _fine_image(phantom: Callable[[int], NDArray] | NDArray, grid: VolumeGrid, finer: int) -> NDArray[np.float64]:
    if len(grid.shape) != 2 or grid.shape[0] != grid.shape[1]:
        raise InputError(f"A simulation needs a square grid, got {grid.shape}.")
    if finer < 2:
        raise InputError(f"The object must be at least 2 times finer than the truth, got {finer}.")
    size = grid.shape[0] * finer
    image = np.asarray(phantom(size) if callable(phantom) else phantom, dtype=np.float64)
    if image.shape != (size, size):
        raise InputError(f"The phantom is {image.shape}, but {finer} times the grid's size is {(size, size)}.")
    if not np.isfinite(image).all():
        raise InputError("The phantom holds NaN or infinite values.")
    return image


def _noisy(clean: NDArray, noise: Noise, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    if isinstance(noise, RelativeNoise):
        noisy = clean + noise.level * np.abs(clean).mean() * rng.standard_normal(clean.shape)
        return noisy.astype(np.float32), None
    expected = noise.photons * np.exp(-clean)
    counts = rng.poisson(expected).astype(np.float64)
    if counts.max() == 0:
        raise InputError(
            f"Of {noise.photons:g} photons a pixel none passes the object (line integrals up to {clean.max():.1f}); "
            "lower the attenuation or take more photons."
        )
    corrected = projections_from_counts(counts, np.full((1, clean.shape[1]), noise.photons), None)
    return corrected.projections.astype(np.float32), corrected.weights.astype(np.float32)
