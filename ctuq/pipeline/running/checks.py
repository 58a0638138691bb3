"""What the options of images and of volumes are checked for alike."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral
from typing import Any

from ctuq.errors import InputError
from ctuq.systematics.catalogue import KINDS, Wish
from ctuq.tomo.field import FIELDS, checked_field

MOST_SAMPLES, MOST_THREADS, MOST_ITERATIONS = 100_000, 4096, 100_000
"""Beyond any machine: such numbers are typing errors, and the system may not survive the attempt."""
MOST_SEED = 2**63 - 1
"""What a generator of PyTorch takes."""

STEPS = ("sirt", "cgls", "tv")
"""Methods that go step by step."""


def check_choice(kind: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not known.

    Raises
    ------
    InputError
    """
    if name not in known:
        raise InputError(f"There is no {kind} {name!r}; choose one of {', '.join(known)}.")


def check_iterations(method: str, iterations: int | None) -> None:
    """Refuse a number of iterations of a method that has none, and of a network, whose fit has its own.

    Raises
    ------
    InputError
    """
    if iterations is None or method in STEPS:
        return
    if method == "dip":
        raise InputError("The iterations of a network's fit are those of its DIPOptions(iterations=...); give them there.")
    raise InputError(f"The method {method} takes no iterations; leave them out, or choose one of {', '.join(STEPS)}.")


def check_whole(options: Any, limits: Mapping[str, tuple[int, int] | None]) -> None:
    """Refuse options that are no whole numbers, or not from the first to the second of their limits.

    None is left open where it is the default; NumPy's whole numbers become Python's.

    Raises
    ------
    InputError
    """
    defaults = {field.name: field.default for field in fields(options)}
    for name, ends in limits.items():
        number = getattr(options, name)
        if number is None and defaults[name] is None:
            continue
        if not isinstance(number, Integral):
            raise InputError(f"The option {name} takes a whole number, not {number!r}.")
        if ends is not None and not ends[0] <= int(number) <= ends[1]:
            raise InputError(f"The option {name} must be {ends[0]} to {ends[1]}, got {number}.")
        object.__setattr__(options, name, int(number))


def check_flags(options: Any, *names: str) -> None:
    """Refuse texts where something is on or off: "no" would be on.

    Raises
    ------
    InputError
    """
    for name in names:
        if isinstance(getattr(options, name), str):
            raise InputError(f"The option {name} takes True or False, not {getattr(options, name)!r}.")


def check_field(field: float | str | None) -> None:
    """Refuse a width that is neither a positive number of mm nor one of `FIELDS`.

    Raises
    ------
    InputError
    """
    if field is not None and field not in FIELDS:
        checked_field(field)


def check_errors(asked: Sequence[Wish], *, all_of: bool, hidden: bool) -> None:
    """Refuse systematic errors that are named where error bars do not hold them.

    Parameters
    ----------
    asked : sequence of Wish
    all_of, hidden : bool
        Whether these hold all kinds, or those that no ray tells.

    Raises
    ------
    InputError
    """
    for wish in asked:
        if not wish.needed or all_of or (hidden and KINDS[wish.name].hidden):
            continue
        if hidden:
            raise InputError(f"The systematic error {wish.name} is a part of the error bars of the method dip; leave it out.")
        raise InputError("Systematic errors are a part of the error bars of the method dip; leave --systematics out.")
