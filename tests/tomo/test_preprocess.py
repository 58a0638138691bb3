import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.preprocess import open_beams, projections_from_counts, repaired, spikes, suspicion, where_an_object_can_stay
from ctuq.tomo.simulate import RelativeNoise, simulate


def _smooth(views=40, columns=60):
    s = np.linspace(-1, 1, columns)[None, :]
    t = np.linspace(0, np.pi, views)[:, None]
    return 2 * np.exp(-((s - 0.3 * np.cos(t)) ** 2) / 0.1)


def test_flats_and_darks_are_undone_exactly():
    p = _smooth()
    rng = np.random.default_rng(0)
    beam, dark = rng.uniform(500, 1500, 60), rng.uniform(10, 30, 60)
    counts = beam * np.exp(-p) + dark
    corrected = projections_from_counts(counts, np.stack([beam + dark] * 3), np.stack([dark] * 2))
    assert np.allclose(corrected.projections, p) and corrected.bad == 0


def test_weights_follow_the_expected_counts_with_mean_one():
    p = _smooth()
    corrected = projections_from_counts(1e4 * np.exp(-p), np.full(60, 1e4))
    assert corrected.weights.mean() == pytest.approx(1)
    expected = np.exp(-p) / np.exp(-p).mean()
    assert np.allclose(corrected.weights, expected, rtol=0.2)


def test_a_weight_of_one_stands_for_so_many_counts():
    counts = 1e4 * np.exp(-_smooth())
    counts[3, 10] = np.nan
    corrected = projections_from_counts(counts + 50, np.full(60, 1e4 + 50), np.full(60, 50.0))
    again = repaired(np.where(corrected.weights > 0, corrected.projections, np.nan), 7 * corrected.weights)
    assert corrected.unit * corrected.weights[20, 20] == pytest.approx(counts[20, 20], rel=0.05)
    assert again.unit == pytest.approx(7)


def test_rays_without_counts_are_interpolated_and_have_no_weight():
    p = _smooth()
    counts = 1e4 * np.exp(-p)
    counts[3, 10], counts[5, 20], counts[7, 30] = 0, -5, np.nan
    corrected = projections_from_counts(counts, np.full(60, 1e4))
    assert corrected.bad == 3
    for ray in ((3, 10), (5, 20), (7, 30)):
        assert corrected.weights[ray] == 0
        assert corrected.projections[ray] == pytest.approx(p[ray], abs=0.05)
    assert (corrected.weights > 0).sum() == p.size - 3


def test_rays_that_count_nothing_where_few_counts_are_expected_keep_what_is_expected():
    p = _smooth() * 3.4
    beam = 1000.0
    counts = np.random.default_rng(0).poisson(beam * np.exp(-p)).astype(float)
    counts[:, 5] = 0  # dead
    counts[7] = 0  # the shutter was closed
    corrected = projections_from_counts(counts, np.full(60, beam))
    dead = np.zeros(p.shape, bool)
    dead[:, 5] = dead[7] = True
    starved = (counts == 0) & ~dead
    assert starved.sum() > 50 and np.all(corrected.weights[dead] == 0)
    worth = corrected.weights[starved] * corrected.unit
    assert np.mean(worth > 0) > 0.9 and worth.max() < 5
    assert np.abs(corrected.projections - p)[starved].mean() < 0.5


def test_a_saturated_ray_is_taken_between_nothing_and_its_bound():
    p, beam, full = _smooth(), 2e5, 65535.0
    counts = np.minimum(beam * np.exp(-p), full)
    corrected = projections_from_counts(counts, np.full(60, beam), full=full)
    lost, bound = counts == full, np.log(beam / full)
    assert 0.2 < lost.mean() < 0.8
    assert np.allclose(corrected.projections[~lost], p[~lost])
    assert np.allclose(corrected.projections[lost], bound / 2)
    worth = corrected.weights[lost] * corrected.unit
    assert np.allclose(worth, 12 / bound**2) and corrected.weights[~lost].min() > 10 * corrected.weights[lost].max()
    # Where the flats are no brighter nothing bounds it, and it stays as it is.
    as_before = projections_from_counts(counts, np.full(60, full))
    same = projections_from_counts(counts, np.full(60, full), full=full)
    assert np.array_equal(same.projections, as_before.projections) and np.array_equal(same.weights, as_before.weights)


def test_a_column_dead_in_the_flats_is_repaired():
    p = _smooth()
    flats = np.full((2, 60), 1e4)
    flats[:, 17] = 0
    corrected = projections_from_counts(1e4 * np.exp(-p), flats)
    assert np.all(corrected.weights[:, 17] == 0) and np.allclose(corrected.projections[:, 17], p[:, 17], atol=0.05)


def test_a_lost_view_is_taken_from_its_neighbours():
    p = _smooth()
    broken = p.copy()
    broken[12] = np.nan
    fixed = repaired(broken)
    assert np.all(fixed.weights[12] == 0) and np.allclose(fixed.projections[12], (p[11] + p[13]) / 2)


@pytest.mark.parametrize("counts", [np.zeros((4, 6)), np.full((4, 6), np.nan), np.full((4, 6), -3.0)])
def test_nothing_counted_is_refused(counts):
    with pytest.raises(InputError, match="No ray counted"):
        projections_from_counts(counts, np.ones(6))


def test_other_numbers_of_columns_are_refused():
    with pytest.raises(InputError, match="number of columns"):
        projections_from_counts(np.ones((4, 6)), np.ones((2, 5)))


def test_nothing_finite_is_refused():
    with pytest.raises(InputError, match="NaN"):
        repaired(np.full((3, 4), np.nan))


@pytest.mark.parametrize("fault", ["hot", "stuck"])
def test_a_bad_column_is_found_and_its_neighbours_are_kept(fault):
    p = _smooth() + 0.01 * np.random.default_rng(0).normal(size=(40, 60))
    broken = p.copy()
    broken[:, 31] = p[:, 31] + 1.0 if fault == "hot" else 0.7
    fixed = repaired(broken)
    assert list(np.flatnonzero((fixed.weights == 0).all(axis=0))) == [31]
    assert np.allclose(np.delete(fixed.projections, 31, axis=1), np.delete(p, 31, axis=1))
    assert np.allclose(fixed.projections[:, 31], p[:, 31], atol=0.1)


def test_rays_that_are_too_bright_are_spikes_and_dark_ones_are_none():
    p = _smooth() + 0.01 * np.random.default_rng(0).normal(size=(40, 60))
    broken = p.copy()
    broken[4, 9] += 2
    broken[20, 40] -= 3
    broken[7, 38] -= 0.9
    assert {tuple(i) for i in np.argwhere(spikes(broken))} == {(20, 40), (7, 38)}


@pytest.mark.parametrize("views", [1, 2])
def test_in_one_or_two_views_only_what_is_brighter_than_the_open_beam_is_a_spike(views):
    p = _smooth(views) + 0.01 * np.random.default_rng(0).normal(size=(views, 60))
    p[0, 9] -= 3
    p[0, 40] += 2
    assert {tuple(i) for i in np.argwhere(spikes(p))} == {(0, 9)}


@pytest.mark.parametrize("cleared", [0.0, 3.0])
def test_a_cosmic_ray_in_one_flat_or_dark_leaves_no_stripe(cleared):
    p, rng = _smooth(4), np.random.default_rng(0)
    flats = 5000 + rng.normal(0, cleared * 20, (5, 60))
    darks = 100 + rng.normal(0, cleared, (5, 60))
    struck, hit = flats.copy(), darks.copy()
    struck[2, 30], hit[1, 10] = 60000, 3000
    counts = 100 + 4900 * np.exp(-p)
    spoiled, whole = projections_from_counts(counts, struck, hit), projections_from_counts(counts, flats, darks)
    assert np.abs(spoiled.projections - whole.projections).max() < 0.02


@pytest.mark.parametrize("name", PHANTOMS)
@pytest.mark.parametrize(("views", "noise"), [(12, 0.0), (12, 0.05), (90, 0.05)])
def test_whole_scans_are_left_alone(name, views, noise):
    geometry = ParallelBeam(angles=np.linspace(0, np.pi, views, endpoint=False), columns=46, pixel=1.0)
    rng = np.random.default_rng(0)
    scan = simulate(lambda n: PHANTOMS[name](n, rng), geometry, VolumeGrid((32, 32), 1.0), RelativeNoise(noise), rng=rng)
    fixed = repaired(scan.projections)
    assert fixed.bad == 0 and np.array_equal(fixed.projections, scan.projections) and np.all(fixed.weights == 1)


def test_the_open_beam_is_interpolated_between_the_times_of_its_flats():
    views, flats = 10, np.array([[100.0], [102.0], [60.0], [20.0]])
    beams = open_beams(flats, np.array([0, 0, 5, 10]), views)
    np.testing.assert_allclose(beams[:, 0], np.interp(np.arange(views), [-0.5, 4.5, 9.5], [101, 60, 20]))
    np.testing.assert_allclose(open_beams(flats[:2], np.array([0, 0]), views), [[101]])


def test_counts_under_a_falling_beam_give_their_line_integrals():
    p, fall = _smooth(), np.linspace(1, 0.7, 40)
    flats = np.stack([np.full(60, 1e4), np.full(60, 1e4 * (0.7 - 0.3 / 39))])
    counts = 1e4 * fall[:, None] * np.exp(-p)
    corrected = projections_from_counts(counts, flats, flats_after=np.array([0.5, 40.5]))
    np.testing.assert_allclose(corrected.projections, p, atol=1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_column_is_kept_where_an_object_can_stay(noise):
    p = _smooth() + noise * np.random.default_rng(0).normal(size=(40, 60))
    wire = p.copy()
    wire[:, 30] += 0.8
    angles = np.linspace(0, np.pi, 40, endpoint=False)
    kept = repaired(wire, keep=where_an_object_can_stay(angles, 60, axis=30.0))
    assert kept.bad == 0 and kept.suspects == (30,) and np.array_equal(kept.projections, wire)
    elsewhere = repaired(wire, keep=where_an_object_can_stay(angles, 60, axis=45.0))
    assert elsewhere.bad == 40 and elsewhere.suspects == ()


def test_an_object_can_stay_in_more_columns_the_less_the_beam_turns():
    counts = [where_an_object_can_stay(np.linspace(0, np.deg2rad(arc), 9), 400, 200.0).sum() for arc in (360, 180, 90, 20)]
    assert counts == sorted(counts) and counts[0] < 8 and counts[-1] > 150


def test_a_column_that_nothing_crosses_is_not_taken_for_a_stuck_one():
    p = np.tile(np.sqrt(np.maximum(0, 1 - np.linspace(-1.2, 1.2, 61) ** 2)), (40, 1))
    for view in range(40):
        p[view, 20 + 2 * (view % 10)] += 1.0
    assert repaired(p).bad == 0


def test_a_column_that_never_changes_while_all_others_do_is_dead_wherever_it_lies():
    noise = 0.01 * np.random.default_rng(0).standard_normal((40, 60))
    values, everywhere = _smooth() + noise, np.ones(60, bool)
    values[:, 30] = 0.0
    assert np.flatnonzero(repaired(values, keep=everywhere).weights[0] == 0).tolist() == [30]
    # A wire on the axis changes by its noise; and where there is none, air does not change either.
    values[:, 30] = 3.0 + noise[:, 30]
    assert repaired(values, keep=everywhere).suspects == (30,)
    still = np.zeros((40, 60))
    still[:, 10:50] = _smooth(columns=40)
    still[:, 30] = 3.0
    assert repaired(still, keep=everywhere).suspects == (30,)


def test_columns_that_are_suspected_are_counted():
    assert suspicion((6,)).startswith("Column 6 stands out in all views and is kept")
    assert suspicion((6, 7)).startswith("Columns 6, 7 stand out in all views and are kept")
