"""From what a file tells to a scan: line integrals, geometry, weights, with every assumption recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.raw import Raw
from ctuq.tomo.axis import find_axis, with_axis_column
from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam
from ctuq.tomo.preprocess import Corrected, projections_from_counts, repaired, spikes
from ctuq.tomo.scan import Provenance, Scan

Worth = Literal["exposure", "weight", "counts"]
_NEEDED = {"parallel": ("kind", "angles", "pixel"), "fan": ("kind", "angles", "pixel", "source_to_axis", "source_to_detector")}
_EXAMPLES = {
    "kind": "kind: parallel",
    "angles": "angles: {first: 0, step: 1, count: 180}",
    "pixel": "pixel: 0.1",
    "source_to_axis": "source_to_axis: 110",
    "source_to_detector": "source_to_detector: 300",
}


@dataclass(frozen=True, eq=False)
class Assembled:
    """A scan, and what its weights were before they were scaled.

    Parameters
    ----------
    scan : Scan
    unit : float
        What a weight of 1 stands for: counts above the dark level, or so much of the file's own weights.
    worth : {"exposure", "weight", "counts"}
        What the file tells of its rays: nothing (the weights, if there are any, only mark bad rays), weights or counts.
    """

    scan: Scan
    unit: float
    worth: Worth


def missing_fields(fields: Mapping[str, object]) -> tuple[str, ...]:
    """Names of what a geometry still needs."""
    return tuple(key for key in _NEEDED[str(fields.get("kind", "parallel"))] if key not in fields)


def assemble(raw: Raw, source: str, sha256: str) -> Assembled:
    """A scan from what a file tells: the only way from values to line integrals, for whoever reads a file.

    Counts are flat-field corrected; bad rays are repaired and get weight 0; the rotation axis of raw data is searched where no
    file says where it is.

    Raises
    ------
    InputError
        If parts of the geometry are missing, shapes disagree, or nothing usable was measured.
    """
    if raw.whole is not None:
        return Assembled(raw.whole, 1.0, "exposure" if raw.weights is None else "weight")
    geometry = build_geometry(raw, source)
    corrected = _corrected(raw, source)
    steps = [f"row {raw.row} of {raw.rows} read"] if raw.rows > 1 else []
    steps += raw.notes
    told = Provenance(source=source, sha256=sha256, steps=tuple(steps), facts=dict(raw.facts)).warned(*raw.warnings)
    worth: Worth = "weight" if raw.weights is not None else "counts" if raw.kind_of_values == "counts" else "exposure"
    weights = corrected.weights.astype(np.float32) if worth != "exposure" or corrected.bad > 0 else None
    if raw.kind_of_values != "log":
        told = told.then("flat-field corrected, -log taken" if raw.kind_of_values == "counts" else "-log taken")
    if corrected.bad:
        text = "{} bad rays of {} were repaired from their neighbours and count for nothing in the fit (weight 0)."
        told = told.warned(text.format(corrected.bad, corrected.projections.size))
    scan = Scan(corrected.projections.astype(np.float32), geometry, weights, raw.truth, raw.grid, told)
    return Assembled(_with_axis(scan, raw), corrected.unit, worth)


def build_geometry(raw: Raw, source: str) -> Geometry:
    """The geometry of the fields, checked against the data's shape; the axis column "search" is left for later.

    Raises
    ------
    InputError
        If fields are missing or the number of angles does not fit.
    """
    fields = dict(raw.fields)
    missing = missing_fields(fields)
    if missing:
        lines = "; ".join(_EXAMPLES[key] for key in missing)
        raise InputError(
            f"'{source}' ({raw.format}) does not say its {', '.join(missing)}: give a geometry file (YAML, degrees and mm) "
            f"with lines such as '{lines}'."
        )
    if raw.values.ndim != 2 or raw.values.size == 0:
        raise InputError(f"'{source}' has projections of shape {raw.values.shape}; an (angle, column) sinogram is needed.")
    angles = np.asarray(fields["angles"], dtype=np.float64)
    if len(angles) != len(raw.values):
        hint = "; set 'transpose: true' in its geometry file" if len(angles) == raw.values.shape[1] else ""
        raise InputError(f"'{source}' has {len(raw.values)} projections but {len(angles)} angles{hint or '; check both'}.")
    kind = FanBeam if fields.pop("kind") == "fan" else ParallelBeam
    column = fields.pop("axis_column", None)
    if kind is ParallelBeam:
        fields = {key: value for key, value in fields.items() if not key.startswith("source_to")}
    geometry = kind(**{**fields, "angles": angles, "columns": raw.values.shape[1]})
    return with_axis_column(geometry, float(column)) if isinstance(column, int | float) else geometry


def _corrected(raw: Raw, source: str) -> Corrected:
    values = np.asarray(raw.values, dtype=np.float64)
    if not np.isfinite(values).any():
        raise InputError(f"'{source}' holds nothing but NaN or infinite values; check the file.")
    try:
        return _line_integrals(raw, values, source)
    except InputError as error:
        raise error if source in str(error) else InputError(f"'{source}': {error}") from None


def _line_integrals(raw: Raw, values: NDArray, source: str) -> Corrected:
    if raw.kind_of_values == "log":
        return repaired(values, raw.weights)
    flats, darks, counts = np.ones((1, values.shape[1])), None, raw.kind_of_values == "counts"
    if counts:
        if raw.flats is None:
            raise InputError(f"'{source}' holds counts but no flats: give 'flat:' (a picture or a number) in a geometry file.")
        flats, darks = raw.flats, raw.darks
    first = projections_from_counts(values, flats, darks)
    marked = np.where(first.weights > 0, first.projections, np.nan)
    wrong = spikes(marked)
    marked[wrong] = np.nan
    if not counts or raw.weights is not None:
        return repaired(marked, raw.weights)
    # Again without the spikes: the counts of one would pass for expected counts of its neighbours.
    first = projections_from_counts(np.where(wrong, np.nan, values), flats, darks)
    mended = repaired(marked, first.weights)
    return replace(mended, unit=first.unit * mended.unit)


def _with_axis(scan: Scan, raw: Raw) -> Scan:
    wanted = raw.fields.get("axis_column")
    told = any(key in raw.fields for key in ("axis_column", "axis_offset", "detector_offset"))
    if wanted != "search" and (told or raw.kind_of_values != "counts"):
        return scan
    found = find_axis(scan)
    if not found.reliable:
        return scan.warned(
            "The rotation axis was searched without a clear result and taken at the detector's middle; give axis_column."
        )
    text = (
        f"The rotation axis was found at column {found.column:.2f} by a search (misfit {100 * found.misfit:.2f} %, "
        f"{100 * found.misfit_at_start:.2f} % at the detector's middle); give axis_column if you know better."
    )
    return replace(scan, geometry=with_axis_column(scan.geometry, found.column)).warned(text)
