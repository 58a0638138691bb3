"""Objects with small defects, beside what they were meant to be."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import ctuq
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate

SIZE, FINER, WIDTH, ATTENUATION, NOISE, VIEWS = 40, 2, 40.0, 0.05, 0.05, 15
RADIUS, SITES = 1.5, 12
"""Of a defect, in pixels; and how many sites an object has, of which a half have a defect."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A scan; the object as it was meant to be (y, x); the disc of each site as weights (site, y, x); which have a defect."""

    scan: ctuq.Scan
    nominal: NDArray[np.float64]
    discs: NDArray[np.float64]
    defects: NDArray[np.bool_]


def subject_of(kind: str, seed: int, depth: float) -> Subject | None:
    """An object of a phantom with defects; None if there is no room for two sites.

    Parameters
    ----------
    kind : str
        Of `ctuq.tomo.phantoms.PHANTOMS`.
    seed : int
    depth : float
        What a defect lacks of the attenuation about it.
    """
    rng = np.random.default_rng(seed)
    fine = np.asarray(PHANTOMS[kind](SIZE * FINER, rng), np.float64)
    nominal = fine.reshape(SIZE, FINER, SIZE, FINER).mean((1, 3))
    sites = _inside(nominal, rng)
    if len(sites) < 2:
        return None
    defects = np.zeros(len(sites), bool)
    defects[rng.permutation(len(sites))[: len(sites) // 2]] = True
    y, x = np.mgrid[: SIZE * FINER, : SIZE * FINER]
    for site in sites[defects]:
        centre = FINER * (site + 0.5) - 0.5
        fine[np.hypot(y - centre[0], x - centre[1]) <= FINER * RADIUS] *= 1 - depth
    angles, voxel = np.arange(VIEWS) * np.pi / VIEWS, WIDTH / SIZE
    beam = ctuq.ParallelBeam(angles=angles, columns=int(np.ceil(np.sqrt(2) * SIZE)) + 2, pixel=voxel)
    grid = ctuq.VolumeGrid((SIZE, SIZE), voxel)
    scan = simulate(fine, beam, grid, RelativeNoise(NOISE), rng=rng, finer=FINER, attenuation=ATTENUATION)
    discs = np.stack([_distance(site) <= RADIUS for site in sites]).astype(np.float64)
    return Subject(scan, ATTENUATION * nominal, discs / discs.sum((1, 2), keepdims=True), defects)


def _distance(site: NDArray) -> NDArray[np.float64]:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.hypot(y - site[0], x - site[1])


def _inside(nominal: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """Sites (n, 2) whose discs lie in the object, edges within it or not, and do not touch."""
    solid, found = nominal > 0.05 * nominal.max(), []
    for site in rng.permutation(np.argwhere(solid)):
        apart = all(np.hypot(*(site - other)) > 2 * RADIUS + 1 for other in found)
        if apart and solid[_distance(site) <= RADIUS].all():
            found.append(site)
        if len(found) == SITES:
            break
    return np.array(found, dtype=np.int64).reshape(-1, 2)
