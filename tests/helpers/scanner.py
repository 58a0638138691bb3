"""A simulated scanner for sessions: a small phantom at all candidate angles, and sessions on it."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from ctuq.design import Designer
from ctuq.design.session.file import Settings
from ctuq.design.session.session import Session
from ctuq.tomo import ParallelBeam, default_grid, ray_transform
from ctuq.tomo.phantoms import rectangles

SIZE = 12
GEOMETRY = ParallelBeam(angles=np.deg2rad(np.arange(0, 180, 6.0)), columns=18, pixel=1.0)
TINY = {"dip": {"iterations": 20, "check_every": 5, "network": {"channels": (4, 4), "skips": (2,)}}, "warm_iterations": 10}
SETTINGS = {"size": SIZE, "prior": "isotropic", "pilot": 3, "network": TINY}


@cache
def sinogram() -> np.ndarray:
    """Noisy line integrals of all candidates, (30, 18)."""
    grid = default_grid(GEOMETRY, SIZE)
    image = torch.tensor(0.05 * rectangles(SIZE, np.random.default_rng(0)), dtype=torch.float32)
    clean = ray_transform(grid, GEOMETRY, backend="matrix")(image).numpy()
    return clean + 0.05 * clean.mean() * np.random.default_rng(1).standard_normal(clean.shape)


def places(angles) -> np.ndarray:
    return np.abs(GEOMETRY.angles - np.atleast_1d(angles)[:, None]).argmin(1)


def measure(angles) -> np.ndarray:
    return sinogram()[places(angles)]


def start(folder: Path, **changes) -> Session:
    """A new session with its pilot plan, nothing told."""
    return Session.start(folder / "s.h5", GEOMETRY, Settings(**(SETTINGS | changes)))


def piloted(folder: Path, **changes) -> Session:
    """A session with its pilot views told and its model learned."""
    session = start(folder, **changes)
    angles = session.ask().angles
    session.tell(angles, measure(angles))
    return session


def grown(session: Session, steps: int) -> list[float]:
    """Ask and tell, each time from the file; the angles in degrees."""
    chosen = []
    for _ in range(steps):
        angles = Session(session.path).ask().angles
        Session(session.path).tell(angles, measure(angles))
        chosen += np.rad2deg(angles).tolist()
    return chosen


def by_designer(designer: Designer, steps: int, batch: int = 1) -> list[float]:
    """The same by a designer in memory."""
    chosen = []
    for _ in range(steps):
        angles = designer.ask(batch).angles
        designer.tell(angles, measure(angles))
        chosen += np.rad2deg(angles).tolist()
    return chosen
