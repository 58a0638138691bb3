"""NeXus NXtomo, as ESRF's nxtomo library, Diamond and others write it; of several entries one is read.

Frames are sorted by ``image_key`` (0 projection, 1 flat, 2 dark, 3 invalid) and ``image_key_control`` (-1 return to an earlier
angle). ``control/data`` is a beam monitor with one number a frame (NeXus' own definition): frames are scaled to its median. The
detector's ``transformations`` are turns of 180 degrees: one about the vertical axis (y) runs the columns the other way, one
about the horizontal axis (x) the rows (nxtomo's ``get_lr_flip`` and ``get_ud_flip``), so that a camera turned by both makes no
mirror image of a volume. ``x_rotation_axis_pixel_position`` counts from the detector's middle as ESRF's nxtomomill writes it,
or from its first column as nxtomo's documentation has it: `_axis_column` tells them apart. Angles are positive in ctuq's sense.
"""

from dataclasses import dataclass, replace
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
    flag_of,
    needed_of,
    number_of,
    numbers_of,
    raw_of,
    stack_of,
    text_of,
    unit_of,
    with_gaps,
    words_of,
)
from ctuq.files.formats.raw import OTHER, Raw, middle_row

_SAME_BEAM = 1.005
_FLAT, _DARK, _ALIGNMENT = 1, 2, -1
_STEADY = 1e-3
_TURN = 0.1
_DEEPEST, _MOST = 4, 1000


def is_nxtomo(file: h5py.File) -> bool:
    """Whether an HDF5 file has an NXtomo entry."""
    return bool(_entries(file))


def read_nxtomo(path: Path, row: int | None, entry: str | None = None) -> Raw:
    """Read an NXtomo entry: image_key 0 are projections, 1 flats, 2 darks; others and alignment images are left out.

    Parameters
    ----------
    path : Path
    row : int, optional
    entry : str, optional
        Name or path of the entry; the first one by default.

    Raises
    ------
    InputError
        If there is no such entry, or it lacks data, image keys or angles of the same number, or holds no projection, or a part
        is in a file that is missing.
    """
    with parts.opened_hdf5(path) as file:
        node, others = _chosen(_entries(file), entry, path)
        detector = _detector(node, path)
        data, told = stack_of(needed_of(detector, ("data",), path), path), ToldGeometry(path)
        row = middle_row(data.shape, row, str(path))
        sorting = _Sorting.of(node, detector, len(data), path)
        told.angles(needed_of(node, _ANGLES, path), sorting.views)
        told.fields |= _axis_column(node, detector, data.shape[2], path)
        _lengths(node, detector, told, path)
        frames, scaled = _monitored(data[:, row], first_node(node, ("control/data",), path), sorting)
        flats, darks = (frames[keys] if keys.any() else None for keys in (sorting.flats, sorting.darks))
        raw = raw_of(
            "NXtomo NeXus HDF5",
            frames[sorting.views],
            told,
            flats,
            darks,
            row=row,
            rows=data.shape[1],
            facts=({"sample": name} if (name := text_of(node, "sample/name")) else {}) | beam_told(node, "instrument", path),
            flats_after=None if flats is None else np.cumsum(sorting.views)[sorting.flats],
        )
        turned, flips = _turned_over(raw, detector, path)
        return with_gaps(turned, data).warned(*others, *sorting.warnings, *scaled, *flips)


def _entries(file: h5py.File) -> list[h5py.Group]:
    """All NXtomo entries, at the top or a few levels below."""

    def definition(entry: h5py.Group) -> str:
        return (text_of(entry, "definition") or words_of(entry.attrs.get("definition", ""))).lower()

    found, level = [], _groups(file)
    for _ in range(_DEEPEST):
        found += [group for group in level if definition(group) == "nxtomo"]
        level = [below for group in level if definition(group) != "nxtomo" for below in _groups(group)][:_MOST]
    return found


def _chosen(entries: list[h5py.Group], wanted: str | None, path: Path) -> tuple[h5py.Group, tuple[str, ...]]:
    """The entry asked for, else the first one, with a warning if there are more."""
    names = [str(entry.name).strip("/") for entry in entries]
    listed = ", ".join(names)
    if wanted is None:
        text = f"Of {len(names)} entries ({listed}) only the first is read; choose another one by --entry NAME."
        return entries[0], (text,) if len(names) > 1 else ()
    alike = [n for n, name in enumerate(names) if wanted.strip("/").lower() in (name.lower(), name.lower().rpartition("/")[2])]
    if len(alike) != 1:
        raise InputError(f"'{path}' has {len(alike)} entries named '{wanted}'; it has {listed}.")
    return entries[alike[0]], ()


def _detector(entry: h5py.Group, path: Path) -> Any:
    """The group with the frames: the instrument's detector, the first NXdetector that has data, or the entry's data."""
    named = first_node(entry, ("instrument/detector",), path)
    if named is not None:
        return named
    instrument: Any = first_node(entry, ("instrument",), path)
    detectors = _groups(instrument) if isinstance(instrument, h5py.Group) else []
    found = [d for d in detectors if words_of(d.attrs.get("NX_class", "")) == "NXdetector" and "data" in d]
    return found[0] if found else first_node(entry, ("data",), path) or entry


_ANGLES = ("sample/rotation_angle", "data/rotation_angle")


@dataclass(frozen=True)
class _Sorting:
    """Which frames are what."""

    views: NDArray[np.bool_]
    flats: NDArray[np.bool_]
    darks: NDArray[np.bool_]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, entry: h5py.Group, detector: Any, frames: int, path: Path) -> "_Sorting":
        key = first_node(detector, ("image_key",), path)
        key = needed_of(entry, ("instrument/detector/image_key", "data/image_key"), path) if key is None else key
        key = numbers_of(key, "image keys", path).astype(int)
        angles = numbers_of(needed_of(entry, _ANGLES, path), "rotation angles", path).size
        if not frames == len(key) == angles:
            raise InputError(f"'{path}' has {frames} images, {len(key)} image keys and {angles} angles; they must agree.")
        control = first_node(detector, ("image_key_control",), path)
        control = key if control is None else numbers_of(control, "image keys", path).astype(int)
        aligning = (key == _ALIGNMENT) | ((key == 0) & (control == _ALIGNMENT) if len(control) == len(key) else False)
        views, flats, darks = (key == 0) & ~aligning, key == _FLAT, key == _DARK
        if not views.any():
            raise InputError(f"'{path}' has no image with image_key 0, so no projection.")
        invalid = int(np.sum(~(views | aligning | flats | darks)))
        left_out = {
            f"{int(aligning.sum())} alignment images (image_key_control -1) are left out.": aligning.any(),
            f"{invalid} images that the file marks as invalid (image_key 3) are left out.": invalid > 0,
        }
        return cls(views, flats, darks, tuple(text for text, holds in left_out.items() if holds))


def _monitored(frames: NDArray, monitor: Any, sorting: _Sorting) -> tuple[NDArray, tuple[str, ...]]:
    """Frames scaled to the median of their beam monitor, above the dark level; and what was done."""
    lit = sorting.views | sorting.flats
    if monitor is None or not sorting.flats.any() or not isinstance(monitor, h5py.Dataset) or monitor.dtype.kind not in "iuf":
        return frames, ()
    values = np.ravel(monitor[()]).astype(np.float64)
    if len(values) != len(frames):
        return frames, (f"The beam monitor (control/data) has {len(values)} numbers for {len(frames)} frames and is left out.",)
    level = float(np.median(values[lit]))
    if not (np.isfinite(values[lit]).all() and values[lit].min() > 0 and np.ptp(values[lit]) <= level):
        return frames, ("The beam monitor (control/data) is zero, or varies by more than its median, and is left out.",)
    change = np.ptp(values[lit]) / level
    if change < _STEADY:
        return frames, ()
    dark = frames[sorting.darks].mean(axis=0) if sorting.darks.any() else 0.0
    scaled = frames.astype(np.float64)
    scaled[lit] = dark + (scaled[lit] - dark) * (level / values[lit])[:, None]
    return scaled, (f"Frames are scaled to one beam intensity: the monitor (control/data) varies by {change:.1%}.",)


def _turned_over(raw: Raw, detector: Any, path: Path) -> tuple[Raw, tuple[str, ...]]:
    """The data with columns and rows as they run in space where the detector was turned by half a turn."""
    mirrored, overhead, warnings = _flips(detector, path)
    if overhead and raw.rows > 1:
        raw = replace(raw, fields={**raw.fields, "rows_upwards": True})
        warnings = (*warnings, "The file says that the detector is turned upside down: its rows are taken from below.")
    if not mirrored:
        return raw, warnings

    def over(array: NDArray | None) -> NDArray | None:
        return None if array is None else array[:, ::-1]

    fields = dict(raw.fields)
    last = raw.values.shape[1] - 1
    for key in ("axis_column", OTHER):
        if isinstance(column := fields.get(key), int | float):
            fields[key] = last - column
    text = "The file says that the detector is turned left to right: its columns are turned over."
    turned = replace(raw, values=raw.values[:, ::-1], flats=over(raw.flats), darks=over(raw.darks), fields=fields)
    return turned, (*warnings, text)


def _flips(detector: Any, path: Path) -> tuple[bool, bool, tuple[str, ...]]:
    """Whether the columns and the rows run the other way, and a warning for turns that are not of 180 degrees."""
    mirrored, overhead = (flag_of(first_node(detector, (f"{axis}_flipped",), path)) for axis in "xy")
    group, odd = first_node(detector, ("transformations",), path), []
    for name in group if isinstance(group, h5py.Group) else ():
        node: Any = group.get(name)
        angle, vector = number_of(node), np.ravel(node.attrs.get("vector", ()))
        if words_of(node.attrs.get("transformation_type", "")) != "rotation" or vector.size != 3 or angle is None:
            continue
        degrees = (np.rad2deg(angle) if unit_of(node).startswith("rad") else angle) % 360
        if abs(degrees - 180) < _TURN:
            across, upright = np.abs(vector[:2]) >= 0.5 * np.linalg.norm(vector)
            mirrored, overhead = mirrored ^ (not across), overhead ^ (not upright)
        elif min(degrees, 360 - degrees) > _TURN:
            odd.append(f"{name} by {degrees:.4g}°")
    text = f"The file says that the detector is turned ({', '.join(odd)}), which is left out: check the image."
    return mirrored, overhead, (text,) if odd else ()


def _axis_column(entry: h5py.Group, detector: Any, columns: int, path: Path) -> dict[str, object]:
    """The axis as a column of the detector. The position counts from the middle or from the first column.

    Below the middle both are possible, and the projections decide (`ctuq.files.axis`). Where they do not, files of the nxtomo
    library (with a version) count from the middle; with half acquisition the axis is taken where it is nearer to an edge, and
    without it where it is nearer to the middle.
    """
    node = first_node(detector, ("x_rotation_axis_pixel_position", "estimated_cor_from_motor"), path)
    if (position := number_of(node)) is None:
        return {}
    middle = (columns - 1) / 2
    half = first_node(detector, ("half_acquisition",), path)
    view = text_of(detector, "field_of_view").lower()
    is_half = flag_of(half) or view == "half"
    near_middle = position < columns / 4
    from_middle = position < 0 or (position <= middle and ("version" in entry.attrs or near_middle != is_half))
    column, other = (middle + position, position) if from_middle else (position, middle + position)
    # A small number in a file of the library is the usual offset from the middle.
    is_open = 0 < position <= middle and ("version" not in entry.attrs or is_half or position > columns / 8)
    return {"axis_column": column, OTHER: other} if is_open else {"axis_column": column}


def _lengths(entry: h5py.Group, detector: Any, told: ToldGeometry, path: Path) -> None:
    """Pixel and distances; a source far away is a parallel beam, a near one a fan."""
    behind, before = first_node(detector, ("distance",), path), first_node(entry, ("instrument/source/distance",), path)
    if behind is not None and before is not None:
        lengths = told.length(before, "source distance"), told.length(behind, "detector distance")
        to_axis, beyond = (abs(length or 0.0) for length in lengths)
        if to_axis > 0 and (to_axis + beyond) / to_axis > _SAME_BEAM:
            told.fields |= {"kind": "fan", "source_to_axis": to_axis, "source_to_detector": to_axis + beyond}
    camera = first_node(detector, ("x_pixel_size",), path)
    sample = first_node(entry, ("sample/x_pixel_size",), path)
    sample = first_node(detector, ("x_magnified_pixel_size",), path) if sample is None else sample
    if told.fields.get("kind") != "fan" and number_of(sample) is not None:
        # Parallel rays know of one pixel only, that at the sample: a lens behind the scintillator makes the camera's another.
        told.pixel(sample, remark=_two_pixels(sample, camera))
    elif camera is not None:
        told.pixel(camera)
    told.rows_apart(camera, first_node(detector, ("y_pixel_size",), path))


def _two_pixels(sample: Any, camera: Any) -> str:
    fine, coarse = number_of(sample), number_of(camera)
    if fine is None or coarse is None:
        return ""
    unit, other = unit_of(sample), unit_of(camera)
    if (fine, unit) == (coarse, other):
        return ""
    return f"The pixel size at the sample, {fine:g} {unit or 'm'}, is used, and not the camera's of {coarse:g} {other or 'm'}."


def _groups(group: h5py.Group) -> list[h5py.Group]:
    """The groups in a group; links that lead nowhere are none."""
    found = (group.get(name) for name in group)
    return [node for node in found if isinstance(node, h5py.Group)]
