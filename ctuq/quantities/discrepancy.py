"""What draws of the posterior do not know of edges: pixels are partial, images are blurred, thin structures fade.

The draws are an image plus Gaussian deviations. An object has edges between pixels, and its image answers a threshold wrongly
in ways that all draws share. Each way has a standard deviation that simulated objects taught (`experiments.quantities`, on one
half of its objects; the other half tested it):

* ``PLACE``: each pixel's edge, independently of the others, in pixels. It stands for what a grid cannot show, and keeps means
  over large regions of sharp objects at low noise from being too sure.
* ``SHIFT``: all edges together outwards or inwards, in pixels: blur moves an edge where the level is not half its step.
* ``RAGGED``: over ``SHIFT``, of edges moved one by one; edge pixels within some pixels of one another move together.
* ``SLACK``: of the level, as a share of the image's largest values: a plateau near the level flips as a whole.
* ``FADED``: of what would pass the level if structures thinner than three pixels had twice the contrast that they have.
* ``LEAK``: over what averaging each pixel with its neighbours changes a mean by. Where a region ends along an edge, blur takes
  across its outline what belongs inside: means over the true outlines of parts missed by 19 standard deviations (rms) without.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]
Alternative = tuple[Image, float, float]
"""An image, a level, and by how many pixels edges are moved outwards."""

PLACE, SHIFT, SLACK, FADED, RAGGED = 0.15, 0.2, 0.025, 0.6, 4.0
SHIFTED, SLACKED, FADES = "edges moved by blur", "level near a plateau", "thin structures"
ALONE = "edges moved one by one"
LEAK, LEAKS = 2.0, "edges along the outline"
SHARED = {SHIFTED: 1.0, SLACKED: 1.0, FADES: FADED}


def slope(image: NDArray) -> Image:
    """Length of the gradient per pixel, (y, x)."""
    axes = tuple(axis for axis, n in enumerate(image.shape) if n > 1)
    parts = np.gradient(image.astype(np.float64), axis=axes)
    return np.sqrt(sum(part**2 for part in (parts if len(axes) > 1 else [parts])))


def leaking(image: NDArray) -> Image:
    """What each pixel's mean with its neighbours is above itself, (..., y, x), times ``LEAK``."""
    from scipy.ndimage import uniform_filter

    x = image.astype(np.float64)
    return LEAK * (uniform_filter(x, 3, mode="nearest") - x)


def top_of(image: NDArray) -> float:
    """The largest values, but for the last hundredth."""
    return float(np.quantile(image, 0.99))


def thin_contrast(image: NDArray) -> Image:
    """How much of each pixel belongs to bright or dark structures thinner than three pixels, (y, x)."""
    from scipy.ndimage import grey_closing, grey_opening

    x = image.astype(np.float64)
    return np.maximum(x - grey_opening(x, (3, 3)), grey_closing(x, (3, 3)) - x)


def alternatives(image: NDArray, level: float) -> Iterator[tuple[str, Alternative, Alternative]]:
    """For each way of being wrong its name and two alternatives, between which the truth is thought to lie."""
    from scipy.ndimage import grey_closing, grey_opening

    x, slack = image.astype(np.float64), SLACK * top_of(image)
    yield SHIFTED, (x, level, SHIFT), (x, level, -SHIFT)
    yield SLACKED, (x, level - slack, 0.0), (x, level + slack, 0.0)
    yield FADES, (2 * x - grey_opening(x, (3, 3)), level, 0.0), (2 * x - grey_closing(x, (3, 3)), level, 0.0)
