"""Numbered pictures of a scanner, one a view: found by the name that its side file gives, read one detector row each."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.pictures import load_picture, refuse_other_types

_SHOWN = 5
_Fact = TypeVar("_Fact")


def numbered(folder: Path, name: str, suffixes: Sequence[str], source: Path) -> dict[int, Path]:
    """The pictures ``NAME123.tif`` or ``NAME_123.tif`` of a folder by their number, names and suffixes in any case.

    If there are none, but the folder has numbered pictures of one other name (a renamed scan), these.

    Raises
    ------
    InputError
        If there are none, or of several other names.
    """
    pictures = sorted(part for part in folder.iterdir() if part.suffix.lower() in suffixes)
    own = {int(match[1]): part for part in pictures if (match := re.fullmatch(_own(name), part.stem, re.IGNORECASE))}
    if own:
        return dict(sorted(own.items()))
    families: dict[str, dict[int, Path]] = defaultdict(dict)
    for part in pictures:
        if found := re.fullmatch(r"(.*?)(\d+)", part.stem):
            families[found[1].lower()][int(found[2])] = part
    if len(families) == 1:
        return dict(sorted(next(iter(families.values())).items()))
    raise InputError(f"'{source}' is of pictures '{name}...{suffixes[0]}', but '{folder}' has none; put them beside it.")


def _own(name: str) -> str:
    """Names of its pictures; a separator may stand before the number."""
    return re.escape(name) + r"[_\-. ]?(\d+)"


def left_out(numbers: Sequence[int], count: int) -> str:
    """A warning for the pictures that are missing of ``count``, numbered from 0 or 1; nothing if all are there."""
    first, there = 0 if 0 in numbers else 1, set(numbers)
    lost = count - sum(first <= number < first + count for number in there)
    if lost <= 0:
        return ""
    missing = list(islice((number for number in count_from(first) if number not in there), min(lost, _SHOWN)))
    names = ", ".join(map(str, missing)) + (", ..." if lost > _SHOWN else "")
    return f"{lost} of {count} projections are missing (number {names}): the scan is read without them."


def picture_rows(files: Sequence[Path], row: int, shape: tuple[int, int]) -> NDArray:
    """One detector row of each picture: (view, column).

    Raises
    ------
    InputError
        If a picture is damaged, or of another shape.
    """
    return _lines(files, row, shape, 0)


def picture_columns(files: Sequence[Path], column: int, shape: tuple[int, int]) -> NDArray:
    """One column of each picture, which is a row of a detector that stood upright: (view, picture's row); as `picture_rows`."""
    return _lines(files, column, shape, 1)


_BLOCK = 32
# Of each series of pictures the lines that were read last: along which axis, from which on.
_blocks: ContextVar[dict[tuple[Path, ...], tuple[tuple[int, int], NDArray]] | None] = ContextVar("blocks", default=None)
# What does not differ from row to row, such as a table of all views.
_facts: ContextVar[dict[Hashable, Any] | None] = ContextVar("facts", default=None)


@contextmanager
def lines_in_blocks() -> Iterator[None]:
    """Here pictures are read some lines at a time, as all of them are asked for, one after the other.

    Without it every picture is opened once for each of its rows: a thousand times.
    """
    token, facts = _blocks.set({}), _facts.set({})
    try:
        yield
    finally:
        _blocks.reset(token)
        _facts.reset(facts)


def once(key: Hashable, make: Callable[[], _Fact]) -> _Fact:
    """What ``make`` gives, made once for all rows inside of `lines_in_blocks`; whoever takes it must not change it."""
    kept = _facts.get()
    if kept is None:
        return make()
    if key not in kept:
        kept[key] = make()
    return kept[key]


def _lines(files: Sequence[Path], line: int, shape: tuple[int, int], axis: int) -> NDArray:
    kept = _blocks.get()
    if kept is None:
        return _block(files, range(line, line + 1), shape, axis)[:, 0]
    series, start = tuple(files), line - line % _BLOCK
    if series not in kept or kept[series][0] != (axis, start):
        kept.pop(series, None)
        kept[series] = (axis, start), _block(files, range(start, min(start + _BLOCK, shape[axis])), shape, axis)
    return kept[series][1][:, line - start]


def _block(files: Sequence[Path], lines: range, shape: tuple[int, int], axis: int) -> NDArray:
    """Some lines of each picture, (view, line, along the line)."""
    found, types = [], []
    for file in files:
        picture = load_picture(file)
        types.append((file, picture.dtype))
        if picture.shape != shape:
            raise InputError(f"'{file}' is {picture.shape}, but {shape} (rows, columns) is expected; all must have one size.")
        found.append((picture if axis == 0 else picture.T)[lines.start : lines.stop].copy())
    refuse_other_types(types)
    return np.stack(found)


def picture_shape(file: Path) -> tuple[int, int]:
    """Rows and columns of a grey picture.

    Raises
    ------
    InputError
        If it is damaged, or no single grey picture.
    """
    shape = once(("shape", file), lambda: load_picture(file).shape)
    if len(shape) != 2:
        raise InputError(f"'{file}' has shape {shape}; one grey picture for each view is needed.")
    return shape[0], shape[1]
