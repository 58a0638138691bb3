"""The cone-beam collection of 42 walnuts (Der Sarkissian et al., Scientific Data 6, 215, 2019): one orbit of one walnut.

A folder ``tubeV1``, ``tubeV2`` or ``tubeV3`` holds ``scan_000000.tif`` to ``scan_001200.tif``, dark and open pictures
``di*.tif`` and ``io*.tif``, and a table of 12 numbers a view in ``scan_geom_corrected.geom``: source, detector's centre, step
along columns, step along rows; (x, y, z), mm. The facts are those of the scripts that came with the collection: the detector
was mounted upright, so that its columns are the pictures' rows, from the last to the first, and the table's first view is the
last picture. The last view of the full turn is the first one again, and is left out.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.cone import fan_row
from ctuq.files.formats.raw import Raw
from ctuq.files.formats.scanners.series import left_out, numbered, once, picture_columns, picture_shape
from ctuq.files.formats.sidefile import beside

SUFFIX = ".geom"
_PICTURES = (".tif", ".tiff")
_CORRECTED = "corrected"
_FEWEST, _WORTH_TELLING, _LARGEST = 3, 0.1, 1 << 25


def is_walnut(path: Path) -> bool:
    """Whether a folder, or a table of vectors in one, is such a scan."""
    if path.is_dir():
        return bool(beside(path, SUFFIX))
    return path.suffix.lower() == SUFFIX


def read_walnut(path: Path, row: int | None) -> Raw:
    """Read an orbit, as a fan the detector row in the plane through the source.

    Raises
    ------
    InputError
        If the table is no such table, or pictures are missing, damaged or of several sizes.
    """
    source, others = _table_file(path)
    table = once(("table", source), lambda: _table(source))
    files = numbered(source.parent, "scan", _PICTURES, source)
    last = max(files)
    if last + 1 != len(table):
        raise InputError(
            f"'{source}' has {len(table)} views, but the pictures beside it are numbered up to {last}; are some of the other's?"
        )
    views = len(table) - _closes(table)
    places = [view for view in range(views) if last - view in files]
    if not places:
        raise InputError(f"'{source}' has no picture of any of its {views} views beside it; copy them.")
    table, kept = table[places], [files[last - view] for view in places]
    height, width = picture_shape(kept[0])
    shape = width, height
    turned = _runs_left(table)
    table = _turned(table) if turned else table
    circle, off = _circle(table)
    plane = (shape[0] - 1) / 2 + float(np.mean((table[:, 2] - table[:, 5]) / table[:, 11]))
    slope = float(np.abs(table[:, 11]).mean()) / float(str(circle["source_to_detector"]))
    row, warnings = fan_row(shape[0], row, plane, slope, str(path))
    step = -1 if turned else 1

    def columns(pictures: list[Path]) -> NDArray:
        # From the last of the pictures' rows to the first.
        return picture_columns(pictures, row, (height, width))[:, ::-1][:, ::step]

    flats, darks = (sorted(source.parent.glob(f"{name}[0-9]*.tif*")) for name in ("io", "di"))
    fields: dict[str, object] = {
        "kind": "fan",
        **circle,
        "middle_row": plane,
        "row_pixel": float(np.abs(table[:, 11]).mean()),
        "rows_upwards": bool(table[0, 11] > 0),
    }
    told = {
        left_out([last - number for number in files], views): True,
        f"The table of vectors is '{source.name}'; {', '.join(other.name for other in others)} beside it is not read.": others,
        f"The vectors differ from a circle by up to {off:.2g} columns, which a slice leaves out; --volume keeps them.": (
            off > _WORTH_TELLING
        ),
    }
    raw = Raw(
        "walnut collection",
        columns(kept),
        "counts",
        fields,
        flats=columns(flats) if flats else None,
        darks=columns(darks) if darks else None,
        row=row,
        rows=shape[0],
        facts={"instrument": "FleX-ray, CWI Amsterdam", "citation": "Der Sarkissian et al., Scientific Data 6, 215 (2019)"},
        stated=True,
        vectors=table,
    )
    return raw.warned(*warnings, *(text for text, holds in told.items() if text and holds))


def _table_file(path: Path) -> tuple[Path, list[Path]]:
    """The table to read, the corrected one of a folder, and the others."""
    if not path.is_dir():
        return path, []
    found = beside(path, SUFFIX)
    best = [file for file in found if _CORRECTED in file.stem.lower()] or found
    if len(best) != 1:
        raise InputError(
            f"'{path}' holds {len(best)} tables ({', '.join(file.name for file in best[:5])}); name the one to read."
        )
    return best[0], [file for file in found if file != best[0]]


def _table(path: Path) -> NDArray[np.float64]:
    """Vectors of all views, (view, 12)."""
    if path.stat().st_size > _LARGEST:
        raise InputError(f"'{path}' is {path.stat().st_size >> 20} MiB, too large for a table of vectors; check the name.")
    try:
        table = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (ValueError, OSError) as error:
        raise InputError(f"'{path}' is no table of 12 numbers a view; copy it again.") from error
    if table.ndim != 2 or table.shape[1] != 12 or len(table) < 2 or not np.isfinite(table).all():
        raise InputError(f"'{path}' is a table of the shape {table.shape}, not of 12 finite numbers for each of several views.")
    upright = np.hypot(table[:, 9], table[:, 10]) < 0.1 * np.abs(table[:, 11])
    if not upright.all() or not (np.sign(table[:, 11]) == np.sign(table[0, 11])).all():
        raise InputError(f"The rows of the detector of '{path}' do not run along z; only scans about an upright axis are read.")
    return table


def _closes(table: NDArray[np.float64]) -> bool:
    """Whether the last view is the first again: nearer to it than half a step."""
    turns = np.exp(1j * np.arctan2(table[:, 7], table[:, 6]))
    step = float(np.median(np.abs(np.diff(turns))))
    return len(table) > _FEWEST and abs(turns[-1] - turns[0]) < step / 2


def _runs_left(table: NDArray[np.float64]) -> bool:
    """Whether columns run from right to left as seen with z up and the rays going away; ctuq has them the other way."""
    right = np.stack([table[:, 7], -table[:, 6]], axis=1)
    return bool(np.mean((table[:, 0:2] * right).sum(1)) < 0)


def _turned(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vectors with columns the other way."""
    return np.concatenate([table[:, :6], -table[:, 6:9], table[:, 9:]], axis=1)


def _circle(table: NDArray[np.float64]) -> tuple[dict[str, object], float]:
    """The fan of the mean distances, and how far the vectors are off it, in columns."""
    pitch = np.hypot(table[:, 6], table[:, 7])
    across = table[:, 6:8] / pitch[:, None]
    along = np.stack([-across[:, 1], across[:, 0]], axis=1)
    parts = {
        "source": (table[:, 0:2] * along).sum(1),
        "axis": (table[:, 0:2] * across).sum(1),
        "far": (table[:, 3:5] * along).sum(1),
        "centre": (table[:, 3:5] * across).sum(1),
    }
    mean = {name: float(values.mean()) for name, values in parts.items()}
    pixel = float(pitch.mean())
    off = max(float(np.abs(parts[name] - mean[name]).max()) for name in ("axis", "centre")) / pixel
    fields: dict[str, object] = {
        "angles": np.unwrap(np.arctan2(across[:, 1], across[:, 0])),
        "pixel": pixel,
        "source_to_axis": -mean["source"],
        "source_to_detector": mean["far"] - mean["source"],
        # Of a circle about the axis they are 0, but for rounding.
        "axis_offset": round(-mean["axis"] / pixel, 9) * pixel + 0.0,
        "detector_offset": round((mean["centre"] - mean["axis"]) / pixel, 9) * pixel + 0.0,
    }
    return fields, off
