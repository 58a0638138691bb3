"""The scanner of a session, as its geometry file tells it."""

from pathlib import Path
from typing import Any

import numpy as np

from ctuq.app.typed import grid
from ctuq.design.session.scanner import Beam
from ctuq.errors import InputError
from ctuq.files.assemble import build_geometry
from ctuq.files.formats.raw import Raw
from ctuq.files.sidecar import read_sidecar, treatment
from ctuq.files.volumes import in_space

# Whole degrees, as stages count. Rays at exactly 0 and 90 degrees run along the pixels, where the model promises 1.28 times the
# information of its neighbours and an object holds no more: whoever can, takes 0.5:180:1 (docs/angle_design.md).
_DEFAULTS = {"parallel": "0:180:1", "fan": "0:360:1"}
# Of an area detector fewer: the rays of all candidates are held at once.
_AREA = {"parallel": "1.25:180:2.5", "fan": "2.5:360:5"}


def scanner(path: Path, columns: int | None, candidates: str | None) -> tuple[Beam, dict[str, Any]]:
    """The geometry at all candidate angles, and how the scanner's files are to be read.

    Parameters
    ----------
    path : Path
        The geometry file.
    columns : int, optional
        Of the detector, where the file does not say it. With ``rows`` in the file it is an area detector.
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
    rows = told.get("rows", 1)
    assert isinstance(rows, int)
    if candidates is not None or "angles" not in told:
        turn, usual = -1 if sidecar.clockwise else 1, _DEFAULTS if rows == 1 else _AREA
        told["angles"] = turn * grid(candidates or usual[str(told.get("kind", "parallel"))])
    angles = np.asarray(told["angles"])
    raw = Raw("geometry file", np.zeros((len(angles), width)), "log", told)
    beam = build_geometry(raw, str(path))
    return beam if rows == 1 else in_space(beam, raw, rows, False), treatment(sidecar)
