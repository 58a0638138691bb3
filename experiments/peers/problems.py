"""The problems: a real scan and simulated objects, each with views that are used for nothing but to judge."""

from dataclasses import dataclass

import numpy as np

import ctuq
from ctuq import files
from ctuq.pipeline import match_detector
from ctuq.pipeline.image.job import choose_grid
from ctuq.recon.holdout import views_to_hold
from ctuq.tomo.simulate import phantom_scan

OBJECT_SIZE, WALNUT_SIZE, NOISE, VIEWS, STEP = 40, 64, 0.05, 60, 3


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
    """A problem by name; the seed is of the object and its noise, the walnut has but one."""
    if name == "walnut":
        full, size, step = files.read(files.demo_scan()), WALNUT_SIZE, 4
    else:
        angles = np.arange(VIEWS) * np.pi / VIEWS
        full, size, step = phantom_scan(name, OBJECT_SIZE, angles, noise=NOISE, seed=seed), OBJECT_SIZE, STEP
    used = np.arange(0, full.n_angles, step)
    return Problem(name, size, full.select(used), full.select(np.setdiff1d(np.arange(full.n_angles), used)))
