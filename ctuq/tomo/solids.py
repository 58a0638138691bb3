"""Test objects of three axes: attenuation of values 0 to 1 in a cube, and simulated scans of them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.tomo.geometry import MOST_PIXELS, VolumeGrid
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.scan import MONOCHROMATIC, SIMULATION, Provenance
from ctuq.tomo.simulate import RelativeNoise
from ctuq.tomo.space import ConeBeam, Parallel3D, VolumeGeometry
from ctuq.tomo.volume_scan import VolumeScan

_FIELD_MM, _ATTENUATION = 40.0, 0.05
_MOST_VIEWS = 10_000


def _ball(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A ball of value 1, 0.6 as wide as the cube, beside its centre."""
    del rng
    z, y, x = _axes(size)
    return _inside((x - 0.1) ** 2 + (y + 0.06) ** 2 + (z - 0.04) ** 2, 0.6)


def _shells(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A nut: a dense shell of uneven thickness, a gap of air, and a kernel of folded lobes with a membrane between."""
    z, y, x = _axes(size)
    angle = np.arctan2(y, x)
    phase = rng.uniform(0, 2 * np.pi, 4)
    wrinkles = 0.025 * np.sin(7 * angle + phase[0]) * np.cos(5 * z + phase[1]) + 0.015 * np.sin(13 * angle + phase[2])
    # An egg: longer along z, blunter below.
    radius = np.sqrt((x / 0.78) ** 2 + (y / 0.74) ** 2 + (z / (0.88 + 0.06 * np.sign(z))) ** 2)
    shell = _between(radius + wrinkles, 0.86, 1.0)
    folds = 0.09 * np.sin(6 * angle + 4 * z + phase[3]) * np.cos(6 * z)
    kernel = _between(radius + folds, 0.16, 0.72) * (np.abs(x + 0.1 * z) > 0.05)
    membrane = (np.abs(x + 0.1 * z) < 0.016) * (radius < 0.86)
    return np.clip(shell + 0.55 * kernel + 0.3 * membrane, 0, 1).astype(np.float32)


SOLIDS: dict[str, Callable[[int, np.random.Generator], NDArray[np.float32]]] = {"ball": _ball, "shells": _shells}
"""By name, each ``draw(size, rng)``: a cube (z, y, x), the same at every size for the same generator."""


def simulate_volume(
    solid: NDArray, geometry: VolumeGeometry, grid: VolumeGrid, noise: RelativeNoise, *, rng: np.random.Generator
) -> VolumeScan:
    """A noisy scan of an object, with its truth.

    Parameters
    ----------
    solid : array
        Attenuation in 1/mm on a grid several times finer than ``grid``, which the projections come from; the truth is its
        average over voxels.
    geometry : ConeBeam, Parallel3D or FreeBeam
    grid : VolumeGrid
    noise : RelativeNoise
    rng : numpy Generator
        For the noise only.

    Raises
    ------
    InputError
        If the object is not finer than the grid by a whole number above 1.
    """
    finer = solid.shape[0] // grid.shape[0]
    if finer < 2 or tuple(n * finer for n in grid.shape) != solid.shape:
        raise InputError(f"The object {solid.shape} must be 2 times or more finer than the grid {grid.shape}, along each axis.")
    import torch

    fine = VolumeGrid(solid.shape, grid.voxel / finer, grid.centre)
    blocks = solid.reshape(*(m for n in grid.shape for m in (n, finer)))
    clean = volume_transform(fine, geometry)(torch.from_numpy(np.asarray(solid, np.float32))).numpy()
    noisy = clean + noise.level * np.abs(clean).mean() * rng.standard_normal(clean.shape, np.float32)
    steps = (f"projected on a grid {finer} times finer than the truth", str(noise))
    told = Provenance(SIMULATION, steps=steps, facts={"beam": MONOCHROMATIC})
    return VolumeScan(noisy, geometry, truth=blocks.mean(axis=(1, 3, 5)), grid=grid, provenance=told)


def solid_scan(
    solid: str, size: int, angles: NDArray[np.float64], *, noise: float, seed: int, distances: tuple[float, float] | None
) -> VolumeScan:
    """A scan of an object 40 mm wide of attenuation 0.05/mm at value 1, rays as wide as a voxel at the axis, with its truth.

    Parameters
    ----------
    solid : str
        Of `SOLIDS`.
    size : int
        Voxels along each axis of the truth.
    angles : array, radians
    noise : float
        Standard deviation over the mean projection.
    seed : int
        Of the object and the noise.
    distances : tuple of float, optional
        From the source to the axis and to the detector, mm; rays are parallel without them.

    Raises
    ------
    InputError
        If a number is out of range, or the source would be inside the object.
    """
    if not 2 <= size <= MOST_PIXELS // 8 or len(angles) > _MOST_VIEWS:
        raise InputError(
            f"A simulated volume has 2 to {MOST_PIXELS // 8} voxels along x and at most {_MOST_VIEWS} angles, got {size}, "
            f"{len(angles)}."
        )
    if not 0 <= seed < 2**63:
        raise InputError(f"The seed must be between 0 and 2^63 - 1, got {seed}.")
    voxel = _FIELD_MM / size
    rng = np.random.default_rng(seed)
    grid = VolumeGrid((size,) * 3, voxel)
    solid_values = SOLIDS[solid](2 * size, rng) * _ATTENUATION
    return simulate_volume(solid_values, _around(grid, angles, distances), grid, RelativeNoise(noise), rng=rng)


def _around(grid: VolumeGrid, angles: NDArray, distances: tuple[float, float] | None) -> ConeBeam | Parallel3D:
    """A detector that sees all of the ball about the axis in the cube, and a column more on each side."""
    radius, voxel = grid.shape[-1] * grid.voxel / 2, grid.voxel
    if distances is None:
        count = grid.shape[-1] + 2
        return Parallel3D(angles=angles, rows=count, columns=count, pixel=voxel)
    to_axis, to_detector = distances
    if to_axis <= radius:
        raise InputError(f"The source is {to_axis:g} mm from the axis, inside the object of {2 * radius:g} mm; move it out.")
    pixel = voxel * to_detector / to_axis
    half = to_detector * radius / np.sqrt(to_axis**2 - radius**2)
    count = 2 * int(np.ceil(half / pixel)) + 2
    lengths = {"source_to_axis": to_axis, "source_to_detector": to_detector}
    return ConeBeam(angles=angles, rows=count, columns=count, pixel=pixel, **lengths)


def _axes(size: int) -> tuple[NDArray, NDArray, NDArray]:
    """Coordinates z, y, x from -1 to 1 of the voxels of a cube; y falls from slice to slice's first row to its last."""
    t = (np.arange(size) + 0.5) / size * 2 - 1
    return t[:, None, None], -t[:, None], t


def _inside(square: NDArray, radius: float) -> NDArray[np.float32]:
    return (square <= radius**2).astype(np.float32)


def _between(values: NDArray, low: float, high: float) -> NDArray[np.bool_]:
    return (values >= low) & (values <= high)
