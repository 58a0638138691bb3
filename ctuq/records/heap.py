"""Damage of an HDF5 file at which the HDF5 library itself never ends.

Texts of attributes lie in collections "GCOL" of objects (HDF5 File Format Specification, III.E, global heap): index, 2 bytes,
4 more, a size of 8 bytes, the text, filled up to 8. Index 0 is what is free, with its size; where that is 0, the library (2.0
and before) goes round for ever, and no signal of Python reaches it.
"""

import mmap
import os
from pathlib import Path

from ctuq.errors import InputError

_BEGIN, _HEAD = b"GCOL\x01\x00\x00\x00", 16
_WINDOW = 1 << 27
"""Bytes at either end of a file that are looked through, in a tenth of a second: few programs write attributes elsewhere."""

_MOST = 1 << 20
"""Objects of one collection: of this length, it has no end either."""


def refuse_endless_heap(path: str | os.PathLike) -> None:
    """Refuse a file with a collection that has no end.

    Raises
    ------
    InputError
        Saying so.
    """
    path, size = Path(path), Path(path).stat().st_size
    if size < _HEAD:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for first, last in {(0, min(size, _WINDOW)), (max(0, size - _WINDOW), size)}:
            at = content.find(_BEGIN, first, last)
            while at >= 0:
                if _is_endless(content, at):
                    raise InputError(f"'{path}' is damaged in its attributes (an object of no size at {at}); copy it again.")
                at = content.find(_BEGIN, at + 1, last)


def _is_endless(content: mmap.mmap, at: int) -> bool:
    end = at + _number(content, at + 8, 8)
    if end > len(content):
        return False
    place = at + _HEAD
    for _ in range(_MOST):
        if place + _HEAD > end:
            return False
        index, size = _number(content, place, 2), _number(content, place + 8, 8)
        if index == 0:
            if size == 0:
                return True
            place += size
        else:
            place += _HEAD + -(-size // 8) * 8
    return True


def _number(content: mmap.mmap, at: int, width: int) -> int:
    return int.from_bytes(content[at : at + width], "little")
