"""What ``ctuq measure`` asks of a stack: of slices one by one, and of regions through them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from ctuq.app.measure.images import questions
from ctuq.app.measure.options import Measure
from ctuq.app.measure.sources import asked
from ctuq.app.measure.texts import SOLIDS, Asked, in_words, sides
from ctuq.app.measure.volumes import named_chance
from ctuq.app.typed import steps
from ctuq.errors import InputError
from ctuq.quantities import Quantity
from ctuq.quantities.regions import Region
from ctuq.quantities.solids import Solid
from ctuq.uncertainty.results.slice_of_stack import StackSlice
from ctuq.uncertainty.results.volume import VolumeResult

_MOST_TOLD = 3
_SPACE = 3


def of_stack(stack: VolumeResult, command: Measure, other: VolumeResult | None) -> tuple[tuple[Quantity, ...], tuple[str, ...]]:
    """Every quantity that is asked, and what slices refuse.

    Raises
    ------
    InputError
        If all slices refuse something, or it is of slices and asked of a volume.
    """
    wanted = asked(command, stack.grid)
    solids: dict[str, Solid] = {}
    flat: dict[str, Region] = {}
    for name, region in wanted.regions.items():
        if isinstance(region, SOLIDS) or (isinstance(region, np.ndarray) and region.ndim == _SPACE):
            solids[name] = region
        else:
            flat[name] = region
    _refuse_mixed(wanted, solids, command)
    in_slices = bool(flat or wanted.walls or wanted.profiles)
    if command.slices is not None and not in_slices:
        raise InputError("--slices chooses where circles and lines are measured, and none is asked for; leave it out.")
    through = tuple(_through(stack, wanted, solids, command.level))
    if not in_slices:
        return through, ()
    numbers = stack.made if command.slices is None else steps(command.slices, "--slices", stack.grid.shape[0])
    each, told = _one_by_one((stack, other), list(numbers), wanted, flat, command.level)
    return through + each, told


def _refuse_mixed(wanted: Asked, solids: Mapping[str, Solid], command: Measure) -> None:
    for a, b in wanted.contrasts:
        if (a in solids) != (b in solids):
            raise InputError(f"A contrast is of two regions of slices or of two of a volume; of {a!r} and {b!r} one is each.")
    if not solids:
        return
    for option, given in {"--centre": wanted.centres, "--difference": command.difference}.items():
        if given:
            raise InputError(f"{option} is of regions in slices: give circles, rectangles or polygons alone, or leave it out.")


def _through(stack: VolumeResult, wanted: Asked, solids: Mapping[str, Solid], level: float) -> Iterator[Quantity]:
    """Of regions of the volume."""
    for name, solid in solids.items():
        yield stack.region(solid, name=f"mean of {name}", level=level)
        for limit in wanted.probabilities:
            yield stack.probability(solid, **sides(limit), name=named_chance(name, limit, "mm^3"))
        for limit in wanted.fractions:
            words, above, below = f"of {name} {in_words(limit)}", limit.get("above"), limit.get("below")
            share = stack.fraction(solid, above=above, below=below, name=f"share {words}", level=level)
            yield share
            yield share.scaled(stack.mm3(solid), "mm^3", name=f"volume {words}")
    for a, b in wanted.contrasts:
        if a in solids:
            yield stack.contrast(solids[a], solids[b], name=f"{a} less {b}", level=level)


def _one_by_one(
    stacks: tuple[VolumeResult, VolumeResult | None],
    numbers: list[int],
    wanted: Asked,
    flat: Mapping[str, Region],
    level: float,
) -> tuple[tuple[Quantity, ...], tuple[str, ...]]:
    """Of each slice; a question that some slices refuse, such as a wall that is not there, is told of them."""
    stack, other = stacks
    found: list[Quantity] = []
    refused: dict[int, list[tuple[int, InputError]]] = {}
    for number in numbers:
        beside = None if other is None else _same_slice(stack, other, number)
        for place, question in enumerate(questions(stack.slice(number), wanted, flat, beside, level)):
            try:
                found += [replace(each, name=f"{each.name}, slice {number}") for each in question()]
            except InputError as error:
                refused.setdefault(place, []).append((number, error))
    told = []
    for several in refused.values():
        number, error = several[0]
        if len(several) == len(numbers):
            raise error
        which = ", ".join(str(n) for n, _ in several[:_MOST_TOLD]) + (" and others" if len(several) > _MOST_TOLD else "")
        told.append(f"Slice {which} cannot be measured so, as slice {number} says: {error}")
    return tuple(found), tuple(told)


def _same_slice(stack: VolumeResult, other: VolumeResult, number: int) -> StackSlice:
    if stack.grid != other.grid or not np.allclose(stack.pitches, other.pitches):
        raise InputError(
            f"The two stacks are on different grids ({stack.grid} and {other.grid}); reconstruct both with the same --size, "
            "--field and --slices."
        )
    return other.slice(number)
