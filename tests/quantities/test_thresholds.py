from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ctuq.errors import InputError
from ctuq.quantities import Circle, Rectangle
from ctuq.quantities.discrepancy import ALONE, FADES, SHIFT, SHIFTED, SLACKED, alternatives, thin_contrast
from ctuq.quantities.thresholds import shares_above
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid
from ctuq.uncertainty.results.image import Result

SIZE, VOXEL = 40, 0.5
GRID = VolumeGrid((SIZE, SIZE), VOXEL, (1.0, 2.0))


def image_of(inside, value=0.05):
    """Mean over each pixel, by 8 x 8 points, of what is ``value`` inside and 0 outside."""
    fine = 8
    left, _, _, top = GRID.extent
    x = left + (np.arange(SIZE * fine) + 0.5) * VOXEL / fine
    y = top - (np.arange(SIZE * fine) + 0.5) * VOXEL / fine
    return value * inside(x[None], y[:, None]).reshape(SIZE, fine, SIZE, fine).mean(axis=(1, 3))


def result_of(image, sd=1e-5, rank=4):
    rng = np.random.default_rng(0)
    scan = Scan(np.zeros((3, 60), np.float32), ParallelBeam(angles=np.arange(3.0), columns=60, pixel=VOXEL))
    std = np.full(image.shape, sd, np.float32)
    directions = (0.4 * sd * rng.standard_normal((rank, *image.shape))).astype(np.float32)
    return Result(image.astype(np.float32), scan, GRID, "dip", std=std, directions=directions, sigma2=1e-4)


def disc(x, y):
    return np.hypot(x - 1.7, y - 1.1) < 5.2


def test_the_share_of_a_pixel_above_a_plane_is_exact():
    y, x = np.indices((9, 9)).astype(float)
    for a, b in ((0.3, -0.7), (1.0, 0.0), (0.0, 0.2), (0.5, 0.5)):
        image = a * x + b * y
        points = (np.arange(200) + 0.5) / 200 - 0.5
        above = (image[4, 4] + a * points[None] + b * points[:, None] > image[4, 4] + 0.1).mean()
        assert shares_above(image, image[4, 4] + 0.1)[4, 4] == pytest.approx(above, abs=0.006)


def test_shares_are_all_or_nothing_in_flat_parts():
    image = np.full((5, 5), 0.02)
    assert (shares_above(image, 0.0199) == 1).all() and (shares_above(image, 0.0201) == 0).all()


def test_a_disc_has_its_area_and_its_centre_between_pixels():
    result = result_of(image_of(disc))
    around = Circle(1.7, 1.1, 7.0)
    share, area = result.fraction(around, above=0.025), result.area(around, above=0.025)
    exact = np.pi * 5.2**2
    assert area.value == pytest.approx(exact, rel=0.004) and area.unit == "mm^2"
    assert share.value == pytest.approx(5.2**2 / 7**2, rel=0.004)
    assert area.interval[0] < exact < area.interval[1]
    x, y = result.centre(around, above=0.025)
    assert (x.value, y.value) == (pytest.approx(1.7, abs=0.02), pytest.approx(1.1, abs=0.02))
    assert x.interval[0] < 1.7 < x.interval[1] and y.unit == "mm"


def test_above_and_below_are_all_of_a_region():
    result = result_of(image_of(disc), sd=2e-3)
    above, below = (result.fraction(Circle(0, 0, 6), **{side: 0.02}) for side in ("above", "below"))
    assert above.value + below.value == pytest.approx(1)
    assert above.standard_uncertainty == pytest.approx(below.standard_uncertainty, rel=1e-6)


def test_the_edge_term_is_the_area_that_a_shift_of_all_edges_makes():
    blurred = gaussian_filter(image_of(disc), 1.2)
    found = result_of(blurred).area(Circle(1.7, 1.1, 8.0), above=0.025)
    assert found.budget[SHIFTED] ** 0.5 == pytest.approx(2 * np.pi * 5.2 * SHIFT * VOXEL, rel=0.2)
    assert sum(found.budget.values()) == pytest.approx(found.standard_uncertainty**2)
    assert found.budget[ALONE] < found.budget[SHIFTED]


def test_a_level_near_a_plateau_is_very_unsure():
    image = image_of(disc, 0.03) + image_of(lambda x, y: np.hypot(x + 3, y + 3) < 2, 0.03)
    result = result_of(image)
    far, near = (result.fraction(Circle(1.7, 1.1, 7.0), above=level) for level in (0.015, 0.0296))
    assert near.budget[SLACKED] > 25 * far.budget[SLACKED]
    assert near.standard_uncertainty > 3 * far.standard_uncertainty


def test_thin_structures_below_the_level_are_not_taken_to_be_nothing():
    image = image_of(lambda x, y: (np.abs(x - 1.2) < 0.2) & (y > -100))
    found = result_of(image).area(Rectangle(-5, -4, 7, 6), above=0.045)
    assert found.value < 0.2
    assert found.budget[FADES] ** 0.5 > 1
    assert found.interval[1] > 0.4 * 10
    assert thin_contrast(image_of(disc))[SIZE // 2, SIZE // 2] == 0


def test_an_area_of_nothing_says_what_can_hide():
    result = result_of(image_of(disc))
    (note,) = result.fraction(Circle(1.7, 1.1, 4.0), above=0.06, name="share").notes
    assert note.startswith("share: the image shows nothing above 0.06")
    assert "all above 0.01" in result.fraction(Circle(1.7, 1.1, 4.0), above=0.01).notes[0]
    assert result.fraction(Circle(1.7, 1.1, 7.0), above=0.025).notes == ()


def test_shares_never_leave_zero_to_one():
    for level in (-1.0, 0.001, 0.049, 1.0):
        low, high = result_of(image_of(disc), sd=5e-3).fraction(Circle(1.7, 1.1, 4.0), above=level).interval
        assert 0 <= low <= high <= 1


def test_every_way_of_being_wrong_has_two_ends_around_the_image():
    image = image_of(disc)
    for name, one, other in alternatives(image, 0.025):
        areas = [shares_above(*each).sum() for each in (one, (image, 0.025, 0.0), other)]
        assert areas[0] >= areas[1] >= areas[2], name


def test_a_diameter_is_found_between_pixels_at_half_its_step():
    result = result_of(image_of(disc), sd=5e-4)
    found = result.thickness((-6.0, 1.1), (9.0, 1.1))
    assert found.value == pytest.approx(10.4, abs=0.05) and found.unit == "mm"
    assert found.interval[0] < 10.4 < found.interval[1]
    assert found.value == pytest.approx(result.thickness((-6.0, 1.1), (9.0, 1.1), 0.025).value, abs=0.03)
    assert 0.25 < found.standard_uncertainty / VOXEL < 2
    hole = result_of(0.05 - image_of(disc), sd=5e-4)
    assert hole.thickness((-6.0, 1.1), (9.0, 1.1)).value == pytest.approx(found.value, abs=0.01)


@pytest.mark.parametrize(
    "inside, line, words",
    [
        (lambda x, y: x + y > 50, ((-6.0, 1.1), (9.0, 1.1), 0.025), "0 times"),
        (lambda x, y: disc(x, y) & (np.hypot(x - 1.7, y - 1.1) > 3), ((-6.0, 1.1), (9.0, 1.1), 0.025), "4 times"),
        (lambda x, y: (np.abs(x - 1.0) < 0.5) & (y > -100), ((-4.0, 0.0), (6.0, 0.0), 0.025), "pixels thick"),
        (disc, ((-6.0, 1.1), (9.0, 1.1), 0.004), "of a step"),
        (disc, ((-6.0, 1.1), (9.0, 1.1), float("nan")), "finite"),
        (lambda x, y: np.abs(np.hypot(x - 1.7, y - 1.1) - 5) < 0.3, ((-3.2, 1.1), (6.6, 1.1), 0.02), "thinner than three"),
    ],
)
def test_what_has_no_two_edges_that_an_image_resolves_has_no_thickness(inside, line, words):
    with pytest.raises(InputError, match=words):
        result_of(image_of(inside)).thickness(*line)


def test_levels_and_regions_that_cannot_be_are_refused():
    result = result_of(image_of(disc))
    for limits in ({}, {"above": 0.1, "below": 0.2}, {"above": float("inf")}):
        with pytest.raises(InputError):
            result.fraction(Circle(0, 0, 3), **limits)
    with pytest.raises(InputError, match="half a pixel"):
        result.centre(Circle(0, 0, 3), above=1.0)
    with pytest.raises(InputError, match="tolerance"):
        result.fraction(Circle(0, 0, 3), above=0.02, tolerance=0)
    with pytest.raises(InputError, match="no covariance"):
        replace(result, directions=None).fraction(Circle(0, 0, 3), above=0.02)


def test_further_draws_are_the_same_and_cannot_be_spoilt():
    result = result_of(image_of(disc))
    first = result.draw(4, seed=3)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(result.draw(4, seed=3), kept)
