"""New projections for a session: read from any file, checked against its geometry, as line integrals and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.app.design.scanner import treatment
from ctuq.app.design.words import degrees
from ctuq.design.session.file import Record
from ctuq.errors import InputError
from ctuq.files.assemble import build_geometry
from ctuq.files.formats.detect import is_own_scan, read_raw
from ctuq.files.formats.ownscan import geometry_from_tree, geometry_tree
from ctuq.files.formats.raw import Raw
from ctuq.files.override import overridden
from ctuq.files.sidecar import read_sidecar
from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam, radians
from ctuq.tomo.preprocess import projections_from_counts, repaired

_AXIS = ("axis_column", "axis_offset", "detector_offset")
_SAME_LENGTH = 1e-3


@dataclass(frozen=True, eq=False)
class NewViews:
    """New projections as a session takes them.

    Parameters
    ----------
    angles : array, shape (k,), radians
    projections : array, shape (k, columns)
        Line integrals.
    weights : array, same shape, optional
    counts : bool
        Whether the weights are expected photon counts.
    """

    angles: NDArray[np.float64]
    projections: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    counts: bool


def new_views(paths: Sequence[Path], record: Record, geometry: Path | None, angles: str | None) -> NewViews:
    """The projections in some files, all of the session's geometry.

    Parameters
    ----------
    paths : sequence of Path
    record : Record
        Of the session.
    geometry : Path, optional
        A geometry file for them; else the one beside each, else the session's.
    angles : str, optional
        Their angles in degrees.

    Raises
    ------
    InputError
        If a file cannot be read, is of another geometry, or holds NaN.
    """
    if angles is not None and len(paths) != 1:
        raise InputError(f"--angles are those of one file, and {len(paths)} are given; tell them one by one.")
    parts = [_of_file(path, record, geometry, angles) for path in paths]
    if len({(part.counts, part.weights is None) for part in parts}) > 1:
        raise InputError("Some of these files hold counts or weights and others do not; tell them one by one.")
    weights = [part.weights for part in parts if part.weights is not None]
    return NewViews(
        np.concatenate([part.angles for part in parts]),
        np.concatenate([part.projections for part in parts]),
        np.concatenate(weights) if weights else None,
        parts[0].counts,
    )


def _of_file(path: Path, record: Record, geometry: Path | None, angles: str | None) -> NewViews:
    raw = _raw(path, record, geometry, angles)
    bad = int(raw.values.size - np.isfinite(np.asarray(raw.values, np.float64)).sum())
    if bad:
        raise InputError(f"'{path}' holds {bad} values that are NaN or infinite; repair them or reject the angle.")
    known = geometry_from_tree(record.geometry)
    told = build_geometry(replace(raw, fields=_completed(raw, known)), str(path))
    _refuse_other(told, known, path)
    return NewViews(told.angles, *_line_integrals(raw, path))


def _raw(path: Path, record: Record, geometry: Path | None, angles: str | None) -> Raw:
    """What a file tells, treated as the session's geometry file says or its own one."""
    sidecar = treatment(record)
    places = [path.with_suffix(".yaml"), path / "geometry.yaml"] if geometry is None else [geometry]
    beside = next((place for place in places if geometry or (place.is_file() and place != path)), None)
    if beside is not None:
        own = read_sidecar(beside)
        turn = -1 if sidecar.clockwise and not own.clockwise else 1
        only_angles = replace(sidecar, fields={key: turn * np.asarray(value) for key, value in own.fields.items()})
        sidecar = own if set(own.fields) - {"angles"} else only_angles
    if angles is not None:
        sidecar = replace(sidecar, fields={**sidecar.fields, "angles": record.sense * radians(degrees(angles, "--angles"))})
    raw = read_raw(path, sidecar.row)
    return raw if is_own_scan(path) and geometry is None and angles is None else overridden(raw, sidecar)


def _completed(raw: Raw, known: Geometry) -> Mapping[str, object]:
    """What a file says of its geometry, and what the session says where it does not."""
    if "angles" not in raw.fields:
        raise InputError("The new file does not say its angles; give them in degrees, such as --angles 36,72.")
    told = {key: value for key, value in raw.fields.items() if not isinstance(value, str) or value != "search"}
    rest = {key: v for key, v in geometry_tree(known).items() if key not in ("angles", "rotation_angle", "columns")}
    if any(key in told for key in _AXIS):
        rest = {key: value for key, value in rest.items() if key not in _AXIS}
    if told.get("kind", rest["kind"]) == "parallel":
        rest = {key: value for key, value in rest.items() if not key.startswith("source_to")}
    return {**rest, **told}


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
        if not np.isclose(found, wanted, rtol=_SAME_LENGTH / known.columns, atol=_SAME_LENGTH * known.pixel):
            name = f.name.replace("_", " ")
            raise InputError(f"'{path}' has another geometry: its {name} is {found:g} mm, the session's {wanted:g} mm.")


def _line_integrals(raw: Raw, path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, bool]:
    """Line integrals, their weights where the file tells of any, and whether these are photon counts."""
    values = np.asarray(raw.values, np.float64)
    if raw.kind_of_values == "log":
        weights, scale = raw.weights, 1.0
    else:
        if raw.kind_of_values == "counts" and raw.flats is None:
            raise InputError(f"'{path}' holds counts but no flats: give 'flat:' (a picture or a number) in the geometry file.")
        flats = np.ones((1, values.shape[1])) if raw.flats is None else raw.flats
        found = projections_from_counts(values, flats, raw.darks)
        values, weights = np.where(found.weights > 0, found.projections, np.nan), found.weights
        dark = 0.0 if raw.darks is None else np.asarray(raw.darks, np.float64).mean(0)
        scale = float((np.asarray(raw.values, np.float64) - dark)[weights > 0].mean())
        if raw.kind_of_values != "counts":
            weights, scale = None, 1.0
    mended = repaired(values, weights)
    if weights is None and not mended.bad:
        return mended.projections, None, False
    return mended.projections, scale * mended.weights, raw.kind_of_values == "counts"
