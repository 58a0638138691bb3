"""What a geometry file adds to, or corrects in, what the data file tells."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.anyarray import NAMED, file_of, read_array
from ctuq.files.formats.pictures import matching
from ctuq.files.formats.raw import AXIS, OTHER, START, TURNED, Raw, as_sinogram
from ctuq.files.formats.stack import load_stack
from ctuq.files.sidecar import Sidecar

_MANY = 8
_AS_MANY = "There are {} flats, as many as views, and their mean is taken for all views: say 'flat_of_views' if each is of one."
_LYING = (
    "The pictures lie on their side ('transpose'): their rows are taken as the detector's columns and their columns as its "
    "rows, the first the lowest, as if they were turned counter-clockwise, so that nothing is mirrored; else say "
    "'reverse_columns'."
)


def overridden(raw: Raw, sidecar: Sidecar) -> Raw:
    """The data with a geometry file's fields in place of its own.

    Raises
    ------
    InputError
        If flats or darks that it names do not exist or do not fit, or counts are to be scaled.
    """
    fields = dict(raw.fields)
    if any(key in sidecar.fields for key in AXIS):
        column, search = fields.get("axis_column"), sidecar.fields.get("axis_column") == "search"
        dropped = ("axis_column", OTHER) if search else (*AXIS, OTHER)
        fields = {key: value for key, value in fields.items() if key not in dropped}
        fields |= {START: column} if search and isinstance(column, int | float) else {}
    if sidecar.clockwise and "angles" in fields and "angles" not in sidecar.fields:
        fields["angles"] = -np.asarray(fields["angles"], dtype=np.float64)
    if raw.turned:
        # A transposed picture shows the object's mirror image, one that is turned does not.
        fields["rows_upwards"] = True
        raw = raw.warned(_LYING)
    elif sidecar.transpose and raw.rows > 1 and sidecar.stack != "sinograms":
        # One row of them, (angle, column), would be taken for (column, angle): without a word where both are as many.
        raise InputError(
            f"'transpose' in the geometry file is of sinograms and stacks of bare numbers, and this is a stack of {raw.rows} "
            f"rows ({raw.format}), which tells the order of its axes itself: leave it out, or say 'stack: sinograms' if it is "
            "one of these."
        )
    values = raw.values.T if sidecar.transpose and not raw.turned else raw.values
    beams = sidecar.flat is not None or sidecar.flat_of_views is not None
    kind = sidecar.values or ("counts" if beams and not raw.stated else raw.kind_of_values)
    if sidecar.scale == 0:
        raise InputError("'scale' is 0 in the geometry file, which leaves nothing of the line integrals; give another factor.")
    if sidecar.scale != 1:
        if kind != "log":
            raise InputError(f"'scale' is for line integrals (values: log), not for {kind}; leave it out.")
        values = values * sidecar.scale
    fields, facts = {**fields, **sidecar.fields}, {**raw.facts, **sidecar.facts}
    remarks = {key: text for key, text in raw.remarks.items() if key not in sidecar.fields}
    raw = replace(raw, values=values, kind_of_values=kind, fields=fields, facts=facts, remarks=remarks, whole=None)
    stated = raw.stated or sidecar.values is not None or beams
    if kind == "log" and not stated:
        raw = raw.warned("The values are taken as line integrals, as nothing says otherwise; say 'values:' in a geometry file.")
    if kind == "transmission" and not stated:
        raw = raw.warned(
            "The file has no flats: the values are taken as transmission I / I0; else give 'flat' in a geometry file."
        )
    raw = replace(_with_levels(raw, sidecar), stated=stated)
    if sidecar.bad_columns:
        raw = replace(raw, bad_columns=_marked(sidecar.bad_columns, raw.values.shape[-1]))
    raw = replace(raw, air_at_edges=raw.air_at_edges or sidecar.air is not None)
    return _reversed(raw) if sidecar.reverse_columns else raw


def _with_levels(raw: Raw, sidecar: Sidecar) -> Raw:
    """The data with the flats and darks that the geometry file names."""
    if sidecar.dark is not None:
        raw = replace(raw, darks=_frames(sidecar.dark, raw))
    if sidecar.flat is not None:
        raw = replace(raw, flats=_frames(sidecar.flat, raw), flats_after=None)
        if len(np.atleast_2d(np.asarray(raw.flats))) == len(raw.values) > _MANY:
            raw = raw.warned(_AS_MANY.format(len(raw.values)))
    if sidecar.flat_of_views is not None:
        raw = _with_flats_of_views(raw, sidecar)
    return raw if sidecar.flat_after is None else _with_later_flats(raw, sidecar.flat_after)


def _with_flats_of_views(raw: Raw, sidecar: Sidecar) -> Raw:
    """Each view with its own open beam, such as a blank scan's."""
    assert sidecar.flat_of_views is not None
    if sidecar.flat is not None or sidecar.flat_after is not None:
        raise InputError("The geometry file says both 'flat_of_views' and 'flat' or 'flat_after'; leave one out.")
    beams = _frames(sidecar.flat_of_views, raw)
    if len(beams) != len(raw.values):
        raise InputError(f"'flat_of_views' in the geometry file has {len(beams)} frames, and the scan {len(raw.values)} views.")
    # Between the views before and after: at its own time.
    return replace(raw, flats=beams, flats_after=np.arange(len(beams)) + 0.5)


def _with_later_flats(raw: Raw, level: Path | float) -> Raw:
    """The flats of before the scan, and others of after it."""
    if raw.flats is None:
        raise InputError("'flat_after' in the geometry file needs the flats of before the scan too; give them as 'flat'.")
    later = _frames(level, raw)
    after = np.r_[np.zeros(len(raw.flats)), np.full(len(later), len(raw.values))]
    return replace(raw, flats=np.concatenate([raw.flats, later]), flats_after=after)


def _marked(columns: tuple[int, ...], count: int) -> NDArray[np.bool_]:
    if min(columns) < 0 or max(columns) >= count:
        raise InputError(f"'bad_columns' in the geometry file are {list(columns)}; the detector has columns 0 to {count - 1}.")
    return np.isin(np.arange(count), columns)


def _frames(level: Path | float, raw: Raw) -> NDArray:
    """Flats or darks as (frame, column) of the row that was read, or a number for every column."""
    if not isinstance(level, Path):
        return np.full((1, raw.values.shape[1]), level)
    path, _ = file_of(str(level))
    if not path.exists() and not matching(level):
        raise InputError(f"The geometry file names '{level}', which does not exist.")
    if path.suffix.lower() in NAMED:
        return _of_array(level, raw)
    frames = load_stack(level)
    if frames.ndim == 2 and raw.row is not None:
        frames = frames[None]
    return as_sinogram(frames, raw.row, str(level), stack=TURNED if raw.turned else None)[0]


def _of_array(level: Path, raw: Raw) -> NDArray:
    """Frames of an array: (frame, row, column) or (row, column) of a stack, else (frame, column) or (column,)."""
    frames, columns = np.asarray(read_array(level, "flats or darks")), raw.values.shape[1]
    shape = frames.shape
    if raw.row is not None:
        frames = frames[None] if frames.ndim == 2 else frames
        # One row of them, as (frame, column), would be taken for a picture.
        fits = frames.ndim == 3 and sorted(frames.shape[1:]) == sorted((raw.rows, columns))
        frames = as_sinogram(frames, raw.row, str(level), stack=TURNED if raw.turned else None)[0] if fits else frames
    else:
        # Of a single row the axis of rows says nothing.
        frames = frames[:, 0] if frames.ndim == 3 and frames.shape[1] == 1 else np.atleast_2d(frames)
        # MATLAB's files have columns first, as its sinograms.
        frames = frames.T if frames.ndim == 2 and frames.shape[1] != columns == len(frames) else frames
    if frames.ndim != 2 or frames.shape[1] != columns:
        wanted = "(frame, row, column) or (row, column)" if raw.row is not None else "(frame, column) or (column)"
        raise InputError(
            f"'{level}' has the shape {shape}, and the scan {columns} detector columns in {raw.rows} rows; its flats and darks "
            f"are arrays of {wanted}."
        )
    return frames


def _reversed(raw: Raw) -> Raw:
    def turned(array: NDArray | None) -> NDArray | None:
        return None if array is None else array[:, ::-1]

    return replace(
        raw,
        values=raw.values[:, ::-1],
        flats=turned(raw.flats),
        darks=turned(raw.darks),
        weights=turned(raw.weights),
        bad_columns=None if raw.bad_columns is None else raw.bad_columns[::-1],
    )
