"""What ``ctuq measure`` asks of an image: a single slice, or one of a stack."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from ctuq.app.measure.texts import SOLIDS, Asked, Shape, in_words, sides
from ctuq.app.measure.volumes import named_chance
from ctuq.errors import InputError
from ctuq.quantities import Quantity
from ctuq.quantities.lines import Point
from ctuq.quantities.regions import Region, shares_of
from ctuq.uncertainty.results.questions import Questions

Question = Callable[[], Iterable[Quantity]]


def of_image(result: Questions, wanted: Asked, other: Questions | None, level: float) -> Iterator[Quantity]:
    """Every quantity that is asked of an image.

    Raises
    ------
    InputError
        If a region is of a volume, or what is asked is refused.
    """
    for question in questions(result, wanted, _flat(wanted.regions), other, level):
        yield from question()


def questions(
    result: Questions, wanted: Asked, regions: Mapping[str, Region], other: Questions | None, level: float
) -> Iterator[Question]:
    """What is asked of an image, one by one and not answered yet."""
    for name, region in regions.items():
        yield partial(_one, partial(result.region, region, name=f"mean of {name}", level=level))
        for limit in wanted.probabilities:
            chance = named_chance(name, limit, "mm^2")
            yield partial(_one, partial(result.probability, region, **sides(limit), name=chance))
        for limit in wanted.fractions:
            yield partial(_share_and_area, result, region, limit, f"of {name} {in_words(limit)}", level)
        for limit in wanted.centres:
            yield partial(result.centre, region, **limit, name=f"centre of {name} {in_words(limit)},", level=level)
        if other is not None:
            yield partial(_one, partial(result.difference, other, region, name=f"change of {name}", level=level))
    for a, b in wanted.contrasts:
        if a in regions and b in regions:
            yield partial(_one, partial(result.contrast, regions[a], regions[b], name=f"{a} less {b}", level=level))
    for p, q, at in wanted.walls:
        name = f"thickness {_ends(p, q)}" + ("" if at is None else f" at {at:g}")
        yield partial(_one, partial(result.thickness, p, q, at, name=name, level=level))
    for p, q in wanted.profiles:
        yield partial(_profile, result, p, q, level)


def _flat(regions: Mapping[str, Shape]) -> dict[str, Region]:
    """Regions of a slice."""
    flat: dict[str, Region] = {}
    for name, region in regions.items():
        if isinstance(region, SOLIDS):
            raise InputError(
                f"The region {name!r} is of a volume, and the result is a slice; give a circle, rectangle or polygon."
            )
        flat[name] = region
    return flat


def _one(ask: Callable[[], Quantity]) -> tuple[Quantity]:
    return (ask(),)


def _share_and_area(
    result: Questions, region: Region, limit: Mapping[str, float], words: str, level: float
) -> Iterator[Quantity]:
    share = result.fraction(region, above=limit.get("above"), below=limit.get("below"), name=f"share {words}", level=level)
    yield share
    yield share.scaled(float(shares_of(region, result.grid).sum()) * result.grid.voxel**2, "mm^2", name=f"area {words}")


def _profile(result: Questions, p: Point, q: Point, level: float) -> tuple[Quantity, ...]:
    return result.profile(p, q, level=level, name=f"profile {_ends(p, q)}").points


def _ends(p: Point, q: Point) -> str:
    return f"{p[0]:g},{p[1]:g} to {q[0]:g},{q[1]:g}"
