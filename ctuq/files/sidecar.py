"""The small YAML file that tells what pictures and bare arrays do not: degrees and mm.

::

    kind: fan                 # or parallel
    values: log               # log (or line integrals), transmission (I / I0) or counts
    angles: {first: 0, step: 3, count: 120}     # degrees; or a list, or a text file of them
    clockwise: false          # true if the angles turn clockwise
    pixel: 0.35               # mm, on the detector; lengths may have a unit, such as 350 um
    columns: 328              # detector columns; needed only to design a scan before there are projections
    rows: 256                 # detector rows; only to design the scan of a volume
    source_to_axis: 110       # mm, fan only
    source_to_detector: 300   # mm, fan only
    detector_offset: 0.27     # mm; or
    axis_column: 163.2        # detector column of the rotation axis (0-based), a number or the word search
    axis_offset: 0            # mm
    transpose: false          # true if a sinogram has one row for each detector column, or projections lie on their side
    reverse_columns: false    # true if the columns run the other way
    scale: 1.0                # factor on log values
    flat: flat.tif            # counts only: a picture, a folder or a pattern ("flat_*.tif") of them, an array (flat.npy,
                              # ref.mat:flat, scan.h5:entry/flats), or a number
    flat_after: later.tif     # the same, if there are others of after the scan: the open beam is interpolated between both
    flat_of_views: blank.npy  # in place of flat: the open beam of each view, as many frames as views
    dark: 100                 # as flat
    air: edges                # each view's first and last sixteenth of the columns see air: what they read is taken off it
    bad_columns: [17, 40]     # detector columns (0-based, as they are stored) that are at fault
    stack: projections        # what the pictures of a stack or a folder are: projections or sinograms
    files: "proj_*.tif"       # which pictures of a folder; those named as flat and dark are left out anyhow
    row: 12                   # detector row of projections, or number of the sinogram; the middle one if left out
    middle_row: 511.5         # volumes: the row (0-based, as stored) in the plane through the source; else the middle
    row_pixel: 0.35           # volumes: pitch of the rows, if it is not that of the columns
    roll: 0.2                 # volumes, degrees: turn of the detector in its plane; and tilt, yaw, axis_tilt (laminography)
    entry: entry0001          # of an NXtomo file with several; the first one if left out
    beam: monochromatic       # of one energy, as behind a monochromator, so that it cannot harden; or polychromatic
    sample: walnut            # and instrument, licence, citation: kept as they are

HDF5 of any layout is read by the places of its parts: ``data``, ``angles``, ``image_key``, ``flats`` and ``darks``, each a path
as in `ctuq.files.formats.hdf5.layout`.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.places import Layout, from_plain, place_of, to_plain
from ctuq.files.formats.raw import TURNED, TURNS, VALUES, Pictures
from ctuq.files.formats.sound import checked_angles
from ctuq.files.units import millimetres
from ctuq.files.yamlfile import read_mapping
from ctuq.text import listed, shortened
from ctuq.tomo.geometry import radians
from ctuq.tomo.scan import BEAMS

_LENGTHS = ("pixel", "row_pixel", "source_to_axis", "source_to_detector", "detector_offset", "axis_offset")
_FLAGS = ("clockwise", "transpose", "reverse_columns")
_FACTS = ("sample", "instrument", "beam", "licence", "citation")
_LEVELS = ("flat", "flat_after", "flat_of_views", "dark")
_OTHERS = (
    "kind",
    "columns",
    "rows",
    "values",
    "angles",
    "axis_column",
    "scale",
    "air",
    "bad_columns",
    "stack",
    "files",
    "row",
    "entry",
    "middle_row",
)
_TREATMENT = ("values", "scale", *_FLAGS, *_LEVELS, "air", "bad_columns", "stack", "files", "row", "entry")
_AS_SHOWN = {"line integrals": "log", "raw counts": "counts"}
"""What ``ctuq info`` calls values."""
_LARGEST, _MOST = 1e300, 10_000_000
_PLACES = ("data", "image_key", "flats", "darks")
_KEYS = (*_LENGTHS, *TURNS, *_FLAGS, *_FACTS, *_LEVELS, *_OTHERS, *_PLACES)


@dataclass(frozen=True)
class Sidecar:
    """A geometry file: fields in mm and radians, and how to treat the values."""

    fields: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    values: str | None = None
    scale: float = 1.0
    clockwise: bool = False
    transpose: bool = False
    reverse_columns: bool = False
    flat: Path | float | None = None
    flat_after: Path | float | None = None
    flat_of_views: Path | float | None = None
    dark: Path | float | None = None
    air: str | None = None
    bad_columns: tuple[int, ...] = ()
    stack: str | None = None
    files: str | None = None
    row: int | None = None
    layout: Layout = field(default_factory=Layout)
    entry: str | None = None

    @property
    def pictures(self) -> Pictures:
        """Which pictures of a folder are of the scan, and what they are."""
        aside = tuple(level for level in (getattr(self, name) for name in _LEVELS) if isinstance(level, Path))
        lying = self.transpose and self.stack != "sinograms"
        return Pictures(TURNED if lying else self.stack, self.files, aside, self.layout, self.entry)


def read_sidecar(path: str | Path, onto: Sidecar | None = None) -> Sidecar:
    """Read a geometry file.

    Parameters
    ----------
    path : path
    onto : Sidecar, optional
        What holds where the file says nothing.

    Raises
    ------
    InputError
        If it is missing, no YAML mapping, or has a key or value that is not of the schema in this module's docstring.
    """
    path, base = Path(path), onto or Sidecar()
    entries = read_mapping(path)
    unknown = sorted(set(map(str, entries)) - set(_KEYS))
    if unknown:
        raise InputError(f"'{path}' has the unknown key {listed(unknown)}; the keys are {', '.join(_KEYS)}.")
    if "axis_column" in entries and "detector_offset" in entries:
        raise InputError(
            f"'{path}' says both 'axis_column' and 'detector_offset', of which one gives the other; leave one out."
        )
    fields = dict(base.fields) | {key: _length(path, entries, key) for key in _LENGTHS if key in entries}
    if "kind" in entries:
        fields["kind"] = _choice(path, entries, "kind", ("parallel", "fan"))
    fields |= {key: float(radians([_number(path, entries, key)])[0]) for key in TURNS if key in entries}
    if "beam" in entries:
        _choice(path, entries, "beam", BEAMS)
    if "middle_row" in entries:
        fields["middle_row"] = _number(path, entries, "middle_row")
    fields |= {key: _count(path, entries, key, 1) for key in ("columns", "rows") if key in entries}
    flags = {key: _flag(path, entries, key) if key in entries else getattr(base, key) for key in _FLAGS}
    layout = {key: place_of(entries[key], path.parent, key) for key in _PLACES if key in entries}
    if "angles" in entries and _is_place(entries["angles"]):
        layout["angles"] = place_of(entries["angles"], path.parent, "angles")
    elif "angles" in entries:
        angles = checked_angles(radians(_angles(path, entries["angles"])), f"'{path}'")
        fields["angles"] = -angles if flags["clockwise"] else angles
    if "axis_column" in entries:
        search = entries["axis_column"] == "search"
        fields["axis_column"] = "search" if search else _number(path, entries, "axis_column")
    return Sidecar(
        fields=fields,
        facts=dict(base.facts) | {key: str(entries[key]) for key in _FACTS if key in entries},
        values=_choice(path, entries, "values", VALUES) if "values" in entries else base.values,
        scale=_scale(path, entries) if "scale" in entries else base.scale,
        clockwise=flags["clockwise"],
        transpose=flags["transpose"],
        reverse_columns=flags["reverse_columns"],
        **{key: _level(path, entries, key) if key in entries else getattr(base, key) for key in _LEVELS},
        air=_choice(path, entries, "air", ("edges",)) if "air" in entries else base.air,
        bad_columns=_columns(path, entries["bad_columns"]) if "bad_columns" in entries else base.bad_columns,
        stack=_choice(path, entries, "stack", ("projections", "sinograms")) if "stack" in entries else base.stack,
        files=str(entries["files"]) if "files" in entries else base.files,
        row=_count(path, entries, "row", 0) if "row" in entries else base.row,
        layout=replace(base.layout, **layout),
        entry=str(entries["entry"]) if "entry" in entries and base.entry is None else base.entry,  # what was typed holds
    )


def treatment(sidecar: Sidecar) -> dict[str, Any]:
    """How values are to be read, without the geometry: plain values to be kept in another file."""
    values = {name: getattr(sidecar, name) for name in _TREATMENT} | {"layout": to_plain(sidecar.layout)}
    return {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in values.items()}


def treated(kept: Mapping[str, Any]) -> Sidecar:
    """The geometry file, without its geometry, that `treatment` took apart."""
    known: dict[str, Any] = {name: kept[name] for name in _TREATMENT if kept.get(name) is not None}
    known |= {name: Path(known[name]) for name in _LEVELS if isinstance(known.get(name), str)}
    return Sidecar(**known, layout=from_plain(kept.get("layout") or {}))


def _number(path: Path, entries: Mapping[Any, Any], key: str) -> float:
    value = entries[key]
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)  # YAML 1.1 takes 2e-1 for text
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise InputError(f"'{key}' in '{path}' must be a number, not {shortened(repr(value), 60)}.")
    return float(value)


_WITH_UNIT = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*((?!e[-+]?\d)[^\d\s.,+-].*)", re.IGNORECASE)


def _length(path: Path, entries: Mapping[Any, Any], key: str) -> float:
    """A length in mm: a number, or a number with a unit."""
    value = entries[key]
    parts = _WITH_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    if parts is None:
        return _number(path, entries, key)
    number, unit = parts.groups()
    size = millimetres(_number(path, {key: number}, key), unit, f"'{key}' in '{path}'")
    if size is None:
        raise InputError(f"'{key}' in '{path}' must be a length in mm, not {shortened(repr(value), 60)}.")
    return size


def _columns(path: Path, value: Any) -> tuple[int, ...]:
    whole = value if isinstance(value, list) else [value]
    return tuple(_count(path, {"bad_columns": each}, "bad_columns", 0) for each in whole)


def _scale(path: Path, entries: Mapping[Any, Any]) -> float:
    if _number(path, entries, "scale") == 0:
        raise InputError(f"'scale' in '{path}' is 0, which leaves nothing of the values; give the factor on them.")
    return _number(path, entries, "scale")


def _count(path: Path, entries: Mapping[Any, Any], key: str, least: int) -> int:
    value = _number(path, entries, key) if isinstance(entries[key], str) else entries[key]
    whole = isinstance(value, int | float) and not isinstance(value, bool) and least <= value < _MOST and value == int(value)
    if not whole:
        raise InputError(
            f"'{key}' in '{path}' must be a whole number from {least} to {_MOST:,}, not {shortened(repr(value), 60)}."
        )
    return int(value)


def _flag(path: Path, entries: dict[Any, Any], key: str) -> bool:
    value = entries[key]
    if not isinstance(value, bool):
        raise InputError(f"'{key}' in '{path}' must be true or false, not {shortened(repr(value), 60)}.")
    return value


def _choice(path: Path, entries: dict[Any, Any], key: str, choices: tuple[str, ...]) -> str:
    given = entries[key]
    named = " ".join(given.lower().split()) if isinstance(given, str) else given
    if key == "values" and isinstance(named, str):
        named = _AS_SHOWN.get(named, named)
    if named not in choices:
        hint = "; a cone is a fan, with its two distances" if named == "cone" else ""
        raise InputError(f"'{key}' in '{path}' must be one of {', '.join(choices)}, not {shortened(repr(given), 60)}{hint}.")
    return named


def _is_place(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and "path" in value)


def _angles(path: Path, value: Any) -> NDArray:
    """Degrees: a list, or where they begin, how far apart they are and how many."""
    if isinstance(value, dict) and value.keys() == {"first", "step", "count"}:
        first, step = (_number(path, value, name) for name in ("first", "step"))
        return first + step * np.arange(_count(path, value, "count", 1))
    if isinstance(value, list) and value and not any(isinstance(angle, dict | list) for angle in value):
        return np.array([_number(path, {"angles": angle}, "angles") for angle in value])
    raise InputError(f"'angles' in '{path}' must be a list of degrees or {{first: 0, step: 1, count: 180}}.")


def _level(path: Path, entries: dict[Any, Any], key: str) -> Path | float | None:
    value = entries.get(key)
    if value is None:
        return None
    if isinstance(value, str) and ((path.parent / value).exists() or not _NUMBER.fullmatch(value.strip())):
        return path.parent / value
    return _number(path, entries, key)


_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
