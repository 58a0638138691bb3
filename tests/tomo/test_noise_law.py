import re
from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo.noise_agreement import agreement, agrees
from ctuq.tomo.noise_law import NoiseLaw, learned_law
from ctuq.tomo.preprocess import projections_from_counts

GAIN, ELECTRONIC, DARK = 2.0, 15.0, 100.0
LAW = NoiseLaw(GAIN, 0.0, ELECTRONIC, 0.0, ELECTRONIC**2 / GAIN, 0.0, flats=4, darks=5, columns=60)


def _beam(columns, level=1000.0):
    return level * (1 - 0.5 * np.linspace(-1, 1, columns) ** 2)


def _frames(mean, rng, electronic=ELECTRONIC):
    return DARK + GAIN * rng.poisson(mean / GAIN) + electronic * rng.standard_normal(np.shape(mean))


def _flats(rng, frames=10, columns=200, level=1000.0):
    return _frames(np.broadcast_to(_beam(columns, level), (frames, columns)), rng)


def _darks(rng, frames=10, columns=200):
    return _frames(np.zeros((frames, columns)), rng)


@pytest.mark.parametrize("frames", [2, 3, 10])
def test_gain_and_electronic_noise_are_found_within_their_errors(frames):
    z = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        law, why = learned_law(_flats(rng, frames), _darks(rng, frames), dim=200)
        assert law is not None, why
        z.append(
            [
                (law.gain - GAIN) / law.gain_error,
                (law.electronic - ELECTRONIC) / law.electronic_error,
                (law.ratio - LAW.ratio) / law.ratio_error,
                law.correlation / law.correlation_error,
            ]
        )
    assert np.all(np.abs(np.mean(z, 0)) < 0.5)
    assert np.all((np.std(z, 0) > 0.8) & (np.std(z, 0) < 1.25))


def test_a_drift_of_the_beams_brightness_and_tilt_drops_out():
    rng, x = np.random.default_rng(0), np.linspace(-1, 1, 400)
    drift = np.array([[1 + 0.1 * np.sin(k), 0.05 * np.cos(2 * k)] for k in range(10)])
    mean = _beam(400) * (drift[:, :1] + drift[:, 1:] * x)
    law, _ = learned_law(_frames(mean, rng), _darks(rng, columns=400))
    assert law is not None and abs(law.gain - GAIN) < 4 * law.gain_error < 0.2 * GAIN
    # Without it nothing is left of a beam that varies by a tenth: the variance would be of 20,000 and not 2,225.
    assert law.variance(np.array(1000.0)) == pytest.approx(2225, rel=0.1)


def test_dead_hot_and_struck_pixels_and_lost_frames_do_not_matter():
    rng = np.random.default_rng(0)
    flats, darks = _flats(rng), _darks(rng)
    plain, _ = learned_law(flats, darks)
    assert plain is not None
    flats[:, 20], flats[:, 60] = 5000 * rng.standard_normal(10), 65535.0
    flats[2, 100] += 20000
    darks[:, 7] = 4000 * rng.standard_normal(10)
    flats[3, 150] = np.nan
    more = np.concatenate([flats, darks[:1], np.full((1, 200), np.nan), flats[:1]])
    law, _ = learned_law(more, darks)
    assert law is not None and law.flats == 10
    assert law.gain == pytest.approx(plain.gain, rel=0.05) and law.electronic == pytest.approx(plain.electronic, rel=0.02)


def test_whole_counts_of_two_flats_of_which_many_agree_are_no_dead_columns():
    found, beam = [], _beam(3000, 200)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        flats = np.round(50 + 0.002 * rng.poisson(beam / 0.002, (2, 3000)) + 0.3 * rng.standard_normal((2, 3000)))
        darks = np.round(50 + rng.uniform(-0.5, 0.5, 3000) + 0.3 * rng.standard_normal((2, 3000)))
        assert np.mean(flats[0] == flats[1]) > 0.3
        law, _ = learned_law(flats, darks, dim=1e3)
        found += [float(law.variance(np.array(160.0)))] if law is not None else []
    assert len(found) == 20
    assert np.mean(found) == pytest.approx(0.002 * 160 + 0.3**2 + 1 / 12, rel=0.05)  # rounding included


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f, d: (f[:1], d), "fewer than two"),
        (lambda f, d: (np.repeat(f[:1], 5, 0), d), "fewer than two"),
        (lambda f, d: (f * np.nan, d), "fewer than two"),
        (lambda f, d: (np.minimum(f, 300), d), "fewer than two"),
        (lambda f, d: (f, f), "largest count"),
        (lambda f, d: (f[:, :6], d[:, :6]), "6 columns"),
        (lambda f, d: (f - DARK, None), "too uncertain"),
        (lambda f, d: (f - DARK, np.maximum(d - DARK, 0)), "not clearly above 0|too uncertain"),
        (lambda f, d: (np.mean([f, *(_flats(np.random.default_rng(k)) for k in range(9))], 0), d), "not clearly above 0"),
    ],
    ids=["one", "copies", "nan", "saturated", "no beam", "few columns", "no darks", "clipped darks", "averaged flats"],
)
def test_without_a_law_there_is_a_reason(change, why):
    rng = np.random.default_rng(0)
    law, reason = learned_law(*change(_flats(rng), _darks(rng)))
    assert law is None and re.search(why, reason)


def test_noise_that_grows_as_the_square_is_not_the_beams_quanta():
    rng, beam = np.random.default_rng(0), np.geomspace(50, 20_000, 400)
    flats = DARK + beam * (1 + 0.1 * rng.standard_normal((10, 400))) + rng.standard_normal((10, 400))
    law, why = learned_law(flats, DARK + rng.standard_normal((10, 400)))
    assert law is None and "square" in why


def test_darks_of_none_are_made_good_by_many_flats_of_a_steep_beam():
    rng = np.random.default_rng(0)
    beam = np.linspace(40, 1000, 400)
    law, _ = learned_law(GAIN * rng.poisson(beam / GAIN, (40, 400)) + ELECTRONIC * rng.standard_normal((40, 400)))
    assert law is not None and abs(law.electronic - ELECTRONIC) < 4 * law.electronic_error < 4


def test_flats_of_one_time_are_not_set_beside_those_of_another():
    rng = np.random.default_rng(0)
    bumps = 1 + 0.2 * np.sin(40 * np.linspace(-1, 1, 200))
    flats = np.concatenate([_flats(rng, 5), _frames(np.broadcast_to(_beam(200) * bumps, (5, 200)), rng)])
    apart, _ = learned_law(flats, _darks(rng), np.repeat([0, 90], 5))
    together, _ = learned_law(flats, _darks(rng))
    assert apart is not None and abs(apart.gain - GAIN) < 4 * apart.gain_error
    assert together is None or together.gain > 1.3 * GAIN


@pytest.mark.parametrize("side", [0.0, 0.1, 0.2])
def test_a_blurs_correlation_is_found(side):
    """A kernel (k, 1 - 2 k, k): neighbours share 2 k (1 - 2 k) of 2 k^2 + (1 - 2 k)^2."""
    rng = np.random.default_rng(0)
    flats = _frames(np.broadcast_to(_beam(600), (20, 600)), rng, 0.0)
    light = side * np.roll(flats, 1, 1) + (1 - 2 * side) * flats + side * np.roll(flats, -1, 1)
    law, _ = learned_law(light + rng.standard_normal((20, 600)), DARK + rng.standard_normal((20, 600)))
    expected = 2 * side * (1 - 2 * side) / (2 * side**2 + (1 - 2 * side) ** 2)
    assert law is not None and abs(law.correlation - expected) < 4 * law.correlation_error < 0.06
    assert law.is_correlated == (side > 0)


def test_the_least_signal_is_so_many_times_its_own_variance():
    for times, electronic in ((5.0, 0.0), (5.0, 15.0), (2.0, 3.0)):
        law = replace(LAW, electronic=electronic, ratio=electronic**2 / GAIN)
        least = law.least(times)
        assert least**2 == pytest.approx(times * float(law.variance(np.array(least))))
    assert replace(LAW, electronic=0.0, ratio=0.0).least(5.0) == pytest.approx(5 * GAIN)


def test_weights_follow_the_law_of_rays_flats_and_darks():
    """Of counts that are alike in all columns, which smoothing leaves alone, by the formula in `_worth`."""
    signal, beam = np.array([30.0, 100.0, 300.0, 900.0]), 1000.0
    counts = DARK + np.repeat(signal[:, None], 60, 1)
    flats, darks = np.full((4, 60), DARK + beam), np.full((5, 60), DARK)
    corrected = projections_from_counts(counts, flats, darks, law=LAW)

    def variance(s):
        return ELECTRONIC**2 + GAIN * s

    expected = variance(signal) / signal**2 + variance(beam) / 4 / beam**2 + ELECTRONIC**2 / 5 * (1 / signal - 1 / beam) ** 2
    np.testing.assert_allclose(corrected.unit * corrected.weights, np.repeat(GAIN / expected[:, None], 60, 1), rtol=1e-9)


def test_between_flats_of_two_times_their_noise_is_that_of_a_mean_of_both():
    counts, flats = np.full((9, 60), 500.0), np.full((4, 60), 1000.0)
    corrected = projections_from_counts(counts, flats, None, np.array([0, 0, 0, 9]), law=LAW)
    share = (np.arange(9) + 0.5) / 9
    flat = (1 - share) ** 2 / 3 + share**2
    expected = (500 + LAW.ratio) / 500**2 + flat * (1000 + LAW.ratio) / 1000**2
    np.testing.assert_allclose((corrected.unit * corrected.weights)[:, 0], 1 / expected, rtol=1e-9)


def test_a_law_of_quanta_alone_weights_rays_by_their_counts():
    law = replace(LAW, electronic=0.0, ratio=0.0)
    counts = DARK + np.repeat(np.array([[30.0], [100.0], [900.0]]), 60, 1)
    flats = np.full((10**6, 1), DARK + 1000.0) * np.ones((1, 60))
    plain, by_law = (projections_from_counts(counts, flats[:100], DARK * np.ones((1, 60)), law=which) for which in (None, law))
    np.testing.assert_allclose(by_law.weights, plain.weights, rtol=0.02)


def test_line_integrals_vary_by_the_weights_over_many_scans():
    rng, signal = np.random.default_rng(0), np.array([100.0, 300.0, 900.0])
    found = []
    for _ in range(400):
        counts = _frames(np.repeat(signal[:, None], 60, 1), rng)
        flats, darks = _frames(np.full((4, 60), 1000.0), rng), _frames(np.zeros((5, 60)), rng)
        corrected = projections_from_counts(counts, flats, darks, law=LAW)
        found.append(corrected.projections)
    variance = np.var(found, axis=0).mean(axis=1)
    told = projections_from_counts(
        DARK + np.repeat(signal[:, None], 60, 1), np.full((4, 60), DARK + 1000.0), np.full((5, 60), DARK), law=LAW
    )
    predicted = GAIN / (told.unit * told.weights[:, 0])
    # The first derivatives leave out a few percent where noise is a quarter of the signal.
    np.testing.assert_allclose(variance, predicted, rtol=0.12)
    np.testing.assert_allclose(variance[1:], predicted[1:], rtol=0.04)


@pytest.mark.parametrize(("frames", "times"), [(1, 1.0), (4, 0.25)])
def test_projections_that_are_means_of_frames_do_not_agree(frames, times):
    rng = np.random.default_rng(0)
    shadow = np.exp(-2 * np.exp(-(np.linspace(-3, 3, 120) ** 2)))
    mean = np.broadcast_to(_beam(120) * shadow, (40, 120))
    counts = np.mean([_frames(mean, rng) for _ in range(frames)], axis=0)
    found, in_air = agreement(counts - DARK, np.broadcast_to(_beam(120), counts.shape), LAW) or (0.0, False)
    assert in_air and found == pytest.approx(times, rel=0.15)
    assert agrees(found) == (frames == 1)


def test_a_columns_own_error_and_a_views_flux_are_no_disagreement():
    rng = np.random.default_rng(0)
    mean = np.broadcast_to(_beam(120), (80, 120)) * (1 + 0.03 * rng.standard_normal((80, 1)))
    beams = np.broadcast_to(_beam(120) * (1 + 0.05 * rng.standard_normal(120)), (80, 120))
    found, _ = agreement(_frames(mean, rng) - DARK, beams, LAW) or (0.0, False)
    assert found == pytest.approx(1, rel=0.15)
    assert agreement(np.ones((1, 120)), np.ones((1, 120)), LAW) is None
