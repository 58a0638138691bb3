"""Our own file of a scan of a volume: projections (row, angle, column), rows upwards, with geometry, weights and truth."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.formats.cone import fan_row
from ctuq.files.formats.ownscan import grid_tree, raw_of_scan
from ctuq.files.formats.raw import Raw
from ctuq.text import shortened
from ctuq.tomo.geometry import FanBeam, VolumeGrid
from ctuq.tomo.scan import Provenance, Scan
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
    geometry = space_tree(scan.geometry)
    lengths = set(geometry) - _RADIANS - {"kind", "rows", "columns", "is_cone", "rotation_angle"}
    attributes = {f"geometry/{name}": {"units": "mm"} for name in lengths}
    attributes |= {f"geometry/{name}": {"units": "rad"} for name in _RADIANS & set(geometry)}
    attributes["geometry/rotation_angle"] = {"units": "degrees"}
    tree = {
        "projections": scan.projections,
        "weights": scan.weights,
        "truth": scan.truth,
        "geometry": geometry,
        "grid": None if scan.grid is None else grid_tree(scan.grid),
        "provenance": {f.name: getattr(scan.provenance, f.name) for f in fields(Provenance)},
    }
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
        parts = {
            "geometry": space_from_tree(tree["geometry"]),
            "grid": None if tree["grid"] is None else records.made(VolumeGrid, tree["grid"]),
            "provenance": records.made(Provenance, tree["provenance"]),
        }
        return records.made(VolumeScan, {**tree, **parts})
    except (InputError, KeyError) as error:
        why = shortened(error, 300)
        raise InputError(f"'{path}' is a scan of ours with parts missing or wrong ({why}); write it again.") from error


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
    scan = read_volume_scan(path)
    geometry = scan.geometry
    if isinstance(geometry, FreeBeam) or not geometry.upright:
        raise InputError(
            f"'{path}' is a scan of a volume whose rows are no slices, as detector or axis lean or move; read it by --volume."
        )
    plane = (geometry.rows - 1) / 2 - geometry.row_offset / geometry.row_pitch
    beam = geometry.plane
    slope = geometry.row_pitch / beam.source_to_detector if isinstance(beam, FanBeam) else 0.0
    chosen, warnings = fan_row(geometry.rows, row, plane, slope, str(path))
    if row is None:
        apart = "" if isinstance(beam, FanBeam) else ", --stack each as a slice"
        warnings = (
            f"Of {geometry.rows} detector rows only the middle one, {chosen}, is read; --volume takes all of them{apart}.",
            *warnings,
        )
    weights = None if scan.weights is None else scan.weights[chosen]
    told = scan.provenance.then(f"row {chosen} of {geometry.rows} read").warned(*warnings)
    return raw_of_scan(
        Scan(scan.projections[chosen], beam, weights, provenance=told), "ctuq volume scan", chosen, geometry.rows
    )
