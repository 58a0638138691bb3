"""DXchange: the HDF5 layout of many synchrotrons, with ``exchange/data``, its flats, darks and theta."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.hdf5 import parts
from ctuq.files.formats.hdf5.told import (
    ToldGeometry,
    beam_told,
    first_node,
    needed_of,
    number_of,
    raw_of,
    stack_of,
    text_of,
    with_gaps,
    words_of,
)
from ctuq.files.formats.raw import Raw, middle_row
from ctuq.memory import require_room


def is_dxchange(file: h5py.File) -> bool:
    """Whether an HDF5 file has DXchange's data."""
    group: Any = next((file.get(name) for name in file if str(name).lower() == "exchange"), None)
    return isinstance(group, h5py.Group) and any(str(name).lower() == "data" for name in group)


def read_dxchange(path: Path, row: int | None) -> Raw:
    """Read ``exchange/data`` (theta, y, x), or in the order of its attribute "axes", with its flats, darks and theta.

    Raises
    ------
    InputError
        If the data are no (angle, row, column) stack, or the row does not exist, or a part is in a file that is missing.
    """
    with parts.opened_hdf5(path) as file:
        group: Any = parts.found(file, "exchange", path)
        data, told = stack_of(needed_of(group, ("data",), path), path), ToldGeometry(path)
        views, rows, columns = _axes(data, path)
        shape = (data.shape[views], data.shape[rows], data.shape[columns])
        row = middle_row(shape, row, str(path))
        flats, darks = (
            _frames(group, names, row, shape, path)
            for names in (("data_white", "white_data", "flat"), ("data_dark", "dark_data", "dark"))
        )
        theta = first_node(group, ("theta", "angles"), path) or first_node(file, ("process/acquisition/rotation/theta",), path)
        if theta is not None:
            told.angles(theta)
        _dxchange_pixel(file, told, path)
        facts = {"sample": text_of(file, "measurement/sample/name"), "instrument": text_of(file, "measurement/instrument/name")}
        known = {key: value for key, value in facts.items() if value} | beam_told(file, "measurement/instrument", path)
        values = data[tuple(row if axis == rows else slice(None) for axis in range(3))]
        values = values.T if columns < views else values
        raw = raw_of("DXchange HDF5", values, told, flats, darks, row=row, rows=shape[1], facts=known)
        return with_gaps(raw, data)


_DX = "measurement/instrument/"
_AT_SAMPLE = ("detector/actual_pixel_size_{0}", "detector/{0}_actual_pixel_size")
_AT_DETECTOR = ("detector/pixel_size_{0}", "detector/{0}_pixel_size")
_LENS = ("detection_system/objective/magnification", "objective/magnification")


def _dxchange_pixel(file: h5py.File, told: ToldGeometry, path: Path) -> None:
    """The pixel at the sample; that of the camera is divided by the lens where only this is told."""
    actual, camera, lens = (_told_of(file, names, "x", path) for names in (_AT_SAMPLE, _AT_DETECTOR, _LENS))
    if actual is not None:
        told.pixel(actual)
    elif camera is not None:
        times = number_of(lens) or 1.0
        if times > 0 and times != 1:
            told.pixel(camera, per=times, remark=f"The camera's pixel is divided by its lens's magnification of {times:g}.")
        else:
            told.pixel(camera)
    upright = _told_of(file, _AT_DETECTOR if actual is None else _AT_SAMPLE, "y", path)
    told.rows_apart(camera if actual is None else actual, upright)


def _told_of(file: h5py.File, names: tuple[str, ...], axis: str, path: Path) -> Any:
    return first_node(file, tuple(_DX + name.format(axis) for name in names), path)


def _axes(data: h5py.Dataset, path: Path) -> tuple[int, int, int]:
    """Which axes are the angles, the detector's rows and its columns, by the attribute "axes", such as "theta:y:x".

    Raises
    ------
    InputError
        If the attribute names other axes.
    """
    told = data.attrs.get("axes", "")
    text = words_of(told) if isinstance(told, str | bytes) else ":".join(map(words_of, np.ravel(told)))
    names = re.split(r"[:,;\s]+", text.strip())
    if len(names) != 3:
        return 0, 1, 2
    kinds = [_KINDS.get(name.lower().rpartition("/")[2], name) for name in names]
    if sorted(kinds) != sorted(_ORDER):
        raise InputError(f"'{path}' has the axes {':'.join(names)}; theta, y and x in any order are read.")
    first, second, third = (kinds.index(kind) for kind in _ORDER)
    return first, second, third


_ORDER = ("theta", "y", "x")
_KINDS = {"angle": "theta", "angles": "theta", "rotation_angle": "theta", "theta": "theta", "y": "y", "x": "x"}


def _frames(group: h5py.Group, names: tuple[str, ...], row: int, shape: tuple[int, ...], path: Path) -> NDArray | None:
    frames = first_node(group, names, path)
    if not isinstance(frames, h5py.Dataset) or not frames.size:
        return None
    frames = parts.readable(frames, path)
    if frames.ndim not in (2, 3):
        raise InputError(f"'{path}': its '{frames.name}' has shape {frames.shape}; (frame, row, column) is needed.")
    by_row = frames.ndim == 3 and frames.shape[1:] != shape[1:] and (frames.shape[0], frames.shape[2]) == shape[1:]
    rows = frames.shape[0 if by_row else -2]
    if row >= rows:
        raise InputError(f"'{path}': its '{frames.name}' has {rows} rows, and row {row} of the projections is read.")
    require_room((frames.size // rows,), 8, f"'{frames.name}' in '{path}'", "take fewer frames")
    if frames.ndim == 2:
        return frames[row][None]
    return frames[row] if by_row else frames[:, row]
