from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ctuq.tomo.axis import axis_column, centred, find_axis, searched_axis, with_axis_column
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


def _scan(geometry, column, *, width=40.0, noise=0.02, centre=(2.0, -3.0), draw=ellipses):
    """What a detector with its axis at a column sees of an object, under the geometry without that knowledge."""
    grid = VolumeGrid((40, 40), width / 40, centre)
    true = with_axis_column(geometry, column)
    scan = simulate(partial(_fixed, draw), true, grid, RelativeNoise(noise), rng=np.random.default_rng(0), attenuation=0.03)
    return replace(scan, geometry=geometry, truth=None, grid=None)


def _views(geometry, degrees, n):
    return replace(geometry, angles=np.deg2rad(np.linspace(0, degrees, n, endpoint=False)))


@pytest.mark.parametrize(
    ("geometry", "column", "width"),
    [
        (_views(HALF, 180, 40), 49.4, 20),  # 28 % of the width from the middle
        (_views(HALF, 360, 48), 57.6, 40),  # half acquisitions: the axis near an edge, the other side of the object unseen
        (_views(HALF, 360, 24), 5.3, 40),
        (_views(FULL, 360, 40), 57.6, 40),
    ],
)
def test_the_whole_detector_is_searched(geometry, column, width):
    found = find_axis(_scan(geometry, column, width=width))
    assert found.reliable and abs(found.column - column) < min(0.4, 2 * found.uncertainty)


@pytest.mark.parametrize("geometry", [HALF, FULL])
@pytest.mark.parametrize("views", [3, 4, 5, 6, 8])
def test_few_views_find_the_axis_or_say_that_it_is_not_clear(geometry, views):
    found = find_axis(_scan(_views(geometry, 200, views), 34.3))
    assert not found.reliable or abs(found.column - 34.3) < 2 * found.uncertainty < 1.5
    assert found.reliable or (views < 6 and found.reason)


@pytest.mark.parametrize(("views", "width"), [(40, 64), (40, 110), (8, 110)])
def test_projections_cut_off_at_both_edges_find_the_axis_or_say_that_it_is_not_clear(views, width):
    found = find_axis(_scan(_views(HALF, 200, views), 35.2, width=width))
    assert not found.reliable or abs(found.column - 35.2) < 2 * found.uncertainty < 1.5


@pytest.mark.parametrize("draw", [ellipses, rectangles])
def test_a_short_arc_says_that_it_is_not_clear(draw):
    found = find_axis(_scan(_views(HALF, 30, 15), 34.3, draw=draw))
    assert not found.reliable and found.uncertainty > 0.5


def test_noise_widens_the_uncertainty():
    quiet, loud = (find_axis(_scan(_views(HALF, 180, 30), 34.3, noise=noise)) for noise in (0.01, 0.2))
    assert quiet.uncertainty < loud.uncertainty and abs(loud.column - 34.3) < 2 * loud.uncertainty


def test_an_axis_that_is_not_known_to_a_column_is_taken_where_the_rays_contradict_the_one_that_is_kept():
    wide = replace(HALF, columns=128)
    scan = _scan(_views(wide, 60, 30), 50.0, noise=0.05)
    found = find_axis(scan)
    assert not found.reliable and found.clear and found.uncertainty > 0.75
    column, text = searched_axis(scan)
    assert column == found.column == pytest.approx(50.0, abs=1.0) and f"± {found.uncertainty:.2f}" in text
    near = replace(scan, geometry=with_axis_column(scan.geometry, found.column + 1.5))
    assert searched_axis(near)[0] == axis_column(near.geometry)


def test_an_object_that_says_nothing_gives_no_reliable_axis():
    noise = np.random.default_rng(0).normal(size=HALF.shape).astype(np.float32)
    found = find_axis(Scan(noise, HALF))
    assert not found.reliable and found.reason


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (Scan(np.zeros(HALF.shape, np.float32), HALF), "zero"),
        (Scan(np.ones((2, 64), np.float32), HALF.subset([0, 1])), "2 angles"),
        (Scan(np.ones((9, 64), np.float32), replace(HALF, angles=np.full(9, 0.3))), "1 angle"),
        (Scan(np.ones((40, 1), np.float32), replace(HALF, columns=1)), "1 columns"),
    ],
)
def test_where_nothing_can_be_searched_the_geometrys_own_axis_is_kept_and_the_reason_told(scan, reason):
    found = find_axis(scan)
    assert reason in found.reason and not found.reliable
    assert found.column == axis_column(scan.geometry) and found.uncertainty == np.inf


def test_what_was_found_is_told_with_its_uncertainty_and_what_is_kept_with_the_reason():
    scan = _scan(_views(HALF, 180, 20), 34.3)
    column, text = searched_axis(scan)
    assert column == pytest.approx(34.3, abs=0.2) and f"column {column:.2f} ± " in text and "axis_column" in text
    kept = with_axis_column(HALF.subset([0, 1]), 20.0)
    column, text = searched_axis(Scan(np.ones((2, 64), np.float32), kept), "the file's value")
    assert (
        column == 20.0 and "(there are views of 2 angles) and taken at the file's value, column 20.00; give axis_column" in text
    )


def test_an_axis_that_explains_nothing_is_no_find():
    """Half of the detector was dead: the search said column 44.99 ± 0.27, with a misfit of 100 %."""
    scan = _scan(_views(HALF, 180, 60), 31.5, width=50.0)
    weights, projections = np.ones(scan.projections.shape, np.float32), scan.projections.copy()
    weights[:, 32:] = 0
    projections[:, 32:] = projections[:, 31:32]
    found = find_axis(replace(scan, projections=projections, weights=weights))
    assert not found.reliable and not found.clear


def test_an_axis_that_is_right_from_the_start_is_found_all_the_same():
    found = find_axis(_scan(_views(HALF, 180, 40), 31.5))
    assert found.reliable and abs(found.column - 31.5) < 0.2
