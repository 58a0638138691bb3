"""Nested values as groups and datasets of an HDF5 file, and back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

from ctuq.errors import InputError
from ctuq.memory import require_room
from ctuq.text import shortened

_COMPRESS_FROM = 1024
_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
_KINDS = {"bool": "b", "int": "iu", "float": "f", "array": "biufc"}
_DEEPEST = 100

Tree = Mapping[str, Any]


class Blocks:
    """A volume that is never whole in memory: its slices are made as they are written.

    Parameters
    ----------
    shape : tuple of int
        (z, y, x), or with more axes after the first.
    one : callable
        The slice of a number, (y, x), float32.
    """

    def __init__(self, shape: tuple[int, ...], one: Callable[[int], np.ndarray]):
        self.shape, self._one = shape, one

    def __getitem__(self, z: int) -> np.ndarray:
        return self._one(z)


def put_tree(file: h5py.Group, tree: Tree) -> None:
    """Write a tree into an empty file or group.

    Raises
    ------
    InputError
        If it holds what a tree cannot.
    """
    for key, value in tree.items():
        _put(file, key, value)


def tree_in(file: Any, path: Path, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The tree that `put_tree` wrote, or what stands under some of its names.

    Raises
    ------
    InputError
        If something is no part of a tree, such as a link, a circle or a value of another type.
    ResourceError
        If an array is larger than what memory is left.
    """
    return _Reader(path).children(file, 0, only)


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
    elif isinstance(value, Blocks):
        _mark(_written_by_slices(parent, name, value), "array")
    else:
        _mark(_array(parent, name, np.asarray(value)), "array")


def _scalar(parent: h5py.Group, name: str, value: bool | int | float | str) -> h5py.Dataset:
    if isinstance(value, str):
        return parent.create_dataset(name, data=value.replace("\x00", ""), dtype=h5py.string_dtype())
    return parent.create_dataset(name, data=value)


def _written_by_slices(parent: h5py.Group, name: str, blocks: Blocks) -> h5py.Dataset:
    chunk = (1, *blocks.shape[1:])
    node = parent.create_dataset(name, blocks.shape, np.float32, chunks=chunk, **_PACKED)
    for z in range(blocks.shape[0]):
        node[z] = blocks[z]
    return node


def _array(parent: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    if array.dtype.kind not in "biufc":
        raise InputError(
            f"'{name}' is {type(array).__name__} of {array.dtype}, which cannot be stored; only numbers and text can."
        )
    if array.size < _COMPRESS_FROM:
        return parent.create_dataset(name, data=array)
    return parent.create_dataset(name, data=array, **_PACKED)


def _mark(node: h5py.Group | h5py.Dataset, what: str) -> None:
    node.attrs["ctuq_type"] = what


class _Reader:
    """Reads nodes, each once: a file of ours links to nothing, and to no node twice."""

    def __init__(self, path: Path):
        self._path = path
        self._seen: set[tuple[int, int]] = set()

    def children(self, group: Any, depth: int, only: tuple[str, ...] | None = None) -> dict[str, Any]:
        names = group if only is None else [name for name in group if name in only]
        return {_unescaped(name): self._value(self._child(group, name), depth) for name in names}

    def _child(self, group: Any, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise self._damaged(group, name, "is a link")
        node: Any = group[name]
        if not isinstance(node, h5py.Group | h5py.Dataset):
            raise self._damaged(group, name, "is neither a group nor a dataset")
        where = h5o.get_info(node.id)
        if (where.fileno, where.addr) in self._seen:
            raise self._damaged(group, name, "stands there twice")
        self._seen.add((where.fileno, where.addr))
        return node

    def _value(self, node: Any, depth: int) -> Any:
        marked = node.attrs.get("ctuq_type")
        what = marked if isinstance(marked, str) else "part of a tree"
        if depth > _DEEPEST or isinstance(node, h5py.Group) != (what in ("dict", "tuple")):
            raise self._damaged(
                node.parent, node.name, f"is no {shortened(what, 40)}" if depth <= _DEEPEST else "lies too deep"
            )
        if what not in ("dict", "tuple"):
            return self._leaf(node, what)
        values = self.children(node, depth + 1)
        if what == "dict":
            return values
        if values.keys() != {str(i) for i in range(len(values))}:
            raise self._damaged(node.parent, node.name, "is no tuple")
        return tuple(values[str(i)] for i in range(len(values)))

    def _leaf(self, node: Any, what: str) -> Any:
        if what == "none" and node.shape is None:
            return None
        if what == "str" and node.shape == () and h5py.check_string_dtype(node.dtype):
            return node.asstr()[()]
        shape: tuple[int, ...] = node.shape
        fits = what in _KINDS and shape is not None and node.dtype.kind in _KINDS[what]
        if not fits or (what != "array" and shape != ()) or node.is_virtual or node.external:
            raise self._damaged(node.parent, node.name, f"is no {shortened(what, 40)}")
        require_room(shape, node.dtype.itemsize, f"'{node.name}' in '{self._path}'", "check where the file comes from")
        value = node[()]
        return {"bool": bool, "int": int, "float": float, "array": np.asarray}[what](value)

    def _damaged(self, group: Any, name: str, why: str) -> InputError:
        where = f"{group.name}/{name.rpartition('/')[2]}".replace("//", "/")
        return InputError(f"'{self._path}' is damaged ('{where}' {why}) and cannot be read whole; copy or make it again.")
