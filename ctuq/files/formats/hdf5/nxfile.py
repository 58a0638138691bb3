"""NXtomo files that ctuq writes: transmission for other programs, and beside it what makes them the same scan for ctuq.

Frames are transmission I / I0 after a dark frame of 0 and a flat frame of 1, float64 so that line integrals come back as they
were. Angles are in degrees, lengths in metres, the axis in pixels from the detector's middle, as the nxtomo library has them.
What NXtomo has no place for (weights, truth, provenance, exact angles) lies in the entry's group "ctuq". A file that another
program has changed since is read as any NXtomo.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.formats.ownscan import geometry_tree, grid_tree, raw_of_scan, scan_from_tree
from ctuq.files.formats.ownvolume import is_of_space, row_of_own, volume_from_tree, volume_tree
from ctuq.files.formats.raw import Raw, middle_row
from ctuq.memory import require_room
from ctuq.tomo.axis import axis_column
from ctuq.tomo.geometry import FanBeam, Geometry
from ctuq.tomo.scan import MONOCHROMATIC, Provenance, Scan
from ctuq.tomo.space import FreeBeam
from ctuq.tomo.volume_scan import VolumeScan

KIND = "nxtomo"
_ENTRY, _OURS = "entry0000", "entry0000/ctuq"
_DARK, _FLAT, _VIEW = 2, 1, 0
_OPAQUE = 80.0
_METRE = 1e-3
_VERSION = 2.1  # of the layout that the nxtomo library reads: the axis counts from the detector's middle


def is_own_nxtomo(path: Path) -> bool:
    """Whether ctuq wrote an NXtomo file and nobody has changed it since."""
    return records.kind_of(path) == KIND and records.is_sealed(path)


def write_nxtomo(scan: Scan | Sequence[Scan] | VolumeScan, path: str | os.PathLike) -> None:
    """Write a scan, or one for each detector row, as an NXtomo entry; `ctuq.read` gives it back equal.

    Parameters
    ----------
    scan : Scan, sequence of Scan or VolumeScan
        A sequence has rows of one detector from above, as pictures have them: all of one geometry. Rows of a volume's scan are
        written from above as well, and `ctuq.read_volume` gives it back equal.
    path : path
        An existing file is replaced.

    Raises
    ------
    InputError
        If the values are no attenuation (line integrals above 80 let nothing through), the rows differ in their geometry, each
        view of a volume has vectors of its own, or the file cannot be written.
    ResourceError
        If the disk is full.
    """
    content = _of_volume(scan) if isinstance(scan, VolumeScan) else _of_rows([scan] if isinstance(scan, Scan) else list(scan))
    largest = float(np.abs(content.projections).max())
    if largest > _OPAQUE:
        raise InputError(
            f"The line integrals reach {largest:.4g}, so they are no attenuation of X-rays, and NXtomo keeps transmission; "
            "write ctuq's own HDF5 (a name that ends in .h5)."
        )
    records.write_hdf5(path, lambda file: _fill(file, content), kind=KIND)


def read_nxtomo_volume(path: Path) -> VolumeScan | None:
    """The scan of a volume that `write_nxtomo` wrote as one; None if it wrote single rows.

    Raises
    ------
    InputError
        If parts are missing.
    ResourceError
        If it does not fit into memory.
    """
    with h5py.File(path, "r") as file:
        tree = _own_parts(file, path)
        if not is_of_space(tree["geometry"]):
            return None
        data: Any = file[f"{_ENTRY}/instrument/detector/data"]
        require_room(data.shape, 8, f"'{path}'", "check where the file comes from", copies=3)
        projections = -np.log(data[2:])
    weights = tree["weights"]
    if isinstance(weights, np.ndarray) and weights.ndim == 3:
        weights = weights[:, ::-1].swapaxes(0, 1)
    return volume_from_tree({**tree, "projections": projections[:, ::-1].swapaxes(0, 1).astype(np.float32), "weights": weights})


def read_own_nxtomo(path: Path, row: int | None) -> Raw:
    """Read what `write_nxtomo` wrote: one row, as it was.

    Raises
    ------
    InputError
        If parts are missing, or the row does not exist.
    """
    if (volume := read_nxtomo_volume(path)) is not None:
        return row_of_own(volume, row, path, "NXtomo of ctuq", upwards=False)
    with h5py.File(path, "r") as file:
        tree = _own_parts(file, path)
        data: Any = file[f"{_ENTRY}/instrument/detector/data"]
        row = middle_row(data.shape, row, str(path))
        require_room((data.shape[0], data.shape[2]), 8, f"'{path}'", "check where the file comes from", copies=4)
        projections = -np.log(data[2:, row])
    weights, rows = tree["weights"], data.shape[1]
    if weights is not None and (not isinstance(weights, np.ndarray) or weights.ndim != 3 or weights.shape[1] != rows):
        raise InputError(f"'{path}' has weights that are not of its projections; write the file again.")
    parts = {"projections": projections.astype(np.float32), "weights": None if weights is None else weights[:, row]}
    scan = scan_from_tree({**{name: tree[name] for name in ("geometry", "grid", "provenance", "truth")}, **parts})
    return raw_of_scan(scan, "NXtomo of ctuq", row if rows > 1 else None, rows)


def _own_parts(file: h5py.File, path: Path) -> dict[str, Any]:
    """What lies in the entry's own group."""
    ours = file[_OURS]
    if not isinstance(ours, h5py.Group):
        raise InputError(f"'{path}' is an NXtomo of ctuq with something else in the place of '{_OURS}'; write it again.")
    tree = records.tree_in(ours, path)
    lost = [name for name in ("weights", "geometry", "grid", "provenance", "truth") if name not in tree]
    if lost:
        raise InputError(f"'{path}' is an NXtomo of ctuq with its '{lost[0]}' missing; write it again.")
    return tree


@dataclass(frozen=True)
class _Content:
    """What is written: projections (row, angle, column), rows from above, the beam of a row, and our own group."""

    projections: NDArray[np.float32]
    beam: Geometry
    row_pixel: float
    provenance: Provenance
    ours: dict[str, Any]


def _of_rows(rows: Sequence[Scan]) -> _Content:
    if any(row.geometry != rows[0].geometry for row in rows):
        raise InputError("The rows are of different geometries; write one file for each.")
    first = rows[len(rows) // 2]
    projections, beam = np.stack([row.projections for row in rows]), first.geometry
    return _Content(projections, beam, beam.pixel, first.provenance, _own_tree(rows, first))


def _of_volume(scan: VolumeScan) -> _Content:
    geometry = scan.geometry
    if isinstance(geometry, FreeBeam):
        raise InputError(
            "Each view of this scan has vectors of its own, for which NXtomo has no place; write ctuq's own HDF5 (a name that "
            "ends in .h5)."
        )
    weights = None if scan.weights is None else scan.weights[::-1].swapaxes(0, 1)
    ours = {name: value for name, value in volume_tree(scan).items() if name != "projections"}
    return _Content(scan.projections[::-1], geometry.plane, geometry.row_pitch, scan.provenance, ours | {"weights": weights})


def _fill(file: h5py.File, content: _Content) -> None:
    geometry, told = content.beam, content.provenance
    entry = _group(file, _ENTRY, "NXentry")
    entry["definition"] = "NXtomo"
    entry.attrs.update({"default": "data", "definition": "NXtomo", "version": _VERSION})
    file.attrs["default"] = _ENTRY
    instrument = _group(entry, "instrument", "NXinstrument")
    detector = _group(instrument, "detector", "NXdetector")
    shape = (1, len(content.projections), geometry.columns)
    views = np.exp(-content.projections.swapaxes(0, 1).astype(np.float64))
    frames = np.concatenate([np.zeros(shape), np.ones(shape), views])
    keys = np.r_[_DARK, _FLAT, np.full(len(views), _VIEW)]
    detector.create_dataset("data", data=frames, compression="gzip", shuffle=True, chunks=(1, *frames.shape[1:]))
    detector["image_key"] = keys
    detector["image_key_control"] = keys
    pixels = {"x_pixel_size": geometry.pixel, "y_pixel_size": content.row_pixel}
    for name, pixel in pixels.items():
        _length(detector, name, pixel)
    detector["x_rotation_axis_pixel_position"] = axis_column(geometry) - (geometry.columns - 1) / 2
    sample = _group(entry, "sample", "NXsample")
    sample["name"] = told.facts.get("sample", Path(told.source).stem)
    degrees = np.rad2deg(geometry.angles)
    sample["rotation_angle"] = np.r_[degrees[0], degrees[0], degrees]
    sample["rotation_angle"].attrs["units"] = "degree"
    for name, pixel in pixels.items():
        _length(sample, name, pixel / geometry.magnification)
    if isinstance(geometry, FanBeam):
        _length(detector, "distance", geometry.source_to_detector - geometry.source_to_axis)
        _length(_group(instrument, "source", "NXsource"), "distance", -geometry.source_to_axis)
    if told.monochromatic:
        _monochromator(instrument, told.facts.get("energy", ""))
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = "data"
    for name, node in (("data", detector["data"]), ("image_key", detector["image_key"])):
        data[name] = node
    data["rotation_angle"] = sample["rotation_angle"]
    records.put_tree(_group(entry, "ctuq", "NXcollection"), content.ours)


def _monochromator(instrument: h5py.Group, energy: str) -> None:
    """That the beam has one energy, and which where it is known, such as "25 keV"."""
    group = _group(instrument, "monochromator", "NXmonochromator")
    group["description"] = MONOCHROMATIC
    number, _, unit = energy.partition(" ")
    with suppress(ValueError):
        group["energy"] = float(number)
        if unit:
            group["energy"].attrs["units"] = unit


def _own_tree(rows: Sequence[Scan], first: Scan) -> dict[str, Any]:
    weights: NDArray | None = None
    if any(row.weights is not None for row in rows):
        weights = np.stack([np.ones_like(row.projections) if row.weights is None else row.weights for row in rows], axis=1)
    return {
        "rows": len(rows),
        "weights": weights,
        "truth": first.truth if len(rows) == 1 else None,
        "grid": None if first.grid is None else grid_tree(first.grid),
        "geometry": geometry_tree(first.geometry),
        "provenance": {f.name: getattr(first.provenance, f.name) for f in fields(Provenance)},
    }


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _length(group: h5py.Group, name: str, mm: float) -> None:
    group[name] = mm * _METRE
    group[name].attrs["units"] = "m"
