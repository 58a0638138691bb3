"""Angles out of tables: one line a view, with its number, its angle, an exposure and the like."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.angles import degrees_in
from ctuq.text import listed

_BETWEEN = re.compile(r"[\s,;]+")
_LARGEST, _MOST_TURNS = 1 << 24, 100.0
Told = tuple[NDArray[np.float64], str, tuple[str, ...]]
"""Angles, the name of their column or array, which may tell their unit, and what was assumed of them."""


def angles_of_text(path: Path, counts: Sequence[int], column: str) -> Told:
    """The angles of a text file: all its numbers, below a heading or not, or one column of a table with a line for each view.

    Parameters
    ----------
    path : Path
    counts : sequence of int
        How many angles there may be: those of the views, or of all frames.
    column : str
        Which column: its name in the line above the numbers, or its number, from 1; empty if nobody says.

    Raises
    ------
    InputError
        If it cannot be read, holds other words, or several columns may be the angles and none is named.
    """
    names, lines = _lines(path)
    width = len(lines[0]) if lines else 0
    same = all(len(line) == width for line in lines)
    if not column and width == len(names) == 1 and same and (values := _numbers([line[0] for line in lines])) is not None:
        return values, names[0], ()
    table = width > 1 and same
    if not column and not (table and len(lines) in counts and len(lines) * width not in counts):
        return degrees_in(path), "", ()
    if not table:
        raise InputError(f"'{path}' is no table of several columns, of which '{column}' could be one; leave it out.")
    named = names if len(names) == width else [""] * width
    if not column and _may_be_decimal_commas(path):
        raise InputError(
            f"'{path}' has commas between digits and no point, so each may stand before decimals: write these with points, or "
            f"blanks between columns, or name a column, such as 'angles: {path.name}:2'."
        )
    columns = [_numbers([line[n] for line in lines]) for n in range(width)]
    return _one(columns, named, column, str(path), f"name it, such as 'angles: {path.name}:2'")


def angles_of_array(values: NDArray, counts: Sequence[int], source: str) -> Told:
    """The angles of an array: all its numbers, or one column of a table with a line, or a column, for each view.

    Raises
    ------
    InputError
        If several columns may be the angles.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 2 and min(values.shape) > 1 and values.size not in counts:
        for lines in (values, values.T):
            if len(lines) in counts:
                hint = "save the one of the angles by itself"
                return _one(list(lines.T), [""] * lines.shape[1], "", source, hint)
    return values.ravel(), "", ()


def _one(columns: Sequence[NDArray | None], names: Sequence[str], wanted: str, source: str, hint: str) -> Told:
    told = [f"{n} ('{name}')" if name else str(n) for n, name in enumerate(names, start=1)]
    if wanted:
        found = [n for n, name in enumerate(names, start=1) if wanted in (name, str(n))]
        values = columns[found[0] - 1] if len(found) == 1 else None
        if values is None:
            raise InputError(f"'{source}' has no column '{wanted}' of numbers; its columns are {listed(told)}.")
        return values, names[found[0] - 1], ()
    fitting = _fitting(columns)
    if len(fitting) != 1:
        which = f"columns {' and '.join(told[n] for n in fitting)} may be" if fitting else "no column looks like"
        raise InputError(f"'{source}' is a table, and {which} the angles: {hint}.")
    (n,) = fitting
    values = columns[n]
    assert values is not None
    text = f"Of the {len(columns)} columns of '{source}' column {told[n]} is taken as the angles; if that is wrong, {hint}."
    return values, names[n], (text,)


def _fitting(columns: Sequence[NDArray | None]) -> list[int]:
    """Which columns may be angles: they change, are not too far apart or too large, and do not only count the lines.

    Whole numbers from 0 or 1 on may be degrees all the same where no other column may be.
    """
    may = {n: values for n, values in enumerate(columns) if values is not None and _may_be_angles(values)}
    distinct = [n for n in may if not any(np.array_equal(may[n], may[other]) for other in may if other < n)]
    return [n for n in distinct if not _counts_lines(may[n])] or distinct


def _may_be_angles(values: NDArray) -> bool:
    steps = np.abs(np.diff(values))
    return bool(steps.max() > 0 and np.median(steps) <= 360.0 and np.abs(values).max() <= 360.0 * _MOST_TURNS)


def _counts_lines(values: NDArray) -> bool:
    return any(np.array_equal(values, first + np.arange(len(values))) for first in (0, 1))


def _may_be_decimal_commas(path: Path) -> bool:
    text = path.read_text(encoding="utf-8-sig")
    return "." not in text and re.search(r"\d,\d", text) is not None


def _numbers(words: Sequence[str]) -> NDArray[np.float64] | None:
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _lines(path: Path) -> tuple[list[str], list[list[str]]]:
    """The words of the lines of a text, and of the last line above them that holds no number."""
    try:
        if path.stat().st_size > _LARGEST:
            return [], []
        kept = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        return [], []
    names: list[str] = []
    lines: list[list[str]] = []
    for line in kept:
        words, mark, comment = (part.strip(" \t,;") for part in line.partition("#"))
        found = _BETWEEN.split(words) if words else []
        if found and (lines or any(_numbers([word]) is not None for word in found)):
            lines.append(found)
        elif not lines and (found or (mark and comment)):
            names = found or _BETWEEN.split(comment)
    return names, lines
