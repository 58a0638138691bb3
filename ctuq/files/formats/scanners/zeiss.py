"""Zeiss (Xradia) ``.txrm`` scans: an OLE compound file with one stream a picture, of which one row is read.

The streams' names are those that dxchange's ``read_txrm`` reads: pixel size at the object in micrometres, angles in degrees,
distances from the axis in mm (one a view), float32 or uint16 pictures of a detector whose first row is the lowest, the
reference picture (flat), and the shifts that align the views, in pixels towards higher columns and rows. As the Core Imaging
Library's ``ZEISSDataReader`` takes them, columns run to the right as seen from the source and the sample turns
counter-clockwise with the angle, so source and detector turn the other way: the angles are negated.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.cone import fan_row
from ctuq.files.formats.extras import extra
from ctuq.files.formats.raw import Raw

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_TYPES = {5: "<u2", 10: "<f4"}
_CONE = 1
_LARGEST, _MOST = 1 << 16, 1 << 20
_STILL = 1e-3


def read_txrm(path: Path, row: int | None) -> Raw:
    """Read the projections of a ``.txrm`` file; needs the package olefile.

    Raises
    ------
    InputError
        If the file holds no projections (but slices, or a single picture), or parts are missing.
    BackendError
        If olefile is not installed.
    """
    olefile = extra("olefile", "Zeiss .txrm")
    with olefile.OleFileIO(str(path)) as ole:
        return _Scan(ole, path).read(row)


class _Scan:
    """Streams of an open file."""

    def __init__(self, ole: Any, path: Path):
        self._ole, self._path = ole, path

    def read(self, row: int | None) -> Raw:
        views, shape = self._views(), (self._size("ImageHeight"), self._size("ImageWidth"))
        to_axis, beyond = (abs(float(self._floats(f"ImageInfo/{name}RADistance", views)[0])) for name in ("Sto", "Dto"))
        fields, slope = self._lengths(to_axis, beyond)
        row, warnings = fan_row(shape[0], row, (shape[0] - 1) / 2, slope, str(self._path))
        angles = self._floats("ImageInfo/Angles", views)
        if len(angles) < views:
            raise InputError(
                f"'{self._path}' has {views} projections but {len(angles)} angles; the scan was not written whole."
            )
        fields |= {"angles": -np.deg2rad(angles.astype(np.float64)), "rows_upwards": True}
        aside, along = (self._floats(f"Alignment/{name}-Shifts", views) for name in "XY")
        rows = row - np.rint(along).astype(int) if len(along) == views else np.full(views, row)
        values = np.stack([self._counts(number, int(at), shape) for number, at in enumerate(rows)])
        flats = None
        if self._ole.exists("ReferenceData/Image"):
            beam = {at: self._flat(at, shape) for at in {int(at) for at in rows} | {row}}
            flats = beam[row][None]
            # A flat belongs to the detector, which stays where it is: each view is divided by it before it is moved.
            with np.errstate(divide="ignore", invalid="ignore"):
                values = _moved(values / np.stack([beam[int(at)] for at in rows]), aside) * flats
        else:
            values = _moved(values, aside)
        name = self._text("SampleInfo/SampleID")
        raw = Raw(
            "Zeiss txrm",
            values,
            "counts",
            fields,
            flats,
            row=row,
            rows=shape[0],
            facts={"instrument": "Zeiss Xradia"} | ({"sample": name} if name else {}),
            stated=flats is not None,
        )
        return raw.warned(*warnings, *_told_of_shifts(aside if len(aside) == views else np.zeros(1), row - rows))

    def _views(self) -> int:
        said = self._size("NoOfImages")
        taken = self._number("ImageInfo/ImagesTaken", "<i4") or said
        there = sum(self._ole.exists(f"ImageData{n // 100 + 1}/Image{n + 1}") for n in range(min(said, int(taken))))
        if there < 2:
            raise InputError(f"'{self._path}' holds {there} picture, no scan; give the .txrm of the scan.")
        if self._number("ImageInfo/AcquisitionMode", "<i4"):
            raise InputError(f"'{self._path}' holds slices of a reconstruction, no projections; give the .txrm of the scan.")
        return there

    def _lengths(self, to_axis: float, beyond: float) -> tuple[dict[str, object], float]:
        """Beam and pixel in mm, and how steeply rays rise from row to row."""
        voxel = self._number("ImageInfo/PixelSize", "<f4")
        kind = self._number("ImageInfo/XrayGeometry", "<i4")
        if voxel is None or not voxel > 0:
            raise InputError(f"'{self._path}' does not say its pixel size; the scan was not written whole.")
        if kind == _CONE and not (to_axis > 0 and beyond > 0):
            raise InputError(
                f"'{self._path}' is of a cone beam but does not say its distances; the scan was not written whole."
            )
        if kind not in (_CONE, None) or not (to_axis > 0 and beyond > 0):
            return {"kind": "parallel", "pixel": voxel / 1e3}, 0.0
        pixel, length = voxel / 1e3 * (to_axis + beyond) / to_axis, to_axis + beyond
        return {"kind": "fan", "pixel": pixel, "source_to_axis": to_axis, "source_to_detector": length}, pixel / length

    def _line(self, name: str, row: int, shape: tuple[int, int], kind: str) -> NDArray:
        """One row of a picture."""
        number = int(self._number(kind, "<i4") or 0)
        if number not in _TYPES:
            raise InputError(f"'{self._path}' has pictures of data type {number}; 5 (uint16) and 10 (float32) are read.")
        dtype = np.dtype(_TYPES[number])
        content = self._ole.openstream(name).read()
        if len(content) < shape[0] * shape[1] * dtype.itemsize:
            raise InputError(f"'{self._path}' is damaged: '{name}' is shorter than its {shape[0]} rows; copy it again.")
        return np.frombuffer(content, dtype, shape[1], row * shape[1] * dtype.itemsize).astype(np.float32)

    def _counts(self, number: int, row: int, shape: tuple[int, int]) -> NDArray:
        """One row of a view, NaN where it was not measured."""
        if not 0 <= row < shape[0]:
            return np.full(shape[1], np.nan, np.float32)
        return self._line(f"ImageData{number // 100 + 1}/Image{number + 1}", row, shape, "ImageInfo/DataType")

    def _flat(self, row: int, shape: tuple[int, int]) -> NDArray:
        """One row of the reference picture, the nearest one of a row beside the detector."""
        row = int(np.clip(row, 0, shape[0] - 1))
        return self._line("ReferenceData/Image", row, shape, "ReferenceData/DataType")

    def _size(self, name: str) -> int:
        value = self._number(f"ImageInfo/{name}", "<i4")
        if value is None or not 0 < value <= (_MOST if name == "NoOfImages" else _LARGEST):
            raise InputError(f"'{self._path}' says {value} for '{name}'; it is damaged or no Zeiss scan.")
        return int(value)

    def _number(self, name: str, dtype: str) -> float | None:
        found = self._array(name, dtype, 1)
        return float(found[0]) if len(found) else None

    def _floats(self, name: str, count: int) -> NDArray:
        found = self._array(name, "<f4", count)
        return found if len(found) or "Distance" not in name else np.zeros(1, np.float32)

    def _array(self, name: str, dtype: str, count: int) -> NDArray:
        """The first numbers of a stream, fewer if it is shorter, none if there is no such stream."""
        if not self._ole.exists(name):
            return np.zeros(0, dtype)
        content = self._ole.openstream(name).read()
        return np.frombuffer(content, dtype, min(count, len(content) // np.dtype(dtype).itemsize))

    def _text(self, name: str) -> str:
        content = self._ole.openstream(name).read() if self._ole.exists(name) else b""
        return content.split(b"\0")[0].decode("latin-1").strip()


def _told_of_shifts(aside: NDArray, along: NDArray) -> tuple[str, ...]:
    """A sentence of how far views are moved, columns and whole rows."""
    columns, rows = float(np.abs(aside).max()), int(np.abs(along).max())
    if columns <= _STILL and not rows:
        return ()
    parts = f"{columns:.2f} columns at most" + (f" and {rows} whole row{'s' * (rows > 1)}" if rows else "")
    return (f"Each view is moved by the file's own alignment, {parts}, before it is used.",)


def _moved(values: NDArray, shifts: Sequence[float] | NDArray) -> NDArray:
    """Views moved towards higher columns, NaN where nothing was measured."""
    if len(shifts) != len(values) or np.abs(shifts).max() <= _STILL:
        return values
    columns = np.arange(values.shape[1])
    return np.stack(
        [np.interp(columns - by, columns, line, left=np.nan, right=np.nan) for line, by in zip(values, shifts, strict=True)]
    )
