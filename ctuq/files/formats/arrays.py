"""NumPy ``.npz`` scans: a sinogram with its geometry, or the layout of published Deep Image Prior problems."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import scipy.sparse as sp

from ctuq.errors import InputError
from ctuq.files.angles import checked_radians
from ctuq.files.formats.raw import VALUES, Raw, as_sinogram
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid, radians
from ctuq.tomo.rays.matrix import build_matrix

_LENGTHS = ("pixel", "source_to_axis", "source_to_detector", "detector_offset", "axis_offset", "axis_column")
_OTHER_PROJECTOR = 0.1


def load_npz(path: Path) -> dict[str, Any]:
    """The arrays of an ``.npz`` file, or the array of an ``.npy`` file as "sinogram"; never a pickle.

    Raises
    ------
    InputError
        If the file is damaged or holds Python objects.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"sinogram": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, BadZipFile, EOFError, KeyError) as error:
        pickled = "pickle" in str(error)
        why = "holds Python objects, which are never read" if pickled else "is not a whole NumPy file; copy it again"
        raise InputError(f"'{path}' {why}.") from error


def read_npz(path: Path, row: int | None) -> Raw:
    """Read a scan from an ``.npz`` file.

    Names: ``sinogram`` (angle, column) or ``projections`` (angle, row, column); ``angles`` in radians or ``angles_deg``;
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
        raise InputError(f"'{path}' holds {', '.join(arrays) or 'nothing'}; a 'sinogram' (angle, column) is needed.")
    if "image" in arrays and "angles" in arrays and ("A" in arrays or "A_data" in arrays):
        return _problem(arrays, arrays[name], path)
    values, row, rows = as_sinogram(np.asarray(arrays[name]), row, str(path))
    fields: dict[str, object] = {key: _number(arrays, key, path) for key in _LENGTHS if key in arrays}
    if "angles" in arrays or "angles_deg" in arrays:
        named = "angles" if "angles" in arrays else "angles_deg"
        angles = np.ravel(arrays[named])
        fields["angles"] = checked_radians(angles, str(path), named) if named == "angles" else radians(angles)
    if "kind" in arrays:
        fields["kind"] = _choice(arrays, "kind", ("parallel", "fan"), path)
    kind = _choice(arrays, "values", VALUES, path) if "values" in arrays else "log"
    truth = arrays.get("truth")
    if truth is not None and "voxel" not in arrays:
        raise InputError(f"'{path}' has a truth without its 'voxel' in mm.")
    return Raw(
        "NumPy arrays",
        values,
        kind,
        fields,
        arrays.get("flats"),
        arrays.get("darks"),
        weights=arrays.get("weights"),
        truth=truth,
        grid=None if truth is None else VolumeGrid(truth.shape, _number(arrays, "voxel", path)),
        row=row,
        rows=rows,
        stated="values" in arrays,
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
    if "A" in arrays:
        return sp.csr_array(np.asarray(arrays["A"], dtype=np.float32))
    try:
        data, indices, indptr, shape = (arrays[f"A_{name}"] for name in ("data", "indices", "indptr", "shape"))
        return sp.csr_array((data, indices, indptr), shape=tuple(int(n) for n in shape), dtype=np.float32)
    except (KeyError, ValueError) as error:
        raise InputError(f"'{path}' has no whole system matrix 'A' or 'A_data, A_indices, A_indptr, A_shape'.") from error


def _number(arrays: dict[str, Any], key: str, path: Path) -> float:
    value = arrays[key]
    if value.dtype.kind not in "iuf" or value.size != 1:
        raise InputError(f"'{key}' in '{path}' must be one number.")
    return float(value.reshape(()))


def _choice(arrays: dict[str, Any], key: str, choices: tuple[str, ...], path: Path) -> str:
    value = str(arrays[key])
    if value not in choices:
        raise InputError(f"'{key}' in '{path}' must be one of {', '.join(choices)}, not '{value}'.")
    return value


def _problem(arrays: dict[str, Any], sinogram: Any, path: Path) -> Raw:
    """A square image of 1 mm pixels seen by a parallel beam as wide as its diagonal, angles counted from ODL's axis.

    The geometry is not in the file; it is checked by projecting the image with the file's own matrix.
    """
    image = np.asarray(arrays["image"], dtype=np.float32)
    pixel = np.hypot(*image.shape) / sinogram.shape[1]
    angles = np.ravel(arrays["angles"]).astype(np.float64) - np.pi / 2
    grid = VolumeGrid(image.shape, 1.0)
    geometry = ParallelBeam(angles=angles, columns=sinogram.shape[1], pixel=pixel)
    theirs, ours = (A @ image.ravel() for A in (_matrix(arrays, path), build_matrix(grid, geometry)))
    gap = float(np.linalg.norm(theirs - ours) / np.linalg.norm(theirs)) if theirs.shape == ours.shape else np.inf
    if not gap < _OTHER_PROJECTOR:
        raise InputError(
            f"The matrix in '{path}' is not that of a parallel beam over the image's diagonal (they differ by {gap:.0%}); "
            "give the sinogram with 'kind', 'angles' and 'pixel' instead."
        )
    fields: dict[str, object] = {"kind": "parallel", "angles": angles, "pixel": pixel, "detector_offset": 0.0}
    text = f"The geometry is inferred: 1 mm pixels, parallel beam over the diagonal (matrices differ by {gap:.1%})."
    return Raw("NumPy problem", np.asarray(sinogram), "log", fields, truth=image, grid=grid, warnings=(text,), stated=True)
