import numpy as np
import pytest

from ctuq.tomo import VolumeGrid
from ctuq.tomo.resample import resample


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(size=(12, 18)).astype(np.float32)


def test_same_grid_gives_the_same_image(image):
    grid = VolumeGrid((12, 18), 0.5)
    np.testing.assert_array_equal(resample(image, grid, grid), image)


def test_coarser_pixels_are_the_mean_of_those_they_cover(image):
    coarse = resample(image, VolumeGrid((12, 18), 0.5), VolumeGrid((4, 6), 1.5))
    np.testing.assert_allclose(coarse, image.reshape(4, 3, 6, 3).mean((1, 3)), rtol=1e-6)


def test_finer_pixels_repeat_the_one_that_covers_them(image):
    fine = resample(image, VolumeGrid((12, 18), 0.5), VolumeGrid((24, 36), 0.25))
    np.testing.assert_allclose(fine, image.repeat(2, 0).repeat(2, 1), rtol=1e-6)


def test_partly_covered_pixels_take_shares_of_the_area():
    row = np.array([[1.0, 2.0, 4.0]] * 3, np.float32)
    halves = resample(row, VolumeGrid((3, 3), 2.0), VolumeGrid((2, 2), 3.0))
    np.testing.assert_allclose(halves, [[(2 * 1 + 1 * 2) / 3, (1 * 2 + 2 * 4) / 3]] * 2, rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 11), (30, 40)])
def test_mass_is_conserved_where_the_target_covers_the_image(image, shape):
    target = VolumeGrid(shape, 9.4 / min(shape))
    moved = resample(image, VolumeGrid((12, 18), 0.5), target)
    assert moved.sum(dtype=np.float64) * target.voxel**2 == pytest.approx(image.sum(dtype=np.float64) * 0.25, rel=1e-5)


def test_there_is_nothing_outside_the_image(image):
    around = resample(image, VolumeGrid((12, 18), 0.5), VolumeGrid((24, 24), 0.5))
    np.testing.assert_allclose(around[6:18, 3:21], image, rtol=1e-6)
    around[6:18, 3:21] = 0
    assert around.max() < 1e-12


@pytest.mark.parametrize(("axis", "offset"), [("x", (1.0, 0.0)), ("y", (0.0, 1.0))])
def test_moved_grid_sees_another_part(image, axis, offset):
    moved = resample(image, VolumeGrid((12, 18), 0.5), VolumeGrid((12, 18), 0.5, offset))
    # A grid 1 mm (two pixels) further along x sees what lies two columns to the right; further along y (up), two rows above.
    expected = np.zeros_like(image)
    if axis == "x":
        expected[:, :-2] = image[:, 2:]
    else:
        expected[2:] = image[:-2]
    np.testing.assert_allclose(moved, expected, atol=1e-6)
