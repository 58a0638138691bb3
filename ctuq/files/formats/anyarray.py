"""One array of numbers out of a file of any program: ``.npy``, ``.npz``, HDF5, MATLAB, TIFF, PNG, FITS."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.angletable import Told, angles_of_array, angles_of_text
from ctuq.files.formats.matfile import load_matlab
from ctuq.files.formats.pictures import SUFFIXES as PICTURES
from ctuq.files.formats.pictures import load_picture
from ctuq.files.formats.places import Place
from ctuq.guard import reading
from ctuq.memory import require_room
from ctuq.records import refuse_endless_heap

_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")
_NUMPY, _MATLAB = (".npy", ".npz"), ".mat"
NAMED = (*_NUMPY, *_HDF5, _MATLAB)
"""Files of arrays that may have names."""
SUFFIXES = (*NAMED, *PICTURES)
_MOST_LISTED = 8


def read_array(text: str | Path, what: str, prefer: str = "") -> NDArray:
    """An array of real numbers.

    Parameters
    ----------
    text : str or Path
        A file's name; for one array of several ``FILE:NAME``, with the HDF5 path of a dataset as NAME.
    what : str
        What it is to be, for the sentence of an error, such as "an image".
    prefer : str
        The name that is taken of several where none is given.

    Raises
    ------
    InputError
        If there is no such file or array, it is damaged, or holds no real numbers.
    ResourceError
        If it does not fit into memory.
    """
    path, name = file_of(str(text))
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{what[:1].upper()}{what[1:]} is read from a file of {', '.join(SUFFIXES)}, not '{path}'.")
    if not path.is_file():
        raise InputError(f"There is no file '{path}' for {what}; check the name.")
    with reading(path, what):
        if suffix in PICTURES:
            values = load_picture(path)
        elif suffix in _HDF5:
            values = _of_hdf5(path, name, prefer)
        elif suffix == _MATLAB:
            values = _of_matlab(path, name, prefer)
        else:
            values = _of_numpy(path, name, prefer)
        values = np.asarray(values)
        if values.dtype.kind not in "biuf" or not values.size:
            raise InputError(f"{what} is an array of real numbers, and this one is {values.dtype} of shape {values.shape}")
        return values


def angles_in(place: Place, counts: Sequence[int]) -> Told:
    """The numbers of another file that a geometry file names as angles: an array, or text, and of a table one column.

    Parameters
    ----------
    place : Place
    counts : sequence of int
        How many there may be.

    Raises
    ------
    InputError
        As `read_array`, `ctuq.files.angles.degrees_in` and `ctuq.files.angletable`.
    """
    assert place.file is not None
    if place.file.suffix.lower() not in NAMED:
        return angles_of_text(place.file, counts, place.path)
    values = read_array(str(place).rstrip(":"), "angles", prefer="angles")
    angles, _, remarks = angles_of_array(values, counts, str(place).rstrip(":"))
    return angles, place.path, remarks


def file_of(text: str) -> tuple[Path, str]:
    """The file and the array's name; a colon may belong to the file, as on Windows."""
    head, mark, tail = text.rpartition(":")
    if mark and not Path(text).is_file() and Path(head).suffix.lower() in SUFFIXES:
        return Path(head), tail
    return Path(text), ""


def _of_numpy(path: Path, name: str, prefer: str) -> NDArray:
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        require_room((size,), 1, f"'{path}'", "give a smaller file")
    # No pickle: it could run anything.
    found = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
    if isinstance(found, np.ndarray):
        require_room(found.shape, max(found.dtype.itemsize, 8), f"'{path}'", "give a smaller array")
        return np.array(found)
    with found:
        return found[_chosen(list(found.files), name, prefer)]


def _of_matlab(path: Path, name: str, prefer: str) -> NDArray:
    found = {
        key: value for key, value in load_matlab(path).items() if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    }
    return found[_chosen(list(found), name, prefer)]


def _of_hdf5(path: Path, name: str, prefer: str) -> NDArray:
    refuse_endless_heap(path)
    with h5py.File(path, "r") as file:
        known: list[str] = []

        def look(each: str, node: object) -> None:
            if isinstance(node, h5py.Dataset) and node.dtype.kind in "biuf" and node.ndim > 0:
                known.append(each)

        file.visititems(look)
        chosen = _chosen(known, name.strip("/"), prefer)
        node = file[chosen]
        if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
            raise InputError(f"'{chosen}' does not lie in the file itself")
        require_room(node.shape, max(node.dtype.itemsize, 8), f"'{path}'", "give a smaller array")
        return node[()]


def _chosen(known: list[str], name: str, prefer: str) -> str:
    told = ", ".join(known[:_MOST_LISTED]) + (", ..." if len(known) > _MOST_LISTED else "") or "none"
    if name:
        if name not in known:
            raise InputError(f"it has no array {name!r}; its arrays are: {told}")
        return name
    fitting = [each for each in known if each.rsplit("/", 1)[-1] == prefer]
    if len(fitting) == 1:
        return fitting[0]
    if len(known) != 1:
        raise InputError(f"name one of its arrays as FILE:NAME; they are: {told}")
    return known[0]
