from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.tomo.axis import axis_column, centred, find_axis, with_axis_column
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses, rectangles
from ctuq.tomo.scan import Scan
from ctuq.tomo.simulate import RelativeNoise, simulate

HALF = ParallelBeam(angles=np.linspace(0, np.pi, 40, endpoint=False), columns=64, pixel=1.0)
SPARSE = replace(HALF, angles=HALF.angles[::3])
FULL = FanBeam(
    angles=np.linspace(0, 2 * np.pi, 40, endpoint=False), columns=64, pixel=2.0, source_to_axis=150, source_to_detector=300
)


@pytest.mark.parametrize("geometry", [HALF, FULL])
def test_the_axis_is_where_a_central_point_is_projected(geometry):
    moved = with_axis_column(replace(geometry, axis_offset=0.7), 25.5)
    row = moved.vectors()[0]
    ray = -row[:2] if geometry is FULL else row[:2]
    # The column c whose position on the detector lies on the ray through the origin.
    across, centre = row[6:8] / np.linalg.norm(row[6:8]), row[3:5]
    normal = np.array([-ray[1], ray[0]])
    position = -(centre @ normal) / (across @ normal) / moved.pixel + 31.5
    assert position == pytest.approx(25.5) and axis_column(moved) == pytest.approx(25.5)


@pytest.mark.parametrize("draw", [ellipses, rectangles])
@pytest.mark.parametrize(("geometry", "column"), [(HALF, 28.3), (SPARSE, 36.0), (FULL, 33.85)])
def test_a_shifted_detector_is_found_within_a_quarter_column(geometry, column, draw):
    true = with_axis_column(geometry, column)
    phantom = partial(_fixed, draw)
    scan = simulate(phantom, true, VolumeGrid((40, 40), 1.0), RelativeNoise(0.03), rng=np.random.default_rng(0))
    found = find_axis(replace(scan, geometry=geometry))
    assert found.reliable and abs(found.column - column) < 0.25
    assert found.misfit < found.misfit_at_start


def _fixed(draw, size):
    return draw(size, np.random.default_rng(1))


def test_centring_keeps_the_data_and_says_what_was_done():
    scan = Scan(np.ones(HALF.shape, np.float32), HALF)
    moved = centred(scan, 30.0, "because")
    assert axis_column(moved.geometry) == 30.0 and moved.provenance.steps == ("because",)
    assert np.array_equal(moved.projections, scan.projections)


def test_an_object_that_says_nothing_gives_no_reliable_axis():
    noise = np.random.default_rng(0).normal(size=HALF.shape).astype(np.float32)
    assert not find_axis(Scan(noise, HALF)).reliable


@pytest.mark.parametrize("scan", [Scan(np.zeros(HALF.shape), HALF), Scan(np.ones((2, 64)), HALF.subset([0, 1]))])
def test_too_little_to_search_in_is_refused(scan):
    with pytest.raises(InputError, match="rotation axis"):
        find_axis(scan)
