"""Where in HDF5 files the parts of a scan lie, as a geometry file names them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ctuq.errors import InputError
from ctuq.files.formats.sidefile import last_name


@dataclass(frozen=True)
class Place:
    """A path inside an HDF5 file: of another one, or (None) of the scan's own.

    Parameters
    ----------
    path : str
        Empty for a whole text file.
    file : Path, optional
    key : str
        Of the geometry file that names it.
    """

    path: str
    file: Path | None = None
    key: str = ""

    def __str__(self) -> str:
        return self.path if self.file is None else f"{self.file}:{self.path}"


@dataclass(frozen=True)
class Layout:
    """Places of projections, angles, image keys, flats and darks."""

    data: Place | None = None
    angles: Place | None = None
    image_key: Place | None = None
    flats: Place | None = None
    darks: Place | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) is not None for f in fields(self))


def place_of(told: Any, folder: Path, key: str) -> Place:
    """The place that ``PATH``, ``FILE.h5:PATH`` or ``{file: FILE.h5, path: PATH}`` names, or a whole file, seen from a folder.

    Of a file that is not there under its whole name (it came from another machine) the last part counts.

    Raises
    ------
    InputError
        If it is something else, or there is no such file.
    """
    if isinstance(told, str) and told.strip() and (folder / told.strip()).is_file():
        return Place("", folder / told.strip(), key)
    if isinstance(told, dict) and set(told) == {"file", "path"}:
        file, path = str(told["file"]), str(told["path"])
    elif isinstance(told, str) and told.strip():
        file, _, path = told.rpartition(":")
    else:
        raise InputError(f"'{key}' in the geometry file must be a path such as entry/data, or scan.h5:entry/data.")
    if len(file.rstrip(":")) <= 1:
        return Place(str(told).strip(), None, key)
    found = next((p for p in (folder / file.rstrip(":"), folder / last_name(file.rstrip(":"))) if p.is_file()), None)
    if found is None:
        raise InputError(f"'{key}' in the geometry file names '{file}', which does not exist.")
    return Place(path.strip(), found, key)


def to_plain(layout: Layout) -> dict[str, str]:
    """The places as text, to be kept in another file."""
    places = {f.name: getattr(layout, f.name) for f in fields(layout)}
    return {
        name: str(Place(place.path, place.file.resolve()) if place.file else place) for name, place in places.items() if place
    }


def from_plain(kept: Mapping[str, str]) -> Layout:
    """The layout that `to_plain` took apart."""
    return Layout(**{name: place_of(text, Path(), name) for name, text in kept.items()})
