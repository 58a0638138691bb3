"""What can be typed for angles, arcs, regions and doses: degrees of the scanner, and mm."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.design import CandidateGrid
from ctuq.errors import InputError
from ctuq.files.angles import degrees_in
from ctuq.tomo.field import FIELDS, checked_field
from ctuq.tomo.geometry import radians

_MOST_VIEWS = 100_000


def degrees(text: str, option: str) -> NDArray[np.float64]:
    """Angles in degrees from ``A,B,...``."""
    return _numbers(text, option, ",", "degrees with commas between them, such as 0,12,40")


def simulated_angles(wanted: int | Path) -> NDArray[np.float64]:
    """So many angles over half a turn, or those in degrees of a text file (blanks, commas or lines between), in radians."""
    if isinstance(wanted, int):
        if not 1 <= wanted <= _MOST_VIEWS:
            raise InputError(f"A simulation takes 1 to {_MOST_VIEWS} --angles, got {wanted}.")
        return radians(np.arange(wanted) * 180.0 / wanted)
    return radians(degrees_in(wanted))


def span(text: str, option: str) -> tuple[int, int]:
    """The numbers A to B - 1 of ``A:B``, or one of ``N``."""
    found = re.fullmatch(r"\s*(\d{1,9})\s*(?::\s*(\d{1,9})\s*)?", text)
    first, last = (int(found[1]), int(found[2] or int(found[1]) + 1)) if found else (0, 0)
    if first >= last:
        raise InputError(f"{option} takes a number N, or A:B with A below B (A to B - 1, counted from 0), not {text!r}.")
    return first, last


def steps(text: str, option: str, count: int) -> range:
    """Of so many numbers those of ``A:B`` or ``A:B:STEP`` (A to B - 1; either may be left out), or one of ``N``."""
    found = re.fullmatch(r"\s*(\d{0,9})\s*(:\s*(\d{0,9})\s*(?::\s*(\d{1,9})\s*)?)?", text)
    if not found or not text.strip():
        raise InputError(f"{option} takes A:B or A:B:STEP (A to B - 1, counted from 0, the lowest), not {text!r}.")
    first = int(found[1] or 0)
    last = first + 1 if found[2] is None else int(found[3] or count)
    chosen = range(first, last, int(found[4] or 1) or 1)
    if not chosen or last > count:
        raise InputError(f"{option} {text.strip()} takes slices that are not there: the scan has 0 to {count - 1}.")
    return chosen


def arcs(text: str, clockwise: bool) -> tuple[tuple[float, float], ...]:
    """Arcs in radians from ``FROM:TO,...`` in the scanner's degrees."""
    found = []
    for part in text.split(","):
        ends = radians(_numbers(part, "--forbid", ":", "arcs in degrees, such as 80:100", count=2))
        found.append((float(-ends[1]), float(-ends[0])) if clockwise else (float(ends[0]), float(ends[1])))
    return tuple(found)


def field(text: str | None) -> float | str | None:
    """The width of an image in mm, or "all" or "common"."""
    if text is None or text in FIELDS:
        return text
    try:
        return checked_field(float(text.strip().lower().removesuffix("mm")))
    except ValueError:
        raise InputError(f"--field takes a width in mm such as 25, or the word all or common, not {text!r}.") from None


def distances(text: str | None) -> tuple[float, float] | None:
    """Distances in mm of ``TO_AXIS:TO_DETECTOR``."""
    if text is None:
        return None
    to_axis, to_detector = _numbers(
        text, "--cone", ":", "distances in mm from source to axis and detector, such as 100:200", count=2
    )
    if not 0 < to_axis < to_detector:
        raise InputError(f"--cone takes two positive distances in mm, that to the detector the larger, not {text!r}.")
    return float(to_axis), float(to_detector)


def box(text: str) -> tuple[float, float, float, float]:
    """A region in mm from ``X0,X1,Y0,Y1``."""
    x0, x1, y0, y1 = _numbers(text, "--roi", ",", "left, right, bottom and top in mm, such as -5,5,0,10", count=4).tolist()
    return x0, x1, y0, y1


def voxels(text: str | None) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """A box of voxels from ``Z0:Z1,Y0:Y1,X0:X1``."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3:
        raise InputError(f"--roi takes voxels along z, y and x such as 10:20,0:64,8:40, not {text!r}.")
    z, y, x = (span(part, "Each part of --roi") for part in parts)
    return z, y, x


def exposures(path: Path, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The dose at each of these angles (scanner's degrees), interpolated between the lines 'angle dose' of a text file."""
    try:
        table = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is not a text file of lines such as '45 1.5' (degrees, dose).") from error
    if table.shape[1:] != (2,) or not (np.isfinite(table).all() and (table[:, 1] > 0).all()):
        raise InputError(f"'{path}' must hold two numbers a line, an angle in degrees and a positive dose.")
    return np.interp(angles, *table[np.argsort(table[:, 0])].T, period=360.0)


def grid(text: str) -> NDArray[np.float64]:
    """The angles in radians of ``FIRST:STOP:STEP``."""
    what = "first, stop and step in degrees, such as 0:180:1"
    start, stop, step = radians(_numbers(text, "--candidates", ":", what, count=3))
    return CandidateGrid(float(start), float(stop), float(step)).angles


def _numbers(text: str, option: str, mark: str, what: str, *, count: int | None = None) -> NDArray[np.float64]:
    try:
        values = np.array([float(part) for part in text.split(mark) if part.strip()])
    except ValueError:
        raise InputError(f"{option} takes {what}, not {text!r}.") from None
    if not values.size or not np.isfinite(values).all() or (count is not None and values.size != count):
        raise InputError(f"{option} takes {what}, not {text!r}.")
    return values
