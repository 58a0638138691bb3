"""Angles that run too far, not far enough or the wrong way round show in what no object explains, though it lies centred."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.moments import stray_of_centre
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.tomo.turns import better_turn, to_and_fro


def scan(span, *, fan=False, views=30, noise=0.02):
    """Ellipses that are nearly centred."""
    angles = np.deg2rad(np.arange(views) * span / views)
    kind = {"angles": angles, "columns": 44}
    beam = FanBeam(**kind, pixel=2.0, source_to_axis=60.0, source_to_detector=120.0) if fan else ParallelBeam(**kind, pixel=1.0)

    def make(size):
        return ellipses(size, np.random.default_rng(3))

    return simulate(make, beam, VolumeGrid((32, 32), 1.0), RelativeNoise(noise), rng=np.random.default_rng(0), attenuation=0.1)


def told(scan, change):
    return replace(scan, geometry=replace(scan.geometry, angles=change(scan.geometry.angles)))


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("views", [12, 40])
@pytest.mark.parametrize(("span", "fan"), [(120, False), (180, False), (360, False), (360, True), (220, True)])
def test_of_a_scan_that_is_told_right_nothing_is_said(span, fan, views, noise):
    assert better_turn(scan(span, fan=fan, views=views, noise=noise)) is None


@pytest.mark.parametrize(
    ("span", "fan", "change", "words"),
    [
        (180, False, lambda a: 2 * a, "half as far"),
        (360, False, lambda a: a / 2, "twice as far"),
        (360, True, lambda a: a / 2, "twice as far"),
        (360, True, lambda a: -a, "the other way round"),
    ],
)
def test_the_turn_that_explains_the_projections_is_named(span, fan, change, words):
    found = better_turn(told(scan(span, fan=fan), change))
    assert found is not None and found[0] == words and 2 * found[1] < found[2]


def test_what_centres_of_mass_do_not_see_is_seen():
    wrong = told(scan(180), lambda a: 2 * a)
    assert stray_of_centre(wrong) is None and better_turn(wrong) is not None


def test_where_little_was_measured_nothing_is_said():
    wrong = told(scan(180), lambda a: 2 * a)
    assert better_turn(wrong.select(range(0, 30, 3))) is None
    assert better_turn(told(scan(180), lambda a: a / 4)) is None


def test_a_full_turn_of_a_sample_that_drifts_is_not_said_to_be_half_of_one():
    """Half a turn explains it better: there no view has an opposite one that could contradict it."""
    moved = scan(360, views=52, noise=0.0)
    by = np.linspace(-2, 2, moved.n_angles)
    lines = [np.interp(np.arange(44) - step, np.arange(44), line) for line, step in zip(moved.projections, by, strict=True)]
    moved = replace(moved, projections=np.array(lines, np.float32))
    assert better_turn(moved) is None
    wrong = told(scan(180, views=52, noise=0.0), lambda a: 2 * a)
    found = better_turn(wrong)
    assert found is not None and found[0] == "half as far"


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("views", [12, 16, 60])
@pytest.mark.parametrize(("span", "fan"), [(180, False), (360, False), (360, True)])
def test_of_the_end_of_a_turn_nothing_is_said_where_it_is_right(span, fan, views, noise):
    right = scan(span, fan=fan, views=views, noise=noise)
    assert better_turn(right) is None
    whole = scan(span * views / (views - 1), fan=fan, views=views, noise=noise)
    assert whole.geometry.angles[-1] == pytest.approx(np.deg2rad(span))
    assert better_turn(whole) is None


@pytest.mark.parametrize(("span", "views"), [(180, 16), (180, 30), (360, 30)])
def test_an_end_of_the_turn_that_was_counted_in_is_named(span, views):
    right = scan(span, views=views, noise=0.01)
    found = better_turn(told(right, lambda a: a * views / (views - 1)))
    assert found is not None and f"to {span - span / views:.4g} degrees, a step before" in found[0]
    whole = scan(span * views / (views - 1), views=views, noise=0.01)
    found = better_turn(told(whole, lambda a: a * (views - 1) / views))
    assert found is not None and f"to {span} degrees, the end of the turn itself" in found[0]


def test_arcs_that_end_nowhere_in_particular_have_no_better_turn():
    assert better_turn(told(scan(180), lambda a: 0.77 * a)) is None
    assert better_turn(told(scan(180), lambda a: a + 0.2 * np.sin(5 * a))) is None


def test_half_a_step_of_a_half_turn_is_a_quarter_turn_with_the_step_after_its_last_view():
    found = better_turn(told(scan(180, views=60), lambda a: a / 2))
    assert found is not None and found[0] == "twice as far"


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_views_that_go_to_and_fro_are_told(noise):
    right = scan(180, noise=noise)
    assert to_and_fro(right) is None
    rays = right.projections.copy()
    rays[1::2] = rays[1::2, ::-1]
    then, now = to_and_fro(replace(right, projections=rays))
    assert 2 * then < now
    assert to_and_fro(replace(right, projections=rays).select(range(8))) is None


def test_an_object_that_mirrors_itself_goes_nowhere():
    right = scan(180, noise=0.1)
    even = replace(right, projections=(right.projections + right.projections[:, ::-1]) / 2)
    assert to_and_fro(even) is None


@pytest.mark.parametrize("span", [180, 360])
def test_an_axis_beside_its_place_and_flux_that_falls_are_no_wrong_turn(span):
    """Over half of the arc there are no opposite views that could contradict one another."""
    right = scan(span, views=60)
    assert better_turn(replace(right, geometry=replace(right.geometry, detector_offset=1.0))) is None
    falling = right.projections + np.linspace(0, 0.4, 60)[:, None] * right.projections.max()
    assert better_turn(replace(right, projections=falling)) is None
    assert better_turn(told(replace(right, projections=right.projections), lambda a: 2 * a))[0] == "half as far"


def test_angles_that_are_the_views_numbers_are_told():
    right = scan(180, views=120, noise=0.01)
    found = better_turn(told(right, lambda a: np.deg2rad(np.arange(120))))
    assert found is not None and found[0].startswith("over 180 degrees")
    assert better_turn(scan(120, views=120)) is None  # in steps of a degree
    assert better_turn(scan(60, views=60)) is None
    few = better_turn(told(scan(180, views=60, noise=0.01), lambda a: np.deg2rad(np.arange(60))))
    assert few is not None and few[0].startswith("over 180 degrees")
