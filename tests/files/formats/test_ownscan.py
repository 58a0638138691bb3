import h5py
import numpy as np
import pytest
from scans import assert_equal

from ctuq import records
from ctuq.errors import InputError
from ctuq.files import read, write_scan
from ctuq.tomo.axis import axis_column


@pytest.mark.parametrize("which", ["fan_scan", "counted"])
def test_a_written_scan_reads_back_equal(tmp_path, request, which):
    scan = request.getfixturevalue(which)
    write_scan(scan, tmp_path / "scan.h5")
    assert_equal(read(tmp_path / "scan.h5"), scan)


def test_angles_stand_in_degrees_for_other_programs(tmp_path, fan_scan):
    write_scan(fan_scan, tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as file:
        angles = file["geometry/rotation_angle"]
        assert angles.attrs["units"] == "degrees" and np.allclose(angles[()], np.arange(24) * 15.0)
        assert file["geometry/pixel"].attrs["units"] == "mm"


def test_another_axis_column_can_be_given(tmp_path, fan_scan):
    write_scan(fan_scan, tmp_path / "scan.h5")
    assert axis_column(read(tmp_path / "scan.h5", axis_column=18.5).geometry) == pytest.approx(18.5)


def test_a_scan_with_parts_missing_is_refused(tmp_path, fan_scan):
    write_scan(fan_scan, tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5", "a") as file:
        del file["geometry"]
    with pytest.raises(InputError, match="geometry"):
        read(tmp_path / "scan.h5")


def test_a_truncated_scan_is_refused(tmp_path, fan_scan):
    path = tmp_path / "scan.h5"
    write_scan(fan_scan, path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match="truncated"):
        read(path)


def test_a_result_is_no_scan(tmp_path):
    records.write(tmp_path / "result.h5", {}, kind="result")
    with pytest.raises(InputError, match="result of ctuq"):
        read(tmp_path / "result.h5")


def test_a_folder_that_is_not_there_is_refused(tmp_path, fan_scan):
    with pytest.raises(InputError, match="Cannot write"):
        write_scan(fan_scan, tmp_path / "none" / "scan.h5")
