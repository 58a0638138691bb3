import numpy as np
import pytest
import tifffile
from scanned import DISCS, mirrored, misfit, turned_sample

from ctuq.errors import InputError
from ctuq.files import read
from ctuq.tomo.geometry import ParallelBeam

VIEWS, ROWS, COLUMNS, AIR = 40, 4, 80, 57000
TO_AXIS, TO_CAMERA, VOXEL = 80.0, 200.0, 0.32


def _log(**changed):
    keys = {
        "Scanner": "SkyScan1173",
        "Camera Pixel Size (um)": 50.0,
        "Filename Prefix": "Knochen 12",
        "Number of Files": VIEWS,
        "Number of Rows": ROWS,
        "Number of Columns": COLUMNS,
        "Image Pixel Size (um)": VOXEL * 1000,
        "Object to Source (mm)": TO_AXIS,
        "Camera to Source (mm)": TO_CAMERA,
        "Optical Axis (line)": 2,
        "Depth (bits)": 16,
        "Rotation Step (deg)": 9.0,
        "Flat Field Correction": "ON",
        "Rotation Direction": "CC",
    } | changed
    return "[System]\n" + "[Acquisition]\n".join("".join(f"{k}={v}\n" for k, v in keys.items() if v is not None).split("\t"))


def _projections(source=(0.0, -TO_AXIS), pixel=VOXEL * TO_CAMERA / TO_AXIS):
    """TIGRE's convention: the sample turns clockwise as the angle grows, columns run to the right as seen from the source."""
    across = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * pixel
    return turned_sample(
        DISCS, -9.0 * np.arange(VIEWS), source, np.stack([across, np.full(COLUMNS, TO_CAMERA - TO_AXIS)], axis=1)
    )


def _write(folder, projections, text, row=1, name="Knochen 12{:04d}.tif"):
    folder.mkdir(exist_ok=True)
    counts = np.full((len(projections), ROWS, COLUMNS), AIR, np.uint16)
    counts[:, row] = np.round(AIR * np.exp(-projections))
    for number, picture in enumerate(counts):
        tifffile.imwrite(folder / name.format(number), picture)
    (folder / "Knochen 12.log").write_text(text)
    return folder


@pytest.mark.parametrize("which", ["log", "folder"])
def test_an_off_centre_object_lies_where_the_scanner_had_it(tmp_path, which):
    folder = _write(tmp_path / "scan", _projections(), _log())
    scan = read(folder if which == "folder" else folder / "Knochen 12.log", axis_column=39.5)
    assert misfit(scan) < 1e-3 and misfit(scan, mirrored()) > 0.05
    assert scan.geometry.pixel == pytest.approx(VOXEL * TO_CAMERA / TO_AXIS)
    assert any("57000 is taken, from the detector's edges" in text for text in scan.warnings)
    assert any("row 1 of 4" in step for step in scan.provenance.steps)


def test_the_other_direction_is_negative(tmp_path):
    scan = read(_write(tmp_path / "scan", _projections(), _log(**{"Rotation Direction": "CW"})), axis_column=39.5)
    assert np.allclose(np.rad2deg(scan.geometry.angles), -9.0 * np.arange(VIEWS))


def test_a_far_source_is_a_parallel_beam(tmp_path):
    scan = read(
        _write(tmp_path / "scan", _projections(None, VOXEL), _log(**{"Object to Source (mm)": 100000})), axis_column=39.5
    )
    assert isinstance(scan.geometry, ParallelBeam) and scan.geometry.pixel == pytest.approx(VOXEL) and misfit(scan) < 0.02


def test_comma_decimals_other_case_and_other_files_are_read(tmp_path):
    text = (
        _log(**{"Rotation Step (deg)": "9,000", "Image Pixel Size (um)": "320,0"}).replace("(um)", "(µm)").replace("=", " = ")
    )
    folder = _write(tmp_path / "scan", _projections(), "", name="KNOCHEN 12{:04d}.TIF")
    (folder / "Knochen 12.log").unlink()
    (folder / "KNOCHEN.LOG").write_bytes(text.encode("latin-1"))
    (folder / "Knochen 12_rec.log").write_text(_log())
    (folder / "notes.log").write_text("tea = at 5\n")
    tifffile.imwrite(folder / "Knochen 12_spr.tif", np.zeros((9, 9), np.uint8))
    tifffile.imwrite(folder / f"Knochen 12{VIEWS:04d}.tif", np.zeros((ROWS, COLUMNS), np.uint16))
    scan = read(folder)
    assert scan.n_angles == VIEWS and misfit(scan) < 0.02 and any("axis was found" in text for text in scan.warnings)


def test_a_log_of_another_program_leaves_pictures_as_they_are(tmp_path):
    folder = _write(tmp_path / "scan", _projections(), "Started = 12:00\n")
    (folder / "geometry.yaml").write_text("kind: parallel\nvalues: log\npixel: 1\nangles: {first: 0, step: 9, count: 40}\n")
    assert read(folder, axis_column=39.5).geometry.pixel == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"Camera to Source (mm)": None}, "lacks 'camera to source"),
        ({"Rotation Step (deg)": None}, "lacks 'rotation step"),
        ({"Number of Columns": 2240}, "binned or cropped"),
        ({"Flat Field Correction": "OFF"}, "flat"),
        ({"Number of Files": -1}, "correct 'Number of Files'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changed, words):
    with pytest.raises(InputError, match=words):
        read(_write(tmp_path / "scan", _projections(), _log(**changed)))
