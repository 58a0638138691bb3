"""Projections that are of no one object at the angles that somebody tells are seen by their centres of mass."""

import numpy as np
import pytest

from ctuq.tomo.geometry import FanBeam, ParallelBeam
from ctuq.tomo.moments import stray_of_centre
from ctuq.tomo.scan import Scan

DEGREES, COLUMNS = np.arange(0, 180, 4.0), 80
TRUE = np.deg2rad(DEGREES)


def shadow(angles=TRUE, moved=0.0):
    """A disc and a smaller one, off the axis, with noise."""
    across, turned = np.arange(COLUMNS) - 39.0, np.asarray(angles)[:, None]
    chords = [
        mu * np.sqrt(np.maximum(0, r**2 - (across - moved - x * np.cos(turned) - y * np.sin(turned)) ** 2))
        for mu, x, y, r in ((0.05, 8, 4, 18), (0.2, -6, 9, 4))
    ]
    return sum(chords) + 0.01 * np.random.default_rng(0).standard_normal((len(turned), COLUMNS))


def scan(projections, angles=TRUE):
    return Scan(projections, ParallelBeam(angles=angles, columns=COLUMNS, pixel=0.2))


def test_projections_of_one_object_do_not_stray():
    assert stray_of_centre(scan(shadow())) is None
    assert stray_of_centre(scan(shadow() + 0.02)) is None


@pytest.mark.parametrize(
    "angles",
    [2 * TRUE, np.random.default_rng(0).permutation(TRUE), np.roll(TRUE, 9)],
    ids=["twice the span", "another order", "begun elsewhere"],
)
def test_wrong_angles_are_seen(angles):
    assert stray_of_centre(scan(shadow(), angles)) > 0.5


def test_a_sample_that_moved_is_seen():
    assert stray_of_centre(scan(np.concatenate([shadow()[:20], shadow(moved=3.0)[20:35], shadow()[35:]]))) > 0.5


def test_where_the_moment_means_nothing_nothing_is_said():
    wrong = 2 * TRUE
    assert stray_of_centre(scan(shadow()[:5], wrong[:5])) is None
    inside = Scan(shadow()[:, 30:50], ParallelBeam(angles=wrong, columns=20, pixel=0.2))
    assert stray_of_centre(inside) is None
    fan = FanBeam(angles=wrong, columns=COLUMNS, pixel=0.2, source_to_axis=100.0, source_to_detector=200.0)
    assert stray_of_centre(Scan(shadow(), fan)) is None
    noise = np.random.default_rng(1).standard_normal((len(wrong), COLUMNS))
    assert stray_of_centre(scan(shadow() + noise, wrong)) is None
