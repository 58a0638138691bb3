import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctuq.errors import GeometryError
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, default_grid, radians
from ctuq.tomo.coverage import detector_columns, require_coverage

FAN = dict(source_to_axis=60.0, source_to_detector=150.0)

angle_lists = st.lists(st.floats(-6, 6), min_size=1, max_size=6)
offsets = st.floats(-3, 3)


def beams(angles, detector_offset=0.0, axis_offset=0.0, columns=40, pixel=1.0):
    shared = dict(angles=angles, columns=columns, pixel=pixel, detector_offset=detector_offset, axis_offset=axis_offset)
    return ParallelBeam(**shared), FanBeam(**shared, **FAN)


def expected_column(geometry, point):
    """Turn the object clockwise instead of the scanner counter-clockwise, then use similar triangles."""
    out = []
    for angle in geometry.angles:
        turned = np.exp(-1j * angle) * complex(*point) + geometry.axis_offset
        across = turned.real
        if isinstance(geometry, FanBeam):
            across *= geometry.source_to_detector / (geometry.source_to_axis + turned.imag)
        out.append((across - geometry.detector_offset) / geometry.pixel + (geometry.columns - 1) / 2)
    return np.array(out)


@settings(max_examples=50, deadline=None)
@given(angle_lists, offsets, offsets, st.floats(-8, 8), st.floats(-8, 8))
def test_an_off_centre_point_falls_where_similar_triangles_say(angles, detector_offset, axis_offset, x, y):
    for geometry in beams(angles, detector_offset, axis_offset):
        columns = detector_columns(geometry, np.array([(x, y)]))[:, 0]
        np.testing.assert_allclose(columns, expected_column(geometry, (x, y)), atol=1e-9)


def test_a_point_at_positive_x_falls_right_of_the_middle_at_angle_zero_and_a_quarter_turn_later_follows_y():
    for geometry in beams(radians([0, 90])):
        assert detector_columns(geometry, np.array([(5.0, 0.0)]))[0, 0] > 19.5
        assert detector_columns(geometry, np.array([(0.0, 5.0)]))[1, 0] > 19.5


def test_shifting_the_detector_moves_the_shadow_back_and_shifting_the_axis_moves_it_on():
    point = np.array([(0.0, 0.0)])
    for plain, shifted, moved in zip(beams([0.3]), beams([0.3], 2.0), beams([0.3], 0.0, 2.0), strict=True):
        middle = detector_columns(plain, point)
        np.testing.assert_allclose(detector_columns(shifted, point), middle - 2.0)
        np.testing.assert_allclose(detector_columns(moved, point), middle + 2.0 * plain.magnification)


@settings(max_examples=50, deadline=None)
@given(angle_lists, offsets, st.integers(0, 12), st.integers(30, 40))
def test_cropping_keeps_the_place_of_every_column_that_is_left(angles, offset, first, last):
    point = np.array([(3.0, -4.0)])
    for geometry in beams(angles, offset):
        before, after = detector_columns(geometry, point), detector_columns(geometry.cropped(first, last), point)
        np.testing.assert_allclose(after, before - first, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(angle_lists, offsets, st.integers(1, 7))
def test_a_binned_column_covers_the_columns_it_averages(angles, offset, factor):
    point = np.array([(3.0, -4.0)])
    for geometry in beams(angles, offset):
        before, after = detector_columns(geometry, point), detector_columns(geometry.binned(factor), point)
        np.testing.assert_allclose((after + 0.5) * factor, before + 0.5, atol=1e-9)


@given(st.integers(1, 6), st.data())
def test_a_subset_keeps_the_order_asked_for(count, data):
    geometry = beams(np.linspace(0, 3, 9))[1]
    indices = data.draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    np.testing.assert_array_equal(geometry.subset(indices).angles, geometry.angles[indices])
    np.testing.assert_array_equal(geometry.subset(indices).vectors(), geometry.vectors()[indices])


@settings(max_examples=50, deadline=None)
@given(offsets, offsets)
def test_every_view_sees_the_circle_of_the_field_of_view(detector_offset, axis_offset):
    around = np.linspace(0, 2 * np.pi, 200)
    for geometry in beams([0.4], detector_offset, axis_offset):
        circle = geometry.field_of_view / 2 * np.stack([np.cos(around), np.sin(around)], axis=1)
        columns = detector_columns(geometry, circle)
        assert columns.min() > -0.6
        assert columns.max() < geometry.columns - 0.4


def test_degrees_given_for_radians_are_refused():
    with pytest.raises(GeometryError, match="degrees"):
        ParallelBeam(angles=np.arange(0, 180, 3), columns=4, pixel=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(angles=[]), "No angle"),
        (dict(angles=[0.0, np.nan]), "not finite"),
        (dict(columns=0), "at least one column"),
        (dict(pixel=-1.0), "positive pixel"),
        (dict(pixel=np.inf), "not finite"),
        (dict(detector_offset=100.0), "columns beside the detector"),
        (dict(source_to_axis=200.0), "must exceed"),
    ],
)
def test_an_impossible_geometry_is_refused_in_one_sentence(change, message):
    with pytest.raises(GeometryError, match=message):
        FanBeam(**{**dict(angles=[0.0], columns=8, pixel=1.0), **FAN, **change})


@pytest.mark.parametrize(("shape", "voxel"), [((4,), 1.0), ((0, 4), 1.0), ((4, 4), 0.0), ((4, 4), np.nan)])
def test_an_impossible_grid_is_refused(shape, voxel):
    with pytest.raises(GeometryError):
        VolumeGrid(shape, voxel)


def test_geometries_are_values():
    first, second = beams([0.1, 0.2])[0], beams([0.1, 0.2])[0]
    assert first == second
    assert first != beams([0.1, 0.3])[0]
    with pytest.raises(ValueError, match="read-only"):
        first.angles[0] = 1.0


def test_the_default_grid_spans_the_field_of_view():
    for geometry in beams([0.0]):
        grid = default_grid(geometry, 16)
        assert grid.voxel * 16 == pytest.approx(geometry.field_of_view)


def test_resizing_a_grid_keeps_its_extent():
    grid = VolumeGrid((12, 24), 0.5, (1.0, 2.0))
    assert grid.resized(48).extent == grid.extent


def test_a_view_that_misses_the_image_is_named():
    for geometry in beams([0.0, np.pi / 2]):
        with pytest.raises(GeometryError, match="1 of 2 views"):
            require_coverage(VolumeGrid((4, 4), 1.0, (30.0, 0.0)), geometry)


def test_a_source_inside_the_image_is_refused():
    with pytest.raises(GeometryError, match="source lies inside"):
        require_coverage(VolumeGrid((200, 200), 1.0), beams([0.0])[1])
