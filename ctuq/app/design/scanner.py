"""The scanner of a session, as its geometry file tells it."""

from pathlib import Path
from typing import Any

import numpy as np

from ctuq.app.typed import grid
from ctuq.errors import InputError
from ctuq.files.assemble import build_geometry
from ctuq.files.formats.raw import Raw
from ctuq.files.sidecar import read_sidecar, treatment
from ctuq.tomo.geometry import Geometry

# Whole degrees, as stages count. Rays at exactly 0 and 90 degrees run along the pixels, where the model promises 1.28 times the
# information of its neighbours and an object holds no more: whoever can, takes 0.5:180:1 (docs/angle_design.md).
_DEFAULTS = {"parallel": "0:180:1", "fan": "0:360:1"}


def scanner(path: Path, columns: int | None, candidates: str | None) -> tuple[Geometry, dict[str, Any]]:
    """The geometry at all candidate angles, and how the scanner's files are to be read.

    Parameters
    ----------
    path : Path
        The geometry file.
    columns : int, optional
        Of the detector, where the file does not say it.
    candidates : str, optional
        ``first:stop:step`` in degrees; the file's angles by default.

    Raises
    ------
    InputError
        If a part is missing or makes no sense.
    """
    sidecar = read_sidecar(path)
    told = dict(sidecar.fields)
    width = columns if columns is not None else told.get("columns")
    if not isinstance(width, int) or width < 1:
        raise InputError(f"'{path}' does not say how wide the detector is; add a line such as 'columns: 512', or --columns.")
    if told.get("axis_column") == "search":
        raise InputError(f"'{path}' leaves the rotation axis to be searched; before there are projections it must be a number.")
    if candidates is not None or "angles" not in told:
        turn = -1 if sidecar.clockwise else 1
        told["angles"] = turn * grid(candidates or _DEFAULTS[str(told.get("kind", "parallel"))])
    angles = np.asarray(told["angles"])
    geometry = build_geometry(Raw("geometry file", np.zeros((len(angles), width)), "log", told), str(path))
    return geometry, treatment(sidecar)
