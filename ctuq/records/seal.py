"""The checksum at the end of a file: a byte that changed is noticed before anything is made of the file.

It stands behind the HDF5 data, where HDF5 does not look. A program that edits the file drops it, so that what is not sealed was
edited, or written by a ctuq that did not seal; whoever reads such a file says so.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from ctuq.errors import InputError

_BEGIN = b"\nctuq sha256 "
_PATTERN = re.compile(_BEGIN + rb"([0-9a-f]{64})\n")
_LENGTH, _BLOCK = 78, 1 << 20


def seal_of(content: bytes | memoryview) -> bytes:
    """What is to follow the content of a file."""
    return _BEGIN + hashlib.sha256(content).hexdigest().encode() + b"\n"


def seal_of_file(file: BinaryIO) -> bytes:
    """What is to follow the rest of a file, which is read."""
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    return _BEGIN + found.hexdigest().encode() + b"\n"


def is_sealed(path: str | os.PathLike) -> bool:
    """Whether a file ends in a checksum, right or wrong.

    Raises
    ------
    InputError
        If it ends in a part of one.
    """
    return _sealed_with(Path(path)) is not None


def checksum(path: str | os.PathLike) -> str | None:
    """The checksum that a file ends in, which tells one file from another; None of a file that was edited.

    Raises
    ------
    InputError
        If it ends in a part of one.
    """
    return _sealed_with(Path(path))


def check_seal(path: str | os.PathLike) -> None:
    """Compare a file with its checksum, if it has one.

    Raises
    ------
    InputError
        If they differ, or the checksum is not whole.
    """
    path = Path(path)
    wanted = _sealed_with(path)
    if wanted is None:
        return
    found, rest = hashlib.sha256(), path.stat().st_size - _LENGTH
    with path.open("rb") as file:
        while rest > 0 and (block := file.read(min(_BLOCK, rest))):
            found.update(block)
            rest -= len(block)
    if found.hexdigest() != wanted:
        raise InputError(
            f"'{path}' was damaged after it was written, or another program has it open to write: its contents do not match "
            "their checksum; close it there, use a copy or make it again."
        )


def _is_part(end: bytes) -> bool:
    """Whether this end of a file was a checksum: what follows its beginning, or stands before its number, is damaged."""
    alike = sum(a == b for a, b in zip(end, _BEGIN, strict=False))
    return _BEGIN in end or alike > len(_BEGIN) // 2 or any(end.endswith(_BEGIN[:n]) for n in range(3, len(_BEGIN)))


def _sealed_with(path: Path) -> str | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _LENGTH))
        end = file.read(_LENGTH)
    found = _PATTERN.fullmatch(end)
    if found is None and _is_part(end):
        raise InputError(f"'{path}' is not whole: it is cut off or damaged at its end; copy it again.")
    return None if found is None else found[1].decode()
