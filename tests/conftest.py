import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, radians

torch.set_num_threads(1)
# Tests of experiments find them here; behind all else, so that an installed ctuq is the one that is tested.
sys.path.append(str(Path(__file__).resolve().parents[1]))


@pytest.fixture(scope="session", autouse=True)
def plans_are_quick():
    """A plan's minutes are nobody's concern here, and to measure them was a sixth of a small reconstruction."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctuq.pipeline.running.plan._MATRIX", 64)
        yield


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def gpu():
    """The device of a pretended GPU, for as long as the test runs: see `tests/helpers/pretend.py`."""
    from pretend import pretended_gpu

    with pretended_gpu() as device:
        yield device


@pytest.fixture(scope="session")
def disc_scan():
    """Noise-free parallel scan of an off-centre disc: 24 x 24 pixels of 1 mm, 30 angles, 36 columns, 0.05 / mm."""
    geometry = ParallelBeam(angles=radians(np.arange(0, 180, 6)), columns=36, pixel=1.0)
    grid = VolumeGrid((24, 24), 1.0)
    centre, radius, attenuation = (2.3, -1.6), 6.2, 0.05
    places = (np.arange(36 * 32) + 0.5) / 32 - 18
    shift = centre[0] * np.cos(geometry.angles) + centre[1] * np.sin(geometry.angles)
    chords = 2 * np.sqrt(np.maximum(radius**2 - (places - shift[:, None]) ** 2, 0)).reshape(30, 36, 32).mean(2)
    fine = (np.arange(24 * 16) + 0.5) / 16 - 12
    inside = (fine[None] - centre[0]) ** 2 + (-fine[:, None] - centre[1]) ** 2 <= radius**2
    truth = attenuation * inside.reshape(24, 16, 24, 16).mean((1, 3))
    return Scan(attenuation * chords, geometry, truth=truth, grid=grid)


@pytest.fixture(scope="session")
def noisy_scan(disc_scan):
    """Fifteen noisy views of the disc."""
    noise = 0.01 * np.random.default_rng(0).standard_normal(disc_scan.projections.shape)
    return replace(disc_scan, projections=disc_scan.projections + noise).every(2)
