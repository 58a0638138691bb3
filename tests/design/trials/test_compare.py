import numpy as np
import pytest
import scipy.optimize

from ctuq.design.trials.compare import Curves, _rising, curves, difference, needed_angles, saving, table
from ctuq.design.trials.trial import Trial
from ctuq.errors import InputError

COUNTS = np.arange(5, 41)


def rising(counts):
    """Error falling as one over the angles, in dB."""
    return 10 * np.log10(np.asarray(counts, float))


def trial(subject, strategy, values, *, seed=0, setting="one"):
    n = len(values)
    return Trial(
        subject=subject,
        strategy=strategy,
        seed=seed,
        setting=setting,
        counts=COUNTS[:n],
        views=np.zeros((n, 1), int),
        angles=np.zeros(1),
        qualities={"tv truth": np.asarray(values, float)},
        ask=np.zeros(0),
        learn=np.zeros(0),
    )


def needed_of(strategy, baseline):
    return needed_angles(COUNTS, strategy[None], baseline[None])[0]


def both(a, b):
    return Curves("tv truth", COUNTS, tuple(str(i) for i in range(len(a))), {"new": a, "old": b})


def test_a_design_that_needs_a_fifth_fewer_angles_is_found_to_save_twenty_percent():
    needed = needed_of(rising(COUNTS / 0.8), rising(COUNTS))
    np.testing.assert_allclose(1 - needed[5:] / COUNTS[5:], 0.2, atol=2e-3)


def test_out_of_reach_is_infinite_and_there_from_the_start_is_the_first_count():
    needed = needed_of(rising(COUNTS * 0.8), rising(COUNTS))
    assert np.isfinite(needed[COUNTS <= 32]).all() and np.isinf(needed[COUNTS > 32]).all()
    assert needed_of(rising(COUNTS) + 20, rising(COUNTS))[-1] == 5


def test_a_design_needs_as_many_angles_as_itself_even_where_its_curve_falls():
    curve = rising(COUNTS) + np.where(COUNTS % 2, 0.5, -0.5)
    np.testing.assert_allclose(needed_of(curve, curve)[[0, -1]], [5, 40], atol=1.01)
    np.testing.assert_allclose(needed_of(rising(COUNTS), rising(COUNTS)), COUNTS, atol=1e-6)


def test_curves_are_made_to_rise_by_isotonic_regression():
    rng = np.random.default_rng(4)
    wild = rising(COUNTS) + rng.standard_normal((20, len(COUNTS)))
    expected = [scipy.optimize.isotonic_regression(curve).x for curve in wild]
    np.testing.assert_allclose(_rising(wild), expected, atol=1e-12)


def test_differences_are_paired_so_that_subjects_cancel():
    rng = np.random.default_rng(0)
    level, noise = 20 * rng.standard_normal((6, 1)), 0.1 * rng.standard_normal((6, len(COUNTS)))
    old = rising(COUNTS) + level
    found = difference(both(old + 0.7 + noise, old), "new", "old")
    np.testing.assert_allclose(found.mean, 0.7 + noise.mean(0), atol=1e-9)
    np.testing.assert_allclose(found.error, noise.std(0, ddof=1) / 6**0.5, atol=1e-9)
    assert found.subjects == 6


def test_only_subjects_that_have_both_are_paired():
    old = np.stack([rising(COUNTS), rising(COUNTS), np.full(len(COUNTS), np.nan)])
    new = np.stack([rising(COUNTS) + 1, np.full(len(COUNTS), np.nan), rising(COUNTS) + 9])
    found = difference(both(new, old), "new", "old")
    np.testing.assert_allclose(found.mean, 1)
    assert found.subjects == 1 and np.isnan(found.error).all()
    with pytest.raises(InputError, match="No subject"):
        difference(both(new[1:], old[[1, 2]]), "new", "old")


def test_the_bootstrap_interval_covers_the_saving_of_the_population_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered, tries, subjects = 0, 80, 15
    for _ in range(tries):
        old = np.tile(rising(COUNTS), (subjects, 1))
        new = rising(COUNTS / 0.8) + 0.5 * rng.standard_normal((subjects, 1))
        low, high = saving(both(new, old), "new", "old", rng=rng, resamples=200).interval
        covered += low[15] <= 20 <= high[15]
    # A percentile interval over 15 subjects covers about 92 %; four standard errors of 80 tries.
    assert abs(covered / tries - 0.92) < 4 * (0.92 * 0.08 / tries) ** 0.5


def test_the_bootstrap_draws_both_designs_of_a_subject_together():
    rng = np.random.default_rng(2)
    level = 5 * rng.standard_normal((8, 1))
    found = saving(both(rising(COUNTS / 0.8) + level, rising(COUNTS) + level), "new", "old", rng=rng, resamples=50)
    np.testing.assert_allclose(found.low[10:], found.high[10:], rtol=1e-6)


def test_seeds_are_averaged_within_their_subject_and_rare_counts_kept():
    values = np.array([1.0, np.nan, 3.0])
    found = curves(
        [trial("a", "random", values), trial("a", "random", values + 2, seed=1), trial("b", "random", values + 10)], "tv truth"
    )
    np.testing.assert_array_equal(found.counts, COUNTS[[0, 2]])
    np.testing.assert_array_equal(found.values["random"], [[2, 4], [11, 13]])


def test_trials_of_different_settings_are_not_compared():
    with pytest.raises(InputError, match="different settings"):
        curves([trial("a", "x", [1, 2]), trial("b", "x", [1, 2], setting="two")], "tv truth")
    with pytest.raises(InputError, match="different settings"):
        curves([trial("a", "x", [1, 2]), trial("b", "x", [1, 2, 3])], "tv truth")
    with pytest.raises(InputError, match="judged by"):
        curves([trial("a", "x", [1, 2])], "dip truth")


def test_the_table_says_what_differs_and_what_is_saved():
    rng = np.random.default_rng(0)
    old = rising(COUNTS) + rng.standard_normal((4, 1))
    found = both(old + 1, old)
    rows = table(found, {"old": {"new": saving(found, "new", "old", rng=rng, resamples=100)}})
    row = next(r for r in rows if r["strategy"] == "new" and r["angles"] == 20)
    assert row["minus old (dB)"] == pytest.approx(1) and row["subjects"] == 4
    assert row["saved against old (%)"] == pytest.approx(100 * (1 - 10**-0.1), abs=0.1)
    assert not any("minus" in key for r in rows for key in r if r["strategy"] == "old")


def test_an_unknown_strategy_is_told():
    with pytest.raises(InputError, match="no strategy"):
        difference(both(np.ones((1, 36)), np.ones((1, 36))), "newer", "old")
