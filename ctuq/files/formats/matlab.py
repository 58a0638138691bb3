"""MATLAB scans of the Helsinki groups: ``CtData...`` structs (HTC 2022 and later FIPS sets) and bare matrices (walnut, lotus).

Of other MATLAB files a geometry file names the sinogram, and perhaps its angles: ``data: sino``, ``angles: theta``; parts of
structs are named with points, as ``scan.sino``. Versions 5 and 7.3 are read to the same nested dict.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.angles import angles_named
from ctuq.files.angletable import angles_of_array
from ctuq.files.formats.anyarray import angles_in
from ctuq.files.formats.matfile import load_matlab
from ctuq.files.formats.places import Layout, Place
from ctuq.files.formats.raw import TURNED, Raw, as_sinogram
from ctuq.files.units import millimetres
from ctuq.tomo.geometry import VolumeGrid, radians

_HTC_SIZE = 512
_ASSUMED = {"kind": "parallel", "pixel": 1.0}
_BARE = ("sinogram", "m", "sinogram120", "sinogram1200", "sino")
_CT_DATA = {"sinogram", "parameters"}
MAGIC = b"MATLAB 5.0"


def is_matlab(path: Path) -> bool:
    """Whether a file is MATLAB's own, of version 5 or 7.3."""
    if not path.is_file():
        return False
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            return any(node is not None and "MATLAB_class" in node.attrs for node in file.values())
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_matlab(path: Path, layout: Layout = Layout(), row: int | None = None, stack: str | None = None) -> Raw:  # noqa: B008
    """Read a sinogram, or one row of a stack that a layout names, from a MATLAB file.

    Bare matrices are (column, angle), as FIPS publishes them, unless the number of angles that a layout names tells otherwise.
    They have no geometry. A stack of projections is (row, column, angle), `TURNED` (column, row, angle), and one of sinograms
    (column, angle, row), unless the number of angles tells where these are.

    Raises
    ------
    InputError
        If the file is damaged, or holds no sinogram under a known name or the one that the layout has.
    """
    variables = load_matlab(path)
    if layout.data is not None:
        found = _named(variables, layout.data, path)
        if isinstance(found, Mapping) and found.keys() >= _CT_DATA:
            return _ct_data(found, path)
        return _bare((_real(found, layout.data.path, path), row, stack), variables, layout, path)
    structs = [n for n, v in variables.items() if n.startswith("CtData") and isinstance(v, Mapping) and v.keys() >= _CT_DATA]
    if structs:
        raw = _ct_data(variables[structs[0]], path)
        others = f"The file holds {', '.join(structs)}, of which the first is read; name another as 'data' in a geometry file."
        return raw.warned(others) if len(structs) > 1 else raw
    name = next((name for name in _BARE if name in variables), None)
    if name is None:
        there, largest = ", ".join(variables) or "nothing", max(variables, key=lambda n: np.size(variables[n]), default="sino")
        raise InputError(
            f"'{path}' holds {there}; a sinogram named {', '.join(_BARE)} or a CtData struct is needed, or a geometry file "
            f"that names it, such as 'data: {largest}'."
        )
    sinogram = _real(variables[name], name, path)
    return Raw("FIPS MATLAB", sinogram.T, "log", {}, warnings=(f"The variable '{name}' is read as (column, angle).",))


def _named(variables: Mapping[str, Any], place: Place, path: Path) -> Any:
    """The variable, or the part of a struct, that a geometry file names."""
    found: Any = variables
    for part in re.split(r"[./]", place.path.strip("./")):
        if not isinstance(found, Mapping) or part not in found:
            there = ", ".join(found) if isinstance(found, Mapping) else "numbers"
            raise InputError(f"'{path}' has no '{place.path}', the '{place.key}' of the geometry file; it holds {there}.")
        found = found[part]
    return found


def _bare(found: tuple[NDArray, int | None, str | None], variables: Mapping[str, Any], layout: Layout, path: Path) -> Raw:
    """A sinogram that a geometry file names, or a row of a stack, turned by the number of its angles if it names these."""
    assert layout.data is not None
    name, place = layout.data.path, layout.angles
    if layout.flats or layout.darks or layout.image_key:
        raise InputError(
            f"'flats', 'darks' and 'image_key' are not read from MATLAB files such as '{path}'; use 'flat' and 'dark'."
        )
    values, row, stack = found
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InputError(
            f"'{name}' in '{path}' has the shape {values.shape}; a sinogram of two axes or a stack of three is needed."
        )
    raw, how = Raw("MATLAB", values.T, "log", {}, assumed=_ASSUMED), f"The variable '{name}' is read as (column, angle)."
    if place is None:
        return _row_of(values, name, path, row, stack) if values.ndim == 3 else raw.warned(how)
    angles, remarks = _angles(variables, place, name, values.shape, path)
    if values.ndim == 3:
        raw = _row_of(values, name, path, row, stack, views=len(angles))
    raw = replace(raw, fields={"angles": angles}).warned(*remarks)
    if values.ndim == 3:
        return raw
    if values.shape[0] == values.shape[1]:
        return raw.warned(how)
    return replace(raw, values=values) if len(angles) == values.shape[0] else raw


def _angles(
    variables: Mapping[str, Any], place: Place, name: str, shape: tuple[int, ...], path: Path
) -> tuple[NDArray, tuple[str, ...]]:
    """The angles that a geometry file names, of which there are as many as one axis of the sinogram is long."""
    if place.file is None:
        given = _real(_named(variables, place, path), place.path, path)
        turned, _, told = angles_of_array(given, shape, f"{path}:{place.path}")
        called, source = place.path, path
    else:
        turned, called, told = angles_in(place, shape)
        source = place.file
    if len(turned) not in shape:
        raise InputError(
            f"'{path}' has {len(turned)} angles in '{place}' and a sinogram '{name}' of shape {shape}; one axis must have as "
            "many."
        )
    angles, remarks = angles_named(turned, called, str(source))
    return angles, (*told, *remarks)


def _row_of(values: NDArray, name: str, path: Path, row: int | None, stack: str | None, *, views: int = 0) -> Raw:
    """One row of a stack, whose angles run along the axis that is as long as they are many, else the usual one."""
    sinograms, turned = stack == "sinograms", stack == TURNED
    usual = 1 if sinograms else 2
    alike = [axis for axis, size in enumerate(values.shape) if size == views]
    axis = alike[0] if len(alike) == 1 else usual
    pictures = np.moveaxis(values, axis, 0)
    lying = sinograms and axis == usual
    found, row, rows = as_sinogram(
        pictures.swapaxes(1, 2) if lying else pictures, row, str(path), stack=stack if turned else None
    )
    words = ["column", "row"] if turned or lying else ["row", "column"]
    words.insert(axis, "angle")
    other = "" if turned or sinograms else "; if its pictures lie on their side say 'transpose: true'"
    raw = Raw("MATLAB", found, "log", {}, row=row, rows=rows, assumed=_ASSUMED, turned=turned)
    return raw.warned(f"The variable '{name}' is read as ({', '.join(words)}){other}.")


def _real(value: Any, name: str, path: Path) -> NDArray[np.float64]:
    """An array of real numbers.

    Raises
    ------
    InputError
        If it is a struct, text, a cell or complex.
    """
    if not isinstance(value, int | float | np.ndarray | np.generic) or np.asarray(value).dtype.kind not in "biuf":
        raise InputError(f"'{name}' in '{path}' is no array of real numbers; save it again.")
    return np.asarray(value, dtype=np.float64)


def _number(given: Mapping[str, Any], name: str, path: Path) -> float:
    found = _real(given[name], name, path)
    if found.size != 1:
        raise InputError(f"'{name}' in '{path}' is {found.size} numbers; one is needed.")
    return float(found.reshape(()))


def _ct_data(struct: Mapping[str, Any], path: Path) -> Raw:
    given = struct["parameters"]
    if not isinstance(given, Mapping):
        raise InputError(f"The 'parameters' in '{path}' are no struct; save the CtData again.")
    names = ("angles", "distanceSourceOrigin", "distanceSourceDetector")
    missing = [name for name in names if name not in given]
    pixel = next((_number(given, name, path) for name in ("pixelSizePost", "pixelSize") if name in given), None)
    if missing or pixel is None:
        raise InputError(f"'{path}' lacks the parameters {', '.join(missing or ['pixelSize'])}.")
    unit = millimetres(1.0, str(given.get("distanceUnit", "mm")) or "mm", f"'distanceUnit' in '{path}'") or 1.0
    angles = radians(np.ravel(_real(given["angles"], "angles", path)))
    fields = {
        "kind": "fan",
        "angles": angles,
        "pixel": pixel,
        "source_to_axis": _number(given, "distanceSourceOrigin", path) * unit,
        "source_to_detector": _number(given, "distanceSourceDetector", path) * unit,
    }
    sinogram = np.atleast_2d(_real(struct["sinogram"], "sinogram", path))
    if sinogram.shape[0] != len(angles) and sinogram.shape[1] == len(angles):
        sinogram = sinogram.T
    effective = "effectivePixelSizePost"
    magnification = fields["source_to_detector"] / (fields["source_to_axis"] or 1.0)
    voxel = _number(given, effective, path) if effective in given else pixel / magnification
    grid = VolumeGrid((_HTC_SIZE, _HTC_SIZE), voxel)
    facts = {key: str(given[name]) for key, name in (("sample", "projectName"), ("instrument", "scanner")) if given.get(name)}
    return Raw("HTC MATLAB (CtData)", sinogram, "log", fields, grid=grid, facts=facts, stated=True)
