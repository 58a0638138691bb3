"""Subjects of trials: phantoms measured at every candidate angle, and scans to be replayed."""

from pathlib import Path

import numpy as np
import torch

from ctuq.design.trials.subject import Subject, subject
from ctuq.errors import InputError
from ctuq.pipeline import choose_grid, match_detector
from ctuq.recon import tv
from ctuq.tomo import Scan, VolumeGrid, ray_transform
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.resample import resample
from ctuq.tomo.simulate import phantom_scan

_MOST_CANDIDATES = 100_000


def phantom_subject(phantom: str, size: int, candidates: int, *, noise: float, seed: int, shift: float = 0.5) -> Subject:
    """A phantom seen by parallel rays at ``candidates`` angles over half a turn, the noise of every ray drawn once.

    Parameters
    ----------
    phantom : str
        Of `ctuq.tomo.phantoms.PHANTOMS`.
    size : int
        Pixels along x and y; the projections come from a grid twice as fine.
    candidates : int
    noise : float
        Standard deviation over the mean projection.
    seed : int
        Of the object and the noise.
    shift : float
        Of all angles, in steps between candidates. With 0 some rays run along the pixels' axes, where the pixel model promises
        more than an object holds: designs then crowd there.
    """
    if size < 8 or not 2 <= candidates <= _MOST_CANDIDATES:
        raise InputError(
            f"A design needs 8 or more pixels along x and 2 to {_MOST_CANDIDATES} candidates, got {size} and {candidates}."
        )
    angles = (np.arange(candidates) + shift) * np.pi / candidates
    scan = phantom_scan(phantom, size, angles, noise=noise, seed=seed)
    assert scan.grid is not None
    return subject(f"{phantom}-{seed}", scan, _matrix(scan.grid, scan), reference=scan.truth)


def scan_subject(name: str, scan: Scan, size: int, *, every: int = 1, strength: float = 1.0) -> Subject:
    """A scan to be replayed: every ``every``-th of its views may be chosen, the others judge.

    Parameters
    ----------
    name : str
    scan : Scan
    size : int
        Pixels along x and y.
    every : int
    strength : float
        Of the total-variation reconstruction from all views, which is the reference where the scan holds no truth.
    """
    grid = choose_grid(scan, size)
    matched = match_detector(scan, grid)
    A = _matrix(grid, matched)
    if scan.truth is not None and scan.grid is not None:
        reference = resample(scan.truth, scan.grid, grid)
    else:
        weights = None if matched.weights is None else torch.tensor(matched.weights)
        reference = tv(A, torch.tensor(matched.projections), weights=weights, strength=strength).numpy()
    if every < 1:
        raise InputError(f"'every' takes a positive whole number, got {every}.")
    order = np.argsort(scan.geometry.angles, kind="stable")
    return subject(name, matched, A, candidates=order[::every], reference=reference)


def name_of_subject(path: Path) -> str:
    """What a scan's file is called in tables."""
    return path.name.split(".")[0]


def _matrix(grid: VolumeGrid, scan: Scan) -> MatrixRayTransform:
    A = ray_transform(grid, scan.geometry, backend="matrix")
    assert isinstance(A, MatrixRayTransform)
    return A
