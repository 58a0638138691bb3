import h5py
import numpy as np
import pytest
import scipy.io
from scipy.sparse.linalg import lsqr

from ctuq.errors import InputError
from ctuq.files import describe, read
from ctuq.files.reading import opened
from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.rays.entries import build_matrix


def _struct(sinogram, degrees):
    parameters = {
        "angles": degrees,
        "distanceSourceOrigin": 410.66,
        "distanceSourceDetector": 553.74,
        "distanceUnit": "mm",
        "pixelSize": 0.05,
        "pixelSizePost": 0.2,
        "effectivePixelSizePost": 0.1483,
        "projectName": "my_disc",
    }
    return {"type": "2D", "sinogram": sinogram, "parameters": parameters}


def _write_v5(path, name, struct):
    scipy.io.savemat(path, {name: struct})
    return path


def _write_v73(path, name, struct):
    def put(group, key, value):
        if isinstance(value, dict):
            child = group.create_group(key)
            child.attrs["MATLAB_class"] = np.bytes_("struct")
            for inner, entry in value.items():
                put(child, inner, entry)
        elif isinstance(value, str):
            group[key] = np.array([[ord(c)] for c in value], np.uint16)
            group[key].attrs["MATLAB_class"] = np.bytes_("char")
        else:
            group[key] = np.atleast_2d(value).T
            group[key].attrs["MATLAB_class"] = np.bytes_("double")

    with h5py.File(path, "w", userblock_size=512) as file:
        put(file, name, struct)
    content = bytearray(path.read_bytes())
    content[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("write", [_write_v5, _write_v73])
@pytest.mark.parametrize("name", ["CtDataLimited", "CtDataFull", "CtData"])
def test_a_struct_gives_the_same_scan_in_both_versions(tmp_path, write, name):
    sinogram = np.random.default_rng(0).uniform(0, 1, (7, 30))
    scan = read(write(tmp_path / "a.mat", name, _struct(sinogram, np.arange(7) * 0.5 + 40)))
    expected = FanBeam(
        angles=np.deg2rad(np.arange(7) * 0.5 + 40), columns=30, pixel=0.2, source_to_axis=410.66, source_to_detector=553.74
    )
    assert scan.geometry == expected and np.array_equal(scan.projections, sinogram.astype(np.float32))
    assert scan.grid.shape == (512, 512) and scan.grid.voxel == 0.1483 and scan.provenance.facts["sample"] == "my_disc"


def test_a_struct_without_distances_says_which(tmp_path):
    struct = _struct(np.ones((3, 10)), np.arange(3))
    del struct["parameters"]["distanceSourceOrigin"]
    with pytest.raises(InputError, match="distanceSourceOrigin"):
        read(_write_v5(tmp_path / "a.mat", "CtDataLimited", struct))


@pytest.mark.parametrize("name", ["m", "sinogram", "sinogram120"])
def test_a_bare_matrix_is_read_by_columns_with_a_geometry_file(tmp_path, fan, fan_scan, name):
    path = tmp_path / "Data40.mat"
    scipy.io.savemat(path, {name: fan_scan.projections.T.astype(np.float64), "A": np.zeros((2, 2))})
    with pytest.raises(InputError, match="does not say its kind, angles, pixel"):
        read(path)
    geometry = tmp_path / "walnut.yaml"
    geometry.write_text(
        "kind: fan\nangles: {first: 0, step: 15, count: 24}\npixel: 0.7\nsource_to_axis: 110\n"
        "source_to_detector: 300\ndetector_offset: 0.27\n"
    )
    scan = read(path, geometry=geometry)
    assert scan.geometry == fan and np.array_equal(scan.projections, fan_scan.projections)


def test_other_variables_and_damaged_files_are_refused(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"reconFull": np.ones((3, 3))})
    with pytest.raises(InputError, match="holds reconFull"):
        read(tmp_path / "a.mat")
    path = _write_v5(tmp_path / "b.mat", "CtDataLimited", _struct(np.random.default_rng(0).normal(size=(7, 30)), np.arange(7)))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match="whole MATLAB"):
        read(path)
    path = _write_v73(tmp_path / "c.mat", "CtDataLimited", _struct(np.random.default_rng(0).normal(size=(7, 30)), np.arange(7)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="whole"):
        read(path)


@pytest.mark.parametrize(("name", "views", "attenuation"), [("ta", 242, 0.0343), ("tb", 363, 0.0373)])
def test_shipped_htc_windows_merge_and_agree_with_their_truth(shipped, name, views, attenuation):
    folder = shipped / "htc2022"
    scan = read(folder / f"htc2022_{name}_*.mat", truth=folder / f"htc2022_{name}_seg_gt.png")
    degrees = np.rad2deg(scan.geometry.angles)
    assert scan.n_angles == views and np.all(np.diff(degrees) > 0.4) and degrees.max() < 360
    assert scan.truth.max() == pytest.approx(attenuation, rel=0.02)
    small = scan.every(4).binned(7)
    grid = scan.grid.resized(64)
    matrix = build_matrix(grid, small.geometry)
    image = lsqr(matrix, small.projections.ravel(), iter_lim=25)[0].reshape(64, 64)
    truth = scan.truth.reshape(64, 8, 64, 8).mean(axis=(1, 3))

    def likeness(turned):
        return np.corrcoef(image.ravel(), turned.ravel())[0, 1]

    turned = [truth[::-1], truth[:, ::-1], truth.T, np.rot90(truth), np.rot90(truth, 2)]
    assert likeness(truth) > 0.85 and likeness(truth) > max(map(likeness, turned)) + 0.02


def test_a_truth_of_another_object_is_refused(shipped, tmp_path):
    from skimage.io import imsave

    wrong = np.zeros((64, 64), np.uint8)
    wrong[:4, :4] = 255
    imsave(tmp_path / "wrong.png", wrong, check_contrast=False)
    with pytest.raises(InputError, match="do not resemble"):
        read(shipped / "htc2022" / "htc2022_ta_000-060.mat", truth=tmp_path / "wrong.png")
    imsave(tmp_path / "grey.png", np.arange(64 * 64).reshape(64, 64).astype(np.uint16), check_contrast=False)
    with pytest.raises(InputError, match="two values"):
        read(shipped / "htc2022" / "htc2022_ta_000-060.mat", truth=tmp_path / "grey.png")


def test_windows_of_other_detectors_are_not_merged(tmp_path):
    for name, columns in (("a", 30), ("b", 31)):
        _write_v5(tmp_path / f"{name}.mat", "CtDataLimited", _struct(np.ones((3, columns)), np.arange(3)))
    with pytest.raises(InputError, match="one geometry"):
        read([tmp_path / "a.mat", tmp_path / "b.mat"])


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="No file matches"):
        read(tmp_path / "*.mat")
    with pytest.raises(InputError, match="No file was given"):
        read([])


def test_a_struct_is_described(shipped):
    told = describe(shipped / "htc2022" / "htc2022_tb_*.mat")
    assert len(told) == 4 and told[1].data == "181 views of 560 columns" and "0.5" in told[1].angles
    assert told[0].beam == "fan, source to axis 410.66 mm, source to detector 553.74 mm"


PARALLEL = "kind: parallel\npixel: 0.5\naxis_column: 14.5\nvalues: log\n"


def _of_any_names(path, write, **variables):
    if write is _write_v5:
        scipy.io.savemat(path, variables)
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            file[name] = np.atleast_2d(value).T
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    content = bytearray(path.read_bytes())
    content[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("write", [_write_v5, _write_v73])
@pytest.mark.parametrize("by_column", [True, False])
def test_a_geometry_file_names_the_variables_of_other_matlab_files(tmp_path, write, by_column):
    sinogram = np.random.default_rng(0).uniform(0, 1, (45, 30))
    kept = sinogram.T if by_column else sinogram
    path = _of_any_names(tmp_path / "a.mat", write, sinoRD=kept, anglesRad=np.deg2rad(16740 + 4 * np.arange(45)), n=30.0)
    with pytest.raises(InputError, match="'data: sinoRD'"):
        read(path)
    (tmp_path / "a.yaml").write_text(PARALLEL + "data: sinoRD\nangles: anglesRad\n")
    ((_, raw),) = opened(path)
    assert np.array_equal(raw.values, sinogram)
    assert np.allclose(np.diff(np.rad2deg(raw.fields["angles"])), 4) and raw.fields["pixel"] == 0.5


def test_angles_of_no_known_unit_are_guessed_as_everywhere(tmp_path):
    sinogram = np.random.default_rng(0).uniform(0, 1, (30, 45))
    path = _of_any_names(tmp_path / "a.mat", _write_v5, sino_basalt=sinogram, theta=np.arange(45) * np.pi / 45)
    told = PARALLEL + "data: sino_basalt\nangles: "
    (tmp_path / "a.yaml").write_text(told + "theta\n")
    ((_, raw),) = opened(path)
    assert np.allclose(np.diff(raw.fields["angles"]), np.pi / 45)
    assert any("taken as radians" in text for text in raw.warnings)
    np.savetxt(tmp_path / "angles.txt", np.arange(45) * 4.0)
    (tmp_path / "a.yaml").write_text(told + "angles.txt\n")
    assert np.allclose(opened(path)[0][1].fields["angles"], raw.fields["angles"])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("data: sino\nangles: theta\n", "one axis must have"),
        ("data: sine\nangles: theta\n", "has no 'sine'.* it holds"),
        ("data: sino\nangles: phi\n", "has no 'phi'"),
        ("data: cube\nangles: theta\n", "two axes or a stack of three"),
        ("data: sino\nflats: white\n", "not read from MATLAB"),
    ],
)
def test_variables_that_do_not_fit_are_refused(tmp_path, lines, words):
    path = _of_any_names(
        tmp_path / "a.mat", _write_v5, sino=np.ones((30, 45)), theta=np.arange(44) * 4.0, cube=np.ones((2, 3, 30, 44))
    )
    (tmp_path / "a.yaml").write_text(PARALLEL + lines)
    with pytest.raises(InputError, match=words):
        read(path)


def test_which_of_two_structs_is_read_is_told_and_can_be_said(tmp_path):
    rng = np.random.default_rng(0)
    full, limited = (_struct(rng.uniform(0, 1, (n, 30)), np.arange(n)) for n in (9, 4))
    scipy.io.savemat(tmp_path / "a.mat", {"CtDataFull": full, "CtDataLimited": limited})
    scan = read(tmp_path / "a.mat")
    assert scan.n_angles == 9 and any("CtDataFull, CtDataLimited" in text for text in scan.warnings)
    (tmp_path / "a.yaml").write_text("data: CtDataLimited\n")
    other = read(tmp_path / "a.mat")
    assert other.n_angles == 4 and not any("CtDataFull" in text for text in other.warnings)
