"""A result whose posterior is known in closed form: a Gaussian prior, few parallel rays, all directions kept."""

from types import SimpleNamespace

import numpy as np
import pytest

from ctuq.tomo import ParallelBeam, Scan, VolumeGrid
from ctuq.tomo.rays.entries import build_matrix
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.image import Result

SIZE, NOISE, SCALE = 12, 1e-4, 1.7


@pytest.fixture(scope="session")
def known():
    """``P`` (d, d) and ``gain`` (d, m) before calibration, rays ``A``, and the result that keeps them."""
    grid = VolumeGrid((SIZE, SIZE), 1.25, (2.0, -1.0))
    geometry = ParallelBeam(angles=np.arange(6) * np.pi / 6, columns=18, pixel=1.25)
    A = build_matrix(grid, geometry).toarray().astype(np.float64)
    place = np.indices(grid.shape).reshape(2, -1).T
    apart = np.linalg.norm(place[:, None] - place, axis=2)
    prior = 1e-4 * np.exp(-apart / 3)
    P = np.linalg.inv(np.linalg.inv(prior) + A.T @ A / NOISE)
    values, vectors = np.linalg.eigh(SCALE * P)
    mean = (0.02 + 0.01 * np.sin(place[:, 0] / 2)).reshape(grid.shape).astype(np.float32)
    scan = Scan((A @ mean.ravel()).reshape(geometry.shape).astype(np.float32), geometry)
    calibration = Calibration((1,), SCALE, 0.8, 0.3, 0.3, {}, {}, np.zeros((4, 1, 18), np.float32))
    result = Result(
        mean,
        scan,
        grid,
        "dip",
        std=np.sqrt(SCALE * P.diagonal()).reshape(grid.shape).astype(np.float32),
        directions=(np.sqrt(values.clip(0)) * vectors).T.reshape(-1, *grid.shape),
        sigma2=0.8 * NOISE,
        calibration=calibration,
    )
    return SimpleNamespace(P=P, A=A, gain=P @ A.T / NOISE, result=result, grid=grid)
