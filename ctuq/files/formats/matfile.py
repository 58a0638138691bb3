"""Variables of MATLAB files of version 5 and 7.3, read to the same nested dict."""

import zlib
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import scipy.io
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

from ctuq.errors import CtuqError, InputError
from ctuq.files.formats.sizes import refuse_bomb
from ctuq.memory import require_room
from ctuq.records import refuse_endless_heap

_V5_HEADER, _V5_PACKED = 128, 15


def load_matlab(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file of version 5 or 7.3: numbers as arrays, text as str, structs as dicts.

    Raises
    ------
    InputError
        If the file is damaged or of another type.
    """
    try:
        if h5py.is_hdf5(path):
            refuse_endless_heap(path)
            with h5py.File(path, "r") as file:
                return _children(file, set())
        _refuse_bombs(path)
        loaded = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)
    except CtuqError:
        raise
    except Exception as error:  # scipy raises many types on damaged files
        raise InputError(f"'{path}' is not a whole MATLAB file (version 5 or 7.3); copy it again.") from error
    return {name: _from_v5(value) for name, value in loaded.items() if not name.startswith("__")}


def _from_v5(value: Any) -> Any:
    return {name: _from_v5(getattr(value, name)) for name in value._fieldnames} if hasattr(value, "_fieldnames") else value


def _refuse_bombs(path: Path) -> None:
    """Look at what the packed variables of a version 5 file declare, before SciPy unpacks them."""
    with path.open("rb") as file:
        order: Literal["little", "big"] = "big" if file.read(_V5_HEADER)[-2:] == b"MI" else "little"
        while len(tag := file.read(8)) == 8:
            kind, size = (int.from_bytes(tag[at : at + 4], order) for at in (0, 4))
            start = file.tell()
            if kind == _V5_PACKED:
                inner = zlib.decompressobj().decompress(file.read(min(size, 256)), 8)
                declared = int.from_bytes(inner[4:8], order)
                refuse_bomb(declared, size, f"A variable in '{path}'")
                require_room((declared,), 1, f"A variable in '{path}'", "save the sinogram alone")
            file.seek(start + size)


def _children(group: h5py.Group, seen: set[int]) -> dict[str, Any]:
    """Variables of a group, each group once: links may go round in a circle."""
    where = h5o.get_info(group.id).addr
    if where in seen:
        return {}
    seen.add(where)
    return {name: _from_hdf5(node, seen) for name, node in group.items() if not name.startswith("#") and node is not None}


def _from_hdf5(node: Any, seen: set[int]) -> Any:
    if isinstance(node, h5py.Group):
        return _children(node, seen)
    if not isinstance(node, h5py.Dataset) or node.shape is None or node.attrs.get("MATLAB_empty", 0):
        return ""
    require_room(node.shape, node.dtype.itemsize, f"'{node.name}'", "save the sinogram alone")
    if node.attrs.get("MATLAB_class", b"") == b"char" and node.dtype.kind in "iu":
        return "".join(chr(c) for c in np.ravel(node[()]) if c < 0x110000)
    return np.squeeze(np.asarray(node[()]).T)
