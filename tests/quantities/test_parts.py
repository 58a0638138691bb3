from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from ctuq.errors import InputError
from ctuq.quantities import Circle, Rectangle
from ctuq.quantities.discrepancy import SHIFT, SLACK
from ctuq.quantities.parts import largest_parts
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid
from ctuq.uncertainty.results.image import Result

SIZE, VOXEL = 24, 0.5
GRID = VolumeGrid((SIZE, SIZE), VOXEL)
SCAN = Scan(np.zeros((3, 40), np.float32), ParallelBeam(angles=np.arange(3.0), columns=40, pixel=VOXEL))
WHOLE = Rectangle(-6, -6, 6, 6)


def result_of(image, common=0.0, sd=1e-6):
    """An image whose pixels all err by the same Gaussian amount, but for very little."""
    shape = image.shape
    directions = np.stack([np.full(shape, common), np.zeros(shape)]).astype(np.float32)
    std = np.sqrt(np.full(shape, common**2 + sd**2)).astype(np.float32)
    return Result(image.astype(np.float32), SCAN, GRID, "dip", std=std, directions=directions, sigma2=1e-4)


def with_square(value=0.05, side=6, background=0.01):
    image = np.full((SIZE, SIZE), background)
    image[9 : 9 + side, 9 : 9 + side] = value
    return image


def test_the_largest_part_is_connected_by_faces_and_counts_shares():
    inside = np.zeros((2, 5, 5), bool)
    inside[0, 0, :3], inside[0, 1, 3], inside[0, 4, 4] = True, True, True
    weights = np.ones((5, 5))
    weights[0, 0] = 0.6
    assert largest_parts(inside, weights).tolist() == [2.6, 0.0]
    weights[0, 1] = 0.2
    assert largest_parts(inside, weights)[0] == pytest.approx(1.8)
    weights[0, 1] = 0
    assert largest_parts(inside, weights)[0] == 1.0


def test_a_part_that_fills_the_region_is_as_large_as_the_region():
    """Pixels of which less than a half lies in a disc were left out, so that no part could have its size."""
    result = result_of(np.full((SIZE, SIZE), 0.05))
    for disc in (Circle(0.1, -0.2, 1.5), Circle(0, 0, 4)):
        assert result.probability(disc, above=0.03, at_least=0.999 * np.pi * disc.radius**2).value == 1


def test_an_inclusion_that_is_sure_is_there_and_a_larger_one_is_not():
    result = result_of(with_square())
    there = result.probability(WHOLE, above=0.03, at_least=4.0)
    assert there.value == 1 and 0 < there.monte_carlo_error <= 0.01 and not there.notes
    assert result.probability(WHOLE, above=0.03, at_least=20.0).value == 0
    assert result.probability(Circle(-4, 4, 1.5), above=0.03, at_least=2.25).value == 0


def test_voids_are_parts_below():
    result = result_of(with_square(0.0, background=0.05))
    assert result.probability(WHOLE, below=0.02, at_least=4.0).value == 1
    assert result.probability(WHOLE, above=0.02, at_least=4.0).value == 1


def test_the_probability_is_that_of_the_level_where_all_pixels_err_together():
    image, common, level = with_square(0.05, side=8), 4e-3, 0.047
    result = result_of(image, common)
    found = result.probability(WHOLE, above=level, at_least=4.0)
    # The level errs by a share of the largest values too.
    sd = np.hypot(common, SLACK * 0.05)
    assert found.value == pytest.approx(norm.cdf((0.05 - level) / sd), abs=4 * found.monte_carlo_error)
    assert found.draws > 1000
    rough = result.probability(WHOLE, above=level, at_least=4.0, tolerance=0.05)
    assert rough.draws < found.draws and rough.monte_carlo_error <= 0.05


def test_the_size_is_unsure_by_the_place_of_its_edge():
    y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    radius = np.hypot(x, y)
    cone = 0.05 * np.clip(1.5 - radius / 8, 0, 1)
    result = result_of(cone)
    at = 8.0  # where the cone passes half of its top, in pixels

    def area(shift):
        return np.pi * (at + shift) ** 2 * VOXEL**2

    sizes = [area(-2 * SHIFT - 0.6), area(2 * SHIFT + 0.6)]
    few, many = (result.probability(WHOLE, above=0.025, at_least=size).value for size in sizes)
    assert few > 0.9 and many < 0.1


def test_what_the_image_shows_is_told_where_draws_say_otherwise():
    rough = result_of(with_square(0.05, side=8), sd=0.02)
    torn = rough.probability(WHOLE, above=0.045, at_least=15.0)
    assert torn.value < 0.5
    assert any("image itself shows" in note for note in torn.notes)
    small = result_of(with_square()).probability(WHOLE, above=0.03, at_least=1.0)
    assert any("smaller than 9 pixels" in note for note in small.notes)


@pytest.mark.parametrize("size", [0.0, -1.0, 0.2, np.nan, np.inf, 145.0])
def test_sizes_that_nothing_can_have_are_refused(size):
    with pytest.raises(InputError, match="part"):
        result_of(with_square()).probability(WHOLE, above=0.03, at_least=size)


def test_a_tolerance_and_limits_that_make_no_sense_are_refused():
    result = result_of(with_square())
    for wrong in ({"tolerance": 0.0}, {"tolerance": 0.5}, {"below": 0.1}, {"above": np.inf}):
        with pytest.raises(InputError):
            result.probability(WHOLE, at_least=2.0, **({"above": 0.03} | wrong))
    with pytest.raises(InputError, match="covariance"):
        replace(result, directions=None).probability(WHOLE, above=0.03, at_least=2.0)


def test_the_same_seed_gives_the_same_probability():
    result = result_of(with_square(), 0.01)
    one, two, three = (
        result.probability(WHOLE, above=0.045, at_least=4.0, tolerance=0.03, seed=seed).value for seed in (1, 1, 2)
    )
    assert one == two != three
