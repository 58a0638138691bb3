"""Objects of one material, and some that are not, with the rays that a hardening beam makes of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctuq.tomo import ParallelBeam, Scan, VolumeGrid
from ctuq.tomo.rays.entries import build_matrix

_FINER, _COLUMNS = 4, 3
Shape = Callable[[NDArray, NDArray, np.random.Generator], NDArray]


def _disc(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    return np.hypot(x, y) < rng.uniform(0.6, 0.75)


def _ring(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    size = rng.uniform(0.65, 0.75)
    return (np.hypot(x, y) < size) & (np.hypot(x, y) > 0.45 * size)


def _square(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    turn, size = rng.uniform(0, 1.5), rng.uniform(0.45, 0.55)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return (abs(u) < size) & (abs(v) < size)


def _gear(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    r, teeth = np.hypot(x, y), np.sign(np.sin(rng.integers(5, 8) * np.arctan2(y, x)))
    return (r < 0.62 + 0.08 * teeth) & (r > 0.15)


def _holes(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    body = np.hypot(x, y) < 0.72
    for _ in range(4):
        cx, cy = rng.uniform(-0.4, 0.4, 2)
        body &= np.hypot(x - cx, y - cy) > rng.uniform(0.06, 0.12)
    return body


def _parts(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    del rng
    return (np.hypot(x - 0.4, y) < 0.3) | (np.hypot(x + 0.4, y - 0.2) < 0.27) | (np.hypot(x, y + 0.52) < 0.28)


def _beside(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    del rng
    return np.hypot(x - 0.35, y + 0.2) < 0.45


def _bar(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    return (abs(x) < rng.uniform(0.6, 0.8)) & (abs(y) < rng.uniform(0.25, 0.35))


def _dense(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    return 1.0 * _disc(x, y, rng) + (np.hypot(x - 0.2, y - 0.1) < 0.2)


def _light(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    return 1.0 * _disc(x, y, rng) - 0.35 * (np.hypot(x - 0.15, y - 0.1) < 0.3)


def _grain(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    grain = ndimage.gaussian_filter(rng.standard_normal(x.shape), len(x) / 40)
    return _disc(x, y, rng) * (1 + 0.08 * grain / grain.std())


def _walls(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    del rng
    r = np.hypot(x, y)
    return ((r < 0.7) & (r > 0.63)) | ((abs(x) < 0.03) & (r < 0.7))


def _cut(x: NDArray, y: NDArray, rng: np.random.Generator) -> NDArray:
    del rng
    return (abs(x) < 2) & (abs(y) < 0.5)


UNIFORM: dict[str, Shape] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "gear": _gear,
    "holes": _holes,
    "parts": _parts,
    "beside": _beside,
    "bar": _bar,
}
OTHERS: dict[str, Shape] = {"dense part": _dense, "light part": _light, "grain": _grain, "walls": _walls, "cut": _cut}


@dataclass(frozen=True)
class Beam:
    """What makes rays: hardening as of a gamma density of attenuations or as a parabola, and what else is asked of them."""

    c: float = 0.1
    curve: str = "gamma"
    noise: float = 0.01
    longest: float = 2.0
    views: int = 40
    arc: float = 180.0
    offset: float = 0.0
    unit: float = 1.0

    def read(self, p: NDArray) -> NDArray:
        """What line integrals read."""
        if self.c == 0:
            return p
        return np.log1p(2 * self.c * p) / (2 * self.c) if self.curve == "gamma" else p - self.c * p**2


def scanned(shape: Shape, beam: Beam, size: int, seed: int) -> tuple[Scan, float]:
    """A scan with its truth, and c of the parabola p - c p^2 that is closest to its beam; noise is a share of the longest."""
    rng = np.random.default_rng(seed)
    grid = VolumeGrid((size, size), 40 / size)
    y, x = (np.mgrid[: size * _FINER, : size * _FINER] + 0.5) / (size * _FINER) * 2 - 1
    dx, dy = rng.uniform(-0.06, 0.06, 2)
    image = np.asarray(shape(x - dx, y - dy, rng), np.float32)
    width = int(1.45 * size)
    angles = np.deg2rad(np.arange(beam.views) * beam.arc / beam.views)
    fine = ParallelBeam(angles=angles, columns=width * _COLUMNS, pixel=grid.voxel / _COLUMNS)
    lengths = build_matrix(VolumeGrid(image.shape, grid.voxel / _FINER), fine) @ image.ravel()
    attenuation = beam.longest / float(lengths.max())
    p = attenuation * lengths.astype(np.float64)
    c = float(((p - beam.read(p)) * p**2).sum() / (p**4).sum())
    read = beam.read(p).reshape(beam.views, width, _COLUMNS)
    rays = -np.log(np.exp(-read).mean(-1)) + beam.offset
    rays += beam.noise * beam.longest * rng.standard_normal(rays.shape)
    truth = attenuation * image.reshape(size, _FINER, size, _FINER).mean((1, 3))
    geometry = replace(fine, columns=width, pixel=grid.voxel)
    scan = Scan((beam.unit * rays).astype(np.float32), geometry, truth=(beam.unit * truth).astype(np.float32), grid=grid)
    return scan, c / beam.unit
