import numpy as np
import pytest

from ctuq.tomo.shadow import shadow_of


def _disc(centre, radius=10.0, columns=64, views=60):
    across = np.arange(columns) - centre
    return np.tile(2 * np.sqrt(np.maximum(0, radius**2 - across**2)), (views, 1)) / 20


def test_a_whole_object_sees_air_at_both_edges_and_is_framed():
    shadow = shadow_of(_disc(30.0))
    assert shadow.cut == (False, False) and shadow.air.all()
    assert 16 <= shadow.first <= 20 and 40 <= shadow.last <= 44


@pytest.mark.parametrize(("centre", "cut"), [(5.0, (True, False)), (60.0, (False, True))])
def test_an_object_beyond_an_edge_is_cut_there(centre, cut):
    assert shadow_of(_disc(centre)).cut == cut


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_noise_is_no_object_and_hides_none_that_every_view_sees(noise):
    noisy = np.random.default_rng(0).normal(0, noise, (60, 64))
    assert shadow_of(_disc(30.0) + noisy).cut == (False, False)
    assert shadow_of(_disc(5.0) + noisy).cut == (True, False)


@pytest.mark.parametrize(("views", "cut"), [(20, [7]), (60, [7, 8])])
def test_views_that_are_cut_are_seen(views, cut):
    rows = _disc(30.0, views=views)
    rows[cut] = _disc(8.0)[0]
    shadow = shadow_of(rows)
    assert shadow.cut == (True, False) and np.flatnonzero(~shadow.air[:, 0]).tolist() == cut
    assert shadow.beyond == (pytest.approx(rows[7, :3].mean()), 0.0)


def test_one_view_of_many_says_nothing_of_the_object():
    """What goes a column beyond the detector does so over several degrees."""
    rows = _disc(30.0)
    rows[7, :3] += 0.3
    shadow = shadow_of(rows)
    assert shadow.cut == (False, False) and np.flatnonzero(~shadow.air[:, 0]).tolist() == [7]


@pytest.mark.parametrize("offset", [0.0, -0.05])
def test_noise_that_is_alike_in_neighbouring_columns_is_no_object_and_hides_none(offset):
    noise = np.repeat(0.04 * np.random.default_rng(1).normal(size=(60, 8)), 8, axis=1) + offset
    rows = _disc(30.0) + noise
    assert np.ptp(rows[:, [0, -1]]) > 0.16 and shadow_of(rows).cut == (False, False)
    rows[[7, 8]] = _disc(8.0)[0] + noise[[7, 8]]
    assert shadow_of(rows).cut == (True, False) and np.flatnonzero(~shadow_of(rows).air[:, 0]).tolist() == [7, 8]
    assert shadow_of(_disc(60.0) + noise).cut == (False, True)


def test_flux_alike_at_both_edges_is_not_taken_for_noise():
    flux = 0.06 * np.random.default_rng(1).normal(size=(60, 1))
    assert shadow_of(_disc(30.0) + flux).cut == (True, True)


def test_rays_that_count_for_nothing_show_nothing():
    rows, weights = _disc(30.0), np.ones((60, 64))
    rows[:, -2:], weights[:, -2:] = 1.0, 0.0
    assert shadow_of(rows, weights).cut == (False, False)


def test_a_detector_of_one_column_has_edges_too():
    assert shadow_of(np.ones((5, 1))).cut == (True, True)


def test_an_object_that_ends_just_at_an_edge_is_seen_whole():
    assert shadow_of(_disc(31.5, radius=32.0)).cut == (False, False)
    assert shadow_of(_disc(31.5, radius=36.0)).cut == (True, True)


@pytest.mark.parametrize("level", [0.02, 0.04, 0.06])
def test_air_that_does_not_read_zero_cuts_no_object_off(level):
    x = np.linspace(-1.6, 1.6, 96)
    disc = 2 * np.sqrt(np.maximum(1 - x**2, 0))
    y = np.tile(disc, (40, 1)) + 2 * level * np.random.default_rng(0).uniform(0.5, 1, (40, 1))
    assert shadow_of(y).cut == (False, False)


def test_a_disc_that_is_a_little_too_wide_is_cut_off():
    x = np.linspace(-0.95, 0.95, 96)
    assert shadow_of(np.tile(2 * np.sqrt(1 - x**2), (40, 1))).cut == (True, True)
