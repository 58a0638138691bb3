"""The axis of half acquisition, by views that are each other's mirror images."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo.axis import find_axis
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.mirrored import mirrored_axis
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.tomo.turns import better_turn


def scan(phantom, columns=46, offset=12.0, span=360.0, noise=0.02):
    beam = ParallelBeam(angles=np.deg2rad(np.arange(0, span, 3.0)), columns=columns, pixel=1.0, detector_offset=offset)
    image = 0.04 * PHANTOMS[phantom](160, np.random.default_rng(1))
    grid = VolumeGrid((40, 40), 1.0)
    found = simulate(image, beam, grid, RelativeNoise(noise), rng=np.random.default_rng(0), finer=4)
    # As a file tells it: nothing of where the axis is.
    return replace(found, geometry=replace(beam, detector_offset=0.0))


@pytest.mark.parametrize("phantom", ["ellipses", "rectangles", "shepp-logan"])
@pytest.mark.parametrize(("columns", "offset"), [(46, 8.0), (46, 12.0), (40, 14.0)])
def test_half_acquisition_tells_the_axis(phantom, columns, offset):
    half = scan(phantom, columns, offset)
    true = (columns - 1) / 2 - offset
    assert mirrored_axis(half) == pytest.approx(true, abs=0.3)
    found = find_axis(half)
    assert found.clear and found.column == pytest.approx(true, abs=0.3)
    assert better_turn(half) is None  # a wrong axis is no wrong turn


def test_without_a_whole_turn_or_an_object_nothing_is_said():
    assert mirrored_axis(scan("ellipses", span=180.0)) is None
    half = scan("ellipses")
    noise = np.random.default_rng(0).normal(size=half.projections.shape)
    assert mirrored_axis(replace(half, projections=noise)) is None
