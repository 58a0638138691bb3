import numpy as np
import pytest
import tifffile
from scanned import DISCS, mirrored, misfit, turned_sample

from ctuq.errors import InputError
from ctuq.files import describe, read
from ctuq.tomo.geometry import FanBeam

VIEWS, ROWS, COLUMNS, PIXEL, WHITE = 24, 5, 80, 0.8, 60000
TO_AXIS, TO_DETECTOR = 80.0, 200.0


def _lines(**changed):
    keys = {
        "Name": "Stein 1",
        "Projections": VIEWS,
        "WhiteLevel": WHITE,
        "DetectorPixelsX": COLUMNS,
        "DetectorPixelsY": ROWS,
        "DetectorPixelSizeX": PIXEL,
        "DetectorPixelSizeY": PIXEL,
        "SrcToObject": TO_AXIS,
        "SrcToDetector": TO_DETECTOR,
        "InitialAngle": 20,
        "AngularStep": 15,
        "DetectorOffsetX": 1.7,
        "ObjectOffsetX": -0.6,
    } | changed
    return "[XTekCT]\n" + "".join(f"{key}={value}\n" for key, value in keys.items() if value is not None)


def _projections(detector_offset=1.7, axis_offset=-0.6, step=15.0, first=20.0):
    """In CIL's axes, about the axis: the sample turns clockwise, columns run to the left, the offsets are towards -x."""
    left = np.arange(COLUMNS) - (COLUMNS - 1) / 2
    pixels = np.stack([-left * PIXEL - detector_offset + axis_offset, np.full(COLUMNS, TO_DETECTOR - TO_AXIS)], axis=1)
    source = (axis_offset, -TO_AXIS)
    return turned_sample(DISCS, -(first + step * np.arange(VIEWS)), source, pixels)


def _write(folder, projections, text, name="Stein 1_{:04d}.tif", row=ROWS // 2):
    folder.mkdir(exist_ok=True)
    counts = np.full((len(projections), ROWS, COLUMNS), WHITE, np.uint16)
    counts[:, row] = np.round(WHITE * np.exp(-projections))
    for number, picture in enumerate(counts):
        tifffile.imwrite(folder / name.format(number + 1), picture)
    path = folder / "Stein 1.xtekct"
    path.write_text(text)
    return path


@pytest.mark.parametrize("which", ["file", "folder"])
def test_an_off_centre_object_lies_where_the_scanner_had_it(tmp_path, which):
    path = _write(tmp_path / "scan", _projections(), _lines())
    scan = read(path if which == "file" else path.parent)
    # Columns as the pictures have them: the object is seen from below.
    assert misfit(scan, mirrored()) < 1e-3 and misfit(scan) > 0.05
    assert isinstance(scan.geometry, FanBeam) and scan.geometry.source_to_axis == TO_AXIS
    assert scan.geometry.detector_offset == 1.7 and scan.geometry.axis_offset == -0.6
    assert scan.weights is not None and scan.provenance.facts["sample"] == "Stein 1"


def test_offsets_of_zero_are_no_offsets_and_the_axis_is_searched(tmp_path):
    path = _write(tmp_path / "scan", _projections(0.0, 0.9), _lines(DetectorOffsetX=0, ObjectOffsetX=0))
    scan = read(path)
    assert misfit(scan, mirrored()) < 0.03 and any("axis was found" in text for text in scan.warnings)


def test_older_files_give_the_axis_at_the_detector(tmp_path):
    offset = -0.6 * TO_DETECTOR / TO_AXIS
    text = _lines(ObjectOffsetX=None, CentreOfRotationTop=offset - 0.1, CentreOfRotationBottom=offset + 0.1)
    assert misfit(read(_write(tmp_path / "scan", _projections(), text)), mirrored()) < 1e-3


def test_comma_decimals_other_case_other_encoding_and_a_windows_folder_are_read(tmp_path):
    text = _lines(InputFolderName="D:\\Messung\\Proj\\", DetectorPixelSizeX="0,8", DetectorOffsetX="1,7", ObjectOffsetX="-0,6")
    path = _write(tmp_path / "Proj", _projections(), "", "STEIN 1_{:04d}.TIF")
    path.unlink()
    (tmp_path / "Messung.XTEKCT").write_bytes(text.upper().replace("=", " = ").encode("utf-16"))
    assert misfit(read(tmp_path), mirrored()) < 1e-3


def test_the_row_is_that_of_the_plane_through_the_source(tmp_path):
    path = _write(tmp_path / "scan", _projections(), _lines(DetectorOffsetY=PIXEL), row=3)
    scan = read(path)
    assert misfit(scan, mirrored()) < 1e-3 and any("row 3 of 5" in step for step in scan.provenance.steps)
    steep = read(_write(tmp_path / "scan", _projections(), _lines(DetectorPixelSizeY=40), row=0), row=0)
    assert any("out of the middle plane" in text for text in steep.warnings)


def test_a_missing_picture_keeps_the_other_angles_and_is_told(tmp_path):
    path = _write(tmp_path / "scan", _projections(), _lines())
    (path.parent / "Stein 1_0007.tif").unlink()
    scan = read(path)
    assert scan.n_angles == VIEWS - 1 and misfit(scan, mirrored()) < 1e-3
    assert any("1 of 24 projections are missing (number 7)" in text for text in scan.warnings)


def test_pictures_of_other_kinds_in_the_folder_are_no_views(tmp_path):
    path = _write(tmp_path / "scan", _projections(), _lines())
    tifffile.imwrite(path.parent / "slice_0001.tif", np.zeros((9, 9), np.uint8))
    assert read(path).n_angles == VIEWS
    (path.parent / "geometry.yaml").write_text("clockwise: true\nrow: 2\nflat: 30000\n")
    scan = read(path.parent)
    assert scan.geometry.angles[1] > scan.geometry.angles[0]
    assert np.isclose(scan.projections.min(), np.log(30000 / WHITE), atol=1e-3)


def test_pictures_beyond_the_projections_and_divided_before_are_told(tmp_path):
    path = _write(tmp_path / "scan", _projections(), _lines(Projections=20))
    scan = read(path)
    assert scan.n_angles == 20 and any("4 pictures beyond the 20 projections" in text for text in scan.warnings)
    for picture in path.parent.glob("*.tif"):
        tifffile.imwrite(picture, tifffile.imread(picture).astype(np.float32) / WHITE)
    scan = read(path)
    assert misfit(scan, mirrored()) < 1e-3 and any("taken as transmission" in text for text in scan.warnings)


def test_a_tilted_axis_is_told(tmp_path):
    assert any(
        "tilted by 0.50°" in text for text in read(_write(tmp_path / "s", _projections(), _lines(ObjectTilt=0.5))).warnings
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SrcToObject": None}, "lacks 'srctoobject'"),
        ({"DetectorPixelSizeX": "big"}, "must be a number, not 'big'"),
        ({"SrcToDetector": -3}, "says -3"),
        ({"DetectorPixelsX": 160}, "binned or cropped"),
        ({"Projections": 0}, "says 0 for 'projections'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changed, words):
    path = _write(tmp_path / "scan", _projections(), _lines(**changed))
    with pytest.raises(InputError, match=words):
        read(path)


def test_a_file_without_its_pictures_and_two_files_are_refused(tmp_path):
    path = tmp_path / "scan.xtekct"
    path.write_text(_lines())
    with pytest.raises(InputError, match=r"Stein 1.*has none"):
        read(path)
    (tmp_path / "other.xtekct").write_text(_lines())
    with pytest.raises(InputError, match=r"2 \.xtekct files"):
        read(tmp_path)


def test_without_a_white_level_a_flat_is_asked_for(tmp_path):
    path = _write(tmp_path / "scan", _projections(), _lines(WhiteLevel=None))
    assert "6e+04" in describe(path)[0].values
    with pytest.raises(InputError, match="flat"):
        read(path)
