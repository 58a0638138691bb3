import numpy as np
import pytest

from ctuq.app.selection import selected, views_at
from ctuq.errors import InputError
from ctuq.tomo.geometry import ParallelBeam, radians


def beam(degrees):
    return ParallelBeam(angles=radians(degrees), columns=4, pixel=1.0)


def test_angles_pick_the_nearest_view_in_the_order_asked_each_once():
    geometry = beam(np.arange(0, 180, 4.0))
    assert views_at(geometry, np.array([40, 0, 13.0, 12.5])).tolist() == [10, 0, 3]


def test_whole_turns_do_not_count():
    geometry = beam([-90.0, -60, -30, 0, 30])
    assert views_at(geometry, np.array([270, 300.0, 389])).tolist() == [0, 1, 4]


def test_an_angle_farther_than_half_a_step_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"measured at 50°.*at 40°"):
        views_at(beam([0.0, 4, 8, 40]), np.array([50.0]))


def test_a_single_view_is_found_only_nearby():
    assert views_at(beam([10.0]), np.array([10.2])).tolist() == [0]
    with pytest.raises(InputError):
        views_at(beam([10.0]), np.array([12.0]))


def test_selection_keeps_scan_and_geometry_together(scan):
    chosen = selected(scan, None, "36,0")
    np.testing.assert_array_equal(chosen.projections, scan.projections[[2, 0]])
    np.testing.assert_allclose(np.rad2deg(chosen.geometry.angles), [36, 0])
    assert selected(scan, 4, None).n_angles == 5
    assert selected(scan, None, None) is scan


@pytest.mark.parametrize("angles", ["", ",", "0;12", "north", "nan", "inf,3"])
def test_angles_that_are_no_numbers_are_refused(scan, angles):
    with pytest.raises(InputError, match="--angles takes"):
        selected(scan, None, angles)


@pytest.mark.parametrize("every", [0, -2])
def test_a_step_must_be_positive(scan, every):
    with pytest.raises(InputError, match="positive"):
        selected(scan, every, None)


def test_every_and_angles_exclude_each_other(scan):
    with pytest.raises(InputError, match="exclude"):
        selected(scan, 2, "0")
