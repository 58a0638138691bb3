"""HDF5 as other programs leave it: open by a writer, split over files that stayed behind, compressed by a plugin."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ctuq.errors import InputError

_FILTERS = {
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32026: "blosc2",
    307: "bzip2",
    4: "szip",
}
_NOT_OPENED = ("unable to lock file", "errno = 11", "resource temporarily unavailable", "already open for")


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading, with the filters of hdf5plugin where that is installed.

    Raises
    ------
    InputError
        If another program has it open for writing.
    """
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    refuse_locked(path)
    with h5py.File(path, "r") as file:
        yield file


def refuse_locked(path: Path) -> None:
    """Refuse a file that its writer has not closed.

    Raises
    ------
    InputError
        Saying so.
    """
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        if any(words in str(error).lower() for words in _NOT_OPENED):
            raise InputError(
                f"'{path}' is open in another program that writes to it (HDF5 lock), or was not closed by it; "
                "close it there, or wait for the end of the scan."
            ) from error


def found(group: Any, name: str, path: Path) -> Any:
    """What a group has under a name (parts between slashes, in any case), None if it has nothing there.

    Raises
    ------
    InputError
        If a link on the way leads to a file or a place that is not there.
    """
    node = group
    for part in name.split("/"):
        if not isinstance(node, h5py.Group):
            return None
        exact = part if node.get(part, getlink=True) is not None else _in_another_case(node, part)
        if exact is None:
            return None
        link = node.get(exact, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            _refuse_missing(link.filename, path, f"'{name}'")
        try:
            node = node[exact]
        except (KeyError, OSError) as error:
            where = f"'{link.path}' of '{link.filename}'" if isinstance(link, h5py.ExternalLink) else f"'{_target(link)}'"
            raise InputError(f"'{path}': its '{name}' is a link to {where}, which is not there; copy that too.") from error
    if not isinstance(node, h5py.Group | h5py.Dataset):
        raise InputError(f"'{path}': its '{name}' is a type and holds no data; write the file again.")
    return node


def readable(data: h5py.Dataset, path: Path) -> h5py.Dataset:
    """A dataset whose values are all there: every source of a virtual one, every chunk, and the filters to read them.

    Raises
    ------
    InputError
        Naming what is missing.
    """
    name = data.name or "data"
    if data.is_virtual:
        for source in data.virtual_sources():
            if source.file_name != "." and "%" not in source.file_name:
                _refuse_missing(source.file_name, Path(data.file.filename), f"part of '{name}'")
                _refuse_short(source, data, path)
    properties = data.id.get_create_plist()
    for i in range(properties.get_nfilters()):
        code, _, _, label = properties.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            known = _FILTERS.get(code, label.decode("utf-8", "replace") or f"number {code}")
            raise InputError(
                f"'{path}' is whole, but its '{name}' is compressed by {known} (HDF5 filter {code}), which is not installed; "
                "get it by: pip install 'ctuq[readers]'."
            )
    return data


def unwritten(data: h5py.Dataset) -> float:
    """The share of a dataset's chunks that no one ever wrote; HDF5 gives zeros there."""
    if data.chunks is None or not data.size:
        return 0.0
    count = int(np.prod([-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]))
    return 1.0 - data.id.get_num_chunks() / count


def broken_links(file: h5py.File) -> tuple[str, ...]:
    """The files that links at the top of a file name, and that are not there."""
    links = [file.get(name, getlink=True) for name in file]
    names = [link.filename for link in links if isinstance(link, h5py.ExternalLink)]
    folder = Path(file.filename).parent
    return tuple(name for name in names if not any(place.is_file() for place in (folder / name, Path(name))))


def _in_another_case(group: h5py.Group, part: str) -> str | None:
    alike = [str(name) for name in group if str(name).lower() == part.lower()]
    return alike[0] if len(alike) == 1 else None


def _target(link: Any) -> str:
    return str(getattr(link, "path", "another place"))


def _refuse_missing(name: str, path: Path, what: str) -> None:
    """Refuse a file that a link or a virtual dataset names, relative to the file with the link, and that is not there."""
    if not any(place.is_file() for place in (path.parent / name, Path(name))):
        raise InputError(f"'{path}': {what} lies in '{name}', which is missing beside it; copy that file too.")


def _refuse_short(source: Any, data: h5py.Dataset, path: Path) -> None:
    place = path.parent / source.file_name
    try:
        with h5py.File(place if place.is_file() else source.file_name, "r") as file:
            stored: Any = file[source.dset_name]
            shape = readable(stored, place if place.is_file() else Path(source.file_name)).shape
    except (OSError, KeyError) as error:
        raise InputError(
            f"'{path}': part of '{data.name}' lies in '{source.dset_name}' of '{source.file_name}', which cannot be read; "
            "copy that file again."
        ) from error
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        short = np.prod(shape) < source.vspace.get_select_npoints()
    else:
        _, last = source.src_space.get_select_bounds()
        short = len(last) != len(shape) or any(end >= n for end, n in zip(last, shape, strict=True))
    if short:
        raise InputError(f"'{path}': '{source.file_name}' holds fewer images ({shape}) than it should; copy that file again.")
