"""From what a file tells to a scan: line integrals, geometry, weights, with every assumption recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.angles import returns, within_a_turn
from ctuq.files.axis import wants_search
from ctuq.files.formats.raw import OTHER, SPACE, START, TURNS, Raw
from ctuq.files.noise import law_of
from ctuq.files.plausible import doubts_of_projections, doubts_of_values, full_scale
from ctuq.tomo.air import air_of_views
from ctuq.tomo.axis import axis_column, with_axis_column
from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam
from ctuq.tomo.panels import with_even_panels
from ctuq.tomo.preprocess import Corrected, projections_from_counts, repaired, spikes, where_an_object_can_stay
from ctuq.tomo.scan import Provenance, Scan
from ctuq.tomo.still_columns import without_still_columns
from ctuq.tomo.stray_rays import without_stray_rays

Worth = Literal["exposure", "weight", "counts"]
_NEEDED = {"parallel": ("kind", "angles", "pixel"), "fan": ("kind", "angles", "pixel", "source_to_axis", "source_to_detector")}
_SHADOWS = 0.2
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


def in_one_unit(parts: Sequence[Assembled]) -> list[NDArray] | None:
    """Weights of several rows, or files, in one unit, as each has them in one of its own; None where none has any."""
    if all(part.scan.weights is None for part in parts):
        return None
    own = [np.ones_like(part.scan.projections) if part.scan.weights is None else part.scan.weights for part in parts]
    return [part.unit * weights for part, weights in zip(parts, own, strict=True)]


def of_mean_one(weights: NDArray) -> NDArray[np.float32]:
    """Weights over their mean of the rays that count."""
    return (weights / weights[weights > 0].mean(dtype=np.float64)).astype(np.float32)


def missing_fields(fields: Mapping[str, object]) -> tuple[str, ...]:
    """Names of what a geometry still needs."""
    return tuple(key for key in _NEEDED[str(fields.get("kind", "parallel"))] if key not in fields)


def assemble(raw: Raw, source: str, sha256: str) -> Assembled:
    """A scan from what a file tells: the only way from values to line integrals, for whoever reads a file.

    Counts are flat-field corrected; bad rays are repaired and get weight 0. The rotation axis is taken at the detector's middle
    where it is to be searched (`wants_search`): whoever reads searches it in the whole scan.

    Raises
    ------
    InputError
        If parts of the geometry are missing, shapes disagree, or nothing usable was measured.
    """
    if raw.whole is not None:
        return Assembled(raw.whole, 1.0, "exposure" if raw.weights is None else "weight")
    _refuse_other_shape(raw, source)
    raw = _without_returns(raw, source)
    geometry = build_geometry(raw, source)
    corrected, doubts = _corrected(raw, source, geometry)
    steps = [f"row {raw.row} of {raw.rows} read"] if raw.rows > 1 else []
    steps += raw.notes
    told = Provenance(source=source, sha256=sha256, steps=tuple(steps), facts=dict(raw.facts)).warned(
        *raw.warnings, *within_a_turn(np.asarray(raw.fields["angles"], dtype=np.float64))[1], *_turns_left_out(raw)
    )
    worth: Worth = "weight" if raw.weights is not None else "counts" if raw.kind_of_values == "counts" else "exposure"
    weights = corrected.weights.astype(np.float32) if worth != "exposure" or corrected.bad > 0 else None
    if raw.kind_of_values != "log":
        told = told.then(_correction(raw))
    if corrected.bad:
        text = "{} bad rays of {} were repaired from their neighbours and count for nothing in the fit (weight 0)."
        told = told.warned(text.format(corrected.bad, corrected.projections.size))
    told = told.warned(*doubts)
    scan = Scan(corrected.projections.astype(np.float32), geometry, weights, raw.truth, raw.grid, told)
    return Assembled(without_stray_rays(without_still_columns(with_even_panels(scan))), corrected.unit, worth)


def _correction(raw: Raw) -> str:
    if raw.kind_of_values != "counts":
        return "-log taken"
    alone = raw.flats is not None and len(raw.flats) == 1
    return "flat-field corrected, -log taken" + ("; of one flat, which says nothing of the noise of counts" if alone else "")


def _turns_left_out(raw: Raw) -> tuple[str, ...]:
    """A warning for turns of the detector or the axis, which a single row knows nothing of."""
    turns = [f"{key} of {np.rad2deg(value):.4g}°" for key in TURNS if isinstance(value := raw.fields.get(key), float) and value]
    return (f"The {' and the '.join(turns)} is left out of a single row; --volume takes it in.",) if turns else ()


def _without_returns(raw: Raw, source: str) -> Raw:
    """The views without those at the end that only return to angles of before."""
    _refuse_other_number(raw, source)
    angles = np.asarray(raw.fields.get("angles", ()), dtype=np.float64)
    back = returns(angles)
    if not back.any():
        return raw
    degrees = ", ".join(f"{angle:.4g}" for angle in np.rad2deg(angles[back]))
    return replace(
        raw.warned(
            f"The last {int(back.sum())} views return to {degrees} degrees, out of order: left out as alignment images."
        ),
        values=raw.values[~back],
        weights=None if raw.weights is None else raw.weights[~back],
        fields={**raw.fields, "angles": angles[~back]},
    )


def build_geometry(raw: Raw, source: str) -> Geometry:
    """The geometry of the fields, checked against the data's shape; an axis that is to be searched is left for later.

    Raises
    ------
    InputError
        If fields are missing or the number of angles does not fit.
    """
    fields = {key: value for key, value in raw.fields.items() if key not in SPACE}
    missing = missing_fields(fields)
    if missing:
        lines = "; ".join(_EXAMPLES[key] for key in missing)
        raise InputError(
            f"'{source}' ({raw.format}) does not say its {', '.join(missing)}: give a geometry file (YAML, degrees and mm) "
            f"with lines such as '{lines}'."
        )
    _refuse_other_shape(raw, source)
    _refuse_other_number(raw, source)
    angles, _ = within_a_turn(np.asarray(fields["angles"], dtype=np.float64))
    columns = raw.values.shape[1]
    if fields.pop("columns", columns) != columns:
        raise InputError(
            f"The geometry of '{source}' says {raw.fields['columns']} columns, but its data have {columns}; check both."
        )
    kind = FanBeam if fields.pop("kind") == "fan" else ParallelBeam
    start, _ = fields.pop(START, None), fields.pop(OTHER, None)
    column = fields.pop("axis_column", start)
    column = start if column == "search" else column
    if kind is ParallelBeam:
        fields = {key: value for key, value in fields.items() if not key.startswith("source_to")}
    geometry = kind(**{**fields, "angles": angles, "columns": columns})
    return with_axis_column(geometry, float(column)) if isinstance(column, int | float) else geometry


def _refuse_other_shape(raw: Raw, source: str) -> None:
    if raw.values.ndim != 2 or raw.values.size == 0:
        raise InputError(f"'{source}' has projections of shape {raw.values.shape}; an (angle, column) sinogram is needed.")


def _refuse_other_number(raw: Raw, source: str) -> None:
    """Refuse another number of angles than of projections, with what may be the reason; also where rows and views may be
    the other way round.
    """
    angles, views = np.asarray(raw.fields.get("angles", ())).size, len(raw.values)
    if "angles" not in raw.fields:
        return
    sinograms = not raw.order_known and angles == raw.rows
    if angles != views:
        # A number that was given for the flat is no picture.
        frames = sum(len(part) for part in (raw.flats, raw.darks) if part is not None and (len(part) > 1 or np.ptp(part) > 0))
        hint = "check both"
        if sinograms:
            hint = "if it is a stack of sinograms, set 'stack: sinograms' in its geometry file"
        elif angles == raw.values.shape[1] and raw.rows > 1:
            hint = "where the views are the last of three axes, save the array as (view, row, column)"
        elif angles == raw.values.shape[1]:
            hint = "set 'transpose: true' in its geometry file"
        elif frames and angles == views + frames:
            hint = f"with {frames} flats and darks there are as many images as angles; give those of the projections"
        raise InputError(f"'{source}' has {views} projections but {angles} angles; {hint}.")
    if sinograms and views > 1:
        raise InputError(
            f"'{source}' is a stack of {views} pictures of {raw.rows} rows with {angles} angles, so it may hold projections or "
            "sinograms; say 'stack: projections' or 'stack: sinograms' in a geometry file."
        )


def _corrected(raw: Raw, source: str, geometry: Geometry) -> tuple[Corrected, tuple[str, ...]]:
    """Line integrals and what is doubtful about them."""
    values = np.asarray(raw.values, dtype=np.float64)
    if not np.isfinite(values).any():
        raise InputError(f"'{source}' holds nothing but NaN or infinite values; check the file.")
    try:
        doubts = doubts_of_values(raw)
        corrected, noise = _line_integrals(raw, values, source, geometry)
        air = ()
        if raw.air_at_edges:
            levels, air = air_of_views(corrected.projections, corrected.weights)
            corrected = replace(corrected, projections=corrected.projections - levels[:, None])
        return corrected, (*doubts, *air, *doubts_of_projections(raw, corrected), *noise)
    except InputError as error:
        raise error if source in str(error) else InputError(f"'{source}': {error}") from None


def _line_integrals(raw: Raw, values: NDArray, source: str, geometry: Geometry) -> tuple[Corrected, tuple[str, ...]]:
    """Line integrals, and what is known of their noise."""
    keep, axis = _can_stay(raw, geometry), None if wants_search(raw) else axis_column(geometry)
    values = np.where(raw.bad_columns, np.nan, values) if raw.bad_columns is not None else values
    if raw.kind_of_values == "log":
        return repaired(_without_empty_views(values), raw.weights, keep, axis), ()
    flats, darks, counts = np.ones((1, values.shape[1])), None, raw.kind_of_values == "counts"
    if counts:
        if raw.flats is None:
            raise InputError(f"'{source}' holds counts but no flats: give 'flat:' (a picture or a number) in a geometry file.")
        flats, darks = raw.flats, raw.darks
    after, full = (raw.flats_after, full_scale(raw)) if counts else (None, None)
    law, noise = law_of(raw)
    first = projections_from_counts(values, flats, darks, after, full=full, law=law)
    marked = np.where(first.weights > 0, first.projections, np.nan)
    wrong = spikes(marked)
    marked[wrong] = np.nan
    if not counts or raw.weights is not None:
        return repaired(marked, raw.weights, keep, axis), ()
    # Again without the spikes: the counts of one would pass for expected counts of its neighbours.
    first = projections_from_counts(np.where(wrong, np.nan, values), flats, darks, after, full=full, law=law)
    mended = repaired(marked, first.weights, keep, axis)
    return replace(mended, unit=first.unit * mended.unit), ((noise,) if noise else ())


def _can_stay(raw: Raw, geometry: Geometry) -> NDArray[np.bool_]:
    """Columns that stand out in all views and are to be kept; of line integrals, which somebody has corrected before, all as
    long as nobody knows where the axis is.
    """
    if wants_search(raw):
        return np.full(geometry.columns, raw.kind_of_values == "log")
    return where_an_object_can_stay(geometry.angles, geometry.columns, axis_column(geometry))


def _without_empty_views(values: NDArray) -> NDArray:
    """Line integrals with NaN for views of zeros, which are missing unless the object is so small that it casts few shadows."""
    empty = ~np.any(values, axis=1)
    shadows = float(np.median(np.mean(values[~empty] != 0, axis=1))) if not empty.all() else 0.0
    return np.where(empty[:, None], np.nan, values) if shadows > _SHADOWS else values
