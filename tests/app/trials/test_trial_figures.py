from dataclasses import replace

import numpy as np
import pytest

from ctuq.app.trials.figures import draw_angles, draw_comparison
from ctuq.design.trials.compare import curves, saving
from ctuq.design.trials.trial import Trial

COUNTS = np.arange(3, 9)
ANGLES = np.arange(12) * np.pi / 12


def trial(subject, strategy, lift, grown=True):
    rng = np.random.default_rng(len(subject))
    order = rng.permutation(12)
    views = np.full((6, 8), -1)
    for row, n in enumerate(COUNTS):
        views[row, :n] = order[:n] if grown else np.arange(n)[::-1] + row % 2
    return Trial(
        subject=subject,
        strategy=strategy,
        seed=0,
        setting="",
        counts=COUNTS,
        views=views,
        angles=ANGLES,
        qualities={"tv truth": 10 * np.log10(COUNTS) + lift},
        ask=np.zeros(0),
        learn=np.zeros(0),
    )


@pytest.fixture
def trials():
    lifts = {"equidistant": 0.0, "golden": -0.5, "eig lindip": 0.4}
    return [trial(s, n, lift + 0.1 * i) for i, s in enumerate("abc") for n, lift in lifts.items()]


def drawn(trials):
    found = curves(trials, "tv truth")
    rng = np.random.default_rng(0)
    savings = {
        b: {n: saving(found, n, b, rng=rng, resamples=20) for n in found.values if n != b} for b in ("equidistant", "golden")
    }
    return draw_comparison(found, "equidistant", savings)


def test_every_axis_has_a_label_with_its_unit(trials):
    axes = drawn(trials).axes
    assert [a.get_ylabel() for a in axes] == [
        "PSNR, TV reconstruction (dB)",
        "difference (dB)",
        "angles saved (%)",
        "angles saved (%)",
    ]
    assert [a.get_xlabel() for a in axes] == ["angles measured"] * 2 + ["angles of the baseline"] * 2


def test_bands_stand_around_adaptive_designs_on_several_subjects_only(trials):
    many, one = drawn(trials).axes, drawn([t for t in trials if t.subject == "a"]).axes
    assert [len(a.collections) for a in many] == [0, 1, 1, 1]
    assert [len(a.collections) for a in one] == [0, 0, 0, 0]


def test_lines_show_the_means_and_the_paired_differences(trials):
    axes = drawn(trials).axes
    lines = {line.get_label(): line.get_ydata() for line in axes[0].get_lines()}
    np.testing.assert_allclose(lines["eig lindip"], 10 * np.log10(COUNTS) + 0.5)
    gaps = sorted(line.get_ydata()[0] for line in axes[1].get_lines() if len(line.get_ydata()) == len(COUNTS))
    np.testing.assert_allclose(gaps, [-0.5, 0.4], atol=1e-9)


def test_each_trial_gets_a_half_circle_with_all_its_angles(trials):
    figure = draw_angles(trials[:3])
    assert [a.get_title() for a in figure.axes] == ["equidistant", "golden", "eig lindip"]
    assert all(len(a.get_lines()) == 8 and np.rad2deg(a.get_thetamax()) >= 180 for a in figure.axes)
    angles = sorted(float(line.get_xdata()[0]) for line in figure.axes[0].get_lines())
    np.testing.assert_allclose(angles, np.sort(trials[0].taken(8)))


def test_only_a_grown_design_has_a_grey_pilot(trials):
    grown, anew = trials[0], trial("a", "equidistant", 0, grown=False)
    colours = [[line.get_color() for line in a.get_lines()] for a in draw_angles([grown, anew]).axes]
    assert [row.count("#9ca3af") for row in colours] == [3, 0]


def test_a_full_turn_is_drawn_as_a_full_circle(trials):
    whole = replace(trials[0], angles=2 * ANGLES)
    (axes,) = draw_angles([whole]).axes
    assert axes.get_thetamax() == 360
