"""Nikon (X-Tek) scans: an ``.xtekct`` file with the TIFF pictures of a cone beam, of which the mid-plane row is read.

The facts are those of the Core Imaging Library's ``NikonDataReader``, and of TIGRE's ``NikonDataLoader``, which agree. In the
first one's axes (x to the right as seen from the source, y along the beam, z up) the pictures' columns run towards -x, the
angles of source and detector are ``-InitialAngle - i AngularStep`` about +z by its sense (the sample turns clockwise), the
detector's centre is at ``-DetectorOffsetX`` and the axis at ``-ObjectOffsetX``. Here the columns stay as the pictures have
them, so that ``axis_column`` is a column of the pictures: x is turned over, and with it z, which then runs down as the
pictures' rows do. Both offsets become positive towards higher columns, and the angles stay negative. CIL adds half a turn;
without it, and with ctuq's rows from the largest y down, the array of the image is that of CIL's own slice. The ``.ang`` and
``_ctdata.txt`` files are not read: CIL found them wrong. The scanner has corrected the pictures: black is 0.
"""

from pathlib import Path

import numpy as np

from ctuq.errors import InputError
from ctuq.files.formats.cone import fan_row, tilted
from ctuq.files.formats.raw import Raw
from ctuq.files.formats.scanners.series import left_out, numbered, picture_rows, picture_shape
from ctuq.files.formats.sidefile import SideFile, beside, decoded, last_name, read_sidefile, the_one

SUFFIX = ".xtekct"
_PICTURES = (".tif", ".tiff")
_TILTED, _START, _DIVIDED = 0.1, 4096, 10.0


def is_xtekct(path: Path) -> bool:
    """Whether a file is such a side file, by its first section or its name."""
    with path.open("rb") as file:
        return path.suffix.lower() == SUFFIX or "[xtekct]" in decoded(file.read(_START)).lower()


def read_nikon(path: Path, row: int | None) -> Raw:
    """Read the scan of an ``.xtekct`` file, or of the only one in a folder.

    Raises
    ------
    InputError
        If a length is missing, or pictures are missing, damaged or of another size than the file says.
    """
    settings = read_sidefile(the_one(path, beside(path, SUFFIX) if path.is_dir() else [], SUFFIX))
    views = round(settings.needed("projections"))
    files = numbered(_folder(settings), settings.text("name") or settings.path.stem, _PICTURES, settings.path)
    pitch, pitch_y = settings.needed("detectorpixelsizex"), settings.number("detectorpixelsizey")
    beyond = settings.needed("srctodetector")
    shape = _shape(settings, next(iter(files.values())))
    # CIL's z of a row, upwards from the detector's centre, is 0 where the plane through the source meets it.
    plane = (shape[0] - 1) / 2 + (settings.number("detectoroffsety") or 0.0) / (pitch_y or pitch)
    row, warnings = fan_row(shape[0], row, plane, (pitch_y or pitch) / beyond, str(path))
    base = 0 if 0 in files else 1
    kept = {number: file for number, file in files.items() if base <= number < base + views}
    if not kept:
        raise InputError(f"'{settings.path}' has {views} projections, but no picture is numbered so; check 'Projections'.")
    angles = (settings.number("initialangle") or 0.0) + (np.array(list(kept)) - base) * _step(settings, views)
    fields: dict[str, object] = {
        "kind": "fan",
        "angles": -np.deg2rad(angles),
        "pixel": pitch,
        "source_to_axis": settings.needed("srctoobject"),
        "source_to_detector": beyond,
        **_offsets(settings),
        "middle_row": plane,
        "row_pixel": pitch_y or pitch,
    }
    white = settings.number("whitelevel")
    values = picture_rows(list(kept.values()), row, shape)
    divided = values.dtype.kind == "f" and float(values.max()) < _DIVIDED
    more = len(files) - len(kept)
    told = {
        f"The pictures reach {values.max():.3g}: they are taken as transmission, divided by the white level before.": divided,
        f"{more} pictures beyond the {views} projections of the file are left out.": more > 0,
        left_out(list(files), views): True,
        _tilt(settings): True,
    }
    raw = Raw(
        "Nikon XTek",
        values,
        "transmission" if divided else "counts",
        fields,
        flats=np.full((1, shape[1]), white) if white and not divided else None,
        darks=np.zeros((1, shape[1])) if white and not divided else None,
        row=row,
        rows=shape[0],
        facts={"sample": settings.text("name"), "instrument": "Nikon X-Tek"},
        stated=bool(white),
    )
    return raw.warned(*warnings, *(text for text, holds in told.items() if text and holds))


def _folder(settings: SideFile) -> Path:
    """Where the pictures are: the folder that the file names, if it is beside it under that name, else the file's own."""
    named, own = last_name(settings.text("inputfoldername")).lower(), settings.path.parent
    return next((part for part in own.iterdir() if part.name.lower() == named and part.is_dir()), own)


def _shape(settings: SideFile, first: Path) -> tuple[int, int]:
    """Rows and columns of the pictures, which must be those of the file: else the pixels are of another size."""
    found = picture_shape(first)
    said = tuple(settings.number(name) for name in ("detectorpixelsy", "detectorpixelsx"))
    if any(value is not None and value != size for value, size in zip(said, found, strict=True)):
        raise InputError(
            f"'{first}' is {found} (rows, columns), but '{settings.path}' says {said}: were the pictures binned or cropped? "
            "Correct the file's pixels, sizes and offsets."
        )
    return found


def _step(settings: SideFile, views: int) -> float:
    return settings.number("angularstep") or 360.0 / views


def _offsets(settings: SideFile) -> dict[str, float]:
    """Offsets of detector and axis, mm; nothing if all are 0, as scanners leave them before a reconstruction finds the axis."""
    detector, axis = settings.number("detectoroffsetx") or 0.0, settings.number("objectoffsetx")
    if axis is None:  # older files: at the detector, for the top and the bottom of the axis
        ends = [settings.number(f"centreofrotation{end}") or 0.0 for end in ("top", "bottom")]
        axis = sum(ends) / 2 * settings.needed("srctoobject") / settings.needed("srctodetector")
    return {"detector_offset": detector, "axis_offset": axis} if detector or axis else {}


def _tilt(settings: SideFile) -> str:
    tilt = max(abs(settings.number(name) or 0.0) for name in ("objecttilt", "objectroll"))
    return tilted(tilt) if tilt > _TILTED else ""
