"""What is measured of each object: value, truth and the parts of its variance, a row each."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ctuq
from ctuq.errors import InputError
from ctuq.quantities import Circle, Quantity
from ctuq.quantities.edges import THIN
from ctuq.quantities.lines import Line, line
from ctuq.quantities.regions import Region, shares_of

Row = dict[str, Any]
Truth = NDArray[np.float64]
RADII, PER_RADIUS, LINES = (1.0, 2.0, 4.0, 8.0), 8, 20
LEVELS = (0.3, 0.5, 0.7)
"""Of the object's largest value."""
TOLERANCE = 0.2
_NEAR = 0.05
_BESIDE = 1.5


def rows(result: ctuq.Result, fine: Truth, grid: ctuq.VolumeGrid, rng: np.random.Generator) -> Iterator[Row]:
    """Every kind of quantity at random places, beside the object ``fine`` on its own finer ``grid``."""
    yield from _means(result, fine, grid, rng)
    yield from _points(result, fine, grid, rng)
    top = float(fine.max())
    masks: list[Region] = [Circle(0, 0, 18), *(Circle(*rng.uniform(-9, 9, 2), r) for r in (4.0, 6.0, 6.0, 9.0, 9.0))]
    for share in LEVELS:
        limit = share * top
        for mask in masks:
            yield from fractions(result, fine, grid, mask, {"above": limit}, share=share)
        yield from _walls(result, fine, grid, limit, rng, share=share)


def row(kind: str, quantity: Quantity, truth: float, **more: Any) -> Row:
    """Of one quantity."""
    told = {"value": quantity.value, "truth": truth, "u": quantity.standard_uncertainty, "unit": quantity.unit}
    low, high = quantity.interval
    return {"kind": kind, **told, "lower": low, "upper": high, **more, **quantity.budget}


def differences(
    result: ctuq.Result, other: ctuq.Result, fine: Truth, changed: Truth, grid: ctuq.VolumeGrid, regions: list[Circle]
) -> Iterator[Row]:
    """Of two scans, the second of a changed object."""
    for region in regions:
        weights = shares_of(region, grid)
        truth = float(np.sum(weights * (changed - fine)) / weights.sum())
        yield row("change of a mean", other.difference(result, region), truth, radius=region.radius)


def fractions(
    result: ctuq.Result, fine: Truth, grid: ctuq.VolumeGrid, mask: Region, limit: dict[str, float], **more: Any
) -> Iterator[Row]:
    """Share of a region's area beyond a limit, and the centre of it."""
    weights = shares_of(mask, grid)
    value = next(iter(limit.values()))
    beyond = (fine > value) == ("above" in limit)
    near = float(np.sum(weights * (np.abs(fine - value) < _NEAR * fine.max())) / weights.sum())
    truth = float(np.sum(weights * beyond) / weights.sum())
    found = result.fraction(mask, **limit, tolerance=TOLERANCE)
    yield row("share of an area", found, truth, near=near, **more)
    if not 0.02 < found.value < 0.98 or truth == 0:
        return
    left, _, _, top = grid.extent
    along = left + (np.arange(fine.shape[1]) + 0.5) * grid.voxel, top - (np.arange(fine.shape[0]) + 0.5) * grid.voxel
    mass = weights * beyond
    places = (float(np.sum(mass * along[0][None]) / mass.sum()), float(np.sum(mass * along[1][:, None]) / mass.sum()))
    for quantity, place in zip(result.centre(mask, **limit, tolerance=TOLERANCE), places, strict=True):
        yield row("centre", quantity, place, near=near, **more)


def _means(result: ctuq.Result, fine: Truth, grid: ctuq.VolumeGrid, rng: np.random.Generator) -> Iterator[Row]:
    def true_mean(region: Circle) -> float:
        weights = shares_of(region, grid)
        return float(np.sum(weights * fine) / weights.sum())

    for radius in RADII:
        discs = [Circle(*rng.uniform(-1, 1, 2) * (18 - radius) / 1.5, radius) for _ in range(PER_RADIUS)]
        for disc, other in zip(discs, [*discs[1:], discs[0]], strict=True):
            found, truth = result.region(disc), true_mean(disc)
            yield row("mean", found, truth, radius=radius)
            yield row("contrast", result.contrast(disc, other), truth - true_mean(other), radius=radius)
            limit = found.value + rng.choice([-1, 1]) * rng.uniform(0, 2.5) * found.standard_uncertainty
            probable = result.probability(disc, above=limit)
            yield row("probability", probable, float(truth > limit), radius=radius)


def _points(result: ctuq.Result, fine: Truth, grid: ctuq.VolumeGrid, rng: np.random.Generator) -> Iterator[Row]:
    """Points of profiles: the truth is the object over the pixels that a point is made of."""
    ratio = round(result.grid.voxel / grid.voxel)
    pixels = fine.reshape(result.grid.shape[0], ratio, result.grid.shape[1], ratio).mean(axis=(1, 3))
    for _ in range(2):
        p, q = (tuple(rng.uniform(-13, 13, 2).tolist()) for _ in range(2))
        along = line(result.grid, p, q)
        found = result.profile(p, q)
        for quantity, truth in zip(found.points[::4], along.values(pixels)[::4], strict=True):
            yield row("point of a profile", quantity, float(truth))


def _walls(
    result: ctuq.Result, fine: Truth, grid: ctuq.VolumeGrid, limit: float, rng: np.random.Generator, **more: Any
) -> Iterator[Row]:
    """Walls and gaps that the image shows on random lines, as somebody who looks at it would choose them."""
    for _ in range(LINES):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-10, 10)
        across = np.array([-np.sin(angle), np.cos(angle)]) * offset
        reach = 18 * np.array([np.cos(angle), np.sin(angle)])
        ends = _one_wall(result, tuple((across - reach).tolist()), tuple((across + reach).tolist()), limit, rng)
        if ends is None:
            continue
        with_truth = partial(_true_width, fine, grid, limit)
        yield from thicknesses(result, ends, limit, with_truth, **more)


def thicknesses(
    result: ctuq.Result,
    ends: tuple[tuple[float, float], tuple[float, float]],
    limit: float,
    true_width: Callable[[tuple[float, float], tuple[float, float]], float | None],
    **more: Any,
) -> Iterator[Row]:
    """A thickness, unless it is refused; a wall that the object has not counts as one that is 0 thick."""
    try:
        found = result.thickness(*ends, limit, tolerance=TOLERANCE)
    except InputError:
        return
    truth = true_width(*ends)
    yield row("thickness", found, 0.0 if truth is None else truth, **more)


def _one_wall(
    result: ctuq.Result, p: tuple[float, float], q: tuple[float, float], limit: float, rng: np.random.Generator
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """A part of a line with two edges in the image, and a pixel and a half beside them."""
    voxel = result.grid.voxel
    try:
        along = line(result.grid, p, q, step=voxel / 4)
    except InputError:
        return None
    edges = _edges(along, result.mean.astype(np.float64), limit)
    wide = [i for i in range(len(edges) - 1) if edges[i + 1] - edges[i] > THIN * voxel]
    if not wide:
        return None
    i = int(rng.choice(wide))
    before = edges[i - 1] if i else -np.inf
    after = edges[i + 2] if i + 2 < len(edges) else np.inf
    low = max(edges[i] - _BESIDE * voxel, (before + edges[i]) / 2, 0.0)
    high = min(edges[i + 1] + _BESIDE * voxel, (after + edges[i + 1]) / 2, along.positions[-1])
    start, stop = np.array(p), np.array(q)
    first, second = (start + (stop - start) * s / along.positions[-1] for s in (low, high))
    return (float(first[0]), float(first[1])), (float(second[0]), float(second[1]))


def _edges(along: Line, image: Truth, limit: float) -> Truth:
    s = along.values(image) - limit
    at = np.flatnonzero((s[1:] > 0) != (s[:-1] > 0))
    return along.positions[at] + s[at] / (s[at] - s[at + 1]) * np.diff(along.positions)[at]


def _true_width(
    fine: Truth, grid: ctuq.VolumeGrid, limit: float, p: tuple[float, float], q: tuple[float, float]
) -> float | None:
    """From the first to the last edge of the object on a line; None without two."""
    found = _edges(line(grid, p, q, step=grid.voxel / 4), fine, limit)
    return float(found[-1] - found[0]) if len(found) > 1 else None
