import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.quantities import Circle, Polygon, Rectangle, Sphere
from ctuq.quantities.lines import line
from ctuq.quantities.regions import shares_of
from ctuq.tomo import VolumeGrid

GRID = VolumeGrid((20, 30), 0.5, (1.0, -2.0))
SHAPES = (
    (Circle(1.3, -2.2, 3.1), np.pi * 3.1**2),
    (Circle(1.3, -2.2, 0.1), np.pi * 0.1**2),
    (Rectangle(-1.1, -3.3, 2.2, 0.4), 3.3 * 3.7),
    (Rectangle(2.2, 0.4, -1.1, -3.3), 3.3 * 3.7),
    (Polygon([(0, 0), (4, 0.3), (0.7, -5)]), abs(4 * -5 - 0.3 * 0.7) / 2),
    (Polygon([(-3, -5), (5, -5), (5, 1), (1, -3), (-3, 1)]), 8 * 6 - 0.5 * 8 * 4),
    (Polygon([(-3, -5), (5, -5), (5, 1), (-3, 1)], [[(0, -3), (2, -3), (2, -1), (0, -1)]]), 48 - 4),
    # Outlines that cross, meet themselves, or run twice around: what an odd number of them holds.
    (Polygon([(0, 0), (3.3, -3.3), (3.3, 0), (0, -3.3)]), 3.3**2 / 2),
    (Polygon([(-3, -5), (5, -5), (5, 1), (-3, 1)], [[(5, 1), (5, -2.3), (2.2, -2.3), (2.2, 1)]]), 48 - 2.8 * 3.3),
    (Polygon([(0, 0), (3, 0), (3, -3), (0, -3), (0, 0), (1.1, 0), (1.1, -1.1), (0, -1.1)]), 9 - 1.1**2),
    (Polygon([(0.1, 0), (4.1, -3), (-0.9, -3), (3.1, 0), (1.6, -5)]), None),
)


@pytest.mark.parametrize("shape, area", SHAPES)
def test_shares_sum_to_the_area_of_the_shape(shape, area):
    shares = shares_of(shape, GRID)
    assert shares.min() >= 0 and shares.max() <= 1 + 1e-12
    if area is not None:
        assert shares.sum() * GRID.voxel**2 == pytest.approx(area, rel=1e-9)


@pytest.mark.parametrize("shape, area", SHAPES)
def test_shares_are_those_of_a_fine_count(shape, area):
    """Against corners of a fine grid, each inside if its winding number is odd."""
    fine = 40
    left, _, _, top = GRID.extent
    x = left + (np.arange(30 * fine) + 0.5) * GRID.voxel / fine
    y = top - (np.arange(20 * fine) + 0.5) * GRID.voxel / fine
    inside = np.zeros((len(y), len(x)), bool)
    edges = [edge for points in shape.outlines for edge in zip(points, np.roll(points, -1, axis=0), strict=True)]
    for (x0, y0), (x1, y1) in edges:
        if y0 != y1:
            between = (y0 > y) != (y1 > y)
            inside ^= between[:, None] & (x[None] < (x0 + (y - y0) * (x1 - x0) / (y1 - y0))[:, None])
    counted = inside.reshape(20, fine, 30, fine).mean(axis=(1, 3))
    np.testing.assert_allclose(shares_of(shape, GRID), counted, atol=0.06)


def test_the_upper_left_pixel_is_at_the_smallest_x_and_the_largest_y():
    left, _, _, top = GRID.extent
    shares = shares_of(Rectangle(left, top, left + 0.5, top - 0.25), GRID)
    assert shares[0, 0] == pytest.approx(0.5) and shares.sum() == pytest.approx(0.5)


def test_a_whole_image_may_be_a_region():
    left, right, bottom, top = GRID.extent
    np.testing.assert_allclose(shares_of(Rectangle(left, bottom, right, top), GRID), 1)


def test_the_largest_circle_of_an_image_is_in_it():
    for n in (20, 128, 1024):
        grid = VolumeGrid((n, n), 0.7, (3.0, -1.0))
        shares = shares_of(Circle(3, -1, 0.7 * n / 2), grid)
        assert shares.sum() == pytest.approx(np.pi * n**2 / 4, rel=1e-4)


@pytest.mark.parametrize(
    "region, words",
    [
        (Polygon([(0, 0), (1.1, 1.1), (2.2, 2.2)]), "no part"),
        (Polygon([(0, 0), (0.3, -1), (0, 0), (0.3, -1)]), "no part"),
        (Circle(0, 0, 1e-7), "no part"),
        (Circle(0, 0, 9), "reaches"),
        (Circle(100, 0, 1), "reaches"),
        (np.zeros((20, 30), bool), "no part"),
        (np.ones((30, 20), bool), "shape"),
        (np.full((20, 30), 2.0), "other values"),
        (np.full((20, 30), np.nan), "other values"),
    ],
)
def test_what_is_no_region_of_the_image_is_refused(region, words):
    with pytest.raises(InputError, match=words):
        shares_of(region, GRID)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Circle(0, 0, 0),
        lambda: Circle(0, 0, -1),
        lambda: Circle(np.nan, 0, 1),
        lambda: Rectangle(0, 0, 0, 1),
        lambda: Polygon([(0, 0), (1, 1)]),
        lambda: Polygon([(0, 0), (1, np.inf), (2, 0)]),
        lambda: Circle("a", 0, 1),
        lambda: Circle(0, 0, None),
        lambda: Circle(0, 0, 1j),
        lambda: Rectangle(0, 0, "1", 1),
        lambda: Polygon("abc"),
        lambda: Polygon([(0, 0), (1,), (1, 1)]),
        lambda: Sphere(0, 0, "a", 1),
        lambda: shares_of(np.full(GRID.shape, 1j), GRID),
        lambda: shares_of("abc", GRID),
    ],
)
def test_shapes_without_area_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_a_line_reads_a_plane_exactly_between_the_centres_of_pixels():
    left, _, _, top = GRID.extent
    x = left + (np.arange(30) + 0.5) * GRID.voxel
    y = top - (np.arange(20) + 0.5) * GRID.voxel
    image = 3 * x[None] - 2 * y[:, None] + 1
    along = line(GRID, (-4.0, -5.0), (6.0, 1.5))
    where = np.stack([-4 + along.positions / along.positions[-1] * 10, -5 + along.positions / along.positions[-1] * 6.5])
    np.testing.assert_allclose(along.values(image), 3 * where[0] - 2 * where[1] + 1)
    np.testing.assert_allclose(along.functionals(GRID.shape).reshape(len(where.T), -1) @ image.ravel(), along.values(image))
    assert along.positions[-1] == pytest.approx(np.hypot(10, 6.5))


@pytest.mark.parametrize("ends", [((0, 0), (0, 0)), ((0, 0), (50, 0)), ((0, np.nan), (1, 1)), ((0,), (1, 1)), ("ab", (0, 1))])
def test_what_is_no_line_of_the_image_is_refused(ends):
    with pytest.raises(InputError):
        line(GRID, *ends)


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf])
def test_what_is_no_step_along_a_line_is_refused(step):
    """A negative one gave two points, the line's ends."""
    with pytest.raises(InputError, match="step"):
        line(GRID, (0, 0), (1, 1), step=step)
