"""The problems: a real scan and simulated objects, each with views that are used for nothing but to judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import ctuq
from ctuq.pipeline import match_detector
from ctuq.pipeline.image.job import choose_grid
from ctuq.recon.holdout import views_to_hold
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo.simulate import phantom_scan
from ctuq.uncertainty.results.unseen_views import predict_views
from experiments.unseen_views import load

OBJECT_SIZE, NOISE, VIEWS, STEP = 40, 0.05, 60, 3
SIZES, STEPS = {"walnut": 64, "ta": 48}, {"walnut": 4, "ta": 8}
"""Pixels of the real scans, and every which view of theirs is used."""
NAMES = ("walnut", "ta", "glyph", "rectangles")


@dataclass(frozen=True, eq=False)
class Problem:
    """A scan to reconstruct, its held-out views, and others of the same object.

    Parameters
    ----------
    name : str
    size : int
    scan, unseen : Scan
    """

    name: str
    size: int
    scan: ctuq.Scan
    unseen: ctuq.Scan

    @classmethod
    def of(cls, name: str, size: int, full: ctuq.Scan, used: np.ndarray) -> "Problem":
        """From these views of a scan; the others judge."""
        return cls(name, size, full.select(used), full.select(np.setdiff1d(np.arange(full.n_angles), used)))

    @property
    def grid(self) -> ctuq.VolumeGrid:
        """Of the image, as the reconstruction chooses it."""
        return choose_grid(self.scan, self.size, None)

    @property
    def held(self) -> np.ndarray:
        """Views that no fit is given."""
        return views_to_hold(self.scan, None)[0]

    def split(self) -> tuple[ctuq.Scan, ctuq.Scan]:
        """Both scans with columns as wide as the image's pixels."""
        return match_detector(self.scan, self.grid), match_detector(self.unseen, self.grid)


def unseen_scores(problem: Problem, result: ctuq.Result, of_truth: Sequence[str]) -> dict[str, float]:
    """Scores of the unseen rays by their own weights, and some against the truth: NaN where it is not known."""
    others = match_detector(problem.unseen, result.grid)
    A = ctuq.ray_transform(result.grid, others.geometry, backend="matrix")
    mean, variance = predict_views(result, A, others.weights)
    truth = result.scores.get("truth", {})
    return gaussian_scores(others.projections - mean, variance) | {f"truth_{n}": truth.get(n, float("nan")) for n in of_truth}


def problem_of(name: str, seed: int) -> Problem:
    """A problem by name; the seed is of the object and its noise, or of the first view of a real scan that is used."""
    if name in SIZES:
        full, size, step = load(name), SIZES[name], STEPS[name]
    else:
        angles = np.arange(VIEWS) * np.pi / VIEWS
        full, size, step = phantom_scan(name, OBJECT_SIZE, angles, noise=NOISE, seed=seed), OBJECT_SIZE, STEP
    used = np.arange(seed if name in SIZES else 0, full.n_angles, step)
    return Problem.of(name, size, full, used)
