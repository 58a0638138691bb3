"""MRC stacks (``.mrc``, ``.ali``, ``.st``, ``.rec``, ``.mrcs``) of electron tomography, in either byte order, maybe packed.

Header fields by the MRC2014 standard: NX, NY, NZ, MODE, the cell's size in Ångström over the sampling MX, the extended header's
length, the machine stamp; of mode 0 IMOD's flag says whether bytes are signed. Columns are x, rows y, sections the views.

Tilt angles stand in ``NAME.rawtlt`` (as measured), ``NAME.tlt`` (as aligned) or SerialEM's ``NAME.mdoc``, in degrees. IMOD
turns the specimen about the y axis by the right hand, so a point falls on x cos θ + z sin θ: ctuq's own sense, with its y for
IMOD's z.
"""

import bz2
import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.raw import TURNED, Raw, middle_row
from ctuq.files.formats.sidefile import decoded
from ctuq.files.formats.sizes import refuse_bomb
from ctuq.memory import require_room

_NAMES = (".mrc", ".ali", ".st", ".rec", ".mrcs", ".map")
_PACKED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
_HEADER = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_IMOD, _SIGNED = 1146047817, 1
_MM = 1e-7
_LARGEST, _MOST = 1 << 20, 1 << 24
_UPRIGHT = 1.0
_TILT = re.compile(r"(?m)^\s*TiltAngle\s*=\s*(\S+)")


@dataclass(frozen=True)
class _Stack:
    """Where the numbers of a stack are."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    start: int
    pixel: float | None

    @property
    def end(self) -> int:
        return self.start + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def is_mrc(path: Path) -> bool:
    """Whether a file's header is that of an MRC stack: by its stamp, or by its name and sizes that agree with its length."""
    named = _unpacked(path.name).lower().endswith(_NAMES)
    try:
        header = _content(path, 0, _HEADER)
        return len(header) == _HEADER and (header[208:211] == b"MAP" or named)
    except (OSError, zlib.error, EOFError):
        return False


def read_mrc(path: Path, row: int | None, order: str | None = None) -> Raw:
    """Read one row of each section, or with the order "sinograms" one section, with the angles of the file beside it.

    With the order `TURNED` it is one column of each section.

    Raises
    ------
    InputError
        If the file is truncated, of a mode that is not read, or has another number of angles.
    """
    stack = _header(path)
    _refuse_other_length(path, stack)
    if stack.shape[0] == 1:  # one picture: a sinogram
        fields: dict[str, object] = {} if stack.pixel is None else {"pixel": stack.pixel}
        return Raw("MRC stack", _part(path, stack, 0), "log", fields)
    views, rows = stack.shape[:2] if order != "sinograms" else stack.shape[1::-1]
    columns, turned = stack.shape[2], order == TURNED
    rows, columns = (columns, rows) if turned else (rows, columns)
    row = middle_row((views, rows, columns), row, str(path))
    fields = {} if stack.pixel is None else {"pixel": stack.pixel}
    warnings: tuple[str, ...] = ()
    found = _angles_beside(path)
    if found is not None:
        degrees, warnings = _tilts(found)
        if len(degrees) != views:
            what = "sections" if order != "sinograms" else "rows a section"
            raise InputError(f"'{path}' has {views} {what} but '{found}' {len(degrees)} angles; check both.")
        fields |= {"kind": "parallel", "angles": np.deg2rad(degrees)}
    part = (slice(None), slice(None), row) if turned else (slice(None), row)
    values = _part(path, stack, row if order == "sinograms" else part)
    return Raw("MRC stack", values, "log", fields, row=row, rows=rows, turned=turned).warned(*warnings)


def load_mrc(path: Path) -> NDArray:
    """All numbers of a stack: (section, row, column).

    Raises
    ------
    InputError
        If the file is truncated or of a mode that is not read.
    """
    stack = _header(path)
    _refuse_other_length(path, stack)
    require_room(stack.shape, stack.dtype.itemsize, f"'{path}'", "save the part of it that is needed")
    return _part(path, stack, ())


def _part(path: Path, stack: _Stack, index: int | tuple[slice | int, ...]) -> NDArray:
    """A part of (section, row, column); of a file that is not packed nothing else is read."""
    if _opener(path):
        require_room(stack.shape, stack.dtype.itemsize, f"'{path}'", "unpack it, so that one row can be read alone")
        content = _content(path, stack.start, stack.end - stack.start)
        if len(content) < stack.end - stack.start:
            raise _truncated(path, stack, stack.start + len(content))
        return np.frombuffer(content, stack.dtype).reshape(stack.shape)[index]
    return np.array(np.memmap(path, stack.dtype, "r", stack.start, stack.shape)[index])


def _refuse_other_length(path: Path, stack: _Stack) -> None:
    size = path.stat().st_size
    if _opener(path):
        refuse_bomb(stack.end, size, f"'{path}'")
    elif size < stack.end:
        raise _truncated(path, stack, size)


def _truncated(path: Path, stack: _Stack, found: int) -> InputError:
    return InputError(f"'{path}' is truncated: {stack.shape} values need {stack.end} bytes, it has {found}; copy it again.")


def _header(path: Path) -> _Stack:
    content = _content(path, 0, _HEADER)
    for order in _orders(content):
        numbers = np.frombuffer(content, order + "i4", 256) if len(content) == _HEADER else np.zeros(256, np.int32)
        columns, rows, sections, mode = map(int, numbers[:4])
        if mode in _MODES and 0 < columns <= _LARGEST and 0 < rows <= _LARGEST and 0 < sections <= _MOST and numbers[23] >= 0:
            unsigned = mode == 0 and numbers[38] == _IMOD and not numbers[39] & _SIGNED
            kind = "u1" if unsigned else _MODES[mode]
            dtype = np.dtype(kind if kind.endswith("1") else order + kind)
            pixel = _pixel(numbers, np.frombuffer(content, order + "f4", 256))
            return _Stack((sections, rows, columns), dtype, _HEADER + int(numbers[23]), pixel)
    raise InputError(f"'{path}' is not an MRC stack of a mode that is read ({', '.join(map(str, _MODES))}).")


def _orders(content: bytes) -> tuple[str, ...]:
    """Byte orders to try: what the machine stamp says, or both where it says nothing."""
    stamp = content[212:214]
    return (">",) if stamp == b"\x11\x11" else ("<",) if stamp[:1] == b"\x44" else ("<", ">")


def _pixel(numbers: NDArray, lengths: NDArray) -> float | None:
    """Pitch of the columns in mm; a cell of nothing, or of 1 Å a pixel as writers leave it, says none."""
    pitch = float(lengths[10]) / int(numbers[7]) if numbers[7] > 0 else 0.0
    return pitch * _MM if np.isfinite(pitch) and pitch > 0 and pitch != 1.0 else None


def _unpacked(name: str) -> str:
    return re.sub(r"(?i)\.(gz|bz2)$", "", name)


def _opener(path: Path) -> Callable[..., Any] | None:
    """What opens a packed file."""
    with path.open("rb") as file:
        return _PACKED.get(file.read(2))


def _content(path: Path, start: int, count: int) -> bytes:
    """So many bytes from a place on, of what is inside if the file is packed."""
    opener = _opener(path)
    try:
        with path.open("rb") if opener is None else opener(path) as file:
            file.seek(start)
            return file.read(count)
    except EOFError:
        return b""


def _angles_beside(path: Path) -> Path | None:
    """The file of angles that belongs to a stack: of its whole name, its stem, or that without IMOD's ``_ali``."""
    name = _unpacked(path.name)
    stem = name.rpartition(".")[0] or name
    stems = [part.lower() for part in (name, stem, re.sub(r"(?i)[_-]?(ali|st|preali)$", "", stem)) if part]
    aligned = name.lower().endswith(".ali") or stem.lower().endswith("ali")
    ends = (".tlt", ".rawtlt", ".mdoc") if aligned else (".rawtlt", ".tlt", ".mdoc")
    there = {part.name.lower(): part for part in path.parent.iterdir()}
    return next((there[stem + end] for end in ends for stem in stems if stem + end in there), None)


def _tilts(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Angles in degrees in the order of the sections, and a warning if the tilt axis does not run along the columns."""
    text = decoded(path.read_bytes()[: 1 << 24])
    if path.suffix.lower() != ".mdoc":
        return _numbers(text.replace(",", ".").split(), path), ()
    sections = re.split(r"(?m)^\s*\[ZValue\s*=\s*(\d+)\s*\]", text)
    found = {int(n): _TILT.search(part) for n, part in zip(sections[1::2], sections[2::2], strict=True)}
    tilts = {number: match[1].replace(",", ".") for number, match in found.items() if match}
    if not tilts or len(tilts) < len(found):
        raise InputError(f"'{path}' does not give each section's TiltAngle; put the angles into a .rawtlt file.")
    angles = _numbers([tilts[number] for number in sorted(tilts)], path)
    turned = re.search(r"(?m)^\s*(?:RotationAngle|.*TiltAxisAngle)\s*=\s*([-+\d.]+)", text)
    off = abs((float(turned[1]) + 90) % 180 - 90) if turned else 0.0
    text = f"The tilt axis is {off:.1f}° from the pictures' columns, which is left out: align the stack first."
    return angles, (text,) if off > _UPRIGHT else ()


def _numbers(words: Sequence[str], path: Path) -> NDArray[np.float64]:
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        raise InputError(f"'{path}' must hold one angle in degrees a line; it holds other words.") from None
