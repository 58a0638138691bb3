"""The problems: a real scan and simulated objects, each with views that are used for nothing but to judge."""

from dataclasses import dataclass

import numpy as np

import ctuq
from ctuq.pipeline import match_detector
from ctuq.pipeline.image.job import choose_grid
from ctuq.recon.holdout import views_to_hold
from ctuq.tomo.simulate import phantom_scan
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


def problem_of(name: str, seed: int) -> Problem:
    """A problem by name; the seed is of the object and its noise, or of the first view of a real scan that is used."""
    if name in SIZES:
        full, size, step = load(name), SIZES[name], STEPS[name]
    else:
        angles = np.arange(VIEWS) * np.pi / VIEWS
        full, size, step = phantom_scan(name, OBJECT_SIZE, angles, noise=NOISE, seed=seed), OBJECT_SIZE, STEP
    used = np.arange(seed if name in SIZES else 0, full.n_angles, step)
    return Problem.of(name, size, full, used)
