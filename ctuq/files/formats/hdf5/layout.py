"""HDF5 of any layout: a geometry file says under which paths projections, angles, image keys, flats and darks lie.

::

    data: entry1/tomo_entry/data/data          # or FILE.h5:PATH of another file, named from the geometry file's folder
    angles: entry1/tomo_entry/data/rotation_angle
    image_key: entry1/tomo_entry/instrument/detector/image_key    # 0 projection, 1 flat, 2 dark, others left out
    flats: flats.h5:entry/data                 # where there are no image keys
    darks: darks.h5:entry/data

A path may also name a group of pictures, or a pattern of them ("scan/scan_0000_*.tif", as ALS wrote them; "view_*/phase/raw",
a group for each): they are taken in the natural order of their names. Without a pixel size one of 1 mm is assumed, as for
DXchange.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.angles import angles_named, angles_of
from ctuq.files.formats.anyarray import angles_in
from ctuq.files.formats.hdf5 import parts
from ctuq.files.formats.hdf5.reach import check_hdf5
from ctuq.files.formats.hdf5.told import unit_of
from ctuq.files.formats.places import Layout, Place
from ctuq.files.formats.raw import TURNED, Raw, middle_row
from ctuq.memory import require_room

_VIEW, _FLAT, _DARK = 0, 1, 2


def read_layout(path: Path, row: int | None, layout: Layout, stack: str | None) -> Raw:
    """Read one row of the projections at ``layout.data``, with what else the layout names.

    Parameters
    ----------
    path : Path
        The file that places without a file of their own are in.
    row : int, optional
    layout : Layout
    stack : str, optional
        "sinograms" if the first axis is the detector's rows, `TURNED` if the last one is.

    Raises
    ------
    InputError
        If a place does not exist, holds something else, or numbers of frames disagree.
    """
    assert layout.data is not None
    frames, row, rows = _frames(path, layout.data, row, stack)
    known = stack is not None or rows == 1
    raw = Raw("HDF5", frames, "log", {}, row=row, rows=rows, order_known=known, assumed={"kind": "parallel", "pixel": 1.0})
    raw = replace(raw, turned=stack == TURNED and row is not None)
    return with_parts(raw, path, layout)


def with_parts(raw: Raw, path: Path, layout: Layout) -> Raw:
    """The data with image keys, angles, flats and darks from where a layout has them.

    Raises
    ------
    InputError
        As `read_layout`.
    """
    frames = len(raw.values)
    views = np.ones(frames, bool)
    if layout.image_key:
        keys = _keys(path, layout.image_key, frames)
        raw, views = _sorted(raw, keys), keys == _VIEW
    for name in ("flats", "darks"):
        if place := getattr(layout, name):
            raw = replace(raw, **{name: _level(path, place, raw)})
    if raw.flats is not None and raw.kind_of_values != "counts":
        raw = replace(raw, kind_of_values="counts", stated=True)
    if not layout.angles:
        return raw
    angles, remarks = _angles(path, layout.angles, views)
    return replace(raw, fields={**raw.fields, "angles": angles}).warned(*remarks)


def _sorted(raw: Raw, keys: NDArray) -> Raw:
    """Projections, flats and darks by image key, and the angles of the projections where the file has them of all frames."""
    views = keys == _VIEW
    if not views.any():
        raise InputError("No frame has the image_key 0, so there is no projection; check 'image_key' in the geometry file.")
    flats, darks = (raw.values[keys == key] if (keys == key).any() else None for key in (_FLAT, _DARK))
    others = int(np.sum(~np.isin(keys, (_VIEW, _FLAT, _DARK))))
    after = None if flats is None else np.cumsum(views)[keys == _FLAT]
    angles: Any = raw.fields.get("angles", ())
    fields = {**raw.fields, "angles": np.asarray(angles)[views]} if np.size(angles) == len(keys) else raw.fields
    told = replace(raw, values=raw.values[views], flats=flats, darks=darks, flats_after=after, fields=fields)
    return told.warned(f"{others} frames with an image_key that is not 0, 1 or 2 are left out.") if others else told


def _keys(path: Path, place: Place, count: int) -> NDArray:
    keys = _numbers(path, place)
    if len(keys) != count:
        raise InputError(f"There are {count} frames but {len(keys)} image keys at '{place}'; check both in the geometry file.")
    return keys.astype(int)


def _angles(path: Path, place: Place, views: NDArray[np.bool_]) -> tuple[NDArray, tuple[str, ...]]:
    """Angles of the views, of which there is one for each or one for each frame."""
    if place.file is not None and not (place.path and h5py.is_hdf5(place.file)):
        values, name, told = angles_in(place, (len(views), int(views.sum())))
        angles, remarks = angles_named(values[views] if len(values) == len(views) else values, name, str(place.file))
        return angles, (*told, *remarks)
    with _opened(place, path) as file:
        node = _node(file, place, path)
        if not isinstance(node, h5py.Dataset) or node.shape is None or node.dtype.kind not in "iuf":
            raise InputError(f"'{place}' holds no angles; check 'angles' in the geometry file.")
        values, unit = np.ravel(parts.readable(node, path)[()]), unit_of(node)
    return angles_of(values[views] if len(values) == len(views) else values, unit, str(place))


def _numbers(path: Path, place: Place) -> NDArray:
    with _opened(place, path) as file:
        node = _node(file, place, path)
        if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "biuf":
            raise InputError(f"'{place}' in '{path}' holds no numbers; check the geometry file.")
        return np.ravel(parts.readable(node, path)[()])


def _level(path: Path, place: Place, raw: Raw) -> NDArray:
    """Flats or darks: (frame, column)."""
    frames, _, rows = _frames(path, place, raw.row, TURNED if raw.turned else None, all_rows=raw.rows)
    found, wanted = (rows, frames.shape[1]), (raw.rows, raw.values.shape[1])
    if found[1] != wanted[1] or (rows != raw.rows and rows > 1):
        raise InputError(f"'{place}' is of {found} rows and columns, but the projections of {wanted}; they must agree.")
    return frames


@contextmanager
def _opened(place: Place, path: Path) -> Iterator[h5py.File]:
    file = place.file or path
    if not file.is_file() or not h5py.is_hdf5(file):
        raise InputError(f"'{place.key}' in the geometry file names '{place.path}' inside '{file}', which is no HDF5 file.")
    if place.file:
        check_hdf5(file)
    with parts.opened_hdf5(file) as opened:
        yield opened


def _frames(
    path: Path, place: Place, row: int | None, stack: str | None, all_rows: int | None = None
) -> tuple[NDArray, int | None, int]:
    """One row of every frame (frame, column), its number, and how many there are."""
    with _opened(place, path) as file:
        nodes = _nodes(file, place, path)
        if len(nodes) > 1:
            return _of_pictures(nodes, row, str(place), turned=stack == TURNED)
        data = parts.readable(nodes[0], path)
        shape = tuple(n for axis, n in enumerate(data.shape) if n != 1 or axis == 0 or axis >= data.ndim - 2)
        if all_rows is not None and (len(shape) == 1 or (len(shape) == 2 and all_rows > 1)):
            shape = (1, *shape)  # one frame
        if len(shape) not in (2, 3) or 0 in shape or data.dtype.kind not in "iuf":
            raise InputError(
                f"'{place}' has the shape {data.shape} of {data.dtype}; numbers of shape (angle, row, column) are needed."
            )
        if len(shape) == 2:
            require_room(shape, 8, f"'{place}'", "check the file")
            return np.asarray(data[()]).reshape(shape), None, 1
        by_rows = stack == "sinograms"
        turned = stack == TURNED
        rows = shape[0] if by_rows else shape[2 if turned else 1]
        row = middle_row((0, rows), row, str(place))
        if shape == data.shape:
            require_room((max(shape[:2]), shape[2]), 8, f"'{place}'", "check the file")
            return np.asarray(data[row] if by_rows else data[:, :, row] if turned else data[:, row]), row, rows
        require_room(shape, data.dtype.itemsize, f"'{place}'", "check the file")
        values = np.asarray(data[()]).reshape(shape)
        return values[row] if by_rows else values[:, :, row] if turned else values[:, row], row, rows


def _of_pictures(
    pictures: Sequence[h5py.Dataset], row: int | None, where: str, *, turned: bool
) -> tuple[NDArray, int | None, int]:
    shape = tuple(n for n in pictures[0].shape if n != 1) if pictures[0].ndim > 2 else pictures[0].shape
    if len(shape) != 2 or any(picture.size != pictures[0].size for picture in pictures):
        raise InputError(f"'{where}' holds pictures of several sizes, {pictures[0].shape} first; all must have one size.")
    rows, columns = shape[::-1] if turned else shape
    row = middle_row((0, rows), row, where)
    require_room((len(pictures), columns), 8, f"'{where}'", "check the file")
    read = (np.reshape(picture[()], shape) for picture in pictures)
    return np.stack([each[:, row] if turned else each[row] for each in read]), row, rows


def _nodes(file: h5py.File, place: Place, path: Path) -> list[Any]:
    """The dataset at a place, or the pictures of a group or a pattern in the natural order of their names."""
    parted = place.path.strip("/").split("/")
    there = parts.found(file, "/".join(parted), place.file or path) is not None  # names may hold brackets
    first = len(parted) if there else next((i for i, part in enumerate(parted) if _is_pattern(part)), len(parted))
    node = _node(file, Place("/".join(parted[:first]), place.file), path)
    if isinstance(node, h5py.Dataset):
        return [node]
    found = [each for each in _matching(node, parted[first:] or ["*"]) if each.ndim >= 2]
    if not found:
        raise InputError(f"'{place}' of '{path}' holds no pictures; name a dataset, or a group of pictures.")
    return found


def _matching(group: h5py.Group, patterns: Sequence[str]) -> Iterator[h5py.Dataset]:
    """Datasets below a group whose path matches, part for part."""
    pattern, *others = patterns
    names = [pattern]
    if _is_pattern(pattern):
        names = sorted((name for name in map(str, group) if fnmatchcase(name, pattern)), key=_natural)
    for name in names:
        child = group.get(name)
        if isinstance(child, h5py.Group) and others:
            yield from _matching(child, others)
        elif isinstance(child, h5py.Dataset) and not others:
            yield child


def _is_pattern(name: str) -> bool:
    return any(c in name for c in "*?[")


def _node(file: h5py.File, place: Place, path: Path) -> Any:
    wanted = place.path.strip("/")
    node = parts.found(file, wanted, place.file or path) if wanted else file
    if node is None:
        there = ", ".join(list(file)[:8]) or "nothing"
        raise InputError(f"'{place.file or path}' has nothing at '{place.path}'; it holds {there}.")
    return node


def _natural(name: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
