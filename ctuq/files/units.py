"""Lengths and angles by the words that other programs write for their units. An unknown word is refused, never guessed."""

import unicodedata

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError

_PREFIXES = {
    "": 1e3,
    "k": 1e6,
    "d": 100.0,
    "c": 10.0,
    "m": 1.0,
    "u": 1e-3,
    "\N{GREEK SMALL LETTER MU}": 1e-3,
    "n": 1e-6,
    "p": 1e-9,
}
_LONG_PREFIXES = {"": "", "kilo": "k", "deci": "d", "centi": "c", "milli": "m", "micro": "u", "nano": "n", "pico": "p"}
_LENGTHS = (
    {f"{short}m": mm for short, mm in _PREFIXES.items()}
    | {f"{long}{word}": _PREFIXES[short] for long, short in _LONG_PREFIXES.items() for word in ("meter", "metre")}
    | {"micron": 1e-3, "mu": 1e-3, "inch": 25.4, "in": 25.4, "inche": 25.4, "mil": 0.0254}
    | {"a": 1e-7, "å": 1e-7, "ang": 1e-7, "angstrom": 1e-7, "ångström": 1e-7}
)
_ANGLES = {
    **dict.fromkeys(("deg", "degree", "°", "degree_angle", "º"), np.pi / 180),
    **dict.fromkeys(("rad", "radian"), 1.0),
    **dict.fromkeys(("mrad", "milliradian"), 1e-3),
    **dict.fromkeys(("turn", "rev", "revolution"), 2 * np.pi),
    **dict.fromkeys(("gon", "grad", "gradian"), np.pi / 200),
    **dict.fromkeys(("arcmin", "arcminute"), np.pi / 180 / 60),
    **dict.fromkeys(("arcsec", "arcsecond"), np.pi / 180 / 3600),
}
_NO_SIZE = ("pixel", "px", "voxel", "vx", "none", "a.u.", "arb", "arbitrary", "dimensionless", "1")
_PER = (" per ", "/")


def millimetres(value: float, unit: str, what: str) -> float | None:
    """A length in mm, None where it is given in pixels or in nothing that has a size.

    Parameters
    ----------
    value : float
    unit : str
        Any case, symbol or word, singular or plural, also "um/pixel".
    what : str
        Whose length, for the error.

    Raises
    ------
    InputError
        If the unit is not known.
    """
    word = _word(unit)
    if word in _NO_SIZE or word.removesuffix("s") in _NO_SIZE:
        return None
    factor = _known(word, _LENGTHS)
    if factor is None:
        raise InputError(f"{what} is {value:g} {unit!r}, a unit that is not known; give it in mm in a geometry file.")
    return float(value) * factor


def radians_of(values: ArrayLike, unit: str, what: str) -> NDArray[np.float64]:
    """Angles in radians by their unit.

    Raises
    ------
    InputError
        If the unit is not known.
    """
    factor = _known(_word(unit), _ANGLES)
    if factor is None:
        raise InputError(f"{what} are in {unit!r}, a unit that is not known; give 'angles' in degrees in a geometry file.")
    return np.asarray(values, dtype=np.float64) * factor


def _word(unit: str) -> str:
    """Lower case, with one of the two signs for micro, and without what it is counted per."""
    word = unicodedata.normalize("NFKC", unit).strip().strip("[]()").lower()
    for mark in _PER:
        head, found, tail = word.partition(mark)
        if found and tail.strip().rstrip("s") in ("pixel", "px", "voxel", "vx"):
            word = head
    return word.strip().replace("_", "").rstrip(".")


def _known(word: str, table: dict[str, float]) -> float | None:
    return table.get(word, table.get(word.removesuffix("s")) if len(word) > 2 else None)
