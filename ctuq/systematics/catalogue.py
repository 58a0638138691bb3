"""The systematic errors that there are, how large they may be, and what a user asks for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctuq.errors import InputError

if TYPE_CHECKING:  # the command's help waits for no NumPy
    from ctuq.tomo.scan import Provenance

NONE, DEFAULT, ALL = "none", "default", "all"
MATERIALS = ANY, UNIFORM = "any", "uniform"


@dataclass(frozen=True)
class Kind:
    """A systematic error.

    Parameters
    ----------
    what : str
        In words.
    unit : str
        That it is told and asked for in; "%" of numbers that are shares inside.
    of : str
        "scan", "view", "column" or "cell": what has a number each.
    width : float
        Prior standard deviation in that unit: what is usual, not what a scan says. Of the axis in columns, of the distance in
        per cent of it, of what lies outside in root mean squares of the image.
    hidden : bool
        Whether an image can hold the error as well, so that no scan of a round object tells it.
    learned : bool
        Whether the evidence learns the width; ``width`` is then where numbers begin to be unusual.
    """

    what: str
    unit: str
    of: str
    width: float
    hidden: bool
    learned: bool


KINDS: Mapping[str, Kind] = {
    "axis": Kind("rotation axis beside where it was taken", "mm", "scan", 1.0, False, False),
    "flux": Kind("flux of each view", "%", "view", 1.0, False, True),
    "gain": Kind("gain of each column", "%", "column", 1.0, False, True),
    "hardening": Kind("beam hardening", "per unit of line integral", "scan", 0.1, True, False),
    "scatter": Kind("scatter and dark counts in the open beam", "%", "scan", 1.0, True, False),
    "scale": Kind("factor of all line integrals", "%", "scan", 5.0, True, False),
    "jitter": Kind("angle of each view", "deg", "view", 0.1, False, True),
    "shift": Kind("shift of each view along the detector", "mm", "view", 0.1, False, True),
    "distance": Kind("distance of the source from the axis", "mm", "scan", 1.0, False, False),
    "truncation": Kind("what lies outside of the image beside its estimate", "1/mm", "cell", 1.0, False, False),
}
"""Widths are knowledge of laboratory scanners. An axis is found to a column. Hardening: over plastic, water, bone and aluminium
in beams of 45 to 150 kV with little filter, fitted to line integrals up to 2, its rms is 0.10, 0.02 the least and 0.13 the most
(Kramers' spectrum, an integrating detector). Scatter behind a collimated fan is about 1 % of the open beam."""
_MOST = 1e6
"""Widths beyond, or below its inverse, are typing errors: their squares drown in rounding, or overflow."""
STRONG = 3.0
"""Log of how much more probable the rays are with an error where it is taken out of them: 20 times. An axis known before to a
column, now to a tenth of it, and off by 3.5 of these, has 3.8."""
DEFAULTS = ("axis", "gain", "hardening", "truncation")
"""What nobody's rays tell and every tube's beam does. With it 95 % intervals of the disc HTC ta at 128 x 128 hold 98 % of its
pixels, without it 40 %: 3.88 nats a pixel, before -1.93. An axis half a column off costs 6 to 16 dB over a half-turn or a full
turn, which the default gives back, and where it is right the image stays as it is (`experiments.systematics.axis`). Unseen rays
of the walnut and ta are foretold as well with the axis, and of ta not better with flux."""
UNSURE = {
    "distance": (
        "The distance of the source is a hint: on three simulated fans of 150 mm it came out 1 % too long, right or wrong, "
        "by intervals of 0.5 %."
    ),
}
"""What to know of an error that was measured to be told worse than its interval says."""


@dataclass(frozen=True)
class Wish:
    """One block that is asked for.

    Parameters
    ----------
    name : str
    width : float, optional
        In its unit, for one that is given and not learned; None for the catalogue's.
    needed : bool
        Whether it was named: one that this scan cannot have is refused then, and else left out.
    default : bool
        Whether nobody asks for it but the default, which leaves out what a scan tells badly or has none of.
    """

    name: str
    width: float | None
    needed: bool
    default: bool = False


def wishes(text: str, *, of: "Provenance | None" = None) -> tuple[Wish, ...]:
    """What is asked for by ``none``, ``default``, ``all`` or names such as ``axis,hardening=0.05``.

    Of a scan whose beam is known to be monochromatic, hardening is asked for by its name alone.

    Raises
    ------
    InputError
        For a name that does not exist or comes twice, and a width that is no positive number, or of no scanner.
    """
    parts = [part.strip() for part in text.split(",")] if isinstance(text, str) else []
    if not any(parts):
        raise InputError(f"--systematics names nothing; give {NONE}, {DEFAULT}, {ALL} or names such as axis,hardening=0.1.")
    if parts == [NONE]:
        return ()
    found: dict[str, Wish] = {}
    for part in parts:
        for wish in _expanded(part):
            before = found.get(wish.name)
            if before is not None and before.needed and wish.needed:
                raise InputError(f"The systematic error {wish.name} is given twice; name it once.")
            if before is None or wish.needed or (before.default and not wish.default):
                found[wish.name] = wish
    return tuple(
        wish for wish in found.values() if wish.needed or wish.name != "hardening" or of is None or not of.monochromatic
    )


def hidden_wishes(text: str, what: str, *, of: "Provenance | None" = None) -> tuple[Wish, ...]:
    """Those that no ray tells, which error bars can hold where no others are learned.

    Parameters
    ----------
    text, of
        As of `wishes`.
    what : str
        Is reconstructed, in the plural.

    Raises
    ------
    InputError
        If another one is asked for by its name; or as `wishes`.
    """
    asked = wishes(text, of=of)
    for wish in asked:
        if wish.needed and not KINDS[wish.name].hidden:
            raise InputError(f"The systematic error {wish.name} is of single slices so far; leave it out of {what}.")
    return hidden_among(asked)


def hidden_among(asked: Sequence[Wish]) -> tuple[Wish, ...]:
    """Those that no ray tells."""
    return tuple(wish for wish in asked if KINDS[wish.name].hidden)


def not_in_bars_of(text: str) -> tuple[str, ...]:
    """Names of errors that ``default`` or ``all`` ask for and that only single slices can have."""
    return tuple(wish.name for wish in wishes(text) if not wish.needed and not KINDS[wish.name].hidden)


def _expanded(part: str) -> list[Wish]:
    if part == NONE:
        raise InputError(f"'{NONE}' stands alone; leave it out beside other systematic errors.")
    if part in (DEFAULT, ALL):
        names = DEFAULTS if part == DEFAULT else KINDS
        return [Wish(name, None, needed=False, default=part == DEFAULT) for name in names]
    name, given, number = part.partition("=")
    name = name.strip()
    if name not in KINDS:
        known = ", ".join((*KINDS, NONE, DEFAULT, ALL))
        raise InputError(f"There is no systematic error {name!r}; choose among {known}.")
    return [Wish(name, _width(name, number) if given else None, needed=True)]


def _width(name: str, text: str) -> float:
    """A width in the unit of its kind; a sign of per cent may stand where that is the unit."""
    unit = KINDS[name].unit
    try:
        width = float(text.strip().removesuffix(unit).strip())
    except ValueError:
        width = math.nan
    if not 0 < width < math.inf:
        raise InputError(f"The width of {name} is a positive number ({unit}), not {text.strip()!r}.")
    if not 1 / _MOST <= width <= _MOST:
        raise InputError(f"The width of {name} is {1 / _MOST:g} to {_MOST:g} ({unit}), not {text.strip()!r}.")
    return width
