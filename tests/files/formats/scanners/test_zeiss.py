import struct
import sys

import numpy as np
import pytest
from scanned import DISCS, mirrored, misfit, turned_sample
from scans import assert_converted

from ctuq.errors import BackendError, InputError
from ctuq.files import describe, read, read_volume
from ctuq.tomo.geometry import FanBeam, ParallelBeam
from experiments.fuzz.compound import write_compound

pytest.importorskip("olefile")

VIEWS, ROWS, COLUMNS, BEAM = 30, 3, 80, 20000.0
TO_AXIS, BEYOND, VOXEL = 60.0, 90.0, 320.0


def _projections(axis=0.0, cone=True):
    """The sample turns counter-clockwise, columns run to the right as seen from the source; the axis may be aside of it."""
    pitch = VOXEL / 1e3 * ((TO_AXIS + BEYOND) / TO_AXIS if cone else 1)
    across = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * pitch - axis
    pixels = np.stack([across, np.full(COLUMNS, BEYOND)], axis=1)
    return turned_sample(DISCS, -10 + 12.0 * np.arange(VIEWS), (-axis, -TO_AXIS) if cone else None, pixels)


def _write(path, projections, dtype=10, **changed):
    kind = {5: "<u2", 10: "<f4"}[dtype]
    flat = np.linspace(0.8, 1.2, COLUMNS) * BEAM
    counts = np.full((VIEWS, ROWS, COLUMNS), BEAM)
    counts[:] = flat
    counts[:, ROWS // 2] = flat * np.exp(-projections)
    numbers = {
        "ImageInfo/NoOfImages": struct.pack("<i", VIEWS),
        "ImageInfo/ImagesTaken": struct.pack("<i", VIEWS),
        "ImageInfo/ImageWidth": struct.pack("<i", COLUMNS),
        "ImageInfo/ImageHeight": struct.pack("<i", ROWS),
        "ImageInfo/DataType": struct.pack("<i", dtype),
        "ImageInfo/AcquisitionMode": struct.pack("<i", 0),
        "ImageInfo/XrayGeometry": struct.pack("<i", 1),
        "ImageInfo/PixelSize": struct.pack("<f", VOXEL),
        "ImageInfo/Angles": (-10 + 12.0 * np.arange(VIEWS)).astype("<f4").tobytes(),
        "ImageInfo/StoRADistance": np.full(VIEWS, -TO_AXIS, "<f4").tobytes(),
        "ImageInfo/DtoRADistance": np.full(VIEWS, BEYOND, "<f4").tobytes(),
        "ReferenceData/Image": np.tile(flat, (ROWS, 1)).astype("<f4").tobytes(),
        "ReferenceData/DataType": struct.pack("<i", 10),
        "SampleInfo/SampleID": b"Zahn\0\0\0",
    } | changed
    numbers |= {f"ImageData{n // 100 + 1}/Image{n + 1}": counts[n].astype(kind).tobytes() for n in range(VIEWS)}
    return write_compound(path, {name: data for name, data in numbers.items() if data is not None})


@pytest.mark.parametrize("dtype", [5, 10])
def test_an_off_centre_object_lies_where_the_scanner_had_it(tmp_path, dtype):
    scan = read(_write(tmp_path / "a.txrm", _projections(), dtype), axis_column=(COLUMNS - 1) / 2)
    assert misfit(scan) < 1e-3 and misfit(scan, mirrored()) > 0.05
    assert isinstance(scan.geometry, FanBeam) and scan.geometry.source_to_axis == pytest.approx(TO_AXIS)
    assert scan.geometry.source_to_detector == pytest.approx(TO_AXIS + BEYOND)
    assert scan.geometry.pixel == pytest.approx(VOXEL / 1e3 * 2.5) and scan.provenance.facts["sample"] == "Zahn"


def test_content_tells_under_another_name_and_the_axis_is_searched(tmp_path):
    scan = read(_write(tmp_path / "SCAN.TXRM.bak", _projections(axis=0.5)))
    assert misfit(scan) < 0.03 and any("axis was found" in text for text in scan.warnings)


def test_other_optics_are_a_parallel_beam(tmp_path):
    path = _write(tmp_path / "a.txrm", _projections(cone=False), **{"ImageInfo/XrayGeometry": struct.pack("<i", 2)})
    scan = read(path, axis_column=(COLUMNS - 1) / 2)
    assert isinstance(scan.geometry, ParallelBeam) and scan.geometry.pixel == pytest.approx(0.32) and misfit(scan) < 1e-3


def test_views_are_moved_by_the_alignment_of_the_file(tmp_path):
    moved, shifts = _projections(), np.resize([0.0, 2.0, -3.0], VIEWS)
    moved = np.stack([np.roll(view, -int(by)) for view, by in zip(moved, shifts, strict=True)])
    path = _write(tmp_path / "a.txrm", moved, **{"Alignment/X-Shifts": shifts.astype("<f4").tobytes()})
    scan = read(path, axis_column=(COLUMNS - 1) / 2)
    assert misfit(scan) < 0.05 < misfit(read(_write(tmp_path / "b.txrm", moved), axis_column=(COLUMNS - 1) / 2))
    assert any("3.00 columns at most" in text for text in scan.warnings)


def test_the_flat_stays_with_the_detector_where_views_are_moved(tmp_path):
    shifts = np.resize([0.0, 2.0, -3.0], VIEWS)
    moved = np.stack([np.roll(view, -int(by)) for view, by in zip(_projections(), shifts, strict=True)])
    path = _write(tmp_path / "a.txrm", moved, **{"Alignment/X-Shifts": shifts.astype("<f4").tobytes()})
    scan = read(path, axis_column=(COLUMNS - 1) / 2)
    at_rest = read(_write(tmp_path / "b.txrm", _projections()), axis_column=(COLUMNS - 1) / 2)
    # It is a ramp, of which 3 columns are 1.5 %.
    np.testing.assert_allclose(scan.projections[:, 4:-4], at_rest.projections[:, 4:-4], atol=1e-4)


def test_rows_are_from_below_and_moved_by_whole_ones(tmp_path):
    shifts = np.resize([0.0, 1.2], VIEWS).astype("<f4")
    path = _write(tmp_path / "a.txrm", _projections(), **{"Alignment/Y-Shifts": shifts.tobytes()})
    scan = read_volume(path, axis_column=(COLUMNS - 1) / 2)
    assert scan.weights is not None
    shows = scan.projections.max(axis=2) > 0.1
    # Stored in the middle row of three; every second view is moved by one towards higher rows, and its first was not measured.
    np.testing.assert_array_equal(shows[1, ::2], True)
    np.testing.assert_array_equal(shows[2, 1::2], True)
    np.testing.assert_array_equal(scan.weights[0].max(axis=1) > 0, np.resize([True, False], VIEWS))
    assert any("1 whole row," in text for text in scan.warnings) and not any("from above" in text for text in scan.warnings)


def test_its_rows_are_converted_right_way_up(tmp_path):
    shifts = np.resize([0.0, 1.2], VIEWS).astype("<f4")
    assert_converted(_write(tmp_path / "a.txrm", _projections(), **{"Alignment/Y-Shifts": shifts.tobytes()}), tmp_path / "a.nx")


def test_an_interrupted_scan_is_read_as_far_as_it_went(tmp_path):
    path = _write(tmp_path / "a.txrm", _projections(), **{"ImageInfo/ImagesTaken": struct.pack("<i", 20)})
    scan = read(path, axis_column=(COLUMNS - 1) / 2)
    assert scan.n_angles == 20 and misfit(scan) < 1e-3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ImageInfo/AcquisitionMode": struct.pack("<i", 1)}, "slices of a reconstruction"),
        ({"ImageInfo/NoOfImages": struct.pack("<i", 1)}, "holds 1 picture, no scan"),
        ({"ImageInfo/ImageWidth": struct.pack("<i", 2_000_000_000)}, "2000000000.0 for 'ImageWidth'"),
        ({"ImageInfo/ImageHeight": struct.pack("<i", 5)}, "shorter than its 5 rows"),
        ({"ImageInfo/DataType": struct.pack("<i", 7)}, "data type 7"),
        ({"ImageInfo/Angles": b"\0" * 8}, "30 projections but 2 angles"),
        ({"ImageInfo/PixelSize": None}, "pixel size"),
        ({"ImageInfo/StoRADistance": None}, "does not say its distances"),
        ({"ReferenceData/Image": None}, "no flats"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changed, words):
    with pytest.raises(InputError, match=words):
        read(_write(tmp_path / "a.txrm", _projections(), **changed))


def test_that_flats_are_missing_is_said_before_a_reconstruction(tmp_path):
    path = _write(tmp_path / "a.txrm", _projections(), **{"ReferenceData/Image": None})
    assert describe(path)[0].missing == ("flat",)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    path = _write(tmp_path / "a.txrm", _projections())
    monkeypatch.setitem(sys.modules, "olefile", None)
    with pytest.raises(BackendError, match=r"pip install 'ctuq\[readers\]'"):
        read(path)
