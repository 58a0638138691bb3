"""What every file must keep to, whatever reader it came through: kinds of numbers, shapes and ranges."""

import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.raw import VALUES, Raw

_LENGTHS = (
    "pixel",
    "source_to_axis",
    "source_to_detector",
    "detector_offset",
    "axis_offset",
    "axis_column",
    "row_pixel",
    "middle_row",
)
_POSITIVE = ("pixel", "row_pixel", "source_to_axis", "source_to_detector")
_LARGEST_LENGTH, _SMALLEST_LENGTH, _LARGEST_ANGLE = 1e9, 1e-9, 1e5
_LONGEST_FACT = 2000


def checked(raw: Raw, path: Path) -> Raw:
    """The same, if it is what it has to be.

    Raises
    ------
    InputError
        Naming what is not.
    """
    values = raw.values
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"'{path}' has projections of shape {values.shape}; an (angle, column) sinogram is needed.")
    if raw.kind_of_values not in VALUES:
        raise InputError(f"'{path}' has values of the kind '{raw.kind_of_values}'; they are {', '.join(VALUES)}.")
    for name, frames in (("flats", raw.flats), ("darks", raw.darks)):
        if frames is not None and (frames.ndim not in (1, 2) or frames.size == 0):
            raise InputError(f"'{path}' has {name} of shape {frames.shape}; (frame, column) is needed.")
    if raw.truth is not None and (raw.grid is None or raw.truth.shape != raw.grid.shape):
        raise InputError(f"'{path}' has a truth of shape {raw.truth.shape}, which is not that of its grid.")
    fields = {**raw.fields, **_checked_fields(raw.fields, path)}
    facts = {str(key): _cut(str(text)) for key, text in raw.facts.items()}
    flats, darks = (None if frames is None else np.atleast_2d(frames) for frames in (raw.flats, raw.darks))
    return replace(raw, fields=fields, facts=facts, flats=flats, darks=darks)


def checked_angles(angles: object, whose: str) -> NDArray[np.float64]:
    """Angles in radians.

    Raises
    ------
    InputError
        If they are not finite real numbers along one axis, or of more turns than any scan.
    """
    found = np.asarray(angles)
    if found.dtype.kind not in "iuf" or found.ndim != 1 or found.size == 0:
        raise InputError(
            f"The angles of {whose} are {found.dtype} of shape {found.shape}; real numbers along one axis are needed."
        )
    bad = int(found.size - np.isfinite(found).sum())
    if bad:
        raise InputError(f"{bad} of the {found.size} angles of {whose} are not finite; give 'angles' in a geometry file.")
    largest = float(np.abs(found).max())
    if largest > _LARGEST_ANGLE:
        raise InputError(
            f"The angles of {whose} reach {np.rad2deg(largest):.3g} degrees, more turns than any scan; check the angles."
        )
    return found.astype(np.float64)


def _checked_fields(fields: Mapping[str, object], path: Path) -> dict[str, object]:
    kind = fields.get("kind", "parallel")
    if kind not in ("parallel", "fan"):
        raise InputError(f"'{path}' has a beam of the kind '{kind}'; parallel and fan are read.")
    lengths = {name: _length(name, fields[name], path) for name in _LENGTHS if name in fields}
    angles = {"angles": checked_angles(fields["angles"], f"'{path}'")} if "angles" in fields else {}
    return lengths | angles


def _length(name: str, value: object, path: Path) -> object:
    if name == "axis_column" and isinstance(value, str) and value == "search":
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"'{name}' of '{path}' is {value!r}; a finite number is needed.")
    number, unit = float(value), "" if name in ("axis_column", "middle_row") else " mm"
    if abs(number) > _LARGEST_LENGTH or (name in _POSITIVE and number < _SMALLEST_LENGTH):
        kind = "positive number" if name in _POSITIVE else "number"
        raise InputError(f"'{name}' of '{path}' is {number:g}{unit}; a {kind} below {_LARGEST_LENGTH:g} is needed.")
    return number


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_FACT else f"{text[:_LONGEST_FACT]}… ({len(text) - _LONGEST_FACT} characters more)"
