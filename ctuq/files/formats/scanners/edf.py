"""ESRF EDF scans: one file of many frames, or a folder of ``NAME0000.edf`` with ``refHST*``, ``dark*`` and a ``NAME.info``.

Names and keys are those that ESRF's tomoscan documents for scans of SPEC: ``TOMO_N`` projections over ``ScanRange`` degrees
(half a turn without its end, or a whole turn with it), pictures beyond are returns to check for drift; ``PixelSize`` in
micrometres; ``darkend`` is the sum of ``DARK_N`` frames. The axis' column is searched. As for NXtomo, of the same scanners,
angles are positive.
"""

import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.extras import extra
from ctuq.files.formats.raw import Raw, as_sinogram, middle_row
from ctuq.files.formats.sidefile import SideFile, read_sidefile
from ctuq.files.formats.sizes import refuse_bomb

_SUFFIXES = (".edf", ".edf.gz", ".edf.bz2")
_START = re.compile(rb"\s*\{\s*(?:\r?\n)?[^{}]*=[^{}]*;", re.DOTALL)
_SLICE = re.compile(r"slice[_\d]|_rec(_|$)", re.IGNORECASE)


def is_edf(path: Path) -> bool:
    """Whether a file is EDF: by its header of ``{ key = value ; ... }``, or by its name where it is compressed."""
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as file:
                start = file.read(4096)
        except (OSError, EOFError):
            return False
    return _START.match(start) is not None or (start.startswith(b"BZh") and path.name.lower().endswith(_SUFFIXES))


def edf_files(folder: Path) -> list[Path]:
    """The EDF files of a folder in natural order."""
    return sorted((part for part in folder.iterdir() if part.name.lower().endswith(_SUFFIXES)), key=_natural)


def read_edf(path: Path, row: int | None) -> Raw:
    """Read an EDF file (a sinogram, or a stack of projections) or a folder of projections; needs the package fabio.

    Raises
    ------
    InputError
        If a file is damaged or of another size than the others, or the folder holds no projection.
    BackendError
        If fabio is not installed.
    """
    if path.is_dir():
        return _folder(path, row)
    values, row, rows = as_sinogram(_frames(path), row, str(path))
    return Raw("ESRF EDF", values, "log", {}, row=row, rows=rows)


def load_edf(path: Path) -> NDArray:
    """The numbers of an EDF file: one picture (2 axes) or a stack (3 axes).

    Raises
    ------
    InputError, BackendError
        As `read_edf`.
    """
    return _frames(path)


def _folder(path: Path, row: int | None) -> Raw:
    files = edf_files(path)
    darks, refs = ([p for p in files if re.match(rf"(?i){name}", p.name)] for name in ("dark", "ref"))
    views = [p for p in files if p not in darks and p not in refs and not _SLICE.search(p.stem)]
    if not views:
        raise InputError(f"The folder '{path}' holds EDF files but no projection; give the folder of the scan.")
    info = _info(path)
    count = _count(info, "tomo_n") or len(views)
    shape = _frames(views[0]).shape
    if len(shape) != 2:
        raise InputError(f"'{views[0]}' holds {shape[0]} frames; give a stack by its own name, or a folder of single frames.")
    row = middle_row((0, shape[0]), row, str(path))
    values = _lines(views[:count], row, shape)
    raw = Raw(
        "ESRF EDF folder",
        values,
        "counts" if refs else "log",
        _fields(info, count, len(values)),
        _lines(refs, row, shape) if refs else None,
        _darks(darks, row, shape, _count(info, "dark_n") or 1) if darks else None,
        row=row,
        rows=shape[0],
        facts={"sample": path.name},
        stated=bool(refs),
    )
    more, less = len(views) - count, count - len(views)
    text = f"{more} pictures after the {count} projections (returns to earlier angles) are left out."
    missing = f"{less} of {count} projections are missing at the end: the scan is read without them."
    return raw.warned(*((text,) if more > 0 else (missing,) if less > 0 else ()))


def _info(folder: Path) -> SideFile | None:
    found = sorted(part for part in folder.iterdir() if part.suffix.lower() == ".info" and part.is_file())
    own = [part for part in found if part.stem.lower() == folder.name.lower()] or found
    return read_sidefile(own[0]) if own else None


def _count(info: SideFile | None, name: str) -> int:
    return 0 if info is None else round(info.number(name) or 0)


def _fields(info: SideFile | None, count: int, views: int) -> dict[str, object]:
    fields: dict[str, object] = {"kind": "parallel"}
    if info is None:
        return fields
    span, pixel = info.number("scanrange", "scan_range"), info.number("pixelsize", "pixel_size")
    if span is not None:
        whole = abs(span - 360) < abs(span - 180)
        fields["angles"] = np.deg2rad(np.linspace(0, span, count, endpoint=whole)[:views])
    if pixel:
        fields["pixel"] = pixel / 1e3
    return fields


def _darks(files: Sequence[Path], row: int, shape: tuple[int, ...], frames: int) -> NDArray:
    ends = [p for p in files if p.name.lower().startswith("darkend")]
    return _lines(ends, row, shape) / frames if ends else _lines(files, row, shape)


def _lines(files: Sequence[Path], row: int, shape: tuple[int, ...]) -> NDArray:
    lines = []
    for file in files:
        frame = _frames(file)
        if frame.shape[-2:] != shape:
            raise InputError(
                f"'{file}' is {frame.shape[-2:]}, but {shape} (rows, columns) is expected; all must have one size."
            )
        lines.append(np.atleast_2d(frame[..., row, :]))
    return np.concatenate(lines)


def _frames(path: Path) -> NDArray:
    """One frame (row, column), or all frames of a file (frame, row, column)."""
    edf: Any = (extra("fabio", "ESRF EDF"), extra("fabio.edfimage", "ESRF EDF"))[1]
    try:
        with edf.EdfImage().read(str(path)) as image:
            if image.incomplete_file:  # fabio fills up with zeros
                raise EOFError(path)
            kept = [image.get_frame(number) for number in range(image.nframes)]
            _refuse_hollow(kept, path)
            frames = [np.asarray(frame.data) for frame in kept]
        values = frames[0] if len(frames) == 1 else np.stack(frames)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # fabio raises many types on damaged files
        raise InputError(f"'{path}' is not a whole EDF file; copy it again.") from error
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "iuf":
        raise InputError(f"'{path}' has data of shape {values.shape}; one picture or one stack of pictures is needed.")
    return values


def _refuse_hollow(frames: Sequence[Any], path: Path) -> None:
    """Refuse, before memory is taken, frames that declare more than is there: fabio would make up the rest of zeros.

    Their numbers may also be said to lie in another file, by its name: one file reads no other.
    """
    if any(frame.bfname is not None for frame in frames):
        raise InputError(f"'{path}' says that its numbers lie in another file, which is not followed; convert it to one file.")
    packed = any(frame._data_compression not in (None, "NONE") for frame in frames)
    if not packed and any(frame.size > frame.blobsize for frame in frames):
        raise EOFError(path)
    refuse_bomb(sum(frame.size for frame in frames), path.stat().st_size, f"'{path}'")


def _natural(path: Path) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name.lower())]
