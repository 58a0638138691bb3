"""HDF5 scans of other programs: DXchange (synchrotrons) and NeXus NXtomo. Angles and lengths by their units."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.angles import angles_of
from ctuq.files.formats import parts
from ctuq.files.formats.raw import Raw, middle_row
from ctuq.files.units import millimetres

_METRE = 1e3
_PLAUSIBLE_PIXEL = (1e-6, 5.0)
_SAME_BEAM = 1.005
_FLAT, _DARK, _ALIGNMENT = 1, 2, -1


def is_dxchange(file: h5py.File) -> bool:
    """Whether an HDF5 file has DXchange's data."""
    group: Any = next((file.get(name) for name in file if str(name).lower() == "exchange"), None)
    return isinstance(group, h5py.Group) and any(str(name).lower() == "data" for name in group)


def is_nxtomo(file: h5py.File) -> bool:
    """Whether an HDF5 file has an NXtomo entry."""
    return _entry(file) is not None


@dataclass
class _Told:
    """Fields of a geometry as they are read, with what was assumed for them and what could not be read."""

    path: Path
    fields: dict[str, object] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)

    def angles(self, data: Any, views: NDArray[np.bool_] | None = None) -> None:
        """Angles by their unit; of the chosen images only."""
        values = np.ravel(data[()])
        try:
            angles, warnings = angles_of(values if views is None else values[views], _units(data), str(self.path))
        except InputError as error:
            self.doubts["angles"] = str(error)
            return
        self.fields["angles"] = angles
        if warnings:
            self.remarks["angles"] = " ".join(warnings)

    def pixel(self, data: Any, *, per: float = 1.0, remark: str = "") -> None:
        """A pixel size; without a unit metres where that is a pixel's size, else in doubt."""
        value, unit = float(np.ravel(data[()])[0]), _units(data)
        if not np.isfinite(value):
            return
        try:
            size = value * _METRE if not unit.strip() else millimetres(value, unit, f"The pixel size in '{self.path}'")
        except InputError as error:
            self.doubts["pixel"] = str(error)
            return
        if size is None:
            return
        if not unit.strip():
            if not _PLAUSIBLE_PIXEL[0] <= size <= _PLAUSIBLE_PIXEL[1]:
                self.doubts["pixel"] = (
                    f"The pixel size in '{self.path}' is {value:g} without a unit; give 'pixel' in mm in a geometry file."
                )
                return
            remark += f" The pixel size {value:g} has no unit and is taken as metres; else give 'pixel' in a geometry file."
        self.fields["pixel"] = size / per
        if remark:
            self.remarks["pixel"] = remark.strip()

    def length(self, data: Any, name: str) -> float | None:
        """Another length in mm, metres without a unit."""
        value, unit = float(np.ravel(data[()])[0]), _units(data)
        try:
            return value * _METRE if not unit.strip() else millimetres(value, unit, f"The {name} in '{self.path}'")
        except InputError as error:
            self.doubts["kind"] = str(error)
            return None


def read_dxchange(path: Path, row: int | None) -> Raw:
    """Read ``exchange/data`` (theta, y, x), or in the order of its attribute "axes", with its flats, darks and theta.

    Raises
    ------
    InputError
        If the data are no (angle, row, column) stack, or the row does not exist, or a part is in a file that is missing.
    """
    with parts.opened(path) as file:
        group: Any = parts.found(file, "exchange", path)
        data, told = _stack(_needed(group, ("data",), path), path), _Told(path)
        rows, views = (0, 1) if _axes(data).startswith(("y:theta", "y:angle")) else (1, 0)
        shape = (data.shape[views], data.shape[rows], data.shape[2])
        row = middle_row(shape, row, str(path))
        flats, darks = (
            _frames(group, names, row, shape, path)
            for names in (("data_white", "white_data", "flat"), ("data_dark", "dark_data", "dark"))
        )
        theta = _first(group, ("theta", "angles"), path) or _first(file, ("process/acquisition/rotation/theta",), path)
        if theta is not None:
            told.angles(theta)
        _dxchange_pixel(file, told, path)
        facts = {"sample": _text(file, "measurement/sample/name"), "instrument": _text(file, "measurement/instrument/name")}
        known = {key: value for key, value in facts.items() if value}
        values = data[:, row] if rows == 1 else data[row]
        raw = _raw("DXchange HDF5", values, told, flats, darks, row=row, rows=shape[1], facts=known)
        return _with_gaps(raw, data)


_DX = "measurement/instrument/"
_AT_SAMPLE = ("detector/actual_pixel_size_x", "detector/x_actual_pixel_size")
_AT_DETECTOR = ("detector/pixel_size_x", "detector/x_pixel_size")
_LENS = ("detection_system/objective/magnification", "objective/magnification")


def _dxchange_pixel(file: h5py.File, told: _Told, path: Path) -> None:
    """The pixel at the sample; that of the camera is divided by the lens where only this is told."""
    actual, camera, lens = (_first(file, tuple(_DX + n for n in names), path) for names in (_AT_SAMPLE, _AT_DETECTOR, _LENS))
    if actual is not None:
        told.pixel(actual)
    elif camera is not None:
        times = 1.0 if lens is None else float(np.ravel(lens[()])[0])
        if np.isfinite(times) and times > 0 and times != 1:
            told.pixel(camera, per=times, remark=f"The camera's pixel is divided by its lens's magnification of {times:g}.")
        else:
            told.pixel(camera)


def read_nxtomo(path: Path, row: int | None) -> Raw:
    """Read an NXtomo entry: image_key 0 are projections, 1 flats, 2 darks; others and alignment images are left out.

    Raises
    ------
    InputError
        If the entry lacks data, image keys or angles of the same number, or holds no projection, or a part is in a file that is
        missing.
    """
    with parts.opened(path) as file:
        entry: Any = _entry(file)
        detector = _first(entry, ("instrument/detector", "data"), path) or entry
        data, told = _stack(_needed(detector, ("data",), path), path), _Told(path)
        row = middle_row(data.shape, row, str(path))
        key = _needed(entry, ("instrument/detector/image_key", "data/image_key"), path)[()].astype(int).ravel()
        angles = _needed(entry, ("sample/rotation_angle", "data/rotation_angle"), path)
        if not len(data) == len(key) == angles.size:
            raise InputError(
                f"'{path}' has {len(data)} images, {len(key)} image keys and {angles.size} angles; they must agree."
            )
        control = _first(entry, ("instrument/detector/image_key_control",), path)
        control = key if control is None else control[()].astype(int).ravel()
        aligning = (key == _ALIGNMENT) | ((key == 0) & (control == _ALIGNMENT) if len(control) == len(key) else False)
        views = (key == 0) & ~aligning
        if not views.any():
            raise InputError(f"'{path}' has no image with image_key 0, so no projection.")
        told.angles(angles, views)
        _nxtomo_lengths(entry, data.shape[2], told, path)
        rows = data[:, row]
        flats, darks = (rows[key == k] if (key == k).any() else None for k in (_FLAT, _DARK))
        after = None if flats is None else np.cumsum(views)[key == _FLAT]
        name = _text(entry, "sample/name")
        others = {"row": row, "rows": data.shape[1], "facts": {"sample": name} if name else {}, "flats_after": after}
        raw = _raw("NXtomo NeXus HDF5", rows[views], told, flats, darks, **others)
        invalid = int(np.sum(~views & ~aligning & (key != _FLAT) & (key != _DARK)))
        left_out = {
            f"{int(aligning.sum())} alignment images (image_key_control -1) are left out.": aligning.any(),
            f"{invalid} images that the file marks as invalid (image_key 3) are left out.": invalid > 0,
        }
        return _with_gaps(raw, data).warned(*(text for text, holds in left_out.items() if holds))


def _raw(name: str, values: NDArray, told: _Told, flats: NDArray | None, darks: NDArray | None, **others: Any) -> Raw:
    """Counts where there are flats, else transmission; a parallel beam and pixels of 1 mm where nobody says otherwise."""
    kind = "transmission" if flats is None else "counts"
    assumed = {"kind": "parallel"} | ({"pixel": 1.0} if told.fields.get("kind") != "fan" else {})
    return Raw(
        name,
        values,
        kind,
        told.fields,
        flats,
        darks,
        remarks=told.remarks,
        doubts=told.doubts,
        assumed=assumed,
        stated=flats is not None,
        **others,
    )


def _with_gaps(raw: Raw, data: h5py.Dataset) -> Raw:
    share = parts.unwritten(data)
    if share <= 0:
        return raw
    return raw.warned(f"{share:.0%} of the file's data were never written (an aborted scan?); they read as zeros.")


def _nxtomo_lengths(entry: h5py.Group, columns: int, told: _Told, path: Path) -> None:
    detector = "instrument/detector/"
    behind, before = (_first(entry, names, path) for names in ((detector + "distance",), ("instrument/source/distance",)))
    if behind is not None and before is not None:
        lengths = told.length(before, "source distance"), told.length(behind, "detector distance")
        to_axis, beyond = (abs(length or 0.0) for length in lengths)
        if to_axis > 0 and (to_axis + beyond) / to_axis > _SAME_BEAM:
            told.fields |= {"kind": "fan", "source_to_axis": to_axis, "source_to_detector": to_axis + beyond}
    camera = _first(entry, (detector + "x_pixel_size",), path)
    sample = _first(entry, ("sample/x_pixel_size", detector + "x_magnified_pixel_size"), path)
    if told.fields.get("kind") != "fan" and sample is not None and np.all(np.isfinite(sample[()])):
        # Parallel rays know of one pixel only, that at the sample: a lens behind the scintillator makes the camera's another.
        told.pixel(sample, remark=_two_pixels(sample, camera))
    elif camera is not None:
        told.pixel(camera)
    axis = _first(entry, (detector + "x_rotation_axis_pixel_position",), path)
    if axis is not None:
        position = float(np.ravel(axis[()])[0])
        # Some writers count from the detector's first column, some from its middle: an axis near the edge is the rarer case.
        told.fields["axis_column"] = position if position > columns / 4 else position + (columns - 1) / 2


def _two_pixels(sample: Any, camera: Any) -> str:
    values = [(float(np.ravel(data[()])[0]), _units(data)) for data in (sample, camera) if data is not None]
    if len(values) < 2 or values[0] == values[1]:
        return ""
    (fine, unit), (coarse, other) = values
    return f"The pixel size at the sample, {fine:g} {unit or 'm'}, is used, and not the camera's of {coarse:g} {other or 'm'}."


def _entry(file: h5py.File) -> h5py.Group | None:
    for group in _groups(file):
        for entry in (group, *_groups(group)):
            if _text(entry, "definition").lower() == "nxtomo":
                return entry
    return None


def _groups(group: h5py.Group) -> list[h5py.Group]:
    """The groups in a group; links that lead nowhere are none."""
    found = (group.get(name) for name in group)
    return [node for node in found if isinstance(node, h5py.Group)]


def _first(group: Any, names: tuple[str, ...], path: Path) -> Any:
    return next((node for name in names if (node := parts.found(group, name, path)) is not None), None)


def _needed(group: h5py.Group, names: tuple[str, ...], path: Path) -> Any:
    found = _first(group, names, path)
    if found is None:
        raise InputError(f"'{path}' lacks '{names[0]}', which its format needs.")
    return found


def _stack(data: Any, path: Path) -> h5py.Dataset:
    if data.ndim != 3 or 0 in data.shape or data.dtype.kind not in "iuf":
        raise InputError(f"'{path}' has data of shape {data.shape}; numbers of shape (angle, row, column) are needed.")
    return parts.readable(data, path)


def _axes(data: h5py.Dataset) -> str:
    axes = data.attrs.get("axes", "")
    return (
        _words(axes).lower().replace(" ", "")
        if isinstance(axes, str | bytes)
        else ":".join(map(_words, np.ravel(axes))).lower()
    )


def _frames(group: h5py.Group, names: tuple[str, ...], row: int, shape: tuple[int, ...], path: Path) -> NDArray | None:
    frames = _first(group, names, path)
    if frames is None or 0 in frames.shape:
        return None
    frames = parts.readable(frames, path)
    if frames.ndim != 3:
        return frames[row][None]
    by_row = frames.shape[1:] != shape[1:] and (frames.shape[0], frames.shape[2]) == shape[1:]
    return frames[row] if by_row else frames[:, row]


def _text(group: h5py.Group, name: str) -> str:
    node: Any = group.get(name)
    if not isinstance(node, h5py.Dataset):
        return ""
    value = np.ravel(node[()])
    return _words(value[0]) if value.size else ""


def _words(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _units(data: h5py.Dataset) -> str:
    units = np.ravel(data.attrs.get("units", data.attrs.get("unit", "")))
    return _words(units[0]) if units.size else ""
