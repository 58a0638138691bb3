"""Units by the words that other programs write: known ones in any spelling, unknown ones never guessed."""

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.files.angles import angles_of, checked_radians, looks_like_radians, returns, within_a_turn
from ctuq.files.units import millimetres, radians_of


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("mm", 1.0),
        ("Millimeters", 1.0),
        ("um", 1e-3),
        ("\N{MICRO SIGN}m", 1e-3),
        ("\N{GREEK SMALL LETTER MU}m", 1e-3),
        ("microns", 1e-3),
        ("Micrometre", 1e-3),
        ("um/pixel", 1e-3),
        ("mm per px", 1.0),
        ("[cm]", 10.0),
        ("m", 1e3),
        ("nm", 1e-6),
        ("Angstroms", 1e-7),
        ("inch", 25.4),
    ],
)
def test_a_length_is_read_in_its_unit(unit, size):
    assert millimetres(2.0, unit, "It") == pytest.approx(2 * size, rel=1e-12)


def test_what_has_no_size_is_none_and_what_is_unknown_is_refused():
    assert millimetres(1.0, "Pixels", "It") is None
    for unit in ("furlong", "mmm", "s", "ms"):
        with pytest.raises(InputError, match=unit):
            millimetres(1.0, unit, "It")
    with pytest.raises(InputError, match="steps"):
        radians_of([1.0], "steps", "They")


@pytest.mark.parametrize("unit", ["deg", "Degrees", "°", "degree"])
def test_angles_are_read_in_their_unit(unit):
    np.testing.assert_allclose(radians_of([180.0], unit, "They"), np.pi)


@pytest.mark.parametrize("count", [2, 5, 60, 721])
@pytest.mark.parametrize("turn", [np.pi, 2 * np.pi])
@pytest.mark.parametrize("whole", [False, True])
def test_even_radians_without_a_unit_are_recognised(count, turn, whole):
    angles = np.linspace(0, turn, count, endpoint=whole)
    if count == 2 and not whole:
        return
    read, warnings = angles_of(angles, "", "it")
    np.testing.assert_array_equal(read, angles)
    assert "radians" in warnings[0]


@pytest.mark.parametrize("span", [90.0, 180.0, 179.07, 199.5, 360.0, 3600.0])
@pytest.mark.parametrize("count", [7, 60, 1001])
def test_degrees_without_a_unit_stay_degrees(span, count):
    for angles in (np.linspace(0, span, count), np.linspace(-span / 2, span / 2, count, endpoint=False)):
        read, warnings = angles_of(angles, "", "it")
        np.testing.assert_allclose(read, np.deg2rad(angles))
        assert warnings == () and not looks_like_radians(angles)


def test_radians_that_are_degrees_are_refused_and_many_turns_are_not():
    for wrong in (np.arange(180.0), np.linspace(0, 180, 194), np.arange(12.0)):
        with pytest.raises(InputError, match="look like degrees"):
            checked_radians(wrong, "it", "angles")
    turns = np.deg2rad(np.arange(90) * 20.0)
    np.testing.assert_array_equal(checked_radians(turns, "it", "angles"), turns)
    folded, warnings = within_a_turn(turns)
    assert np.ptp(folded) < 2 * np.pi and "4.94 turns" in warnings[0]
    np.testing.assert_allclose(np.cos(folded), np.cos(turns), atol=1e-9)


def test_only_views_at_the_end_that_go_back_are_returns():
    steady = np.deg2rad(np.arange(0, 180, 3.0))
    assert returns(np.r_[steady, np.deg2rad([90, 0])]).sum() == 2
    for other in (steady, steady[::-1], np.r_[steady, steady], np.tile(steady[::6], 6), np.repeat(steady, 2)):
        assert not returns(other).any()
