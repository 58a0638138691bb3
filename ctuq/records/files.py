"""Trees in files, and what kind of tree a file holds."""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py

from ctuq.errors import InputError
from ctuq.guard import reading
from ctuq.records.seal import check_seal, seal_of
from ctuq.records.tree import Tree, put_tree, tree_in
from ctuq.records.whole import write_whole

FORMAT = 1


def write(path: str | os.PathLike, tree: Tree, *, kind: str, attributes: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Write a tree to an HDF5 file that appears under its name only when it is complete, sealed by a checksum.

    The file is made in memory, so this needs about the tree's size again.

    Parameters
    ----------
    path : path
        An existing file is replaced.
    tree : mapping
        See the package's docstring.
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

    def fill(file: h5py.File) -> None:
        put_tree(file, tree)
        for node, values in (attributes or {}).items():
            file[node].attrs.update(values)

    write_hdf5(path, fill, kind=kind)


def write_hdf5(path: str | os.PathLike, fill: Callable[[h5py.File], None], *, kind: str) -> None:
    """Let ``fill`` fill an HDF5 file that appears under its name only when it is complete, sealed by a checksum.

    Raises
    ------
    InputError, ResourceError
        As `write`.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update({"creator": "ctuq", "ctuq_kind": kind, "ctuq_format": FORMAT})
        fill(file)
    content = buffer.getbuffer()

    def copy(target: io.BufferedWriter) -> None:
        target.write(content)
        target.write(seal_of(content))

    write_whole(path, copy)


def read(path: str | os.PathLike, *, kind: str) -> dict[str, Any]:
    """Read the tree that `write` wrote.

    Raises
    ------
    InputError
        If the file is missing, truncated, not as it was written, foreign, of another kind or of a newer format.
    ResourceError
        If it declares more than fits into memory.
    """
    path = Path(path)
    found = kind_of(path)
    if found != kind:
        raise InputError(f"'{path}' holds {_named(found)}, not {_named(kind)} of ctuq; give another file.")
    with reading(path, f"a {kind} of ctuq"), h5py.File(path, "r") as file:
        version = int(file.attrs.get("ctuq_format", 0))
        if version > FORMAT:
            raise InputError(f"'{path}' has format {version}, newer than {FORMAT} that this ctuq reads; update ctuq.")
        return tree_in(file, path)


def kind_of(path: str | os.PathLike) -> str | None:
    """The kind of a file of ours, None for an HDF5 file of another program.

    Raises
    ------
    InputError
        If there is no such file, or it is not a whole HDF5 file, or not as it was written.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file '{path}'; check the name.")
    check_seal(path)
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("ctuq_kind")
            return None if found is None else str(found)
    except (OSError, RuntimeError) as error:
        raise InputError(f"'{path}' is not a whole HDF5 file (truncated or of another type); copy it again.") from error


def _named(kind: str | None) -> str:
    return "data of another program" if kind is None else f"a {kind}"
