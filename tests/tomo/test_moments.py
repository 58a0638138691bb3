"""Projections that are of no one object at the angles that somebody tells are seen by their centres of mass."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo.geometry import FanBeam, ParallelBeam
from ctuq.tomo.moments import jump_of_centre, stray_of_centre
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


def fan_scan(angles, clockwise=False):
    """The same object in a fan of 24 degrees, seen at angles but told others by `replace`."""
    geometry = FanBeam(angles=angles, columns=COLUMNS, pixel=0.6, source_to_axis=60.0, source_to_detector=110.0)
    across, turned = geometry.axis_distances(np.arange(COLUMNS) - 0.4), np.asarray(angles)[:, None]
    turned = (-turned if clockwise else turned) - geometry.slants(np.arange(COLUMNS))
    chords = [
        mu * np.sqrt(np.maximum(0, r**2 - (across - x * np.cos(turned) - y * np.sin(turned)) ** 2))
        for mu, x, y, r in ((0.05, 2, 1, 7), (0.8, -4, 5, 1.5))
    ]
    values = sum(chords) + 0.003 * np.random.default_rng(0).standard_normal((len(angles), COLUMNS))
    return Scan(values, geometry)


@pytest.mark.parametrize("span", [360, 210])
def test_a_fan_beam_is_judged_by_its_parallel_rays(span):
    true = np.deg2rad(np.arange(0, span, 5.0))
    scan = fan_scan(true)
    assert stray_of_centre(scan) is None
    assert stray_of_centre(scan.select(np.random.default_rng(1).permutation(len(true)))) is None
    other = np.random.default_rng(0).permutation(true)
    for angles in (other, 0.8 * true if span == 360 else np.roll(true, 9)):
        assert stray_of_centre(Scan(scan.projections, replace(scan.geometry, angles=angles))) > 1
    # Unlike that of a parallel beam, a mirrored scan of a fan is of no object.
    assert span < 360 or stray_of_centre(fan_scan(true, clockwise=True)) > 0.8


def test_where_the_moment_means_nothing_nothing_is_said():
    wrong = 2 * TRUE
    assert stray_of_centre(scan(shadow()[:5], wrong[:5])) is None
    inside = Scan(shadow()[:, 30:50], ParallelBeam(angles=wrong, columns=20, pixel=0.2))
    assert stray_of_centre(inside) is None
    sparse = fan_scan(np.deg2rad(np.arange(0, 360, 24.0)))
    assert stray_of_centre(replace(sparse, geometry=replace(sparse.geometry, angles=sparse.geometry.angles * 1.1))) is None
    noise = np.random.default_rng(1).standard_normal((len(wrong), COLUMNS))
    assert stray_of_centre(scan(shadow() + noise, wrong)) is None


def test_one_jump_of_the_sample_is_told_and_where():
    rows = np.random.default_rng(0).normal(0, 0.01, shadow().shape)
    assert jump_of_centre(scan(shadow() + rows)) is None
    half = len(shadow()) // 2
    moved = np.concatenate([shadow()[:half], shadow(moved=1.0)[half:]])
    columns, view = jump_of_centre(scan(moved + rows))
    assert abs(columns) == pytest.approx(1, abs=0.1) and abs(view - half) <= 1
    assert jump_of_centre(scan(moved[::8] + rows[::8], TRUE[::8])) is None  # too few views


def test_what_strays_smoothly_jumps_nowhere():
    fine = np.deg2rad(np.arange(0, 180, 1.0))
    wave = np.sin(4 * fine)
    strays = np.stack([shadow(fine[i : i + 1], moved=m)[0] for i, m in enumerate(wave)])
    rows = np.random.default_rng(0).normal(0, 0.01, strays.shape)
    assert jump_of_centre(scan(strays + rows, fine)) is None
    steps = np.stack([shadow(fine[i : i + 1], moved=m)[0] for i, m in enumerate(np.sign(fine - 1.5))])
    assert jump_of_centre(scan(steps + rows, fine))[1] == pytest.approx(86, abs=1)
