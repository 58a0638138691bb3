from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo import ParallelBeam, Scan, radians
from ctuq.tomo.preprocess import alone
from ctuq.tomo.stray_rays import without_stray_rays

DEGREES = np.arange(0, 180, 4.0)
GEOMETRY = ParallelBeam(angles=radians(DEGREES), columns=64, pixel=0.5)


def disc(x=2.0, y=-1.0, radius=6.0):
    """Line integrals of a disc, in mm, with the mean over each column's width."""
    s = ((np.arange(64 * 8) + 0.5) / 8 - 32) * 0.5
    across = x * np.cos(GEOMETRY.angles)[:, None] + y * np.sin(GEOMETRY.angles)[:, None]
    return 0.2 * np.sqrt(np.maximum(radius**2 - (s - across) ** 2, 0)).reshape(len(DEGREES), 64, 8).mean(axis=2)


def foil(thickness=0.05, length=16.0, degrees=60.0):
    """Line integrals of a thin strip near the axis, seen edge-on at one angle."""
    s = ((np.arange(64 * 32) + 0.5) / 32 - 32) * 0.5
    turn = GEOMETRY.angles[:, None] - np.deg2rad(degrees)
    half = 0.5 * (length * np.abs(np.sin(turn)) + thickness * np.abs(np.cos(turn)))
    flat = 0.5 * np.abs(length * np.abs(np.sin(turn)) - thickness * np.abs(np.cos(turn)))
    top = length * thickness / (half + flat)
    s = s - 0.25 * np.cos(turn)  # in the middle of a column where it is seen edge-on
    chord = np.clip((half - np.abs(s)) / np.maximum(half - flat, 1e-12), 0, 1) * top
    return chord.reshape(len(DEGREES), 64, 32).mean(axis=2)


def scan(rays, noise=0.01, seed=0):
    rays = rays + noise * np.random.default_rng(seed).standard_normal(rays.shape)
    return Scan(rays.astype(np.float32), GEOMETRY)


def hit(given, *places):
    projections = given.projections.copy()
    for view, column, value in places:
        projections[view, column] = value
    return replace(given, projections=projections)


def test_rays_that_no_object_makes_count_for_nothing_and_are_interpolated():
    sound = scan(disc())
    found = without_stray_rays(hit(sound, (10, 20, -6.0), (20, 40, 9.0), (44, 63, 7.0)))
    assert {tuple(map(int, i)) for i in np.argwhere(found.weights == 0)} == {(10, 20), (20, 40), (44, 63)}
    assert np.abs(found.projections - sound.projections).max() < 0.3
    assert "3 in all and first that of view 10 and column 20" in found.warnings[-1]


def test_what_a_detector_counted_nothing_of_is_none_of_them():
    weights = np.ones(GEOMETRY.shape, np.float32)
    weights[10, 20] = 0
    given = replace(hit(scan(disc()), (10, 20, 99.0)), weights=weights)
    assert without_stray_rays(given) is given


SOUND = {
    "a disc": lambda: scan(disc()),
    "a foil, edge-on in one view": lambda: scan(disc() + 4 * foil(), noise=0.002),
    "a foil alone": lambda: scan(foil(), noise=0.001),
    "a bead that moves by columns": lambda: scan(disc() + 30 * disc(11.0, 3.0, 0.2)),
    "a wire": lambda: scan(20 * disc(9.0, 0.0, 0.3)),
    "much noise": lambda: scan(disc(), noise=2.0),
    "air": lambda: scan(0 * disc(), noise=0.1),
    "no noise": lambda: scan(disc(), noise=0.0),
    "a gap": lambda: scan(disc() - disc(3.0, 1.0, 0.3)),
    "one view": lambda: scan(disc()).select([3]),
    "two columns": lambda: scan(disc()).cropped(30, 32),
    "truncated": lambda: scan(disc()).cropped(24, 44),
}


@pytest.mark.parametrize("name", SOUND)
def test_rays_of_an_object_stay_as_they_are(name):
    given = SOUND[name]()
    found = without_stray_rays(given)
    assert found.weights is None and (found.projections == given.projections).all()
    # A foil seen edge-on is told.
    assert bool(found.warnings) == ("foil" in name)


def test_where_nothing_says_how_much_an_object_is_a_dark_ray_is_told_alone():
    given = hit(scan(disc()).cropped(24, 44), (20, 8, 9.0))
    found = without_stray_rays(given)
    assert found.weights is None and (found.projections == given.projections).all()
    assert "view 20 and column 8, are far darker" in found.warnings[-1]


def test_the_edge_on_foil_is_a_ray_that_stands_alone():
    # Else the test above would say nothing.
    _, dark, _ = alone(SOUND["a foil, edge-on in one view"]().projections.astype(float))
    assert np.argwhere(dark).tolist() == [[15, 32]]


def test_air_that_is_stored_as_two_numbers_holds_no_stray_rays():
    """One storage step is more than ten robust deviations of values of which nearly all are one number."""
    step, rng = 0.018, np.random.default_rng(0)
    air = step * (rng.random((len(DEGREES), 64)) < 0.01)
    assert not np.any(alone(air)[:2])
    air[20, 30] = 5 * step
    assert np.argwhere(alone(air)[1]).tolist() == [[20, 30]]
