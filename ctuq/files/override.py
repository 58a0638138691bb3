"""What a geometry file adds to, or corrects in, what the data file tells."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.pictures import matching
from ctuq.files.formats.raw import AXIS, OTHER, START, TURNED, Raw, as_sinogram
from ctuq.files.formats.stack import load_stack
from ctuq.files.sidecar import Sidecar

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
    kind = sidecar.values or ("counts" if sidecar.flat is not None and not raw.stated else raw.kind_of_values)
    if sidecar.scale == 0:
        raise InputError("'scale' is 0 in the geometry file, which leaves nothing of the line integrals; give another factor.")
    if sidecar.scale != 1:
        if kind != "log":
            raise InputError(f"'scale' is for line integrals (values: log), not for {kind}; leave it out.")
        values = values * sidecar.scale
    fields, facts = {**fields, **sidecar.fields}, {**raw.facts, **sidecar.facts}
    remarks = {key: text for key, text in raw.remarks.items() if key not in sidecar.fields}
    raw = replace(raw, values=values, kind_of_values=kind, fields=fields, facts=facts, remarks=remarks, whole=None)
    flats = _frames(sidecar.flat, raw) if sidecar.flat is not None else raw.flats
    darks = _frames(sidecar.dark, raw) if sidecar.dark is not None else raw.darks
    stated = raw.stated or sidecar.values is not None or sidecar.flat is not None
    if kind == "log" and not stated:
        raw = raw.warned("The values are taken as line integrals, as nothing says otherwise; say 'values:' in a geometry file.")
    if kind == "transmission" and not stated:
        raw = raw.warned(
            "The file has no flats: the values are taken as transmission I / I0; else give 'flat' in a geometry file."
        )
    raw = replace(raw, flats=flats, darks=darks, flats_after=raw.flats_after if sidecar.flat is None else None, stated=stated)
    if sidecar.flat_after is not None:
        raw = _with_later_flats(raw, sidecar.flat_after)
    if sidecar.bad_columns:
        raw = replace(raw, bad_columns=_marked(sidecar.bad_columns, raw.values.shape[-1]))
    raw = replace(raw, air_at_edges=raw.air_at_edges or sidecar.air is not None)
    return _reversed(raw) if sidecar.reverse_columns else raw


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
    if not level.exists() and not matching(level):
        raise InputError(f"The geometry file names '{level}', which does not exist.")
    frames = load_stack(level)
    if frames.ndim == 2 and raw.row is not None:
        frames = frames[None]
    return as_sinogram(frames, raw.row, str(level), stack=TURNED if raw.turned else None)[0]


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
