"""HDF5 scans of other programs: DXchange (synchrotrons) and NeXus NXtomo. Angles in degrees, lengths by their units."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.raw import Raw, middle_row

_MM = {
    "m": 1e3,
    "metre": 1e3,
    "meter": 1e3,
    "cm": 10.0,
    "mm": 1.0,
    "um": 1e-3,
    "µm": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "nm": 1e-6,
}
_SAME_BEAM = 1.005
_FLAT, _DARK = 1, 2


def is_dxchange(file: h5py.File) -> bool:
    """Whether an HDF5 file has DXchange's data."""
    return "exchange/data" in file


def is_nxtomo(file: h5py.File) -> bool:
    """Whether an HDF5 file has an NXtomo entry."""
    return _entry(file) is not None


def read_dxchange(path: Path, row: int | None) -> Raw:
    """Read ``exchange/data`` (theta, y, x) with its flats, darks and theta.

    Raises
    ------
    InputError
        If the data are no (angle, row, column) stack, or the row does not exist.
    """
    with h5py.File(path, "r") as file:
        group: Any = file["exchange"]
        data = _stack(group["data"], path)
        row = middle_row(data.shape, row, str(path))
        flats, darks = (
            _frames(group, names, row) for names in (("data_white", "white_data", "flat"), ("data_dark", "dark_data", "dark"))
        )
        fields: dict[str, object] = {}
        theta = _first(group, ("theta", "angles")) or _first(file, ("process/acquisition/rotation/theta",))
        if theta is not None:
            fields["angles"] = _radians(theta)[: len(data)]
        pixel = _first(file, tuple(f"measurement/instrument/{name}" for name in _DX_PIXELS))
        if pixel is not None:
            fields["pixel"] = _mm(pixel, 1e3)
        facts = {"sample": _text(file, "measurement/sample/name"), "instrument": _text(file, "measurement/instrument/name")}
        known = {key: value for key, value in facts.items() if value}
        return _raw("DXchange HDF5", data[:, row], fields, flats, darks, row=row, rows=data.shape[1], facts=known)


_DX_PIXELS = ("detector/actual_pixel_size_x", "detector/x_actual_pixel_size", "detector/pixel_size_x", "detector/x_pixel_size")


def read_nxtomo(path: Path, row: int | None) -> Raw:
    """Read an NXtomo entry: image_key 0 are projections, 1 flats, 2 darks, 3 is left out.

    Raises
    ------
    InputError
        If the entry lacks data, image keys or angles of the same number, or holds no projection.
    """
    with h5py.File(path, "r") as file:
        entry: Any = _entry(file)
        detector = _first(entry, ("instrument/detector", "data")) or entry
        data = _stack(_needed(detector, ("data",), path), path)
        row = middle_row(data.shape, row, str(path))
        key = _needed(entry, ("instrument/detector/image_key", "data/image_key"), path)[()].astype(int).ravel()
        angles = _radians(_needed(entry, ("sample/rotation_angle", "data/rotation_angle"), path))
        if not len(data) == len(key) == len(angles):
            raise InputError(
                f"'{path}' has {len(data)} images, {len(key)} image keys and {len(angles)} angles; they must agree."
            )
        if not (key == 0).any():
            raise InputError(f"'{path}' has no image with image_key 0, so no projection.")
        rows = data[:, row]
        fields = {"angles": angles[key == 0], **_nxtomo_lengths(entry, data.shape[2])}
        flats, darks = (rows[key == k] if (key == k).any() else None for k in (_FLAT, _DARK))
        name = _text(entry, "sample/name")
        facts = {"sample": name} if name else {}
        return _raw("NXtomo NeXus HDF5", rows[key == 0], fields, flats, darks, row=row, rows=data.shape[1], facts=facts)


def _raw(
    name: str, values: NDArray, fields: dict[str, object], flats: NDArray | None, darks: NDArray | None, **others: Any
) -> Raw:
    """Counts where there are flats, else transmission; a parallel beam and pixels of 1 mm where nobody says otherwise."""
    kind = "transmission" if flats is None else "counts"
    warnings = ("The file has no flats: the values are taken as transmission I / I0.",) if flats is None else ()
    assumed = {"kind": "parallel"} | ({"pixel": 1.0} if fields.get("kind") != "fan" else {})
    return Raw(name, values, kind, fields, flats, darks, warnings=warnings, assumed=assumed, stated=flats is not None, **others)


def _nxtomo_lengths(entry: h5py.Group, columns: int) -> dict[str, object]:
    """Pixel, distances and axis; a source far away is a parallel beam, a near one a fan."""
    fields: dict[str, object] = {}
    detector = "instrument/detector/"
    pixel = _first(entry, (detector + "x_pixel_size",))
    if pixel is not None and np.all(np.isfinite(pixel[()])):
        fields["pixel"] = _mm(pixel, 1e3)
    behind, before = _first(entry, (detector + "distance",)), _first(entry, ("instrument/source/distance",))
    if behind is not None and before is not None:
        to_axis, beyond = abs(_mm(before, 1e3)), abs(_mm(behind, 1e3))
        if to_axis > 0 and (to_axis + beyond) / to_axis > _SAME_BEAM:
            fields |= {"kind": "fan", "source_to_axis": to_axis, "source_to_detector": to_axis + beyond}
    axis = _first(entry, (detector + "x_rotation_axis_pixel_position",))
    if axis is not None:
        position = float(np.ravel(axis[()])[0])
        # Some writers count from the detector's first column, some from its middle: an axis near the edge is the rarer case.
        fields["axis_column"] = position if position > columns / 4 else position + (columns - 1) / 2
    return fields


def _entry(file: h5py.File) -> h5py.Group | None:
    for group in file.values():
        candidates = [group, *group.values()] if isinstance(group, h5py.Group) else []
        for entry in candidates:
            if isinstance(entry, h5py.Group) and _text(entry, "definition") == "NXtomo":
                return entry
    return None


def _first(group: Any, names: tuple[str, ...]) -> Any:
    return next((group[name] for name in names if name in group), None)


def _needed(group: h5py.Group, names: tuple[str, ...], path: Path) -> Any:
    found = _first(group, names)
    if found is None:
        raise InputError(f"'{path}' is NXtomo but lacks '{names[0]}'.")
    return found


def _stack(data: Any, path: Path) -> h5py.Dataset:
    if data.ndim != 3 or 0 in data.shape or data.dtype.kind not in "iuf":
        raise InputError(f"'{path}' has data of shape {data.shape}; numbers of shape (angle, row, column) are needed.")
    return data


def _frames(group: h5py.Group, names: tuple[str, ...], row: int) -> NDArray | None:
    frames = _first(group, names)
    if frames is None or 0 in frames.shape:
        return None
    return frames[:, row] if frames.ndim == 3 else frames[row][None]


def _text(group: h5py.Group, name: str) -> str:
    node: Any = group.get(name)
    if not isinstance(node, h5py.Dataset):
        return ""
    value = np.ravel(node[()])
    first = value[0] if value.size else ""
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def _units(data: h5py.Dataset) -> str:
    units = data.attrs.get("units", data.attrs.get("unit", ""))
    return units.decode() if isinstance(units, bytes) else str(units)


def _mm(data: h5py.Dataset, default: float) -> float:
    return float(np.ravel(data[()])[0]) * _MM.get(_units(data).strip().lower(), default)


def _radians(data: h5py.Dataset) -> NDArray[np.float64]:
    angles = np.ravel(data[()]).astype(np.float64)
    return angles if _units(data).strip().lower().startswith("rad") else np.deg2rad(angles)
