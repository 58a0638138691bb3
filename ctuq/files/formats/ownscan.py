"""Our own scan file, and the trees of numbers and text that scans are kept as inside other files."""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.formats.raw import Raw
from ctuq.text import shortened
from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam, VolumeGrid
from ctuq.tomo.scan import Provenance, Scan
from ctuq.tomo.volume_scan import VolumeScan

T = TypeVar("T")
_KINDS = {"parallel": ParallelBeam, "fan": FanBeam}


def write_scan(scan: Scan, path: str | os.PathLike) -> None:
    """Write a scan to an HDF5 file, whole or not at all; `read_scan` gives it back equal.

    Parameters
    ----------
    scan : Scan
    path : path
        Of the file; one that is there is replaced.

    Raises
    ------
    InputError, ResourceError
        If the file cannot be written.
    """
    units = {"pixel", "detector_offset", "axis_offset", "source_to_axis", "source_to_detector"}
    tree = scan_tree(scan)
    attributes = {f"geometry/{name}": {"units": "mm"} for name in units & set(tree["geometry"])}
    attributes["geometry/rotation_angle"] = {"units": "degrees"}
    attributes["geometry/angles"] = {"units": "rad"}
    records.write(path, tree, kind="scan", attributes=attributes)


def read_scan(path: str | os.PathLike) -> Scan:
    """Read what `write_scan` wrote.

    Raises
    ------
    InputError
        If the file is missing, truncated or foreign.
    """
    tree = records.read(path, kind="scan")
    try:
        return scan_from_tree(tree)
    except (InputError, KeyError) as error:
        why = shortened(error, 300)
        raise InputError(f"'{path}' is a scan of ours with parts missing or wrong ({why}); write it again.") from error


def scan_tree(scan: Scan) -> dict[str, Any]:
    """The scan as nested values for `ctuq.records`."""
    return parts_of(scan, geometry_tree(scan.geometry))


def scan_from_tree(tree: Mapping[str, Any]) -> Scan:
    """The scan that `scan_tree` took apart."""
    return made_of_parts(Scan, tree, geometry_from_tree(tree["geometry"]))


def parts_of(scan: Scan | VolumeScan, geometry: Mapping[str, Any]) -> dict[str, Any]:
    """A scan of a slice or of a volume as nested values, its geometry taken apart already."""
    return {
        "projections": scan.projections,
        "weights": scan.weights,
        "truth": scan.truth,
        "geometry": geometry,
        "grid": None if scan.grid is None else grid_tree(scan.grid),
        "provenance": {f.name: getattr(scan.provenance, f.name) for f in fields(Provenance)},
    }


def made_of_parts(kind: type[T], tree: Mapping[str, Any], geometry: object) -> T:
    """What `parts_of` took apart, its geometry made already."""
    parts = {
        "geometry": geometry,
        "grid": None if tree["grid"] is None else records.made(VolumeGrid, tree["grid"]),
        "provenance": records.made(Provenance, tree["provenance"]),
    }
    return records.made(kind, {**tree, **parts})


def geometry_tree(geometry: Geometry) -> dict[str, Any]:
    """Every field of a geometry; the angles twice, in radians (exact) and, for other programs, in degrees."""
    kind = next(name for name, kind in _KINDS.items() if type(geometry) is kind)
    values = {f.name: getattr(geometry, f.name) for f in fields(geometry)}
    return {"kind": kind, "rotation_angle": np.rad2deg(geometry.angles), **values}


def geometry_from_tree(tree: Mapping[str, Any]) -> Geometry:
    """The geometry that `geometry_tree` took apart."""
    kind = tree.get("kind", "of no kind") if isinstance(tree, Mapping) else ""
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"The file has the geometry '{shortened(kind, 60)}', which this ctuq does not know; update ctuq.")
    values = {key: value for key, value in tree.items() if key not in ("kind", "rotation_angle")}
    return records.made(_KINDS[kind], values)


def grid_tree(grid: VolumeGrid) -> dict[str, Any]:
    """The grid as nested values."""
    return {f.name: getattr(grid, f.name) for f in fields(grid)}


def raw_of_scan(scan: Scan, name: str, row: int | None = None, rows: int = 1) -> Raw:
    """A scan of ours in the form of other files, to be described or given another geometry."""
    known = {key: value for key, value in geometry_tree(scan.geometry).items() if key not in ("rotation_angle", "columns")}
    told = scan.provenance
    return Raw(
        name,
        scan.projections,
        "log",
        known,
        weights=scan.weights,
        truth=scan.truth,
        grid=scan.grid,
        row=row,
        rows=rows,
        facts=told.facts,
        notes=told.steps,
        whole=scan,
    )
