"""The geometry of a volume's scan, from that of one row and what a file tells of rows and turns."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.raw import TURNS, Raw
from ctuq.tomo.footprint import volume_grid
from ctuq.tomo.geometry import FanBeam, VolumeGrid
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D

_VOXELS = 128


def in_space(beam: Any, raw: Raw, rows: int, upwards: bool) -> ConeBeam | Parallel3D:
    """The geometry of all rows: the middle row's beam, with what the file says of rows and turns.

    Raises
    ------
    InputError
        If it says a turn that such a beam does not have, another number of rows, or a middle row far beside them.
    """
    if raw.fields.get("rows", rows) != rows:
        raise InputError(f"The geometry says {raw.fields['rows']} detector rows, but the data have {rows}; check both.")
    pitch = raw.fields.get("row_pixel")
    row_pixel = float(pitch) if isinstance(pitch, int | float) else beam.pixel
    at = raw.fields.get("middle_row")
    middle = float(at) if isinstance(at, int | float) else (rows - 1) / 2
    if not -rows <= middle < 2 * rows:
        raise InputError(
            f"The 'middle_row', {middle:g}, lies more than the detector's {rows} rows beside it, so far that no ray shows an "
            f"object there; it is counted as rows are stored, from 0 to {rows - 1}."
        )
    offset = ((rows - 1) / 2 - middle) * row_pixel * (1 if upwards else -1) + 0.0  # no -0
    turns = {key: float(str(raw.fields[key])) for key in TURNS if key in raw.fields}
    shared: dict[str, Any] = {
        "angles": beam.angles,
        "rows": rows,
        "columns": beam.columns,
        "pixel": beam.pixel,
        "row_pixel": row_pixel,
        "detector_offset": beam.detector_offset,
        "axis_offset": beam.axis_offset,
        "row_offset": offset,
    }
    is_fan = isinstance(beam, FanBeam)
    foreign = [key for key in turns if key in (("axis_tilt",) if is_fan else ("tilt", "yaw")) and turns[key]]
    if foreign:
        kind = "cone" if is_fan else "parallel"
        raise InputError(f"'{foreign[0]}' is not known of a {kind} beam; leave it out of the geometry file.")
    kept: dict[str, Any] = {
        key: value for key, value in turns.items() if key in ("roll", *(("tilt", "yaw") if is_fan else ("axis_tilt",)))
    }
    if is_fan:
        lengths: dict[str, Any] = {"source_to_axis": beam.source_to_axis, "source_to_detector": beam.source_to_detector}
        return ConeBeam(**shared, **kept, **lengths)
    return Parallel3D(**shared, **kept)


def free_beam(raw: Raw, angles: NDArray, kept: NDArray[np.bool_], upwards: bool) -> FreeBeam:
    """The geometry of vectors that the file has for every view, rows from the lowest."""
    table = np.array(raw.vectors, dtype=np.float64)
    if len(angles) != len(table) or not np.allclose(np.exp(1j * angles), np.exp(1j * np.arctan2(table[:, 7], table[:, 6]))):
        raise InputError("A geometry file changes the views of a scan that has vectors for each; leave its angles out.")
    if not upwards:
        table[:, 9:] *= -1
    return FreeBeam(table=table[kept], rows=raw.rows, columns=raw.values.shape[1])


def seen_by(circle: ConeBeam | Parallel3D, height: float) -> VolumeGrid:
    """What a circular scan of the mean distances sees, its source at this height."""
    grid = volume_grid(circle, _VOXELS)
    x, y, z = grid.centre
    return replace(grid, centre=(x, y, z + height))


def assumed(raw: Raw, rows: int, upwards: bool) -> tuple[str, ...]:
    """What is taken where neither the file nor a geometry file says it, one sentence each."""
    told = []
    if raw.fields.get("kind") == "fan" and "middle_row" not in raw.fields:
        told.append(
            f"The plane through the source is taken at the detector's middle row, {(rows - 1) / 2:g}, as nothing says where it "
            "is; give 'middle_row' in a geometry file."
        )
    if not upwards:
        told.append("Rows are taken as stored from above, as pictures are: slice 0 of the volume is the lowest.")
    return tuple(told)
