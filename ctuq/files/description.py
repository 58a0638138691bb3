"""What is in a scan file, in words: for people who want to know before they reconstruct."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctuq.errors import InputError
from ctuq.files.assemble import missing_fields
from ctuq.files.formats.raw import OTHER, Raw
from ctuq.files.plausible import doubts_of_values
from ctuq.files.reading import PathLike, opened
from ctuq.guard import reading


@dataclass(frozen=True)
class Description:
    """A file in words; each field is one phrase, empty where there is nothing to say.

    Parameters
    ----------
    source, format, data, values, beam, angles, detector, axis, weights, truth : str
    missing : tuple of str
        What must be given before the file can be reconstructed.
    refused : str
        Why its values, as they are taken, will be refused then.
    history : tuple of str
        What was done to the data before.
    warnings : tuple of str
        What is assumed, repaired or left out in reading; what a correction of the data adds, only the scan knows.
    facts : tuple of str
        Sample, instrument, licence, citation.
    """

    source: str
    format: str
    data: str
    values: str
    beam: str
    angles: str
    detector: str
    axis: str
    weights: str
    truth: str
    missing: tuple[str, ...]
    refused: str
    history: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: tuple[str, ...]


def describe(
    path: PathLike | Sequence[PathLike],
    *,
    geometry: PathLike | None = None,
    row: int | None = None,
    follow_links: bool = False,
    entry: str | None = None,
) -> tuple[Description, ...]:
    """Say what each file holds and what is missing, without correcting or reconstructing anything.

    Parameters
    ----------
    path : path, glob pattern or sequence of paths
    geometry, row, follow_links, entry
        As for `ctuq.files.read`.

    Returns
    -------
    tuple of Description
        One for each file.

    Raises
    ------
    InputError
        If a file is missing, damaged or of an unknown type.
    """
    found = opened(path, geometry=geometry, row=row, entry=entry, follow_links=follow_links)
    return tuple(description_of(raw, each) for each, raw in found)


def description_of(raw: Raw, path: Path) -> Description:
    """What an opened file holds, in words.

    Parameters
    ----------
    raw : Raw
        As `ctuq.files.reading.opened` gives it.
    path : Path
        The file it is of.
    """
    with reading(path, "a scan"):
        return _in_words(raw, path)


def _in_words(raw: Raw, path: Path) -> Description:
    return Description(
        source=str(path),
        format=raw.format,
        data=_data(raw),
        values=_values(raw),
        beam=_beam(raw),
        angles=_angles(raw),
        detector=_mm(raw, "pixel", "pixels of {:g} mm"),
        axis=_axis(raw),
        weights="" if raw.weights is None else "each ray has its own",
        truth="" if raw.truth is None or raw.grid is None else f"{raw.truth.shape} of {raw.grid.voxel:g} mm pixels",
        missing=_missing(raw),
        refused=_refused(raw),
        history=raw.notes,
        warnings=raw.warnings if raw.whole is None else raw.whole.warnings,
        facts=tuple(f"{key}: {value}" for key, value in raw.facts.items()),
    )


def _missing(raw: Raw) -> tuple[str, ...]:
    """What a scan cannot be read without."""
    flat = ("flat",) if raw.kind_of_values == "counts" and raw.flats is None else ()
    return (*missing_fields(raw.fields), *flat)


def _refused(raw: Raw) -> str:
    """Why its values cannot be right."""
    if raw.whole is None:
        try:
            doubts_of_values(raw)
        except InputError as error:
            return str(error)
    return ""


def _data(raw: Raw) -> str:
    views, columns = raw.values.shape
    row = f", row {raw.row} of {raw.rows}" if raw.rows > 1 else ""
    return f"{views} views of {columns} columns{row}"


def _values(raw: Raw) -> str:
    values = np.asarray(raw.values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    span = f"{finite.min() + 0.0:.4g} to {finite.max() + 0.0:.4g}" if finite.size else "none finite"
    lost = f", {values.size - finite.size} not finite" if finite.size < values.size else ""
    words = {"log": "line integrals (no unit)", "transmission": "transmission I / I0", "counts": "raw counts"}
    frames = "".join(f", {len(part)} {name}" for part, name in ((raw.flats, "flats"), (raw.darks, "darks")) if part is not None)
    return f"{words[raw.kind_of_values]}, {span}{lost}{frames}"


def _beam(raw: Raw) -> str:
    kind = str(raw.fields.get("kind", "unknown"))
    if kind != "fan":
        return kind
    return (
        "fan"
        + _mm(raw, "source_to_axis", ", source to axis {:g} mm")
        + _mm(raw, "source_to_detector", ", source to detector {:g} mm")
    )


def _angles(raw: Raw) -> str:
    if "angles" not in raw.fields:
        return "unknown"
    degrees = np.rad2deg(np.asarray(raw.fields["angles"], dtype=np.float64))
    steps = np.diff(degrees)
    even = steps.size > 0 and np.allclose(steps, steps[0], atol=1e-3)
    spacing = f" in steps of {steps.mean():.4g}" if even else " in uneven steps" if steps.size else ""
    in_turn = bool((steps >= 0).all() or (steps <= 0).all())
    first, last = (degrees[0], degrees[-1]) if in_turn else (degrees.min(), degrees.max())
    words = ("from", "to") if in_turn else ("in no order between", "and")
    return f"{len(degrees)} {words[0]} {first + 0.0:.4g} {words[1]} {last + 0.0:.4g} degrees{spacing}"


def _axis(raw: Raw) -> str:
    column = raw.fields.get("axis_column")
    if isinstance(column, int | float):
        other = raw.fields.get(OTHER)
        return f"at column {column:g}" + (f" or {other:g}, as the projections say" if isinstance(other, int | float) else "")
    if column == "search":
        return "to be searched"
    parts = _mm(raw, "detector_offset", "detector shifted by {:g} mm"), _mm(raw, "axis_offset", "axis shifted by {:g} mm")
    told = ", ".join(part for part in parts if part)
    return told or ("at the detector's middle" if raw.kind_of_values == "log" else "to be searched")


def _mm(raw: Raw, key: str, words: str) -> str:
    value = raw.fields.get(key)
    return words.format(value) if isinstance(value, int | float) else ""
