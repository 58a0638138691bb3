import numpy as np
import pytest

from ctuq.errors import GeometryError
from ctuq.recon.holdout import choose_views
from ctuq.tomo import VolumeGrid, radians
from ctuq.tomo.coverage import detector_columns
from ctuq.tomo.footprint import detector_pixels, pitches, require_shadow, unseen_share, volume_grid
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D

ANGLES = radians(np.arange(-40, 320, 37.0))
SHARED = dict(angles=ANGLES, rows=12, columns=20, pixel=0.8, row_pixel=0.5)
OFFSETS = dict(detector_offset=0.7, row_offset=-0.3, axis_offset=-0.4)
CONE = dict(source_to_axis=40.0, source_to_detector=100.0)
POINT = np.array([(2.0, -3.0, 1.5)])


def turned(point, angle):
    """Across and along of a point in the frame of a view."""
    x, y, _ = point
    return x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)


def test_an_off_centre_point_falls_where_similar_triangles_say():
    geometry = ConeBeam(**SHARED, **OFFSETS, **CONE)
    rows, columns = detector_pixels(geometry, POINT)
    for view, angle in enumerate(ANGLES):
        across, along = turned(POINT[0], angle)
        scale = 100.0 / (40.0 + along)
        assert columns[view, 0] == pytest.approx(((across - 0.4) * scale - 0.7) / 0.8 + 9.5)
        assert rows[view, 0] == pytest.approx((1.5 * scale + 0.3) / 0.5 + 5.5)


def test_columns_are_those_of_the_fan_in_the_middle_plane():
    geometry = ConeBeam(**SHARED, **OFFSETS, **CONE)
    _, columns = detector_pixels(geometry, POINT)
    np.testing.assert_allclose(columns, detector_columns(geometry.plane, POINT[:, :2]), atol=1e-9)


def test_parallel_rays_onto_a_leaning_axis_see_a_point_move_on_an_ellipse():
    tilt = radians(30)
    rows, columns = detector_pixels(Parallel3D(**SHARED, **OFFSETS, axis_tilt=tilt), POINT)
    for view, angle in enumerate(ANGLES):
        across, along = turned(POINT[0], angle)
        assert columns[view, 0] == pytest.approx((across - 0.4 - 0.7) / 0.8 + 9.5)
        assert rows[view, 0] == pytest.approx((1.5 * np.cos(tilt) - along * np.sin(tilt) + 0.3) / 0.5 + 5.5)


def test_a_rolled_detector_turns_the_picture_the_other_way():
    shared = {**SHARED, "row_pixel": 0.8}
    straight, rolled = (ConeBeam(**shared, **CONE, roll=roll) for roll in (0.0, radians(90)))
    (r0, c0), (r1, c1) = detector_pixels(straight, POINT), detector_pixels(rolled, POINT)
    # Columns now run upwards: what was a row up is a column on, and what was a column on is a row down.
    np.testing.assert_allclose(c1 - 9.5, r0 - 5.5, atol=1e-9)
    np.testing.assert_allclose(r1 - 5.5, -(c0 - 9.5), atol=1e-9)


@pytest.mark.parametrize("turn", ["tilt", "yaw"])
def test_a_leaning_detector_is_hit_later_where_it_leans_away(turn):
    lean = radians(20)
    geometry = ConeBeam(**{**SHARED, "angles": [0.0]}, **CONE, **{turn: lean})
    side = (0.0, 2.0) if turn == "tilt" else (2.0, 0.0)
    rows, columns = detector_pixels(geometry, np.array([(side[0], 0.0, side[1])]))
    slope = 2.0 / 40.0
    # The ray (slope t, t) meets the plane (s cos, 100 + s sin) at s = 100 slope / (cos - slope sin).
    expected = 100 * slope / (np.cos(lean) - slope * np.sin(lean))
    found = (rows[0, 0] - 5.5) * 0.5 if turn == "tilt" else (columns[0, 0] - 9.5) * 0.8
    assert found == pytest.approx(expected)


def test_a_helix_raises_the_shadow_of_no_point_but_lowers_it_on_the_detector():
    geometry = ConeBeam(**SHARED, **CONE)
    heights = np.linspace(0, 3, len(ANGLES))
    rows, columns = detector_pixels(geometry.raised(heights), POINT)
    again, same = zip(
        *(detector_pixels(geometry.subset([view]), POINT - [0, 0, height]) for view, height in enumerate(heights)), strict=True
    )
    np.testing.assert_allclose(rows, np.concatenate(again), atol=1e-9)
    np.testing.assert_allclose(columns, np.concatenate(same), atol=1e-9)


def test_subsets_and_equality_hold_for_every_kind():
    cone = ConeBeam(**SHARED, **CONE)
    for geometry in (cone, Parallel3D(**SHARED), cone.raised(np.zeros(len(ANGLES)))):
        part = geometry.subset([3, 1])
        np.testing.assert_array_equal(part.vectors(), geometry.vectors()[[3, 1]])
        assert part.shape == (12, 2, 20)
        assert part == geometry.subset([3, 1]) != geometry.subset([1, 3])


def test_views_whose_columns_do_not_turn_about_z_have_the_angles_of_their_rays():
    turns = np.deg2rad(np.arange(0, 360, 15.0))
    beam = ConeBeam(angles=turns, rows=4, columns=5, pixel=1.0, source_to_axis=100.0, source_to_detector=150.0)
    table = beam.vectors()
    upended = np.hstack([table[:, :6], table[:, 9:], table[:, 6:9]])  # columns along z
    about_x = table.reshape(-1, 4, 3)[:, :, [2, 0, 1]].reshape(-1, 12)
    for other in (upended, about_x):
        angles = FreeBeam(table=other, rows=5, columns=4).angles
        steps = np.mod(np.diff(angles, append=angles[0]), 2 * np.pi)
        np.testing.assert_allclose(np.minimum(steps, 2 * np.pi - steps), np.deg2rad(15), atol=1e-9)
        assert choose_views(angles, 3)[1].size == 3 and not np.isin([0, 23], choose_views(angles, 3)[1]).all()
    still = np.zeros((9, 12))  # a source that moves along x before a detector that stands still
    still[:, 0], still[:, 1], still[:, 4], still[:, 6], still[:, 11] = np.linspace(-40, 40, 9), -100, 50, 1, 1
    angles = np.unwrap(FreeBeam(table=still, rows=4, columns=5).angles)
    np.testing.assert_allclose(np.abs(angles[-1] - angles[0]), 2 * np.arctan(40 / 150), rtol=1e-6)
    assert (np.sign(np.diff(angles)) == np.sign(angles[-1] - angles[0])).all()
    np.testing.assert_array_equal(FreeBeam(table=table, rows=4, columns=5).angles, np.arctan2(table[:, 7], table[:, 6]))
    assert (
        FreeBeam(table=table[[3, 3]], rows=4, columns=5).angles == FreeBeam(table=table[[3]], rows=4, columns=5).angles
    ).all()


def test_rays_are_told_apart_at_the_axis():
    assert pitches(ConeBeam(**SHARED, **CONE)) == pytest.approx((0.2, 0.32))
    assert pitches(Parallel3D(**SHARED, axis_tilt=radians(40))) == pytest.approx((0.5, 0.8))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(angles=[]), "No angle"),
        (dict(angles=np.arange(0, 360, 10.0)), "degrees"),
        (dict(angles=[np.nan]), "not finite"),
        (dict(rows=0), "rows"),
        (dict(row_pixel=-1.0), "pitch"),
        (dict(pixel=0.0), "pixel"),
        (dict(source_to_axis=100.0), "must exceed"),
        (dict(tilt=90.0), "radians"),
        (dict(roll=90.0), "radians"),
        (dict(detector_offset=100.0), "beside the detector"),
        (dict(row_offset=np.inf), "finite"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(change, told):
    with pytest.raises(GeometryError, match=told):
        ConeBeam(**{**SHARED, **CONE, **change})


def test_free_vectors_that_are_none_are_refused():
    table = ConeBeam(**SHARED, **CONE).vectors()
    for wrong, told in ((table[:, :11], "12"), (table[:0], "12"), (table * np.nan, "finite")):
        with pytest.raises(GeometryError, match=told):
            FreeBeam(table=wrong, rows=3, columns=3)
    flat = table.copy()
    flat[:, 9:12] = flat[:, 6:9]
    with pytest.raises(GeometryError, match="along the detector"):
        FreeBeam(table=flat, rows=3, columns=3)


def test_a_volume_that_no_ray_meets_or_that_holds_the_source_is_refused():
    geometry = ConeBeam(**SHARED, **CONE)
    require_shadow(VolumeGrid((8, 8, 8), 0.5), geometry)
    with pytest.raises(GeometryError, match="no shadow"):
        require_shadow(VolumeGrid((8, 8, 8), 0.5, (0, 0, 20.0)), geometry)
    with pytest.raises(GeometryError, match="inside the volume"):
        require_shadow(VolumeGrid((100, 100, 100), 1.0), geometry)
    with pytest.raises(GeometryError, match="volumes"):
        require_shadow(VolumeGrid((8, 8), 0.5), geometry)


def test_the_default_volume_is_what_the_detector_sees():
    geometry = ConeBeam(**SHARED, **CONE, row_offset=1.0)
    grid = volume_grid(geometry, 10)
    assert grid.shape[1:] == (10, 10)
    assert grid.voxel * 10 == pytest.approx(geometry.plane.field_of_view)
    assert grid.centre[2] == pytest.approx(1.0 / 2.5)
    assert grid.voxel * grid.shape[0] <= 12 * 0.5 / 2.5 + 1e-9
    assert 0 < unseen_share(volume_grid(geometry, 40), geometry) < 0.5
    flat = VolumeGrid((1, 10, 10), 0.1, grid.centre)
    assert unseen_share(flat, geometry) == 0


def test_a_grid_of_a_volume_lies_at_height_0_unless_told():
    assert VolumeGrid((2, 3, 4), 1.0).centre == (0, 0, 0)
    with pytest.raises(GeometryError, match="centre"):
        VolumeGrid((3, 4), 1.0, (0, 0, 0))


@pytest.mark.parametrize(("rows", "columns"), [(range(2, 2), None), (None, range(3, 3)), (range(3, 13), None)])
def test_a_part_without_rows_or_columns_is_refused(rows, columns):
    """An empty range was taken for all of them."""
    with pytest.raises(GeometryError, match=r"Rows 2 up to|Columns 3 up to|Rows 3 to 12"):
        ConeBeam(**SHARED, **CONE).part(rows, columns)
