"""What ``ctuq measure`` asks of a volume: means, contrasts and probabilities, by its samples."""

from collections.abc import Iterator, Mapping
from functools import partial

from ctuq.app.measure.answers import Answers, Question, answered, of_one
from ctuq.app.measure.options import Measure
from ctuq.app.measure.sources import asked
from ctuq.app.measure.texts import Asked, Limit, limit_in_words, sides
from ctuq.errors import InputError
from ctuq.quantities import Circle, Polygon, Quantity, Rectangle
from ctuq.quantities.solids import Solid
from ctuq.uncertainty.results.volume import VolumeResult


def of_volume(volume: VolumeResult, command: Measure) -> Answers:
    """The answer to all that is asked.

    Raises
    ------
    InputError
        If something is asked that is of slices alone.
    """
    wanted = asked(command, volume.grid)
    others = {
        "--fraction and --porosity": wanted.fractions,
        "--centre": wanted.centres,
        "--thickness": wanted.walls,
        "--profile": wanted.profiles,
        "--difference": command.difference,
    }
    for option, given in others.items():
        if given:
            raise InputError(
                f"{option} cannot be told of a volume, which keeps samples and no covariance; leave it out, or reconstruct the "
                "slice."
            )
    regions: dict[str, Solid] = {}
    for name, region in wanted.regions.items():
        if isinstance(region, Circle | Rectangle | Polygon):
            raise InputError(
                f"The region {name!r} is of a slice, and the result is a volume; give a sphere, a box, a cylinder or a mask."
            )
        regions[name] = region
    return answered(solid_questions(volume, wanted, regions, command.level))


def solid_questions(volume: VolumeResult, wanted: Asked, solids: Mapping[str, Solid], level: float) -> Iterator[Question]:
    """What is asked of regions of a volume or through a stack's slices, one by one and not answered yet."""
    for name, solid in solids.items():
        yield of_one(volume.region, solid, name=f"mean of {name}", level=level)
        for limit in wanted.probabilities:
            yield of_one(volume.probability, solid, **sides(limit), name=named_chance(name, limit, "mm^3"))
        for limit in wanted.fractions:
            words = f"of {name} {limit_in_words(limit)}"
            yield Question(f"share {words}", partial(_share_and_volume, volume, solid, limit, words, level))
    for a, b in wanted.contrasts:
        if a in solids and b in solids:
            yield of_one(volume.contrast, solids[a], solids[b], name=f"{a} less {b}", level=level)


def _share_and_volume(volume: VolumeResult, solid: Solid, limit: Limit, words: str, level: float) -> Iterator[Quantity]:
    above, below = limit.get("above"), limit.get("below")
    share = volume.fraction(solid, above=above, below=below, name=f"share {words}", level=level)
    yield share
    yield share.scaled(volume.mm3(solid), "mm^3", name=f"volume {words}")


def named_chance(name: str, limit: Limit, unit: str) -> str:
    """What a probability is of, in words."""
    side, value = next((side, limit[side]) for side in ("above", "below") if side in limit)
    part = f"a part of at least {limit['at_least']:g} {unit} of " if "at_least" in limit else ""
    return f"probability that {part}{name} is {side} {value:g}"
