from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo import FanBeam, ParallelBeam, Scan, radians
from ctuq.tomo.odd_views import odd_views
from ctuq.tomo.simulate import phantom_scan

DEGREES = np.arange(0, 180, 6.0)


def discs(geometry, *, noise=0.01, seed=0, at=((0.0, 0.0, 6.0),)):
    """Chords of discs (x, y, radius in mm) in a parallel beam or a fan."""
    rng, angle = np.random.default_rng(seed), geometry.angles[:, None]
    s = (np.arange(geometry.columns) - (geometry.columns - 1) / 2) * geometry.pixel
    out = np.zeros(geometry.shape)
    for x, y, radius in at:
        across, along = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
        if isinstance(geometry, FanBeam):
            slope = np.arctan(s / geometry.source_to_detector)
            distance = (geometry.source_to_axis + along) * np.sin(slope) - across * np.cos(slope)
        else:
            distance = s - across
        out += 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0)) * 0.1
    return Scan((out + noise * rng.standard_normal(out.shape)).astype(np.float32), geometry)


def parallel(columns=64, pixel=0.5):
    return ParallelBeam(angles=radians(DEGREES), columns=columns, pixel=pixel)


def changed(scan, view, how):
    projections = scan.projections.copy()
    projections[view] = how(projections[view])
    return replace(scan, projections=projections)


@pytest.mark.parametrize("how", [lambda row: 0 * row, lambda row: 3 * row, lambda row: 0.02 + 0 * row], ids=["0", "3", "flat"])
def test_a_view_that_no_object_makes_is_known_to_be_wrong(how):
    found = odd_views(changed(discs(parallel()), 7, how))
    assert found.wrong and np.flatnonzero(found.views).tolist() == [7]
    assert "first number 7 (at 42 degrees)" in found.told and "left out" in found.told


@pytest.mark.parametrize("drift", [0.0, 0.01])
def test_views_of_a_faint_object_are_compared_with_what_air_reads(drift):
    """Of 150 views of an X-ray microscope five read 40 times the object's sum, and most others half of it more or less."""
    faint = discs(parallel(), at=((3, 1, 1.0),))
    rng, spoilt = np.random.default_rng(1), [0, 28, 29]
    projections = faint.projections + rng.normal(0, drift, (len(DEGREES), 1))
    projections[spoilt, 4:-4] += 0.6
    found = odd_views(replace(faint, projections=projections.astype(np.float32)))
    assert found is not None and found.wrong and np.flatnonzero(found.views).tolist() == spoilt


def far_out():
    geometry = FanBeam(angles=radians(np.arange(0, 360, 6.0)), columns=400, pixel=1.0, source_to_axis=30, source_to_detector=60)
    return discs(geometry, at=((14.0, 0.0, 2.0),))


SOUND = {
    "disc": lambda: discs(parallel()),
    "two discs off the axis": lambda: discs(parallel(), at=((5, 2, 3.0), (-6, 1, 2.0))),
    "much noise": lambda: discs(parallel(), noise=3.0),
    "a thin wire": lambda: discs(parallel(), at=((9, 3, 0.3),)),
    "drift of the beam": lambda: replace(
        wire := discs(parallel(), at=((9, 3, 0.3),)),
        projections=(wire.projections + 0.02 * np.sin(np.arange(30) / 4)[:, None]).astype(np.float32),
    ),
    "near the source of a fan": far_out,
    "a simulated scan": lambda: phantom_scan("rectangles", 24, radians(DEGREES), noise=0.05, seed=2),
    "seven views": lambda: changed(discs(parallel()).select(range(7)), 3, lambda row: 0 * row),
    "half of the views empty": lambda: changed(discs(parallel()), slice(0, 15), lambda row: 0 * row),
    "half acquisition": lambda: discs(
        ParallelBeam(angles=radians(np.arange(0, 360, 6.0)), columns=64, pixel=0.5), at=((12, 0, 2.0), (0, 0, 1.0))
    ).cropped(30, 64),
}


@pytest.mark.parametrize("name", SOUND)
def test_views_that_an_object_can_make_are_kept(name):
    found = odd_views(SOUND[name]())
    assert found is None or not found.wrong


def test_where_the_object_reaches_beyond_the_detector_they_are_told_alone():
    found = odd_views(changed(discs(parallel()).cropped(24, 40), 7, lambda row: 3 * row))
    assert not found.wrong and "may be flats" in found.told


@pytest.mark.parametrize("offset", [0.4, 5.0, -3.0])
def test_a_view_whose_air_is_off_is_put_right_and_told(offset):
    sound = discs(parallel())
    scan = changed(sound, 7, lambda row: row + offset)
    found = odd_views(scan)
    assert not found.wrong and np.flatnonzero(found.air).tolist() == [7] and "so does their air" in found.told
    assert np.abs(found.corrected(scan).projections - sound.projections).max() < 0.02


def test_air_that_differs_from_edge_to_edge_is_no_offset():
    scan = changed(discs(parallel()), 7, lambda row: row + np.linspace(0.2, 0.6, len(row)))
    found = odd_views(scan)
    assert found is not None and found.air is None and found.corrected(scan) is scan


def test_a_film_that_is_longer_the_more_it_is_tilted_is_no_other_beam():
    tilts = radians(np.r_[np.arange(-66, 40, 2.0), 42.0])
    geometry = ParallelBeam(angles=tilts, columns=48, pixel=1.0)
    rays = 1 / np.cos(tilts)[:, None] + 0.05 * np.sin(np.arange(48) / 3 + 5 * tilts[:, None])
    film = Scan(rays.astype(np.float32), geometry)
    means = rays.mean(axis=1)
    assert np.sum(means > 1.5 * np.median(means)) > 2
    assert odd_views(film) is None
    found = odd_views(changed(film, 20, lambda row: 2 * row))
    assert found is not None and not found.wrong and "may be flats" in found.told
