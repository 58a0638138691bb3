"""New views of a scanner whose geometry is known: read as any scan is, then checked against that geometry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.assemble import Assembled, Worth, assemble
from ctuq.files.formats.detect import file_hash
from ctuq.files.formats.ownscan import geometry_tree
from ctuq.files.formats.raw import Raw
from ctuq.files.override import AXIS
from ctuq.files.reading import load_raw
from ctuq.files.sidecar import treated
from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam

SAME_LENGTH = 1e-3


@dataclass(frozen=True, eq=False)
class NewViews:
    """New projections of a scanner.

    Parameters
    ----------
    angles : array, shape (k,), radians
    projections : array of float32, shape (k, columns)
        Line integrals.
    weights : array of float32, same shape, optional
        0 for bad rays, and else what ``unit`` says. None means that all rays are good and the files tell no more.
    unit : {"exposure", "weight", "counts"}
        Of the weights: what the exposure lets expect, the files' own weights over their mean, or counted photons.
    warnings : tuple of str
        As of a scan.
    """

    angles: NDArray[np.float64]
    projections: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    unit: Worth
    warnings: tuple[str, ...] = ()


def new_views(
    paths: Sequence[Path],
    known: Geometry,
    kept: Mapping[str, Any],
    *,
    geometry: Path | None = None,
    angles: NDArray[np.float64] | None = None,
) -> NewViews:
    """The projections in some files, all of one scanner, in the order given.

    Parameters
    ----------
    paths : sequence of Path
    known : ParallelBeam or FanBeam
        Of the scanner; its angles do not matter.
    kept : mapping
        How its files are read, from `ctuq.files.sidecar.treatment`.
    geometry : Path, optional
        A geometry file that says how these files differ from that; else the one beside each.
    angles : array, radians, optional
        Of one file.

    Raises
    ------
    InputError
        If a file cannot be read, is of another geometry, or has a view without a ray that counts.
    """
    require_one_file(paths, angles)
    parts = [_of_file(path, known, kept, geometry, angles) for path in paths]
    if len({part.unit for part in parts}) > 1:
        raise InputError("Some of these files hold counts or weights and others do not; tell them one by one.")
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate([np.ones_like(p.projections) if p.weights is None else p.weights for p in parts])
        if parts[0].unit == "weight":
            weights = weights / weights[weights > 0].mean()
    angles, projections = (np.concatenate([getattr(part, name) for part in parts]) for name in ("angles", "projections"))
    warnings = tuple(dict.fromkeys(text for part in parts for text in part.warnings))
    return NewViews(angles, projections, weights, parts[0].unit, warnings)


def require_one_file(paths: Sequence[Path], angles: NDArray[np.float64] | None) -> None:
    """Refuse angles that were typed for several files.

    Raises
    ------
    InputError
    """
    if angles is not None and len(paths) != 1:
        raise InputError(f"--angles are those of one file, and {len(paths)} are given; tell them one by one.")


def _of_file(
    path: Path, known: Geometry, kept: Mapping[str, Any], geometry: Path | None, angles: NDArray[np.float64] | None
) -> NewViews:
    found = _assembled(path, known, kept, geometry, angles)
    scan = found.scan
    _refuse_other(scan.geometry, known, path)
    if scan.weights is not None and not (seen := scan.weights.max(1) > 0).all():
        lost = float(np.rad2deg(scan.geometry.angles[~seen][0])) * (-1 if kept.get("clockwise") else 1) + 0.0
        raise InputError(f"'{path}' has no ray that counts at {lost:.6g}°: all are NaN or bad; reject that angle.")
    unit = np.float32(1.0 if found.worth == "exposure" else found.unit)
    weights = None if scan.weights is None else unit * scan.weights
    return NewViews(scan.geometry.angles, scan.projections, weights, found.worth, scan.warnings)


def _assembled(
    path: Path, known: Geometry, kept: Mapping[str, Any], geometry: Path | None, angles: NDArray[np.float64] | None
) -> Assembled:
    """What a file tells, treated as the scanner's geometry file says, its own one, and what was typed; the last one wins."""
    return assemble(raw_views(path, lambda _: geometry_tree(known), kept, geometry, angles), str(path), file_hash(path))


def raw_views(
    path: Path,
    known: Callable[[Raw], Mapping[str, Any]],
    kept: Mapping[str, Any],
    geometry: Path | None,
    angles: NDArray[np.float64] | None,
    *,
    row: int | None = None,
) -> Raw:
    """What a file tells, or one of its rows, completed by what is known of the scanner.

    Parameters
    ----------
    path, kept, geometry, angles
        As of `new_views`.
    known : callable
        The scanner's geometry by the names that files have for its fields, given what the file tells.
    row : int, optional
        Of several.
    """
    raw = load_raw(path, geometry, row, base=treated(kept))
    if angles is not None:
        raw = replace(raw, fields={**raw.fields, "angles": angles}, whole=None)
    return raw if raw.whole else _completed(raw, known(raw)).settled()


def _completed(raw: Raw, known: Mapping[str, Any]) -> Raw:
    """What a file says of its geometry, and what is known of the scanner where it does not."""
    if "angles" not in raw.fields:
        raise InputError("The new file does not say its angles; give them in degrees, such as --angles 36,72.")
    told = {key: value for key, value in raw.fields.items() if not isinstance(value, str) or value != "search"}
    rest = {key: v for key, v in known.items() if key not in ("angles", "rotation_angle", "columns")}
    if any(key in told for key in AXIS):
        rest = {key: value for key, value in rest.items() if key not in AXIS}
    return replace(raw, fields={**rest, **told})


def _refuse_other(told: Geometry, known: Geometry, path: Path) -> None:
    """Refuse a scan of another geometry, naming what differs."""
    kinds = {ParallelBeam: "parallel beam", FanBeam: "fan beam"}
    if type(told) is not type(known):
        raise InputError(f"'{path}' is a {kinds[type(told)]} scan, and the session is of a {kinds[type(known)]}.")
    if told.columns != known.columns:
        raise InputError(f"'{path}' has {told.columns} detector columns, and the session's scanner has {known.columns}.")
    for f in fields(known):
        if f.name in ("angles", "columns"):
            continue
        found, wanted = getattr(told, f.name), getattr(known, f.name)
        if not np.isclose(found, wanted, rtol=SAME_LENGTH / known.columns, atol=SAME_LENGTH * known.pixel):
            name = f.name.replace("_", " ")
            raise InputError(f"'{path}' has another geometry: its {name} is {found:g} mm, the session's {wanted:g} mm.")
