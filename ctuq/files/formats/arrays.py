"""NumPy ``.npz`` scans: a sinogram with its geometry, or the layout of published Deep Image Prior problems."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy.sparse as sp
from numpy.lib import format as npy
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.angles import checked_radians
from ctuq.files.formats.raw import TURNED, VALUES, Raw, as_sinogram
from ctuq.files.formats.sizes import refuse_bomb
from ctuq.files.formats.sound import checked_angles
from ctuq.guard import reading
from ctuq.memory import require_room
from ctuq.text import listed, shortened
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid, radians
from ctuq.tomo.rays.entries import build_matrix

_LENGTHS = ("pixel", "source_to_axis", "source_to_detector", "detector_offset", "axis_offset", "axis_column")
_PARTS = ("data", "indices", "indptr", "shape")
_SCAN = ("sinogram", "projections", "sino", "angles", "angles_deg", "kind", "values", "flats", "darks", "weights", "truth")
_NAMES = (*_SCAN, "voxel", *_LENGTHS, "image", "A", *(f"A_{name}" for name in _PARTS))
_OTHER_PROJECTOR, _SAME_ANGLE, _LONGEST_HEADER = 0.1, 1e-6, 10_000


def load_npz(path: Path, *others: str) -> dict[str, Any]:
    """The arrays of an ``.npz`` file that have a meaning here, or the array of an ``.npy`` file as "sinogram"; never a pickle.

    Parameters
    ----------
    path : Path
    *others : str
        Further names that are wanted.

    Raises
    ------
    InputError
        If the file is damaged, holds Python objects, or declares more than it stores.
    ResourceError
        If it declares more than fits into memory.
    """
    with reading(path, "a NumPy file"), path.open("rb") as file:
        if file.read(2) != b"PK":
            return {"sinogram": _array(file, path.stat().st_size, path, "the array", mapped=True)}
        with zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise InputError(f"'{path}' holds an array of one name twice; write it again.")
            for member in archive.infolist():
                # Refuses a name that is not the one before the array: a damaged one would leave its array out without a word.
                archive.open(member).close()
            return {name: _member(archive, members[name], path) for name in (*_NAMES, *others) if name in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray:
    refuse_bomb(member.file_size, member.compress_size, f"'{member.filename}' in '{path}'")
    with archive.open(member) as file:
        return _array(file, member.file_size, path, f"'{member.filename}'")


def _array(file: IO[bytes], size: int, path: Path, name: str, *, mapped: bool = False) -> NDArray:
    """One array, whose header is checked against the bytes that there are before anything is read."""
    file.seek(0)
    version = npy.read_magic(file)
    header, width = (npy.read_array_header_1_0, 2) if version == (1, 0) else (npy.read_array_header_2_0, 4)
    if int.from_bytes(file.read(width), "little") > _LONGEST_HEADER:
        raise InputError(f"'{path}' is not a whole NumPy file: {name} has a header of no end; copy it again.")
    file.seek(8)
    shape, is_fortran, dtype = header(file)
    if dtype.hasobject:
        raise InputError(f"'{path}' holds Python objects, which are never read ({name}); save plain numbers.")
    declared, stored = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != stored:
        raise InputError(
            f"'{path}' is not a whole NumPy file: {name} declares {declared} bytes and has {stored}; copy it again."
        )
    if mapped and len(shape) == 3 and declared:
        # Only the row that is used is read of a stack.
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if is_fortran else "C")
    require_room(shape, dtype.itemsize, f"{name} in '{path}'", "save the part of it that is needed")
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)


def _names(path: Path) -> str:
    """What is in an ``.npz`` file, for people."""
    with zipfile.ZipFile(path) as archive:
        return listed(name.removesuffix(".npy") for name in archive.namelist()) or "nothing"


def read_npz(path: Path, row: int | None, stack: str | None = None) -> Raw:
    """Read a scan from an ``.npz`` file.

    Names: ``sinogram`` (angle, column) or ``projections`` (angle, row, column), with ``stack`` "sinograms" of three axes
    (row, angle, column), and `TURNED` (angle, column, row); ``angles`` in radians or ``angles_deg``;
    ``kind``, ``values``; lengths in mm as in a geometry file; ``flats``, ``darks``, ``weights``; ``truth`` with ``voxel``.
    Problems with ``image`` and a system matrix ``A`` or ``A_data, A_indices, A_indptr, A_shape`` are read by `_problem`.

    Raises
    ------
    InputError
        If the file is damaged or has no sinogram.
    """
    arrays = load_npz(path)
    name = next((name for name in ("sinogram", "projections", "sino") if name in arrays), None)
    if name is None:
        raise InputError(f"'{path}' holds {_names(path)}; a 'sinogram' (angle, column) is needed.")
    if "image" in arrays and "angles" in arrays and ("A" in arrays or "A_data" in arrays):
        return _problem(arrays, arrays[name], path)
    values, row, rows = as_sinogram(arrays[name], row, str(path), stack=stack)
    fields: dict[str, object] = {key: _number(arrays, key, path) for key in _LENGTHS if key in arrays}
    if "axis_column" in fields and "detector_offset" in fields:
        raise InputError(
            f"'{path}' says both 'axis_column' and 'detector_offset', of which one gives the other; leave one out."
        )
    if "angles" in arrays or "angles_deg" in arrays:
        fields["angles"] = _angles(arrays, path)
    if "kind" in arrays:
        fields["kind"] = _choice(arrays, "kind", ("parallel", "fan"), path)
    kind = _choice(arrays, "values", VALUES, path) if "values" in arrays else "log"
    truth = arrays.get("truth")
    if truth is not None and "voxel" not in arrays:
        raise InputError(f"'{path}' has a truth without its 'voxel' in mm.")
    if truth is not None and truth.ndim != 2:
        raise InputError(f"'{path}' has a truth of shape {truth.shape}; an image (y, x) is needed.")
    return Raw(
        "NumPy arrays",
        np.array(values),
        kind,
        fields,
        arrays.get("flats"),
        arrays.get("darks"),
        weights=arrays.get("weights"),
        truth=truth,
        grid=None if truth is None else VolumeGrid(truth.shape, _number(arrays, "voxel", path)),
        row=row,
        rows=rows,
        order_known=stack is not None or name == "projections" or rows == 1,
        stated="values" in arrays,
        turned=stack == TURNED and row is not None,
    )


def system_matrix(path: Path) -> sp.csr_array:
    """The system matrix (angle * column, y * x) of a problem file, float32.

    Raises
    ------
    InputError
        If the file is damaged or has none.
    """
    return _matrix(load_npz(Path(path)), Path(path))


def _matrix(arrays: dict[str, Any], path: Path) -> sp.csr_array:
    """The matrix, looked through before SciPy sees it: indices outside of it would end the process."""
    if "A" in arrays:
        dense = arrays["A"]
        if dense.ndim != 2 or dense.dtype.kind not in "buif":
            raise InputError(f"'A' in '{path}' is {dense.dtype} of shape {dense.shape}; a real matrix is needed.")
        return sp.csr_array(np.asarray(dense, dtype=np.float32))
    if any(f"A_{name}" not in arrays for name in _PARTS):
        raise InputError(f"'{path}' has no whole system matrix 'A' or 'A_data, A_indices, A_indptr, A_shape'.")
    data, indices, starts, shape = (arrays[f"A_{name}"] for name in _PARTS)
    wrong = _wrong_matrix(data, indices, starts, shape)
    if wrong:
        raise InputError(f"The system matrix in '{path}' is damaged: {wrong}; write the file again.")
    kept = indices.astype(np.int64), starts.astype(np.int64)
    return sp.csr_array((data.astype(np.float32), *kept), shape=tuple(int(n) for n in shape))


def _wrong_matrix(data: NDArray, indices: NDArray, starts: NDArray, shape: NDArray) -> str:
    """What is wrong with a compressed sparse row matrix, empty if nothing is."""
    if shape.dtype.kind not in "iu" or shape.shape != (2,) or shape.min() < 1:
        return f"its shape is {shortened(shape.tolist(), 60)}"
    if data.dtype.kind not in "buif" or indices.dtype.kind not in "iu" or starts.dtype.kind not in "iu":
        return f"its data, indices and indptr are {data.dtype}, {indices.dtype} and {starts.dtype}"
    if data.ndim != 1 or data.shape != indices.shape or starts.shape != (int(shape[0]) + 1,):
        return f"its data, indices and indptr have the shapes {data.shape}, {indices.shape} and {starts.shape}"
    if starts[0] != 0 or starts[-1] != data.size or (starts[1:] < starts[:-1]).any():
        return f"its indptr does not rise from 0 to {data.size}"
    if data.size and (indices.min() < 0 or indices.max() >= shape[1]):
        return f"its indices run from {indices.min()} to {indices.max()}, and it has {shape[1]} columns"
    return ""


def _angles(arrays: dict[str, Any], path: Path) -> NDArray[np.float64]:
    """Angles in radians; of two kinds that a file has, both must say the same."""
    told = {name: checked_angles(np.ravel(arrays[name]), f"'{path}'") for name in ("angles", "angles_deg") if name in arrays}
    found = [
        radians(value) if name == "angles_deg" else checked_radians(value, str(path), name) for name, value in told.items()
    ]
    if len(found) == 2 and (found[0].shape != found[1].shape or np.abs(found[0] - found[1]).max() > _SAME_ANGLE):
        raise InputError(f"'{path}' has 'angles' (radians) and 'angles_deg' that are not the same; leave one of them out.")
    return found[0]


def _number(arrays: dict[str, Any], key: str, path: Path) -> float:
    value = arrays[key]
    if value.dtype.kind not in "iuf" or value.size != 1:
        raise InputError(f"'{key}' in '{path}' must be one number.")
    return float(value.reshape(()))


def _choice(arrays: dict[str, Any], key: str, choices: tuple[str, ...], path: Path) -> str:
    value = str(arrays[key]) if arrays[key].size == 1 else ""
    if value not in choices:
        raise InputError(f"'{key}' in '{path}' must be one of {', '.join(choices)}, not '{shortened(arrays[key], 60)}'.")
    return value


def _problem(arrays: dict[str, Any], sinogram: Any, path: Path) -> Raw:
    """A square image of 1 mm pixels seen by a parallel beam as wide as its diagonal, angles counted from ODL's axis.

    The geometry is not in the file; it is checked by projecting the image with the file's own matrix.
    """
    shown = arrays["image"]
    if shown.ndim != 2 or shown.dtype.kind not in "buif" or sinogram.ndim != 2 or 0 in (*shown.shape, *sinogram.shape):
        raise InputError(
            f"'{path}' has an image of shape {shown.shape} and a sinogram of {sinogram.shape}; both need two axes of numbers."
        )
    image = np.asarray(shown, dtype=np.float32)
    matrix, shape = _matrix(arrays, path), (sinogram.size, image.size)
    if matrix.shape != shape:
        raise InputError(f"The system matrix in '{path}' has shape {matrix.shape}, image and sinogram say {shape}; check both.")
    pixel = np.hypot(*image.shape) / sinogram.shape[1]
    angles = checked_angles(np.ravel(arrays["angles"]), f"'{path}'") - np.pi / 2
    grid = VolumeGrid(image.shape, 1.0)
    geometry = ParallelBeam(angles=angles, columns=sinogram.shape[1], pixel=pixel)
    if geometry.shape != sinogram.shape:
        raise InputError(f"'{path}' has {len(sinogram)} projections but {len(angles)} angles; check both.")
    require_room((sinogram.size, 3 * max(image.shape)), 12, f"A matrix like that of '{path}'", "give the sinogram alone")
    theirs, ours = (A @ image.ravel() for A in (matrix, build_matrix(grid, geometry)))
    gap = float(np.linalg.norm(theirs - ours) / max(np.linalg.norm(theirs), np.finfo(np.float32).tiny))
    if not gap < _OTHER_PROJECTOR:
        raise InputError(
            f"The matrix in '{path}' is not that of a parallel beam over the image's diagonal (they differ by {gap:.0%}); "
            "give the sinogram with 'kind', 'angles' and 'pixel' instead."
        )
    fields: dict[str, object] = {"kind": "parallel", "angles": angles, "pixel": pixel, "detector_offset": 0.0}
    text = f"The geometry is inferred: 1 mm pixels, parallel beam over the diagonal (matrices differ by {gap:.1%})."
    return Raw("NumPy problem", np.asarray(sinogram), "log", fields, truth=image, grid=grid, warnings=(text,), stated=True)
