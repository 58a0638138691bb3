"""Trees in files, and what kind of tree a file holds."""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py

from ctuq.errors import InputError
from ctuq.guard import reading
from ctuq.records.heap import refuse_endless_heap
from ctuq.records.seal import check_seal, is_sealed, seal_of, seal_of_file
from ctuq.records.tree import Blocks, Tree, put_tree, tree_in
from ctuq.records.whole import write_whole

FORMAT = 1


def write(path: str | os.PathLike, tree: Tree, *, kind: str, attributes: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Write a tree to an HDF5 file that appears under its name only when it is complete, sealed by a checksum.

    The file is made in memory, so this needs about the tree's size again; with `Blocks` in the tree it is made on the disk.

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

    write_hdf5(path, fill, kind=kind, large=_has_blocks(tree))


def write_hdf5(path: str | os.PathLike, fill: Callable[[h5py.File], None], *, kind: str, large: bool = False) -> None:
    """Let ``fill`` fill an HDF5 file that appears under its name only when it is complete, sealed by a checksum.

    A ``large`` one is never in memory: it is filled on the disk, and read again for its checksum.

    Raises
    ------
    InputError, ResourceError
        As `write`.
    """

    def made_in(place: Any) -> None:
        with h5py.File(place, "w") as file:
            file.attrs.update({"creator": "ctuq", "ctuq_kind": kind, "ctuq_format": FORMAT})
            fill(file)

    if large:

        def seal(target: io.BufferedRandom) -> None:
            disk = _Disk(target)
            try:
                made_in(disk)
            finally:
                if disk.error is not None:
                    raise disk.error
            target.flush()
            target.seek(0)
            end = seal_of_file(target)
            target.seek(0, os.SEEK_END)
            target.write(end)

        write_whole(path, seal)
        return
    buffer = io.BytesIO()
    made_in(buffer)
    content = buffer.getbuffer()

    def copy(target: io.BufferedRandom) -> None:
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
    with opened_record(path, kind=kind) as file:
        return tree_in(file, Path(path))


class _Disk(io.RawIOBase):
    """A file for HDF5 that takes everything even when the disk is full, and keeps the error: HDF5 cannot close a file that it
    cannot write to, and ends the whole process.
    """

    def __init__(self, file: io.BufferedRandom):
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
                self._file.flush()
            except OSError as error:
                self.error = error
        return len(data)

    def readinto(self, target: Any) -> int:
        return self._file.readinto(target)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        return self._file.truncate(size) if self.error is None else 0

    def flush(self) -> None:
        """Nothing: `write` has flushed."""


@contextmanager
def opened_record(path: str | os.PathLike, *, kind: str) -> Iterator[h5py.File]:
    """A file that `write` wrote, open for what is too large to be read whole.

    Errors of the block are the block's own, but for values that cannot be read.

    Raises
    ------
    InputError
        As `read`.
    """
    _require_kind(Path(path), kind)
    with ExitStack() as ends:
        with reading(Path(path), f"a {kind} of ctuq"):
            file = ends.enter_context(h5py.File(path, "r"))
            _require_format(file, Path(path))
        try:
            yield file
        except OSError as error:
            if error.errno is not None:  # of the system; HDF5's own of a damaged part have none
                raise
            with reading(Path(path), f"a {kind} of ctuq"):
                raise


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
    if not is_sealed(path):
        refuse_endless_heap(path)
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("ctuq_kind")
            return None if found is None else str(found)
    except (OSError, RuntimeError) as error:
        raise InputError(f"'{path}' is not a whole HDF5 file (truncated or of another type); copy it again.") from error


def _require_kind(path: Path, kind: str) -> None:
    found = kind_of(path)
    if found != kind:
        raise InputError(f"'{path}' holds {_named(found)}, not {_named(kind)} of ctuq; give another file.")


def _require_format(file: h5py.File, path: Path) -> None:
    version = int(file.attrs.get("ctuq_format", 0))
    if version > FORMAT:
        raise InputError(f"'{path}' has format {version}, newer than {FORMAT} that this ctuq reads; update ctuq.")


def _has_blocks(tree: Any) -> bool:
    if isinstance(tree, Mapping):
        return any(_has_blocks(value) for value in tree.values())
    return isinstance(tree, Blocks)


def _named(kind: str | None) -> str:
    return "data of another program" if kind is None else f"a {kind}"
