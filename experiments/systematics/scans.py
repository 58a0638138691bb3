"""Simulated scans with one defect each, made by changing the scanner and not by the model's columns, and real ones."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import ctuq
from ctuq.pipeline import choose_grid, match_detector
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.rays.entries import build_matrix
from experiments.unseen_views import load

SIZE, VIEWS, NOISE, ATTENUATION = 24, 20, 0.02, 0.05
DEFECTS = ("axis", "flux", "gain", "jitter", "shift", "hardening")
LEVELS = (1, 3, 10)
_FINER = 2
_STEPS = {"walnut": 4, "ta": 8, "tb": 12}


@dataclass(frozen=True, eq=False)
class Subject:
    """A scan, and what is wrong with it.

    Parameters
    ----------
    name : str
    scan : Scan
        The views to reconstruct.
    grid : VolumeGrid
    defect : str
        Of `DEFECTS`; empty for none that is known.
    level : float
        Rms change of the rays over the noise.
    true : array
        Of the defect: mm, radians or shares, one number of the scan, each view or each column.
    unseen : Scan, optional
        Views that are used for nothing.
    """

    name: str
    scan: Scan
    grid: VolumeGrid
    defect: str = ""
    level: float = 0.0
    true: NDArray[np.float64] | None = None
    unseen: Scan | None = None


def simulated(phantom: str, seed: int, defect: str = "", level: float = 0.0, *, size: int = SIZE) -> Subject:
    """Parallel rays through a phantom 40 mm wide; the defect's size is such that the rays' rms change is ``level`` noises."""
    rng = np.random.default_rng(seed)
    grid = VolumeGrid((size, size), 40.0 / size)
    fine = VolumeGrid((size * _FINER, size * _FINER), grid.voxel / _FINER)
    image = ATTENUATION * PHANTOMS[phantom](size * _FINER, rng)
    geometry = ParallelBeam(angles=np.arange(VIEWS) * np.pi / VIEWS, columns=int(1.4 * size) + 1, pixel=grid.voxel)

    def rays(changed: ParallelBeam) -> NDArray[np.float64]:
        return (build_matrix(fine, changed) @ image.ravel().astype(np.float32)).reshape(changed.shape).astype(np.float64)

    clean = rays(geometry)
    noise = NOISE * clean.mean()
    shape = np.random.default_rng(1000 + seed)
    wrong, true = (clean, np.zeros(1)) if not defect else _with(defect, level * noise, clean, geometry, rays, shape)
    truth = image.reshape(size, _FINER, size, _FINER).mean((1, 3)).astype(np.float32)
    projections = (wrong + noise * rng.standard_normal(wrong.shape)).astype(np.float32)
    name = f"{phantom} {seed}" + (f" {defect} {level:g}" if defect else "")
    return Subject(name, Scan(projections, geometry, truth=truth, grid=grid), grid, defect, level, true)


def _with(defect, size, clean, geometry, rays, rng):
    """Rays with the defect, whose rms change is ``size``, and its values."""
    if defect in ("flux", "gain"):
        values = rng.standard_normal(geometry.shape[defect == "gain"])
        values *= size / np.sqrt(np.mean(values**2))
        return clean - (values[:, None] if defect == "flux" else values), values
    if defect == "hardening":
        values = np.array([size / np.sqrt(np.mean(clean**4))])
        return clean - values * clean**2, values
    step = 0.5 * geometry.pixel
    if defect == "jitter":
        # An angle that all views have turns the object, as shifts by cosine and sine of the angle move it.
        unit = _without(np.ones((1, len(geometry.angles))), rng) * step / 20.0
        return _scaled(size, clean, unit, lambda v: rays(replace(geometry, angles=geometry.angles + v)))
    if defect == "axis":
        return _scaled(size, clean, np.array([step]), lambda v: rays(replace(geometry, axis_offset=float(v[0]))))
    angles = geometry.angles
    unit = _without(np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)]), rng) * step

    def shifted(values):
        views = [rays(replace(geometry.subset([i]), axis_offset=float(v)))[0] for i, v in enumerate(values)]
        return np.stack(views)

    return _scaled(size, clean, unit, shifted)


def _without(directions, rng):
    """Numbers of single views that are none of these directions (k, views)."""
    values = rng.standard_normal(directions.shape[1])
    return values - directions.T @ np.linalg.lstsq(directions.T, values, rcond=None)[0]


def _scaled(size, clean, unit, rays):
    """The multiple of a defect that changes the rays by this rms, by secants."""
    factor = 1.0
    for _ in range(4):
        factor *= size / np.sqrt(np.mean((rays(factor * unit) - clean) ** 2))
    return rays(factor * unit), factor * unit


def real(name: str, size: int) -> Subject:
    """A part of the views of a shipped scan; the others are used for nothing."""
    scan = load(name)
    used = np.arange(0, scan.n_angles, _STEPS[name])
    chosen = scan.select(used)
    grid = choose_grid(chosen, size)
    unseen = match_detector(scan.select(np.setdiff1d(np.arange(scan.n_angles), used)), grid)
    if scan.truth is not None and scan.grid is not None:
        chosen = replace(chosen, truth=ctuq.tomo.resample.resample(scan.truth, scan.grid, grid), grid=grid)
    return Subject(f"{name} {size}", match_detector(chosen, grid), grid, unseen=unseen)
