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
