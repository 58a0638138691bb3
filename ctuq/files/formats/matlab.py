"""MATLAB scans of the Helsinki groups: ``CtData...`` structs (HTC 2022 and later FIPS sets) and bare matrices (walnut, lotus).

Versions 5 and 7.3 are read to the same nested dict.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from ctuq.errors import InputError
from ctuq.files.formats.raw import Raw
from ctuq.tomo.geometry import VolumeGrid, radians

_HTC_SIZE = 512
_BARE = ("sinogram", "m", "sinogram120", "sinogram1200", "sino")


def read_matlab(path: Path) -> Raw:
    """Read a sinogram from a MATLAB file.

    Bare matrices are (column, angle), as FIPS publishes them, and have no geometry.

    Raises
    ------
    InputError
        If the file is damaged or holds no sinogram under a known name.
    """
    variables = load_matlab(path)
    struct = next((variables[name] for name in variables if name.startswith("CtData")), None)
    if isinstance(struct, Mapping) and "sinogram" in struct and "parameters" in struct:
        return _ct_data(struct, path)
    name = next((name for name in _BARE if name in variables), None)
    if name is None:
        found = ", ".join(variables) or "nothing"
        raise InputError(f"'{path}' holds {found}; a sinogram named {', '.join(_BARE)} or a CtData struct is needed.")
    sinogram = np.asarray(variables[name], dtype=np.float64)
    return Raw("FIPS MATLAB", sinogram.T, "log", {}, warnings=(f"The variable '{name}' is read as (column, angle).",))


def load_matlab(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file of version 5 or 7.3: numbers as arrays, text as str, structs as dicts.

    Raises
    ------
    InputError
        If the file is damaged or of another type.
    """
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                return {name: _from_hdf5(node) for name, node in file.items() if not name.startswith("#")}
        loaded = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)
    except Exception as error:  # scipy raises many types on damaged files
        raise InputError(f"'{path}' is not a whole MATLAB file (version 5 or 7.3); copy it again.") from error
    return {name: _from_v5(value) for name, value in loaded.items() if not name.startswith("__")}


def _from_v5(value: Any) -> Any:
    return {name: _from_v5(getattr(value, name)) for name in value._fieldnames} if hasattr(value, "_fieldnames") else value


def _from_hdf5(node: Any) -> Any:
    if isinstance(node, h5py.Group):
        return {name: _from_hdf5(child) for name, child in node.items()}
    kind = node.attrs.get("MATLAB_class", b"")
    if node.attrs.get("MATLAB_empty", 0):
        return ""
    if kind == b"char":
        return "".join(chr(c) for c in np.ravel(node[()]))
    return np.squeeze(np.asarray(node[()]).T)


def _ct_data(struct: Mapping[str, Any], path: Path) -> Raw:
    given = struct["parameters"]
    names = ("angles", "distanceSourceOrigin", "distanceSourceDetector")
    missing = [name for name in names if name not in given]
    pixel = next((given[name] for name in ("pixelSizePost", "pixelSize") if name in given), None)
    if missing or pixel is None:
        raise InputError(f"'{path}' lacks the parameters {', '.join(missing or ['pixelSize'])}.")
    unit = {"mm": 1.0, "cm": 10.0, "m": 1e3}.get(str(given.get("distanceUnit", "mm")), 1.0)
    angles = radians(np.ravel(given["angles"]))
    fields = {
        "kind": "fan",
        "angles": angles,
        "pixel": float(pixel),
        "source_to_axis": float(given["distanceSourceOrigin"]) * unit,
        "source_to_detector": float(given["distanceSourceDetector"]) * unit,
    }
    sinogram = np.atleast_2d(np.asarray(struct["sinogram"], dtype=np.float64))
    if sinogram.shape[0] != len(angles) and sinogram.shape[1] == len(angles):
        sinogram = sinogram.T
    magnification = fields["source_to_detector"] / fields["source_to_axis"]
    grid = VolumeGrid((_HTC_SIZE, _HTC_SIZE), float(given.get("effectivePixelSizePost", float(pixel) / magnification)))
    facts = {key: str(given[name]) for key, name in (("sample", "projectName"), ("instrument", "scanner")) if given.get(name)}
    return Raw("HTC MATLAB (CtData)", sinogram, "log", fields, grid=grid, facts=facts, stated=True)
