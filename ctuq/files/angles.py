"""Angles as files tell them: in which unit, over how many turns, and whether some are measured twice."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError
from ctuq.files.units import radians_of

_TURN = 2 * np.pi
_TWO_TURNS = 2 * _TURN
_NEAR = 0.02
_GOLDEN = np.pi * np.array([3 - np.sqrt(5), np.sqrt(5) - 1, (np.sqrt(5) - 1) / 2])
_SAME = 1e-6
_ONE_TURN = 1.01
_MANY_TURNS = 200 * np.pi
_FEWEST = 10
_LARGEST = 1 << 24
_ASK = "give 'angles' in degrees in a geometry file"
_RADIANS = re.compile(r"(^|[^a-z])rad|[a-z]Rad|rad(ian)?s?$")


def angles_of(values: ArrayLike, unit: str, source: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Angles in radians, with what was assumed of them.

    Without a unit they are degrees as the formats say, unless their span says otherwise. Few scans are of less than two turns
    of radians when these numbers are read as degrees, and some programs keep radians without a label. So such numbers are
    radians where they fill half a turn or a turn of radians evenly, or follow the golden angle, and else they are refused.

    Parameters
    ----------
    values : array of numbers
    unit : str
        Empty if the file tells none.
    source : str
        Whose angles, for the error.

    Raises
    ------
    InputError
        If they are not finite, of an unknown unit, or can be read both ways.
    """
    given = np.ravel(np.asarray(values))
    if given.dtype.kind not in "iuf":
        raise InputError(f"The angles of '{source}' are {given.dtype}, and real numbers are needed; {_ASK}.")
    angles = given.astype(np.float64)
    if not np.isfinite(angles).all():
        raise InputError(f"{np.sum(~np.isfinite(angles))} of the {angles.size} angles of '{source}' are not finite; {_ASK}.")
    if unit.strip():
        return radians_of(angles, unit, f"The angles of '{source}'"), ()
    if angles.size < 2 or not np.ptp(angles) or not np.any(angles):
        return np.deg2rad(angles), ()
    span = f"{angles.min():.4g} to {angles.max():.4g}"
    if looks_like_radians(angles):
        return angles, (f"The angles have no unit and are taken as radians, as they run from {span}; else {_ASK}.",)
    if np.ptp(angles) <= _TWO_TURNS or _round_as_radians_only(angles):
        raise InputError(f"The {angles.size} angles of '{source}' run from {span} without a unit, degrees or radians; {_ASK}.")
    return np.deg2rad(angles), ()


def angles_named(values: ArrayLike, name: str, source: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Angles in radians, with what was assumed of them, by the name of their array where it tells the unit.

    Raises
    ------
    InputError
        As `angles_of` and `checked_radians`.
    """
    if _RADIANS.search(name):
        return checked_radians(values, source, name), ()
    return angles_of(values, "deg" if "deg" in name.lower() else "", f"{source}:{name}" if name else source)


def degrees_in(path: Path) -> NDArray[np.float64]:
    """The numbers of a text file, with blanks, commas, semicolons or lines between them and comments after #.

    Raises
    ------
    InputError
        If it cannot be read or holds other words.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(path)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        words = re.split(r"[\s,;]+", " ".join(line.partition("#")[0] for line in lines).strip(" ,;"))
        angles = np.array([float(word) for word in words])
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is no text file of angles in degrees, one a line; check what it holds.") from error
    if not np.isfinite(angles).all():
        raise InputError(f"'{path}' holds angles that are no numbers; repair it.")
    return angles


def looks_like_radians(angles: NDArray) -> bool:
    """Whether numbers fill half a turn or one turn of radians evenly, or go on by the golden angle."""
    steps = np.diff(angles)
    if steps.size > 1 and np.min(np.abs(np.abs(np.mean(steps)) - _GOLDEN)) < 1e-3 and np.ptp(steps) < 1e-3:
        return True
    sorted_steps = np.diff(np.unique(angles))
    step = float(np.median(sorted_steps))
    even = sorted_steps.max() <= 4 * step
    return even and any(
        abs(reach - arc) <= _NEAR * arc for reach in (np.ptp(angles), np.ptp(angles) + step) for arc in (np.pi, _TURN)
    )


def _round_as_radians_only(angles: NDArray) -> bool:
    """Whether even steps fill half turns of radians, or are round in radians' degrees, and neither holds of degrees."""
    steps = np.diff(angles)
    step = abs(float(np.mean(steps)))
    if steps.size < 3 or np.ptp(steps) > 1e-3 * step or np.ptp(angles) > _MANY_TURNS:
        return False
    reach = float(np.ptp(angles)) + step

    def even(value: float, unit: float) -> bool:
        return abs(value / unit - round(value / unit)) * unit < 2e-6 * value

    return (even(reach, np.pi) or even(np.rad2deg(step), 0.05)) and not any(
        even(*pair) for pair in ((step, 0.001), (reach, 1.0), (reach - step, 1.0))
    )


def checked_radians(angles: ArrayLike, source: str, name: str) -> NDArray[np.float64]:
    """Angles that a file calls radians, refused where they are whole numbers or leap by turns, as degrees do.

    Raises
    ------
    InputError
        If they look like degrees.
    """
    values = np.ravel(np.asarray(angles, dtype=np.float64))
    if not np.isfinite(values).all():
        raise InputError(f"{np.sum(~np.isfinite(values))} of the {values.size} angles of '{source}' are not finite; {_ASK}.")
    steps = np.diff(values)
    whole = values.size > 2 and np.ptp(values) > 2 and np.all(np.abs(values - np.round(values)) < 1e-9)
    leaps = steps.size > 0 and np.median(np.abs(steps)) > _TURN
    round_degrees = values.size > 2 and np.ptp(values) > _TWO_TURNS and not _round_radians(values)
    if whole or leaps or round_degrees:
        raise InputError(
            f"The '{name}' of '{source}' run from {values.min():.4g} to {values.max():.4g}, which look like degrees and not "
            f"radians; name them 'angles_deg', or {_ASK}."
        )
    return values


def _round_radians(values: NDArray) -> bool:
    """Whether many turns make sense in radians: in steps that are round in degrees or turns, or golden."""
    steps = np.diff(values)
    step = float(np.median(steps))
    if np.ptp(steps) > 1e-3:
        return False
    degrees = np.rad2deg(abs(step))
    reach = (np.ptp(values) + abs(step)) / np.pi
    return bool(
        np.min(np.abs(abs(step) - _GOLDEN)) < 1e-3
        or abs(degrees * 20 - round(degrees * 20)) < 1e-4
        or abs(reach - round(reach)) < 1e-3
    )


def within_a_turn(angles: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Angles of more than two turns within one turn, and what is to be told of repeated ones.

    Raises
    ------
    InputError
        If there are three views or more, all at one angle, or each is more than a turn from the next.
    """
    if angles.size > 2 and np.ptp(angles) < _SAME:
        raise InputError(
            f"All {angles.size} views are at {np.rad2deg(angles[0]):.4g} degrees; no image follows from one angle."
        )
    steps = np.abs(np.diff(angles))
    if steps.size and np.median(steps) > _TURN + _SAME:
        raise InputError(
            f"The angles go on by {np.rad2deg(np.median(steps)):.4g} degrees from view to view, more than a turn; {_ASK}."
        )
    warnings, turns = [], np.ptp(angles) / _TURN
    twice = angles.size - np.unique(np.round(angles / _SAME)).size
    if twice:
        warnings.append(f"{twice} of {angles.size} views are at angles that other views have too; all of them are used.")
    degrees = np.rad2deg(angles)
    if angles.size > 2 and np.ptp(degrees) <= _TURN + _NEAR and looks_like_radians(degrees):
        warnings.append(f"The angles span only {np.ptp(degrees):.4g} degrees, so evenly that they may have been radians.")
    if turns > _ONE_TURN:
        warnings.append(f"The angles run over {turns:.3g} turns; the object is taken to be the same in all of them.")
    return (np.mod(angles, _TURN) if np.ptp(angles) > _TWO_TURNS else angles), tuple(warnings)


def returns(angles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which views at the end only return to angles that were measured: images to see whether the sample has moved.

    They break an order that is steady up to them, are at most a tenth of the views, and most of them are at an angle of before.
    """
    none = np.zeros(angles.size, bool)
    steps = np.diff(angles)
    if angles.size < _FEWEST or not steps[0]:
        return none
    back = np.flatnonzero(steps * steps[0] <= 0)
    first = angles.size if back.size == 0 else int(back[0]) + 1
    rest, before = angles[first:], angles[:first]
    if not 0 < rest.size <= max(1, angles.size // 10):
        return none
    near = 0.05 * float(np.median(np.abs(steps)))
    again = np.min(np.abs(rest[:, None] - before[None]), axis=1) <= near
    return none if 2 * again.sum() <= rest.size else np.arange(angles.size) >= first
