"""What an HDF5 file reaches, looked at before it is read: other files, terabytes that nobody stored, endless links."""

from collections import deque
from pathlib import Path
from typing import Any

import h5py
from h5py import h5d, h5l, h5o  # pyright: ignore[reportAttributeAccessIssue]

from ctuq.errors import InputError
from ctuq.files.formats.sizes import refuse_bomb
from ctuq.records import refuse_endless_heap

_MOST_LINKS, _MOST_FILES = 200_000, 2_000


def check_hdf5(path: Path, *, follow_links: bool = False) -> tuple[str, ...]:
    """Look through the links and datasets of a file, and of the files that it takes data from.

    Parameters
    ----------
    path : Path
        Of an HDF5 file.
    follow_links : bool
        Whether data may come from outside the file's folder, and from files that are not HDF5.

    Returns
    -------
    tuple of str
        A sentence for the other files that data can come from, if there are any.

    Raises
    ------
    InputError
        If the file reaches outside, declares far more than it stores, or has more links than any scan.
    """
    folder, seen, waiting = path.resolve().parent, {path.resolve()}, deque([path])
    while waiting:
        for target in _Look(waiting.popleft(), folder, follow_links).targets():
            if target not in seen and h5py.is_hdf5(target):
                seen.add(target)
                waiting.append(target)
        if len(seen) > _MOST_FILES:
            raise InputError(f"'{path}' takes data from more than {_MOST_FILES} files; merge them first.")
    others = sorted(other.name for other in seen - {path.resolve()})
    if not others:
        return ()
    more = f" and {len(others) - 3} more files" if len(others) > 3 else ""
    return (f"'{path.name}' links to data in {', '.join(others[:3])}{more}; keep them as they are.",)


class _Look:
    """One file, looked through without following a link out of it."""

    def __init__(self, path: Path, folder: Path, follow_links: bool):
        self._path, self._folder, self._follow = path, folder, follow_links
        self._found: set[Path] = set()
        self._count = 0
        self._refusal: Exception | None = None

    def targets(self) -> set[Path]:
        """Other files that exist and that data of this one can come from."""
        refuse_endless_heap(self._path)
        with h5py.File(self._path, "r") as file:
            self._file: Any = file
            file.id.links.visit(self._visited, info=True)
        if self._refusal is not None:
            raise self._refusal
        return self._found

    def _visited(self, name: bytes, info: Any) -> bool | None:
        """Look at one link; HDF5 lets no exception pass, so that one is kept and the visit stopped."""
        try:
            self._link(name, info)
        except Exception as error:
            self._refusal = error
            return True
        return None

    def _link(self, name: bytes, info: Any) -> None:
        self._count += 1
        if self._count > _MOST_LINKS:
            raise InputError(f"'{self._path}' has more than {_MOST_LINKS} entries, which no scan has; check the file.")
        if info.type == h5l.TYPE_EXTERNAL:
            self._reaches(self._file.id.links.get_val(name)[0], "links to")
        elif info.type == h5l.TYPE_HARD and h5o.get_info(self._file.id, name).type == h5o.TYPE_DATASET:
            self._dataset(h5d.open(self._file.id, name), name.decode("utf-8", "replace"))

    def _dataset(self, data: Any, name: str) -> None:
        plan = data.get_create_plist()
        if plan.get_external_count() and not self._follow:
            raise InputError(
                f"'{name}' of '{self._path}' takes its values from another file, '{_text(plan.get_external(0)[0])}'; "
                "allow that with --follow-links if you trust it, or copy the data into one file."
            )
        if plan.get_layout() == h5d.VIRTUAL:
            for number in range(plan.get_virtual_count()):
                if (source := plan.get_virtual_filename(number)) != ".":
                    self._reaches(source, f"takes '{name}' from")
        elif not plan.get_external_count():
            declared = data.get_space().get_simple_extent_npoints() * data.get_type().get_size()
            refuse_bomb(declared, data.get_storage_size(), f"'{name}' in '{self._path}'")

    def _reaches(self, name: bytes | str, how: str) -> None:
        """Note a file that HDF5 would open: by its place beside this one or, failing that, as the name says."""
        name = _text(name)
        if "%" in name:  # HDF5 puts numbers in place of %b: what is there then lies in the same folder.
            name = next((str(other) for other in (self._path.parent / name).parent.glob("*") if other.is_file()), name)
        for place in dict.fromkeys((self._path.parent / name, self._path.parent / Path(name).name, Path(name))):
            if not place.is_file():
                continue
            if not (self._follow or place.resolve().is_relative_to(self._folder)):
                raise InputError(
                    f"'{self._path}' {how} '{name}', which lies outside its folder; allow that with --follow-links if you "
                    "trust it, or copy it beside."
                )
            self._found.add(place.resolve())
            return


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
