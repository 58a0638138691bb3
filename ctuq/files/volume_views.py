"""New views of an area detector whose geometry is known: read as any volume's scan is, then checked against that geometry."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.ownscan import geometry_tree
from ctuq.files.formats.raw import TURNS, Raw
from ctuq.files.views import SAME_LENGTH, NewViews, raw_views, require_one_file
from ctuq.files.volumes import is_own_volume, read_volume, volume_of
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D
from ctuq.tomo.volume_scan import VolumeScan

_KINDS = {ConeBeam: "cone beam", Parallel3D: "parallel beam"}


def new_volume_views(
    paths: Sequence[Path],
    known: ConeBeam | Parallel3D,
    kept: Mapping[str, Any],
    *,
    geometry: Path | None = None,
    angles: NDArray[np.float64] | None = None,
) -> NewViews:
    """The projections in some files, all of one scanner, in the order given.

    Parameters
    ----------
    paths : sequence of Path
    known : ConeBeam or Parallel3D
        Of the scanner; its angles do not matter.
    kept : mapping
        How its files are read, from `ctuq.files.sidecar.treatment`.
    geometry : Path, optional
        A geometry file that says how these files differ from that; else the one beside each.
    angles : array, radians, optional
        Of one file.

    Returns
    -------
    NewViews
        Projections and weights (k, rows, columns), rows upwards.

    Raises
    ------
    InputError
        If a file cannot be read, is of another geometry, or has a view without a ray that counts.
    """
    require_one_file(paths, angles)
    scans = [_scan_of(path, known, kept, geometry, angles) for path in paths]
    sense = -1 if kept.get("clockwise") else 1
    for scan, path in zip(scans, paths, strict=True):
        _refuse_other(scan, known, path)
        _refuse_lost(scan, sense, path)
    angles = np.concatenate([scan.geometry.angles for scan in scans])
    projections = np.concatenate([scan.projections.swapaxes(0, 1) for scan in scans])
    weights = None
    if any(scan.weights is not None for scan in scans):
        weights = np.concatenate(
            [np.ones_like(scan.projections) if scan.weights is None else scan.weights for scan in scans], axis=1
        ).swapaxes(0, 1)
    warnings = tuple(dict.fromkeys(text for scan in scans for text in scan.warnings))
    if weights is None:
        return NewViews(angles, projections, None, "exposure", warnings)
    used = weights[weights > 0]
    # Bad rays alone say nothing of what the others are worth: that is what the exposure predicts.
    if np.ptp(used) == 0:
        return NewViews(angles, projections, (weights > 0).astype(np.float32), "exposure", warnings)
    return NewViews(angles, projections, weights / used.mean(), "weight", warnings)


def _scan_of(
    path: Path,
    known: ConeBeam | Parallel3D,
    kept: Mapping[str, Any],
    geometry: Path | None,
    angles: NDArray[np.float64] | None,
) -> VolumeScan:
    """All rows of a file, treated as the scanner's geometry file says, its own one, and what was typed; the last one wins."""
    if geometry is None and angles is None and is_own_volume(path):
        return read_volume(path)

    def fields_of(raw: Raw) -> dict[str, Any]:
        return _fields_of(known, bool(raw.fields.get("rows_upwards", False)))

    return volume_of(lambda row: raw_views(path, fields_of, kept, geometry, angles, row=row), path)


def _fields_of(known: ConeBeam | Parallel3D, upwards: bool) -> dict[str, Any]:
    """A scanner's geometry by the names that files have for it; pictures count their rows from above."""
    middle = (known.rows - 1) / 2 - known.row_offset / known.row_pitch * (1 if upwards else -1)
    turns = {name: getattr(known, name) for name in TURNS if hasattr(known, name)}
    return {**geometry_tree(known.plane), **turns, "row_pixel": known.row_pitch, "middle_row": middle}


def _refuse_other(scan: VolumeScan, known: ConeBeam | Parallel3D, path: Path) -> None:
    """Refuse a scan of another geometry, naming what differs."""
    told = scan.geometry
    if isinstance(told, FreeBeam) or type(told) is not type(known):
        kind = _KINDS.get(type(told), "scan with free vectors")
        raise InputError(f"'{path}' is a {kind}, and the session is of a {_KINDS[type(known)]}.")
    for f in fields(known):
        if f.name == "angles":
            continue
        found, wanted = getattr(told, f.name), getattr(known, f.name)
        found, wanted = (told.row_pitch, known.row_pitch) if f.name == "row_pixel" else (found, wanted)
        if not np.isclose(found, wanted, rtol=SAME_LENGTH / known.columns, atol=SAME_LENGTH * known.pixel):
            name = f.name.replace("_", " ")
            raise InputError(f"'{path}' has another geometry: its {name} is {found:g}, the session's {wanted:g}.")


def _refuse_lost(scan: VolumeScan, sense: int, path: Path) -> None:
    """Refuse a view of which nothing is left."""
    if scan.weights is not None and not (seen := (scan.weights > 0).any(axis=(0, 2))).all():
        lost = sense * float(np.rad2deg(scan.geometry.angles[~seen][0])) + 0.0
        raise InputError(f"'{path}' has no ray that counts at {lost:.6g}°: all are NaN or bad; reject that angle.")
