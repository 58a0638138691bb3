"""What ``ctuq measure`` asks of a volume: means, contrasts and probabilities, by its samples."""

from collections.abc import Iterator

from ctuq.app.measure.options import Measure
from ctuq.app.measure.sources import asked
from ctuq.app.measure.texts import Limit, sides
from ctuq.errors import InputError
from ctuq.quantities import Circle, Polygon, Quantity, Rectangle
from ctuq.quantities.solids import Solid
from ctuq.uncertainty.results.volume import VolumeResult


def of_volume(volume: VolumeResult, command: Measure) -> Iterator[Quantity]:
    """Every quantity that is asked.

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
    for name, region in regions.items():
        yield volume.region(region, name=f"mean of {name}", level=command.level)
        for limit in wanted.probabilities:
            yield volume.probability(region, **sides(limit), name=named_chance(name, limit, "mm^3"))
    for a, b in wanted.contrasts:
        yield volume.contrast(regions[a], regions[b], name=f"{a} less {b}", level=command.level)


def named_chance(name: str, limit: Limit, unit: str) -> str:
    """What a probability is of, in words."""
    side, value = next((side, limit[side]) for side in ("above", "below") if side in limit)
    part = f"a part of at least {limit['at_least']:g} {unit} of " if "at_least" in limit else ""
    return f"probability that {part}{name} is {side} {value:g}"
