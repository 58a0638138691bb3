"""What ``ctuq measure`` asks of an image: a single slice, or one of a stack."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from ctuq.app.measure.answers import Answers, Question, answered, of_one
from ctuq.app.measure.texts import SOLIDS, Asked, Shape, limit_in_words, sides
from ctuq.app.measure.volumes import named_chance
from ctuq.errors import InputError
from ctuq.quantities import Quantity
from ctuq.quantities.lines import Point
from ctuq.quantities.regions import Region, shares_of
from ctuq.uncertainty.results.questions import Questions


def of_image(result: Questions, wanted: Asked, other: Questions | None, level: float) -> Answers:
    """The answer to all that is asked of an image.

    Raises
    ------
    InputError
        If a region is of a volume.
    """
    beside = None if other is None else lambda: other
    return answered(questions(result, wanted, _flat(wanted.regions), beside, level))


def questions(
    result: Questions, wanted: Asked, regions: Mapping[str, Region], other: Callable[[], Questions] | None, level: float
) -> Iterator[Question]:
    """What is asked of an image, one by one and not answered yet."""
    for name, region in regions.items():
        yield of_one(result.region, region, name=f"mean of {name}", level=level)
        for limit in wanted.probabilities:
            yield of_one(result.probability, region, **sides(limit), name=named_chance(name, limit, "mm^2"))
        for limit in wanted.fractions:
            words = f"of {name} {limit_in_words(limit)}"
            yield Question(f"share {words}", partial(_share_and_area, result, region, limit, words, level))
        for limit in wanted.centres:
            words = f"centre of {name} {limit_in_words(limit)}"
            yield Question(words, partial(result.centre, region, **limit, name=f"{words},", level=level))
        if other is not None:
            yield of_one(partial(_change, result, other), region, name=f"change of {name}", level=level)
    for a, b in wanted.contrasts:
        if a in regions and b in regions:
            yield of_one(result.contrast, regions[a], regions[b], name=f"{a} less {b}", level=level)
    for p, q, at in wanted.walls:
        name = f"thickness {_ends(p, q)}" + ("" if at is None else f" at {at:g}")
        yield of_one(result.thickness, p, q, at, name=name, level=level)
    for p, q in wanted.profiles:
        yield Question(f"profile {_ends(p, q)}", partial(_profile, result, p, q, level))


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


def _change(result: Questions, other: Callable[[], Questions], region: Region, *, name: str, level: float) -> Quantity:
    return result.difference(other(), region, name=name, level=level)


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
