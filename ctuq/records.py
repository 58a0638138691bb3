"""Nested values in one HDF5 file: written whole or not at all, read back equal, never a pickle.

A tree is a dict with string keys whose values are arrays of numbers, str, float, int, bool, None, tuples or dicts of these.
"""

import errno
import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ctuq.errors import InputError, ResourceError

FORMAT = 1
_COMPRESS_FROM = 1024
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Tree = Mapping[str, Any]


def write(path: str | os.PathLike, tree: Tree, *, kind: str, attributes: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Write a tree to an HDF5 file that appears under its name only when it is complete.

    The file is made in memory, so this needs about the tree's size again.

    Parameters
    ----------
    path : path
        An existing file is replaced.
    tree : mapping
        See the module's docstring.
    kind : str
        What the tree is ("scan", "result", ...); `read` refuses another.
    attributes : mapping from a node's HDF5 path to its attributes, optional
        For other programs, such as units or NeXus classes; `read` does not return them.

    Raises
    ------
    InputError
        If the tree holds something else, or the folder cannot be written to.
    ResourceError
        If the disk is full.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update({"creator": "ctuq", "ctuq_kind": kind, "ctuq_format": FORMAT})
        for key, value in tree.items():
            _put(file, key, value)
        for node, values in (attributes or {}).items():
            file[node].attrs.update(values)
    write_whole(path, lambda target: target.write(buffer.getbuffer()))


def write_whole(path: str | os.PathLike, fill: Callable[[io.BufferedWriter], object]) -> None:
    """Let ``fill`` write to a temporary file beside ``path``, and rename it when that has succeeded.

    Raises
    ------
    InputError, ResourceError
        As `write`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as target:
            fill(target)
            target.flush()
            os.fsync(target.fileno())
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read(path: str | os.PathLike, *, kind: str) -> dict[str, Any]:
    """Read the tree that `write` wrote.

    Raises
    ------
    InputError
        If the file is missing, truncated, foreign, of another kind or of a newer format.
    """
    path = Path(path)
    found = kind_of(path)
    if found != kind:
        raise InputError(f"'{path}' holds {_named(found)}, not {_named(kind)} of ctuq; give another file.")
    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs.get("ctuq_format", 0))
            if version > FORMAT:
                raise InputError(f"'{path}' has format {version}, newer than {FORMAT} that this ctuq reads; update ctuq.")
            return {_unescaped(key): _get(node) for key, node in file.items()}
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' is damaged and cannot be read whole; copy or make it again.") from error


def kind_of(path: str | os.PathLike) -> str | None:
    """The kind of a file of ours, None for an HDF5 file of another program.

    Raises
    ------
    InputError
        If there is no such file, or it is not a whole HDF5 file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file '{path}'; check the name.")
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("ctuq_kind")
            return None if found is None else str(found)
    except (OSError, RuntimeError) as error:
        raise InputError(f"'{path}' is not a whole HDF5 file (truncated or of another type); copy it again.") from error


def _named(kind: str | None) -> str:
    return "data of another program" if kind is None else f"a {kind}"


def _unwritable(path: Path, error: OSError) -> InputError | ResourceError:
    if error.errno in _NO_SPACE:
        return ResourceError(f"The disk has no room for '{path}'; free some space or choose another folder.")
    reason = error.strerror or str(error)
    return InputError(f"Cannot write '{path}' ({reason}); choose a folder that exists and that you may write to.")


def _escaped(key: object) -> str:
    if not isinstance(key, str):
        raise InputError(f"Only strings can name what is stored in a file, not {key!r}.")
    name = key.replace("%", "%25").replace("/", "%2F").replace("\x00", "%00")
    return "%" if name == "" else name.replace(".", "%2E") if set(name) == {"."} else name


def _unescaped(name: str) -> str:
    if name == "%":
        return ""
    return name.replace("%2E", ".").replace("%00", "\x00").replace("%2F", "/").replace("%25", "%")


def _put(parent: h5py.Group, key: object, value: Any) -> None:
    name = _escaped(key)
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Mapping | tuple):
        items = value.items() if isinstance(value, Mapping) else ((str(i), v) for i, v in enumerate(value))
        node = parent.create_group(name, track_order=True)
        for child, entry in items:
            _put(node, child, entry)
        _mark(node, "dict" if isinstance(value, Mapping) else "tuple")
    elif value is None:
        _mark(parent.create_dataset(name, data=h5py.Empty("f4")), "none")
    elif isinstance(value, bool | int | float | str):
        _mark(_scalar(parent, name, value), type(value).__name__)
    else:
        _mark(_array(parent, name, np.asarray(value)), "array")


def _scalar(parent: h5py.Group, name: str, value: bool | int | float | str) -> h5py.Dataset:
    if isinstance(value, str):
        return parent.create_dataset(name, data=value.replace("\x00", ""), dtype=h5py.string_dtype())
    return parent.create_dataset(name, data=value)


def _array(parent: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    if array.dtype.kind not in "biufc":
        raise InputError(
            f"'{name}' is {type(array).__name__} of {array.dtype}, which cannot be stored; only numbers and text can."
        )
    if array.size < _COMPRESS_FROM:
        return parent.create_dataset(name, data=array)
    return parent.create_dataset(name, data=array, compression="gzip", compression_opts=4, shuffle=True, fletcher32=True)


def _mark(node: h5py.Group | h5py.Dataset, what: str) -> None:
    node.attrs["ctuq_type"] = what


def _get(node: Any) -> Any:
    what = node.attrs["ctuq_type"]
    if what == "dict":
        return {_unescaped(key): _get(child) for key, child in node.items()}
    if what == "tuple":
        return tuple(_get(node[str(i)]) for i in range(len(node)))
    if what == "none":
        return None
    if what == "str":
        return node.asstr()[()]
    value = node[()]
    return {"bool": bool, "int": int, "float": float, "array": np.asarray}[what](value)
