import json
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest
import tifffile

from ctuq.errors import InputError
from ctuq.tomo.geometry import FanBeam, VolumeGrid
from ctuq.tomo.scan import Provenance, Scan
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.storage import write_tiff


@pytest.fixture
def result() -> Result:
    rng = np.random.default_rng(0)
    beam = FanBeam(angles=np.arange(5) * 0.1, columns=12, pixel=0.4, source_to_axis=100, source_to_detector=150)
    told = Provenance("scan.h5", "cd" * 32, ("read",), {"sample": "walnut"})
    scan = Scan(rng.normal(size=(5, 12)), beam, weights=rng.uniform(1, 2, (5, 12)), provenance=told)

    def image(*batch):
        return rng.uniform(0, 1, (*batch, 8, 6)).astype(np.float32)

    calibration = Calibration(
        (1, 3), 1.5, 0.7, 0.2, float("inf"), {"rms_z": 0.5}, {"rms_z": 1.0}, rng.normal(size=(4, 2, 12)).astype(np.float32)
    )
    calibration = replace(calibration, cover_68=(0.6, 0.75), cover_95=(0.88, 0.97))
    return Result(
        image(),
        scan,
        VolumeGrid((8, 6), 0.25, (0.5, -1.0)),
        "dip",
        std=image(),
        std_raw=image(),
        std_error=0.01,
        samples=image(3),
        sigma2=1e-3,
        prior={"scale/layer.0": 0.1},
        log_evidence=-12.5,
        calibration=calibration,
        scores={"truth": {"psnr": 30.0, "coverage": np.float64(0.68)}, "held_out": {}},
        comparisons={"fbp": image(), "tv": image()},
        truth=image(),
        history={"iteration": np.arange(4), "loss": rng.normal(size=4)},
        timings={"fit": 1.25},
        settings={"size": 8, "method": "dip", "tv": 1e-4, "uncertainty": True, "seed": None},
        versions={"ctuq": "0.1.0", "torch": "2.0"},
        warnings=("one", "two"),
    )


def _assert_same(a, b, name=""):
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and np.array_equal(a, b), name
    elif isinstance(a, dict):
        assert set(a) == set(b), name
        for key, value in a.items():
            _assert_same(value, b[key], f"{name}.{key}")
    elif isinstance(a, Scan | Calibration):
        for f in fields(a):
            _assert_same(getattr(a, f.name), getattr(b, f.name), f"{name}.{f.name}")
    else:
        assert a == b or (a != a and b != b), name


def _assert_equal(a: Result, b: Result):
    for f in fields(Result):
        _assert_same(getattr(a, f.name), getattr(b, f.name), f.name)


def test_everything_reads_back_equal(tmp_path, result):
    result.save(tmp_path / "result.h5")
    _assert_equal(result, Result.load(tmp_path / "result.h5"))


def test_a_result_that_knew_no_ranges_of_coverage_reads_back(tmp_path, result):
    result.save(tmp_path / "result.h5")
    with h5py.File(tmp_path / "result.h5", "a") as file:
        for name in ("cover_68", "cover_95"):
            del file[f"entry/ctuq/calibration/{name}"]
    found = Result.load(tmp_path / "result.h5").calibration
    assert np.isnan([*found.cover_68, *found.cover_95]).all()
    assert found.image_scale == result.calibration.image_scale


def test_a_bare_result_reads_back_equal(tmp_path, result):
    bare = Result(result.mean, result.scan, result.grid, "fbp")
    bare.save(tmp_path / "result.h5")
    _assert_equal(bare, Result.load(tmp_path / "result.h5"))


def test_the_file_is_laid_out_as_nxtomoproc(tmp_path, result):
    result.save(tmp_path / "result.h5")
    with h5py.File(tmp_path / "result.h5") as file:
        entry = file["entry"]
        assert entry["definition"].asstr()[()] == "NXtomoproc" and entry.attrs["NX_class"] == "NXentry"
        assert np.array_equal(entry["data/data"], result.mean) and entry["data/data"].attrs["units"] == "1/mm"
        assert np.array_equal(entry["data/std"], result.std) and entry["data/std"].attrs["units"] == "1/mm"
        x, y = entry["data/x"], entry["data/y"]
        assert x.attrs["units"] == "mm" and np.allclose(x, 0.5 + (np.arange(6) - 2.5) * 0.25)
        assert np.allclose(y, -1.0 - (np.arange(8) - 3.5) * 0.25)
        assert entry["reconstruction/program"].asstr()[()] == "ctuq"
        assert entry["reconstruction/parameters/raw_file_sha256"].asstr()[()] == "cd" * 32
        angles = entry["ctuq/scan/geometry/rotation_angle"]
        assert angles.attrs["units"] == "degrees" and np.allclose(angles, np.rad2deg(result.scan.geometry.angles))


def test_pictures_carry_their_pixel_size_and_units(tmp_path, result):
    paths = write_tiff(result, tmp_path)
    assert [p.name for p in paths] == ["mean.tif", "std.tif"]
    for path, image in zip(paths, (result.mean, result.std), strict=True):
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert page.asarray().dtype == np.float32 and np.array_equal(page.asarray(), image)
            top, bottom = page.tags["XResolution"].value
            assert 10 / (top / bottom) == pytest.approx(0.25) and page.tags["ResolutionUnit"].value == 3
            assert json.loads(page.description)["units"] == "1/mm"


def test_a_result_without_std_gives_one_picture(tmp_path, result):
    assert [p.name for p in write_tiff(replace(result, std=None), tmp_path)] == ["mean.tif"]


def test_unwritable_and_foreign_files_are_refused(tmp_path, result):
    with pytest.raises(InputError, match="Cannot write"):
        result.save(tmp_path / "none" / "result.h5")
    with pytest.raises(InputError, match="Cannot write"):
        write_tiff(result, tmp_path / "none")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match="not a whole HDF5"):
        Result.load(tmp_path / "text.h5")
    result.save(tmp_path / "result.h5")
    with h5py.File(tmp_path / "result.h5", "a") as file:
        del file["entry/ctuq/grid"]
    with pytest.raises(InputError, match="parts missing"):
        Result.load(tmp_path / "result.h5")
