"""Bruker SkyScan scans: a ``.log`` file with the TIFF pictures of a cone beam, of which the row of the optical axis is read.

The keys are those of the logs that SkyScan scanners write. "Image Pixel Size" is at the object, so the pitch on the detector,
binning included, is that times the magnification. Rotation direction CC (the usual one) is positive with the columns as the
pictures have them, as TIGRE's ``BrukerDataLoader`` takes it; that loader also implies that the optical axis is counted in lines
from the pictures' lower edge. The pictures are corrected (black is 0), but no file says which value is air: it is taken from
the detector's edges. No log says where the rotation axis falls, so it is searched.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.cone import fan_row
from ctuq.files.formats.raw import Raw
from ctuq.files.formats.scanners.series import left_out, numbered, picture_rows, picture_shape
from ctuq.files.formats.sidefile import SideFile, beside, decoded, last_name, read_sidefile, the_one

SUFFIX = ".log"
_PICTURES = (".tif", ".tiff")
_START = 4096
_PARALLEL = 1e4  # mm from the source: SkyScan's own limit beyond which rays are parallel
_EDGE = 32


def is_skyscan_log(path: Path) -> bool:
    """Whether a file is the log of such a scan, by its first lines."""
    with path.open("rb") as file:
        start = decoded(file.read(_START)).lower()
    return "[system]" in start and ("skyscan" in start or "[acquisition]" in start)


def skyscan_logs(folder: Path) -> list[Path]:
    """The logs of scans in a folder; those of reconstructions (``..._rec.log``) are no scans."""
    return [part for part in beside(folder, SUFFIX) if not part.stem.lower().endswith("_rec") and is_skyscan_log(part)]


def read_skyscan(path: Path, row: int | None) -> Raw:
    """Read the scan of a SkyScan log, or of the only one in a folder.

    Raises
    ------
    InputError
        If a length is missing, or pictures are missing, damaged or of one size more.
    """
    settings = read_sidefile(the_one(path, skyscan_logs(path) if path.is_dir() else [], "SkyScan log"))
    step = settings.needed("rotation step (deg)", "rotation step(deg)", "angular step (deg)")
    files = numbered(
        settings.path.parent, last_name(settings.text("filename prefix")) or settings.path.stem, _PICTURES, settings.path
    )
    shape = picture_shape(next(iter(files.values())))
    fields, slope = _lengths(settings, shape)
    line = settings.number("optical axis (line)")
    plane = (shape[0] - 1) / 2 if line is None else shape[0] - 1 - line
    row, warnings = fan_row(shape[0], row, plane, slope, str(path))
    fields["middle_row"] = plane
    kept = _views(settings, files)
    turned = np.deg2rad((np.array(list(kept)) - min(files)) * step)
    fields["angles"] = -turned if _is_clockwise(settings) else turned
    values = picture_rows(list(kept.values()), row, shape)
    corrected = settings.text("flat field correction").upper() != "OFF"
    air = _air(values) if corrected else 0.0
    text = f"No file says which value is air: {air:.5g} is taken, from the detector's edges; give 'flat' if you know it."
    raw = Raw(
        "Bruker SkyScan",
        values,
        "counts",
        fields,
        flats=np.full((1, shape[1]), air) if corrected else None,
        darks=np.zeros((1, shape[1])) if corrected else None,
        row=row,
        rows=shape[0],
        facts={"sample": settings.text("filename prefix"), "instrument": settings.text("scanner")},
    )
    count = round(settings.number("number of files") or 0) or len(files)
    return raw.warned(*warnings, *(text for text in (text if corrected else "", left_out(list(files), count)) if text))


def _lengths(settings: SideFile, shape: tuple[int, int]) -> tuple[dict[str, object], float]:
    """Beam and pixel in mm, and how steeply rays rise from row to row; a source further than 10 m is far away."""
    columns = settings.number("number of columns", "camera columns")
    if columns is not None and columns != shape[1]:
        raise InputError(
            f"The pictures have {shape[1]} columns, but '{settings.path}' says {columns:g}: were they binned or cropped? "
            "Correct the log's columns and pixel size."
        )
    voxel = settings.needed("image pixel size (um)", "pixel size (um)") / 1e3
    to_axis = settings.needed("object to source (mm)")
    if to_axis > _PARALLEL:
        return {"kind": "parallel", "pixel": voxel}, 0.0
    beyond = settings.needed("camera to source (mm)")
    pixel = voxel * beyond / to_axis
    fields: dict[str, object] = {"kind": "fan", "pixel": pixel, "source_to_axis": to_axis, "source_to_detector": beyond}
    return fields, pixel / beyond


def _is_clockwise(settings: SideFile) -> bool:
    """Whether the log says CW; "CC" and "CCW" are counter-clockwise, as is a log without the key."""
    return re.fullmatch(r"CW|C-?W.*|CLOCKWISE", settings.text("rotation direction").upper()) is not None


def _views(settings: SideFile, files: dict[int, Path]) -> dict[int, Path]:
    """The pictures that are views: as many as the log says, from the first one on."""
    count = settings.number("number of files")
    first = min(files)
    chosen = files if not count else {number: file for number, file in files.items() if number < first + count}
    if not chosen:
        raise InputError(
            f"'{settings.path}' says that there are {count:g} files; correct 'Number of Files', or take that line out."
        )
    return chosen


def _air(values: NDArray) -> float:
    """The median of the brighter edge of the detector, over all views."""
    width = max(1, values.shape[1] // _EDGE)
    level = max(float(np.median(values[:, :width])), float(np.median(values[:, -width:])))
    if not level > 0:
        raise InputError("The pictures are black at both edges of the detector; give the value of air as 'flat'.")
    return level
