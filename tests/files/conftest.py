from pathlib import Path

import numpy as np
import pytest

from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.scan import Provenance, Scan
from ctuq.tomo.simulate import PhotonNoise, RelativeNoise, simulate


@pytest.fixture
def shipped() -> Path:
    return Path(__file__).parents[2] / "data"


@pytest.fixture
def fan() -> FanBeam:
    angles = np.deg2rad(np.arange(24) * 15.0)
    return FanBeam(angles=angles, columns=40, pixel=0.7, source_to_axis=110.0, source_to_detector=300.0, detector_offset=0.27)


@pytest.fixture
def parallel() -> ParallelBeam:
    return ParallelBeam(angles=np.deg2rad(np.arange(30) * 6.0), columns=48, pixel=0.5)


def _object(size):
    return ellipses(size, np.random.default_rng(2))


@pytest.fixture
def fan_scan(fan) -> Scan:
    grid = VolumeGrid((24, 24), 0.35)
    return simulate(_object, fan, grid, RelativeNoise(0.02), rng=np.random.default_rng(0))


@pytest.fixture
def counted(parallel) -> Scan:
    """Log data of a parallel beam with weights, truth, grid and a full provenance."""
    grid = VolumeGrid((32, 32), 0.5, (0.1, -0.2))
    scan = simulate(_object, parallel, grid, PhotonNoise(5000), rng=np.random.default_rng(0), attenuation=0.1)
    told = Provenance("made up", "ab" * 32, ("first", "second"), {"sample": "Nüsse", "licence": "none"})
    return Scan(scan.projections, scan.geometry, scan.weights, scan.truth, scan.grid, told)
