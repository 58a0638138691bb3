"""What ``ctuq measure`` asks of a stack: of slices one by one, and of regions through them."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from ctuq.app.measure.answers import Answers, Refusal, answered
from ctuq.app.measure.images import questions
from ctuq.app.measure.options import Measure
from ctuq.app.measure.sources import asked
from ctuq.app.measure.texts import SOLIDS, Asked
from ctuq.app.measure.volumes import solid_questions
from ctuq.app.typed import steps
from ctuq.errors import InputError
from ctuq.quantities.regions import Region
from ctuq.quantities.solids import Solid
from ctuq.uncertainty.results.slice_of_stack import StackSlice
from ctuq.uncertainty.results.volume import VolumeResult

_SPACE = 3


def of_stack(stack: VolumeResult, command: Measure, other: VolumeResult | None) -> Answers:
    """The answer to all that is asked.

    Raises
    ------
    InputError
        If what is of slices is asked of a volume.
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
    through = answered(solid_questions(stack, wanted, solids, command.level))
    if not in_slices:
        return through
    places = stack.made if command.slices is None else _places(stack.numbers, command.slices)
    return through + _one_by_one((stack, other), list(places), wanted, flat, command.level)


def _places(numbers: list[int], wanted: str) -> list[int]:
    """Where in a stack the slices are that are asked for, by their numbers in the scan."""
    some = steps(wanted, "--slices", numbers[-1] + 1)
    places = [place for place, number in enumerate(numbers) if number in some]
    if not places:
        raise InputError(f"--slices {wanted.strip()} takes none of the stack's slices, {numbers[0]} to {numbers[-1]}.")
    return places


def _refuse_mixed(wanted: Asked, solids: Mapping[str, Solid], command: Measure) -> None:
    for a, b in wanted.contrasts:
        if (a in solids) != (b in solids):
            raise InputError(f"A contrast is of two regions of slices or of two of a volume; of {a!r} and {b!r} one is each.")
    if not solids:
        return
    for option, given in {"--centre": wanted.centres, "--difference": command.difference}.items():
        if given:
            raise InputError(f"{option} is of regions in slices: give circles, rectangles or polygons alone, or leave it out.")


def _one_by_one(
    stacks: tuple[VolumeResult, VolumeResult | None],
    places: list[int],
    wanted: Asked,
    flat: Mapping[str, Region],
    level: float,
) -> Answers:
    """Of each slice; what some slices refuse, such as a wall that is not there, and slices without numbers are told."""
    stack, other = stacks
    answers = Answers()
    for place in places:
        number = stack.numbers[place]
        beside = None if other is None else partial(_same_slice, stack, other, place)
        try:
            one = stack.slice(place)
        except InputError as error:
            answers += Answers(refused=(Refusal(f"slice {number}", str(error)),))
            continue
        answers += answered(questions(one, wanted, flat, beside, level), number)
    return answers


def _same_slice(stack: VolumeResult, other: VolumeResult, number: int) -> StackSlice:
    if stack.grid != other.grid or not np.allclose(stack.pitches, other.pitches):
        raise InputError(
            f"The two stacks are on different grids ({stack.grid} and {other.grid}); reconstruct both with the same --size, "
            "--field and --slices."
        )
    return other.slice(number)
