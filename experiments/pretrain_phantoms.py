"""Random objects of many kinds for training: what a scanner may meet, from discs with holes to dense inclusions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ctuq.tomo import phantoms

Image = NDArray[np.float64]


def draw(size: int, rng: np.random.Generator) -> Image:
    """An object ``(size, size)`` of attenuation about 1, of a random kind, place, size and contrast."""
    for _ in range(20):
        image = KINDS[rng.integers(len(KINDS))](size, rng)
        if rng.uniform() < 0.25:
            image = np.maximum(image, KINDS[rng.integers(len(KINDS))](size, rng))
        if rng.uniform() < 0.15:
            image = image + _inclusions(size, rng)
        if rng.uniform() < 0.3:
            image = image * (1 + rng.uniform(0.05, 0.3) * _texture(size, rng, rng.uniform(0.005, 0.06)))
        if rng.uniform() < 0.3:
            image = gaussian_filter(image, rng.uniform(0.2, 1.5) * size / 64)
        if rng.uniform() < 0.8:
            image = image * _disc(size, 0.97, (0.0, 0.0))
        image = np.clip(image, 0, None)
        if image.mean() > 0.003:
            return image / image.max()
    return _disc(size, 0.5, (0.0, 0.0))


def _axes(size: int) -> tuple[Image, Image]:
    line = (np.arange(size) + 0.5) / size * 2 - 1
    return line[None, :], -line[:, None]


def _turned(size: int, centre: NDArray, turn: float) -> tuple[Image, Image]:
    x, y = _axes(size)
    u, v = x - centre[0], y - centre[1]
    return u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)


def _disc(size: int, radius: float, centre: tuple[float, float] | NDArray) -> Image:
    x, y = _axes(size)
    return ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2).astype(float)


def _blobs(size: int, rng: np.random.Generator) -> Image:
    """A level set of a random field: islands, cracks and sponges."""
    field = _texture(size, rng, rng.uniform(0.02, 0.12))
    body = _disc(size, rng.uniform(0.4, 0.95), rng.uniform(-0.15, 0.15, 2))
    inside = rng.uniform(0.2, 1.0) * (field > rng.uniform(-0.8, 0.8))
    return body * (inside + (rng.uniform(0.1, 0.8) if rng.uniform() < 0.5 else 0.0))


def _texture(size: int, rng: np.random.Generator, width: float) -> Image:
    """A smooth Gaussian field of mean 0 and variance 1; ``width`` as a share of the side."""
    field = gaussian_filter(rng.standard_normal((size, size)), width * size, mode="wrap")
    return (field - field.mean()) / field.std()


def _smooth(size: int, rng: np.random.Generator) -> Image:
    body = _disc(size, rng.uniform(0.5, 0.95), rng.uniform(-0.2, 0.2, 2))
    image = body * np.exp(rng.uniform(0.2, 0.8) * _texture(size, rng, rng.uniform(0.05, 0.2)))
    return image if rng.uniform() < 0.5 else gaussian_filter(image, rng.uniform(0.01, 0.08) * size)


def _ellipses(size: int, rng: np.random.Generator) -> Image:
    return phantoms.ellipses(size, rng, count=int(rng.integers(2, 20))).astype(float)


def _rectangles(size: int, rng: np.random.Generator) -> Image:
    return phantoms.rectangles(size, rng, count=int(rng.integers(1, 6))).astype(float)


def _strokes(size: int, rng: np.random.Generator) -> Image:
    return phantoms.glyph(size, rng, strokes=int(rng.integers(1, 6))).astype(float)


def _boxes(size: int, rng: np.random.Generator) -> Image:
    """Boxes and ellipses side by side, each with its own attenuation and turn."""
    image = np.zeros((size, size))
    for _ in range(rng.integers(1, 10)):
        u, v = _turned(size, rng.uniform(-0.7, 0.7, 2), rng.uniform(0, np.pi))
        a, b = rng.uniform(0.04, 0.4, 2)
        inside = (np.abs(u) < a) & (np.abs(v) < b) if rng.uniform() < 0.5 else (u / a) ** 2 + (v / b) ** 2 < 1
        image[inside] = rng.uniform(0.2, 1.0)
    return image


def _holes(size: int, rng: np.random.Generator) -> Image:
    """A disc or a box with holes, some round, some angular."""
    centre = rng.uniform(-0.15, 0.15, 2)
    radius = rng.uniform(0.5, 0.9)
    image = _disc(size, radius, centre)
    if rng.uniform() < 0.3:
        u, v = _turned(size, centre, rng.uniform(0, np.pi))
        image = ((np.abs(u) < radius * 0.8) & (np.abs(v) < radius * rng.uniform(0.4, 0.8))).astype(float)
    for _ in range(rng.integers(1, 14)):
        place = centre + rng.uniform(-0.75, 0.75, 2) * radius
        u, v = _turned(size, place, rng.uniform(0, np.pi))
        a, b = rng.uniform(0.04, 0.3), rng.uniform(0.04, 0.3)
        hole = (np.abs(u) < a) & (np.abs(v) < b) if rng.uniform() < 0.5 else (u / a) ** 2 + (v / b) ** 2 < 1
        image[hole] = 0.0 if rng.uniform() < 0.8 else rng.uniform(0.1, 0.9)
    return image


def _walls(size: int, rng: np.random.Generator) -> Image:
    """Thin shells and septa, as of a nut, a bone or a foam."""
    x, y = _axes(size)
    angle, distance = np.arctan2(y, x), np.hypot(x, y)
    outline = rng.uniform(0.5, 0.85)
    for k in range(1, 7):
        outline = outline + rng.normal(0, 0.08 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    thick = rng.uniform(0.03, 0.15)
    image = ((distance < outline) & (distance > outline - thick)).astype(float)
    field = _texture(size, rng, rng.uniform(0.04, 0.12))
    septa = np.abs(field) < rng.uniform(0.05, 0.3)
    image = np.maximum(image, rng.uniform(0.2, 1.0) * septa * (distance < outline))
    if rng.uniform() < 0.6:
        kernel = (field > rng.uniform(-0.5, 0.8)) & (distance < outline - thick)
        image = np.maximum(image, rng.uniform(0.2, 0.9) * kernel)
    return image


def _inclusions(size: int, rng: np.random.Generator) -> Image:
    """A few small dense grains."""
    image = np.zeros((size, size))
    for _ in range(rng.integers(1, 5)):
        image += rng.uniform(0.5, 4) * _disc(size, rng.uniform(0.03, 0.1), rng.uniform(-0.6, 0.6, 2))
    return image


KINDS: tuple[Callable[[int, np.random.Generator], Image], ...] = (
    _blobs,
    _smooth,
    _ellipses,
    _rectangles,
    _strokes,
    _boxes,
    _holes,
    _walls,
)
