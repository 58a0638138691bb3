"""Angles in a file of their own, beside a scan of any format: text, NumPy's arrays, MATLAB's."""

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

import ctuq
from ctuq.errors import InputError

DEGREES = np.array([0.0, 7.0, 15.5, 40.0, 61.0, 90.0, 120.0, 133.0, 150.0, 171.0])
RAYS = np.exp(-0.5 * ((np.arange(24) - 11.5) / 4) ** 2)[None] * np.ones((10, 1))


def _write(folder, name):
    if name.endswith(".npy"):
        np.save(folder / name, DEGREES)
    elif name.endswith(".npz"):
        np.savez(folder / name, other=np.zeros(3), angles=DEGREES)
    elif name.endswith(".mat"):
        scipy.io.savemat(folder / name, {"thetan": DEGREES[None], "other": np.zeros(3)})
    elif name.endswith(".h5"):
        with h5py.File(folder / name, "w") as file:
            file["scan/theta"] = DEGREES
    else:
        (folder / name).write_text("\n".join(map(str, DEGREES)))


PLACES = ["theta.txt", "theta.npy", "theta.npz", "theta.npz:angles", "theta.mat:thetan", "theta.h5", "theta.h5:scan/theta"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scan", ["sino.tif", "sino.npy", "sino.mat", "sino.h5"])
def test_angles_of_another_file(tmp_path, scan, place):
    _write(tmp_path, place.partition(":")[0])
    data = ""
    if scan.endswith(".tif"):
        tifffile.imwrite(tmp_path / scan, RAYS.astype(np.float32))
    elif scan.endswith(".npy"):
        np.save(tmp_path / scan, RAYS)
    elif scan.endswith(".mat"):
        scipy.io.savemat(tmp_path / scan, {"rays": RAYS})
        data = "data: rays\n"
    else:
        with h5py.File(tmp_path / scan, "w") as file:
            file["scan/rays"] = RAYS[:, None]
        data = "data: scan/rays\n"
    (tmp_path / "sino.yaml").write_text(f"kind: parallel\npixel: 1\nvalues: log\n{data}angles: {place}\n")
    read = ctuq.read(tmp_path / scan)
    np.testing.assert_allclose(np.rad2deg(read.geometry.angles), DEGREES)


def test_radians_are_told_by_the_name_of_their_array(tmp_path):
    np.savez(tmp_path / "theta.npz", theta_rad=np.deg2rad(DEGREES))
    np.save(tmp_path / "sino.npy", RAYS)
    (tmp_path / "sino.yaml").write_text("kind: parallel\npixel: 1\nvalues: log\nangles: theta.npz:theta_rad\n")
    np.testing.assert_allclose(np.rad2deg(ctuq.read(tmp_path / "sino.npy").geometry.angles), DEGREES)


@pytest.mark.parametrize(
    ("place", "said"),
    [("theta.npz:nothing", "its arrays are"), ("words.txt", "no text file of angles"), ("two.mat", "name one of its arrays")],
)
def test_what_is_not_there_is_told(tmp_path, place, said):
    _write(tmp_path, "theta.npz")
    (tmp_path / "words.txt").write_text("first second")
    scipy.io.savemat(tmp_path / "two.mat", {"a": DEGREES, "b": DEGREES})
    np.save(tmp_path / "sino.npy", RAYS)
    (tmp_path / "sino.yaml").write_text(f"kind: parallel\npixel: 1\nvalues: log\nangles: {place}\n")
    with pytest.raises(InputError, match=said):
        ctuq.read(tmp_path / "sino.npy")


def _read(folder, place, rays=RAYS):
    np.save(folder / "sino.npy", rays)
    (folder / "sino.yaml").write_text(f"kind: parallel\npixel: 1\nvalues: log\nangles: {place}\n")
    return ctuq.read(folder / "sino.npy")


def _lines(*columns, between=" "):
    words = [[value if isinstance(value, str) else f"{value:.17g}" for value in column] for column in columns]
    return "".join(between.join(line) + "\n" for line in zip(*words, strict=True))


N = len(DEGREES)
TABLES = {
    "number and angle": ((range(N), DEGREES), 2),
    "numbers from 1": ((range(1, N + 1), DEGREES), 2),
    "angle and exposure": ((DEGREES, N * [0.5]), 1),
    "name and angle": (([f"view_{n:03}.tif" for n in range(N)], DEGREES), 2),
    "three Euler angles": ((N * [0.0], DEGREES, N * [0.0]), 2),
    "seconds since 1970": ((1.7e9 + 7.0 * np.arange(N), DEGREES), 2),
}


@pytest.mark.parametrize("between", [" ", ",", "; ", "\t"])
@pytest.mark.parametrize("kind", TABLES)
def test_the_one_column_of_a_table_that_can_be_angles_is_taken_and_told(tmp_path, kind, between):
    columns, column = TABLES[kind]
    (tmp_path / "a.txt").write_text(_lines(*columns, between=between))
    scan = _read(tmp_path, "a.txt")
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), DEGREES)
    assert any(f"column {column} is taken as the angles; if that is wrong, name it, such as" in text for text in scan.warnings)


def test_of_several_columns_that_can_be_angles_one_is_to_be_named(tmp_path):
    (tmp_path / "a.txt").write_text("# index set_deg read_deg\n" + _lines(range(N), DEGREES, DEGREES + 0.37))
    with pytest.raises(InputError, match=r"columns 2 \('set_deg'\) and 3 \('read_deg'\) may be the angles: name it, such as"):
        _read(tmp_path, "a.txt")
    for name in ("3", "read_deg"):
        scan = _read(tmp_path, f"a.txt:{name}")
        np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), DEGREES + 0.37)
        assert not any("table" in text or "column" in text for text in scan.warnings if "axis" not in text)
    with pytest.raises(InputError, match=r"has no column 'angle' of numbers; its columns are 1 \('index'\), 2"):
        _read(tmp_path, "a.txt:angle")


def test_a_columns_name_tells_its_unit(tmp_path):
    (tmp_path / "a.csv").write_text("frame,theta_rad,current\n" + _lines(range(N), np.deg2rad(DEGREES), N * [3.0], between=","))
    np.testing.assert_allclose(np.rad2deg(_read(tmp_path, "a.csv").geometry.angles), DEGREES)


@pytest.mark.parametrize(
    ("heading", "factor"), [("angle", 1.0), ("theta_deg", 1.0), ("theta_rad", np.pi / 180), ("# rad", np.pi / 180)]
)
def test_one_column_may_have_a_heading_which_tells_its_unit(tmp_path, heading, factor):
    (tmp_path / "a.txt").write_text(heading + "\n" + _lines(factor * DEGREES))
    np.testing.assert_allclose(np.rad2deg(_read(tmp_path, "a.txt").geometry.angles), DEGREES)


def test_whole_degrees_beside_their_numbers_are_angles_and_a_list_in_lines_of_several_is_a_list(tmp_path):
    rays = np.random.default_rng(0).random((30, 9))
    for numbers in (range(30), range(1, 31)):
        (tmp_path / "a.txt").write_text(_lines(numbers, numbers))
        np.testing.assert_allclose(np.rad2deg(_read(tmp_path, "a.txt", rays).geometry.angles), numbers)
    (tmp_path / "a.txt").write_text(_lines(range(30), range(1, 31)))
    with pytest.raises(InputError, match="columns 1 and 2 may be the angles"):
        _read(tmp_path, "a.txt", rays)
    (tmp_path / "a.txt").write_text(_lines(*np.arange(30.0).reshape(10, 3).T))
    np.testing.assert_allclose(np.rad2deg(_read(tmp_path, "a.txt", rays).geometry.angles), np.arange(30))


@pytest.mark.parametrize("turned", [False, True])
def test_a_table_in_an_array_is_read_as_one_in_a_text(tmp_path, turned):
    table = np.column_stack([np.zeros(N), DEGREES, np.zeros(N)])
    table = table.T if turned else table
    np.save(tmp_path / "a.npy", table)
    scan = _read(tmp_path, "a.npy")
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), DEGREES)
    assert any("Of the 3 columns of" in text and "column 2 is taken" in text for text in scan.warnings)
    scipy.io.savemat(tmp_path / "b.mat", {"rays": RAYS, "euler": table})
    (tmp_path / "b.yaml").write_text("kind: parallel\npixel: 1\nvalues: log\ndata: rays\nangles: euler\n")
    scan = ctuq.read(tmp_path / "b.mat")
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), DEGREES)
    two = np.column_stack([2.0 * np.arange(N), DEGREES])
    np.save(tmp_path / "a.npy", two.T if turned else two)
    with pytest.raises(InputError, match="columns 1 and 2 may be the angles: save the one of the angles by itself"):
        _read(tmp_path, "a.npy")


@pytest.mark.parametrize("text", ["{:d},5\n", "{0:d};{0:d},5\n", "{0:d},{0:d}\n"])
def test_commas_that_may_stand_before_decimals_are_no_columns_unless_one_is_named(tmp_path, text):
    (tmp_path / "a.txt").write_text("".join(text.format(10 * n) for n in range(N)))
    with pytest.raises(InputError, match="each may stand before decimals: write these with points"):
        _read(tmp_path, "a.txt")
    np.testing.assert_allclose(np.rad2deg(_read(tmp_path, "a.txt:1").geometry.angles), 10.0 * np.arange(N))
