"""Test objects: attenuation images of values 0 to 1, drawn from shapes, the same at every size for the same generator."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

# Value, half axes, centre, turn in degrees: L. A. Shepp and B. F. Logan 1974, with the contrasts of P. Toft 1996.
_SHEPP_LOGAN = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


def shepp_logan(size: int) -> Image:
    """The modified Shepp-Logan head: ten ellipses, values 0 to 1.

    Returns
    -------
    array of float32, shape (size, size)
        Axes (y, x), the nose up (towards row 0).
    """
    image = np.zeros((size, size))
    for value, a, b, x, y, turn in _SHEPP_LOGAN:
        image += value * _ellipse(size, (a, b), (x, y), np.deg2rad(turn))
    return np.clip(image, 0, 1).astype(np.float32)


def rectangles(size: int, rng: np.random.Generator, *, direction: float | None = None, count: int = 3) -> Image:
    """Superimposed bars that share one preferred direction, as in studies of angle design.

    Parameters
    ----------
    direction : float, optional
        Of the bars' long sides in radians, counter-clockwise from x; drawn uniformly from a half turn if not given.
    count : int
        Number of rectangles.

    Returns
    -------
    array of float32, shape (size, size)
        Values 0 to 1; overlapping rectangles add up before scaling to a maximum of 1.
    """
    drawn = rng.uniform(0, np.pi)
    turn = drawn if direction is None else direction
    image = np.zeros((size, size))
    for _ in range(count):
        x, y = rng.uniform(-0.35, 0.35, 2)
        long, short = rng.uniform(0.25, 0.5), rng.uniform(0.06, 0.18)
        value, wobble = rng.uniform(0.3, 1.0), rng.normal(0, 0.04)
        image += value * _rectangle(size, (long, short), (x, y), turn + wobble)
    return (image / image.max()).astype(np.float32)


def ellipses(size: int, rng: np.random.Generator, *, count: int = 12) -> Image:
    """A filled disc with ``count`` random ellipses that add to or take from it.

    Returns
    -------
    array of float32, shape (size, size)
        Values 0 to 1.
    """
    image = 0.4 * _ellipse(size, (0.85, 0.85), (0.0, 0.0), 0.0)
    for _ in range(count):
        distance, around = 0.6 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        a, b = rng.uniform(0.05, 0.25, 2)
        x, y = distance * np.cos(around), distance * np.sin(around)
        image += rng.uniform(-0.3, 0.4) * _ellipse(size, (a, b), (x, y), rng.uniform(0, np.pi))
    return np.clip(image, 0, 1).astype(np.float32)


def glyph(size: int, rng: np.random.Generator, *, strokes: int = 3) -> Image:
    """A character of bent pen strokes, each a quadratic Bezier curve that starts where the last one ended or anew.

    Returns
    -------
    array of float32, shape (size, size)
        Values 0 (paper) to 1 (ink).
    """
    image = np.zeros((size, size))
    width = rng.uniform(0.06, 0.1)
    start = rng.uniform(-0.6, 0.6, 2)
    for _ in range(strokes):
        bend, end = rng.uniform(-0.65, 0.65, (2, 2))
        image = np.maximum(image, _stroke(size, start, bend, end, width))
        start = end if rng.uniform() < 0.7 else rng.uniform(-0.6, 0.6, 2)
    return image.astype(np.float32)


PHANTOMS: dict[str, Callable[[int, np.random.Generator], Image]] = {
    "shepp-logan": lambda size, rng: shepp_logan(size),
    "rectangles": rectangles,
    "ellipses": ellipses,
    "glyph": glyph,
}


def _axes(size: int) -> tuple[NDArray, NDArray]:
    """Pixel centres in units of half the image's side; y points up, row 0 is the largest y."""
    line = (np.arange(size) + 0.5) / size * 2 - 1
    return line[None, :], -line[:, None]


def _turned(size: int, centre: tuple[float, float], turn: float) -> tuple[NDArray, NDArray]:
    across, up = _axes(size)
    u, v = across - centre[0], up - centre[1]
    return u * np.cos(turn) + v * np.sin(turn), -u * np.sin(turn) + v * np.cos(turn)


def _ellipse(size: int, half: tuple[float, float], centre: tuple[float, float], turn: float) -> NDArray:
    u, v = _turned(size, centre, turn)
    return ((u / half[0]) ** 2 + (v / half[1]) ** 2 <= 1).astype(float)


def _rectangle(size: int, half: tuple[float, float], centre: tuple[float, float], turn: float) -> NDArray:
    u, v = _turned(size, centre, turn)
    return ((np.abs(u) <= half[0]) & (np.abs(v) <= half[1])).astype(float)


def _stroke(size: int, start: NDArray, bend: NDArray, end: NDArray, width: float) -> NDArray:
    """Coverage of a stroke, smoothed over one pixel at its edge."""
    t = np.linspace(0, 1, 33)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    across, up = _axes(size)
    nearest = np.full((size, size), np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((across - x0) * dx + (up - y0) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        nearest = np.minimum(nearest, np.hypot(across - x0 - along * dx, up - y0 - along * dy))
    return np.clip((width - nearest) * size / 2 + 0.5, 0, 1)
