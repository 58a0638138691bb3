"""Our own file of a scan of a volume: projections (row, angle, column), rows upwards, with geometry, weights and truth."""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.formats.cone import fan_row
from ctuq.files.formats.ownscan import made_of_parts, parts_of, raw_of_scan
from ctuq.files.formats.raw import Raw
from ctuq.text import shortened
from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.scan import Scan
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D, VolumeGeometry
from ctuq.tomo.volume_scan import VolumeScan

KIND, RESULT = "volume scan", "volume result"
"""Of our files: a scan of a volume, and what `ctuq.uncertainty.results.volume` writes."""
_KINDS = {"cone": ConeBeam, "parallel3d": Parallel3D, "free": FreeBeam}
_RADIANS = {"angles", "roll", "tilt", "yaw", "axis_tilt"}


def write_volume_scan(scan: VolumeScan, path: str | os.PathLike) -> None:
    """Write a scan of a volume to an HDF5 file, whole or not at all; `read_volume_scan` gives it back equal.

    Parameters
    ----------
    scan : VolumeScan
    path : path
        An existing file is replaced.

    Raises
    ------
    InputError, ResourceError
        If the file cannot be written.
    """
    tree = volume_tree(scan)
    geometry = tree["geometry"]
    lengths = set(geometry) - _RADIANS - {"kind", "rows", "columns", "is_cone", "rotation_angle"}
    attributes = {f"geometry/{name}": {"units": "mm"} for name in lengths}
    attributes |= {f"geometry/{name}": {"units": "rad"} for name in _RADIANS & set(geometry)}
    attributes["geometry/rotation_angle"] = {"units": "degrees"}
    records.write(path, tree, kind=KIND, attributes=attributes)


def read_volume_scan(path: str | os.PathLike) -> VolumeScan:
    """Read what `write_volume_scan` wrote.

    Raises
    ------
    InputError
        If the file is missing, truncated or foreign.
    """
    tree = records.read(path, kind=KIND)
    try:
        return volume_from_tree(tree)
    except (InputError, KeyError) as error:
        why = shortened(error, 300)
        raise InputError(f"'{path}' is a scan of ours with parts missing or wrong ({why}); write it again.") from error


def volume_tree(scan: VolumeScan) -> dict[str, Any]:
    """The scan as nested values for `ctuq.records`."""
    return parts_of(scan, space_tree(scan.geometry))


def volume_from_tree(tree: Mapping[str, Any]) -> VolumeScan:
    """The scan that `volume_tree` took apart."""
    return made_of_parts(VolumeScan, tree, space_from_tree(tree["geometry"]))


def is_of_space(tree: object) -> bool:
    """Whether a geometry that was taken apart is one of `space_tree`."""
    return isinstance(tree, Mapping) and tree.get("kind") in _KINDS


def space_tree(geometry: VolumeGeometry) -> dict[str, Any]:
    """Every field of a geometry of a volume, its angles in degrees too."""
    kind = next(name for name, kind in _KINDS.items() if type(geometry) is kind)
    values = {f.name: getattr(geometry, f.name) for f in fields(geometry)}
    return {"kind": kind, "rotation_angle": np.rad2deg(geometry.angles), **values}


def space_from_tree(tree: Mapping[str, Any]) -> VolumeGeometry:
    """The geometry that `space_tree` took apart.

    Raises
    ------
    InputError
        If this ctuq does not know it.
    """
    kind = tree["kind"] if isinstance(tree, Mapping) else ""
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"The file has the geometry '{shortened(kind, 60)}', which this ctuq does not know; update ctuq.")
    return records.made(_KINDS[kind], {name: value for name, value in tree.items() if name not in ("kind", "rotation_angle")})


def read_own_row(path: Path, row: int | None) -> Raw:
    """One row of what `write_volume_scan` wrote: by default that in the plane through the source.

    Raises
    ------
    InputError
        If the file is damaged, the row does not exist, or no row is a fan or a parallel beam.
    """
    return row_of_own(read_volume_scan(path), row, path, "ctuq volume scan")


def row_of_own(scan: VolumeScan, row: int | None, path: Path, name: str, *, upwards: bool = True) -> Raw:
    """One row of a volume's scan of ours, by its number in the file, which may have its rows from above.

    Raises
    ------
    InputError
        If the row does not exist, or no row is a fan or a parallel beam.
    """
    geometry, rows = scan.geometry, scan.geometry.rows
    if isinstance(geometry, FreeBeam) or not geometry.upright:
        raise InputError(
            f"'{path}' is a scan of a volume whose rows are no slices, as detector or axis lean or move; read it by --volume."
        )
    above = geometry.row_offset / geometry.row_pitch
    plane = (rows - 1) / 2 - (above if upwards else -above)
    beam = geometry.plane
    slope = geometry.row_pitch / beam.source_to_detector if isinstance(beam, FanBeam) else 0.0
    chosen, warnings = fan_row(rows, row, plane, slope, str(path))
    if row is None:
        apart = "" if isinstance(beam, FanBeam) else ", --stack each as a slice"
        warnings = (
            f"Of {rows} detector rows only the middle one, {chosen}, is read; --volume takes all of them{apart}.",
            *warnings,
        )
    told = scan.provenance.then(f"row {chosen} of {rows} read").warned(*warnings)
    at = chosen if upwards else rows - 1 - chosen
    weights = None if scan.weights is None else scan.weights[at]
    raw = raw_of_scan(Scan(scan.projections[at], beam, weights, provenance=told), name, chosen, rows)
    space = {"middle_row": plane, "row_pixel": geometry.row_pitch, "rows_upwards": upwards}
    return replace(raw, fields={**raw.fields, **space})
