import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ctuq.errors import InputError
from ctuq.quantities import Circle, Rectangle
from ctuq.quantities.budget import CALIBRATION, FINE, MISSING, NOISE
from ctuq.quantities.discrepancy import LEAK, LEAKS, PLACE, slope
from ctuq.quantities.drawn import DRAWS_ALONE
from ctuq.quantities.regions import shares_of
from ctuq.tomo import VolumeGrid

DISC, BOX = Circle(1.5, -1.0, 3.0), Rectangle(-4.0, -6.0, 1.0, -3.0)


def between(known, w):
    """What the discrepancy of edges adds."""
    x = np.pad(known.result.mean.astype(np.float64), 1, mode="edge")
    around = sum(x[1 + a : x.shape[0] - 1 + a, 1 + b : x.shape[1] - 1 + b] for a in (-1, 0, 1) for b in (-1, 0, 1)) / 9
    leak = LEAK * w @ (around - known.result.mean).ravel()
    return np.sum((PLACE * slope(known.result.mean).ravel() * w) ** 2) + leak**2


def weights(region, grid):
    shares = shares_of(region, grid).ravel()
    return shares / shares.sum()


def test_a_mean_has_the_variance_of_the_posterior(known):
    w = weights(DISC, known.grid)
    found = known.result.region(DISC)
    assert found.value == pytest.approx(w @ known.result.mean.ravel())
    assert found.standard_uncertainty**2 == pytest.approx(1.7 * w @ known.P @ w + between(known, w), rel=1e-3)
    assert found.interval[1] - found.value == pytest.approx(1.959964 * found.standard_uncertainty)
    assert (found.draws, found.monte_carlo_error, found.unit) == (0, 0.0, "1/mm")


def test_a_contrast_knows_that_its_regions_err_together(known):
    w = weights(DISC, known.grid) - weights(BOX, known.grid)
    found = known.result.contrast(DISC, BOX)
    assert found.value == pytest.approx(w @ known.result.mean.ravel())
    assert found.standard_uncertainty**2 == pytest.approx(1.7 * w @ known.P @ w + between(known, w), rel=1e-3)
    assert known.result.contrast(DISC, DISC).standard_uncertainty == pytest.approx(0, abs=1e-9)


def test_the_budget_splits_the_variance_as_closed_forms_do(known):
    w = weights(DISC, known.grid)
    found = known.result.region(DISC)
    whole, noise = w @ known.P @ w, 1e-4 * np.sum((w @ known.gain) ** 2)
    assert sum(found.budget.values()) == pytest.approx(found.standard_uncertainty**2)
    assert found.budget[NOISE] == pytest.approx(noise, rel=2e-3)
    assert found.budget[MISSING] == pytest.approx(whole - noise, rel=5e-3)
    assert found.budget[FINE] == pytest.approx(0, abs=1e-3 * whole)
    assert found.budget[CALIBRATION] == pytest.approx(0.7 * whole, rel=2e-3)


def test_a_scale_of_its_own_for_edges_is_calibration_and_no_noise(known):
    """Calibrated covariance T P T: noise and missing views are those of P, and what T adds is calibration."""
    grown = np.where(np.arange(known.P.shape[0]) % 5 == 0, 2.0, 1.1)
    P = grown[:, None] * known.P * grown
    values, vectors = np.linalg.eigh(P)
    kept = (np.sqrt(values.clip(0)) * vectors).T.reshape(-1, *known.grid.shape)
    sds = [np.sqrt(each.diagonal()).reshape(known.grid.shape).astype(np.float32) for each in (P, known.P)]
    calibration = replace(known.result.calibration, edge_ratio=3.3)
    found = replace(known.result, directions=kept, std=sds[0], std_raw=sds[1], calibration=calibration).region(DISC)
    w = weights(DISC, known.grid)
    whole, noise = w @ known.P @ w, 1e-4 * np.sum((w @ known.gain) ** 2)
    assert found.budget[NOISE] == pytest.approx(noise, rel=2e-3)
    assert found.budget[MISSING] == pytest.approx(whole - noise, rel=5e-3)
    assert found.budget[CALIBRATION] == pytest.approx(w @ P @ w - whole, rel=2e-3)
    assert sum(found.budget.values()) == pytest.approx(found.standard_uncertainty**2)


def test_rays_count_by_their_weights_in_the_budget(known):
    shape = known.result.scan.projections.shape
    first = np.zeros(shape, np.float32)
    first[0] = 1
    few = replace(known.result, scan=replace(known.result.scan, weights=first)).region(DISC).budget[NOISE]
    seen = (known.A @ known.P @ weights(DISC, known.grid)).reshape(shape)[0]
    assert few == pytest.approx(np.sum(seen**2) / 1e-4, rel=2e-3)
    doubled = replace(known.result, scan=replace(known.result.scan, weights=np.full(shape, 2, np.float32)), sigma2=1.6e-4)
    assert doubled.region(DISC).budget[NOISE] == pytest.approx(known.result.region(DISC).budget[NOISE], rel=1e-6)


def test_quantities_and_profiles_are_a_line_in_a_notebook(known):
    found, along = known.result.region(DISC, name="grain"), known.result.profile((-3.0, -5.0), (6.0, 2.0), step=1.0)
    assert repr(found) == f"<Quantity: {found}>" and repr(found).startswith("<Quantity: grain: 0.0")
    assert re.fullmatch(r"<Profile: 13 points over 11.4 mm, 0\.\d+ to 0\.\d+ 1/mm>", repr(along))


def test_a_profile_is_drawn_with_its_band(known, tmp_path):
    along = known.result.profile((-3.0, -5.0), (6.0, 2.0), level=0.68)
    figure = along.plot()
    (axes,) = figure.axes
    assert axes.get_xlabel() == "along the line (mm)" and axes.get_ylabel() == "attenuation (1/mm)"
    np.testing.assert_allclose(axes.lines[0].get_xydata(), np.stack([along.positions, along.values], axis=1))
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((along.band[0].min(), along.band[1].max()))
    assert "68 % interval" in axes.get_legend_handles_labels()[1][0]
    figure.savefig(tmp_path / "profile.png")


def test_a_profile_has_the_joint_covariance_of_its_points(known):
    found = known.result.profile((-3.0, -5.0), (6.0, 2.0), step=1.0)
    assert found.positions[-1] == pytest.approx(np.hypot(9, 7))
    assert np.diff(found.positions).max() <= 1.0 + 1e-9
    sd = np.array([point.standard_uncertainty for point in found.points])
    np.testing.assert_allclose(sd**2, found.covariance.diagonal())
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-9 * found.covariance.max()
    assert (found.band[0] < found.values).all() and (found.values < found.band[1]).all()


def test_a_mean_up_to_the_very_edge_of_a_part_holds_its_attenuation_though_the_edge_is_blurred(known):
    """Means over whole grains and holes missed by 10 to 20 standard deviations: blur takes across what is inside."""
    part = Circle(0.5, -0.5, 4.0)
    for inside, outside in ((0.05, 0.0), (0.0, 0.05)):
        object_ = outside + (inside - outside) * shares_of(part, known.grid)
        result = replace(known.result, mean=gaussian_filter(object_, 0.7, mode="nearest").astype(np.float32))
        found = result.region(part)
        assert abs(found.value - inside) > 4 * np.sqrt(found.standard_uncertainty**2 - found.budget[LEAKS])
        assert found.interval[0] <= inside <= found.interval[1]
        assert "inside of its edge" in found.notes[0]
        within, around = result.region(Circle(0.5, -0.5, 1.0)), result.region(Circle(0.5, -0.5, 6.0))
        for far in (within, around):
            assert far.budget[LEAKS] < 0.1 * found.budget[LEAKS]
        assert within.interval[0] <= inside <= within.interval[1]


def test_a_difference_adds_the_variances_of_two_scans(known):
    other = replace(known.result, mean=known.result.mean + np.float32(0.01))
    found = known.result.difference(other, DISC)
    assert found.value == pytest.approx(-0.01, rel=1e-4)
    one = known.result.region(DISC)
    # Both images have the same edges, which blur takes the same from.
    assert found.standard_uncertainty**2 == pytest.approx(2 * (one.standard_uncertainty**2 - one.budget[LEAKS]))
    assert found.budget[LEAKS] == pytest.approx(0, abs=1e-6 * one.budget[LEAKS])
    assert sum(found.budget.values()) == pytest.approx(found.standard_uncertainty**2)


def test_a_probability_is_that_of_the_gaussian(known):
    mean = known.result.region(DISC)
    limit = mean.value + mean.standard_uncertainty
    assert known.result.probability(DISC, above=limit).value == pytest.approx(0.158655, rel=1e-4)
    assert known.result.probability(DISC, below=limit).value == pytest.approx(0.841345, rel=1e-4)
    for limits in ({}, {"above": 1, "below": 2}, {"above": float("nan")}):
        with pytest.raises(InputError):
            known.result.probability(DISC, **limits)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -1, float("nan")])
def test_levels_that_are_no_probability_are_refused(known, level):
    with pytest.raises(InputError, match="level"):
        known.result.region(DISC, level=level)


def test_results_without_a_covariance_are_refused_in_one_sentence(known):
    for bare in (replace(known.result, directions=None), replace(known.result, std=None, method="fbp")):
        for ask in (lambda r: r.region(DISC), lambda r: r.profile((0, 0), (1, 1)), lambda r: r.measure(np.max)):
            with pytest.raises(InputError, match="no covariance"):
                ask(bare)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_results_with_nan_are_refused_and_not_told_as_nan(known, name):
    broken = getattr(known.result, name).copy()
    broken[2, 3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        replace(known.result, **{name: broken}).region(DISC)


def test_results_on_other_grids_have_no_difference(known):
    other = replace(known.result, grid=VolumeGrid(known.grid.shape, 1.0))
    with pytest.raises(InputError, match=r"different grids.*--size 12 --field"):
        known.result.difference(other, DISC)


def test_draws_of_a_linear_function_are_the_linear_quantity(known):
    w = weights(DISC, known.grid)
    exact = known.result.region(DISC)
    function = lambda image: float(w @ image.ravel())  # noqa: E731
    drawn, rough = (known.result.measure(function, tolerance=tolerance) for tolerance in (0.03, 0.2))
    assert drawn.monte_carlo_error <= 0.03 < rough.monte_carlo_error <= 0.2
    sd = np.sqrt(exact.standard_uncertainty**2 - exact.budget[LEAKS])
    assert drawn.standard_uncertainty == pytest.approx(sd, rel=0.12)
    assert drawn.value == pytest.approx(exact.value, abs=4 * sd / np.sqrt(drawn.draws))
    assert drawn.interval == pytest.approx((exact.value - 1.96 * sd, exact.value + 1.96 * sd), abs=0.4 * sd)


def test_a_function_that_answers_to_roughness_is_told(known):
    rough = known.result.measure(lambda image: float(np.abs(np.diff(image, 2)).sum()))
    assert rough.notes[0] == DRAWS_ALONE and "roughness" in rough.notes[1]
    assert known.result.measure(lambda image: float(image[4, 4])).notes == (DRAWS_ALONE,)


@pytest.mark.parametrize("function", [lambda image: np.nan, lambda image: image, lambda image: "x"])
def test_functions_that_give_no_number_are_refused(known, function):
    with pytest.raises((InputError, ValueError, TypeError)):
        known.result.measure(function)


def test_what_is_no_function_is_told_to_be_none(known):
    with pytest.raises(InputError, match="Give a function that takes the image and gives a number, not 3"):
        known.result.measure(3)


def test_a_constant_has_no_uncertainty(known):
    assert known.result.measure(lambda image: 3.0).standard_uncertainty == 0


def test_a_function_that_writes_into_its_image_spoils_nothing(known):
    def hollow(image):
        image[image < 0.02] = 0
        return float((image == 0).mean())

    before = known.result.mean.copy()
    known.result.measure(hollow, tolerance=0.2)
    assert (known.result.mean == before).all()


def test_a_function_that_gives_no_number_is_refused_in_one_sentence(known):
    for told in ("a", None, [1, 2], np.inf):
        with pytest.raises(InputError, match="one finite number for each image"):
            known.result.measure(lambda image, told=told: told)


def test_what_is_no_number_is_refused_in_one_sentence(known):
    whole = np.ones(known.grid.shape)
    for ask in (
        lambda: known.result.fraction(whole, above="a"),
        lambda: known.result.probability(whole, below="a"),
        lambda: known.result.thickness((0, 0), (3, 3), "a"),
        lambda: known.result.draw(2.5),
        lambda: known.result.draw(2, seed="a"),
        lambda: known.result.draw(True),
        lambda: known.result.region(whole * 1j),
    ):
        with pytest.raises(InputError):
            ask()
