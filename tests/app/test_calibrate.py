import json

import h5py
import numpy as np
import pytest
import tifffile

from ctuq.app.calibration.command import views
from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.files import write_scan
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, radians
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.scan import Provenance
from ctuq.uncertainty.calibration.foreign import calibrate
from ctuq.uncertainty.results.image import Result

N, VOXEL, VIEWS = 12, 2.0, 20
HELD = "2::5"
GRID = VolumeGrid((N, N), VOXEL)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A lopsided object, a scan in a file without grid, an image that errs by 0.005, and 40 samples of twice that."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    truth = np.zeros((N, N))
    truth[2:9, 3:7], truth[7:9, 7:11] = 0.05, 0.03
    beam = ParallelBeam(angles=radians(np.arange(VIEWS) * 9.0), columns=18, pixel=VOXEL)
    rays = (build_matrix(GRID, beam) @ truth.ravel().astype(np.float32)).reshape(beam.shape)
    noisy = (rays + 0.01 * rng.standard_normal(rays.shape)).astype(np.float32)
    scan = Scan(noisy, beam, provenance=Provenance(facts={"beam": "monochromatic"}))
    write_scan(scan, folder / "scan.h5")
    image = truth + 0.005 * rng.standard_normal(truth.shape)
    samples = image + 0.01 * rng.standard_normal((40, N, N))
    return folder, scan, image, samples - samples.mean(0) + image


@pytest.fixture
def plain(monkeypatch):
    """No report, which takes seconds."""
    monkeypatch.setattr("ctuq.app.calibration.command.image_report", lambda result, folder: folder / "report.html")


def run(world, out, *typed, held=HELD, pixel="2"):
    given = ["calibrate", str(world[0] / "scan.h5"), "-o", str(out), "--held-out", held]
    return main([*given, *(["--pixel", pixel] if pixel else []), *typed])


@pytest.fixture
def files(world, tmp_path):
    """The same samples in files of every type."""
    _, _, image, samples = world
    np.save(tmp_path / "samples.npy", samples)
    np.savez(tmp_path / "all.npz", image=image, samples=samples)
    tifffile.imwrite(tmp_path / "samples.tif", samples.astype(np.float32), photometric="minisblack")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["run/draws"], file["run/mean"] = samples, image
    np.save(tmp_path / "columns.npy", samples.reshape(len(samples), -1).T)
    np.save(tmp_path / "image.npy", image)
    return tmp_path


def test_the_command_gives_what_the_function_gives_and_writes_a_report(world, files, tmp_path, capsys):
    _, scan, image, samples = world
    expected = calibrate(image, samples, scan, np.arange(2, VIEWS, 5), grid=GRID)
    typed = ["--image", f"{files / 'all.npz'}:image", "--samples", str(files / "all.npz"), "--name", "CUQIpy <1.5>"]
    assert run(world, tmp_path / "out", *typed) == 0
    found = Result.load(tmp_path / "out/results.h5")
    np.testing.assert_allclose(found.std, expected.std)
    assert found.calibration.image_scale == pytest.approx(expected.calibration.image_scale)
    assert found.calibration.image_scale < 1 and found.calibration.views == (2, 7, 12, 17)
    page = (tmp_path / "out/report.html").read_text()
    assert "CUQIpy &lt;1.5&gt;" in page and (tmp_path / "out/std.tif").is_file()
    told = capsys.readouterr().out
    assert "Factor on the covariance of the image" in told and "95 % intervals hold" in told


def test_hardening_that_is_named_is_held(world, files, tmp_path, plain, capsys):
    typed = ["--samples", str(files / "samples.npy")]
    assert run(world, tmp_path / "none", *typed) == 0
    assert run(world, tmp_path / "held", *typed, "--systematics", "hardening=0.2") == 0
    without, held = (Result.load(tmp_path / name / "results.h5") for name in ("none", "held"))
    effect = held.systematics["hardening"].effect
    np.testing.assert_allclose(held.std**2, without.std**2 + effect**2, rtol=1e-4)
    assert not without.systematics and float(np.abs(effect).max()) > 0.002
    capsys.readouterr()
    assert run(world, tmp_path / "axis", *typed, "--systematics", "axis") == 2
    assert "axis" in capsys.readouterr().err and not (tmp_path / "axis/results.h5").exists()


@pytest.mark.parametrize("name", ["samples.npy", "samples.tif", "all.npz:samples", "other.h5:run/draws"])
def test_samples_of_every_type_of_file_are_the_same(plain, world, files, tmp_path, name):
    assert run(world, tmp_path / "out", "--samples", str(files / name)) == 0
    found = Result.load(tmp_path / "out/results.h5")
    np.testing.assert_allclose(found.mean, world[3].mean(0), atol=1e-6)
    np.testing.assert_allclose(found.std_raw, world[3].std(0, ddof=1), rtol=1e-5)


def test_samples_one_a_column_are_turned_and_told(plain, world, files, tmp_path, capsys):
    typed = ["--image", str(files / "image.npy"), "--samples", str(files / "columns.npy")]
    assert run(world, tmp_path / "out", *typed) == 0
    np.testing.assert_allclose(Result.load(tmp_path / "out/results.h5").std_raw, world[3].std(0, ddof=1), rtol=1e-5)
    assert "one a column" in capsys.readouterr().out


def test_a_covariance_and_a_constant_are_ways_to_say_how_sure(plain, world, files, tmp_path, capsys):
    np.save(files / "cov.npy", 1e-4 * np.eye(N * N, dtype=np.float32))
    image = ["--image", str(files / "image.npy")]
    assert run(world, tmp_path / "one", *image, "--covariance", str(files / "cov.npy")) == 0
    assert run(world, tmp_path / "two", *image, "--std", "0.01", "--json") == 0
    one, two = (Result.load(tmp_path / name / "results.h5") for name in ("one", "two"))
    np.testing.assert_allclose(one.std, two.std, rtol=1e-4)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["command"] == "calibrate"
    assert told["facts"]["result"]["calibration"]["image_scale"] == pytest.approx(two.calibration.image_scale)
    assert any("independent" in text for text in told["warnings"])


def test_half_precision_is_read_as_numbers(plain, world, files, tmp_path):
    np.save(files / "half.npy", world[3].astype(np.float16))
    assert run(world, tmp_path / "out", "--samples", str(files / "half.npy")) == 0
    np.testing.assert_allclose(Result.load(tmp_path / "out/results.h5").std_raw, world[3].std(0, ddof=1), rtol=0.02)


def test_a_turned_image_and_one_of_another_unit_or_scan_are_told(plain, world, files, tmp_path, capsys):
    doubts = {"transposed": world[2].T, "attenuation in 1/mm": 10 * world[2], "another scan": np.roll(world[2], 7, axis=1)}
    for number, (words, image) in enumerate(doubts.items()):
        np.save(files / "image.npy", image)
        assert run(world, tmp_path / f"{number}", "--image", str(files / "image.npy"), "--std", "0.01") == 0
        assert words in capsys.readouterr().out


def spoilt(values, at=(0, 0, 0), value=np.nan):
    values = values.copy()
    values[at] = value
    return values


STRANGE = {
    "nan": (lambda s: {"samples": spoilt(s)}, "NaN"),
    "infinite": (lambda s: {"samples": spoilt(s, value=np.inf)}, "NaN or infinite"),
    "one sample": (lambda s: {"samples": s[:1]}, "1 sample cannot"),
    "samples all alike": (lambda s: {"samples": np.stack([s[0]] * 9)}, "same image"),
    "one slice as samples": (lambda s: {"image": s[0], "samples": s[0]}, "--samples has the shape"),
    "samples as std": (lambda s: {"image": s[0], "std": s}, "--std has the shape"),
    "std as covariance": (lambda s: {"image": s[0], "covariance": abs(s[0])}, "--covariance has the shape"),
    "negative std": (lambda s: {"image": s[0], "std": -abs(s[0])}, "positive numbers"),
    "zero std": (lambda s: {"image": s[0], "std": 0 * s[0]}, "positive numbers"),
    "lopsided covariance": (lambda s: {"image": s[0], "covariance": np.triu(np.ones((144, 144)))}, "no covariance"),
    "image of another shape": (lambda s: {"image": s[0, :5], "samples": s}, "--samples has the shape"),
    "image of nan": (lambda s: {"image": spoilt(s[0], (1, 1)), "samples": s}, "NaN"),
    "image of three axes": (lambda s: {"image": s, "std": s}, "one slice"),
    "complex": (lambda s: {"samples": s + 1j}, "real numbers"),
    "empty": (lambda s: {"samples": s[:0]}, "real numbers"),
    "text": (lambda s: {"samples": np.array(["a", "b"])}, "real numbers"),
    "pickled": (lambda s: {"samples": np.array([{}, {}])}, "samples"),
    "no image": (lambda s: {"std": s[0]}, "Give the --image"),
    "two ways": (lambda s: {"image": s[0], "samples": s, "std": s[0]}, "one of --samples"),
    "no way": (lambda s: {"image": s[0]}, "one of --samples"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_cannot_be_calibrated_is_refused_in_one_sentence(world, tmp_path, kind, capsys):
    make, words = STRANGE[kind]
    typed = []
    for name, values in make(world[3]).items():
        np.save(tmp_path / f"{name}.npy", values, allow_pickle=True)
        typed += [f"--{name}", str(tmp_path / f"{name}.npy")]
    assert run(world, tmp_path / "out", *typed) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and "\n" not in told and "defect" not in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "typed, held, pixel, words",
    [
        ([], "20", "2", "0 to 19"),
        ([], "a", "2", "such as 3,13"),
        ([], "", "2", "such as 3,13"),
        ([], "-1", "2", "such as 3,13"),
        ([], "5:5", "2", "none"),
        ([], "::0", "2", "such as 3,13"),
        ([], HELD, "", "--pixel MM"),
        ([], HELD, "-1", "positive number of mm"),
        ([], HELD, "nan", "positive number of mm"),
        (["--centre", "1"], HELD, "2", "--centre takes"),
        (["--sigma2", "-1"], HELD, "2", "sigma2"),
        (["--samples", "nowhere.npy"], HELD, "2", "no file"),
        (["--samples", "x.txt"], HELD, "2", "is read from a file of"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_sentence(world, files, tmp_path, typed, held, pixel, words, capsys):
    given = typed if "--samples" in typed else ["--samples", str(files / "samples.npy"), *typed]
    assert run(world, tmp_path / "out", *given, held=held, pixel=pixel) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and "\n" not in told


def test_of_several_arrays_one_must_be_named(world, files, tmp_path, capsys):
    with h5py.File(files / "other.h5", "a") as file:
        file["link"] = h5py.ExternalLink("nowhere.h5", "/x")
        file["group/words"] = "text"
    for name, words in {
        "other.h5": "run/draws, run/mean",
        "other.h5:run/none": "no array",
        "other.h5:link": "no array",
    }.items():
        assert run(world, tmp_path / "out", "--samples", str(files / name)) == 2
        assert words in capsys.readouterr().err
    (files / "broken.npz").write_bytes(b"PK\x03\x04" + bytes(40))
    assert run(world, tmp_path / "out", "--samples", str(files / "broken.npz")) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_results_are_not_replaced_unasked(plain, world, files, tmp_path, capsys):
    typed = ["--samples", str(files / "samples.npy")]
    assert run(world, tmp_path / "out", *typed) == 0
    assert run(world, tmp_path / "out", *typed) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(world, tmp_path / "out", *typed, "--overwrite") == 0


def test_views_are_typed_as_numbers_and_steps():
    assert views("3, 1,3", 5).tolist() == [1, 3]
    assert views("4::10,0:2", 30).tolist() == [0, 1, 4, 14, 24]
    with pytest.raises(InputError):
        views("1;2", 5)
