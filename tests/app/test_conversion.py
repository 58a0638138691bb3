import h5py
import numpy as np
import pytest
import tifffile

from ctuq.app import cli
from ctuq.files import read, write_nxtomo, write_scan
from ctuq.tomo.geometry import ParallelBeam
from ctuq.tomo.scan import Scan


@pytest.fixture
def plain(tmp_path):
    rng = np.random.default_rng(0)
    beam = ParallelBeam(angles=np.deg2rad(np.arange(12) * 15.0), columns=20, pixel=0.25, detector_offset=0.4)
    scan = Scan(rng.random((12, 20)).astype(np.float32), beam, weights=rng.random((12, 20)).astype(np.float32) + 0.1)
    write_scan(scan, tmp_path / "in.h5")
    return scan


def converted(tmp_path, words, out):
    assert cli.main(["convert", str(tmp_path / "in.h5"), *words.split(), str(tmp_path / out)]) == 0
    return read(tmp_path / out)


@pytest.mark.parametrize("out", ["out.h5", "OUT.HDF5", "out.nx", "out.nxs"])
def test_what_is_written_reads_back_to_the_same_scan(tmp_path, plain, out, capsys):
    found = converted(tmp_path, "", out)
    assert found.geometry == plain.geometry and np.array_equal(found.projections, plain.projections)
    assert np.array_equal(found.weights, plain.weights)
    assert f"Written: {tmp_path / out}, 12 views of 20 columns." in capsys.readouterr().out


@pytest.mark.parametrize("out", ["out.h5", "out.nx"])
def test_views_and_columns_are_selected(tmp_path, plain, out):
    found = converted(tmp_path, "--every 3 --columns 4:17", out)
    assert np.array_equal(found.projections, plain.projections[::3, 4:17])
    assert np.array_equal(found.weights, plain.weights[::3, 4:17])
    assert found.geometry == plain.cropped(4, 17).every(3).geometry


def test_views_are_selected_by_angle(tmp_path, plain):
    found = converted(tmp_path, "--angles 30,0,165.2", "out.nx")
    assert np.array_equal(found.projections, plain.projections[[2, 0, 11]])


def test_rows_of_a_stack_are_selected(tmp_path):
    stack = np.random.default_rng(1).random((5, 6, 8)).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", stack, photometric="minisblack")
    text = "kind: parallel\nvalues: log\npixel: 1\nangles: {first: 0, step: 30, count: 5}\n"
    (tmp_path / "in.yaml").write_text(text)
    source = str(tmp_path / "in.tif")
    assert cli.main(["convert", source, str(tmp_path / "one.h5"), "--rows", "4"]) == 0
    assert np.array_equal(read(tmp_path / "one.h5").projections, stack[:, 4])
    assert cli.main(["convert", source, str(tmp_path / "some.nx"), "--rows", "2:5"]) == 0
    for row in range(3):
        assert np.array_equal(read(tmp_path / "some.nx", row=row).projections, stack[:, 2 + row])
    assert cli.main(["convert", source, str(tmp_path / "some.h5"), "--rows", "2:5"]) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["in.h5", "out.dat"], "end it in .h5"),
        (["in.h5", "in.h5"], "choose another name"),
        (["in.h5", "out.h5", "--columns", "9:9"], "--columns takes"),
        (["in.h5", "out.h5", "--columns", "10:40"], "not inside the detector"),
        (["in.h5", "out.nx", "--rows", "-1"], "--rows takes"),
        (["none.h5", "out.nx"], "There is no file"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_writes_nothing(tmp_path, plain, words, told, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert cli.main(["convert", *words]) == 2
    assert told in capsys.readouterr().err and sorted(tmp_path.iterdir()) == before


def test_an_entry_is_chosen(tmp_path, plain):
    write_nxtomo(plain, tmp_path / "a.nx")
    with h5py.File(tmp_path / "a.nx", "a") as file:
        file.copy("entry0000", "entry0001")
        file["entry0001/sample/rotation_angle"][...] += 30
    words = ["convert", str(tmp_path / "a.nx"), str(tmp_path / "b.h5"), "--entry", "entry0001"]
    assert cli.main(words) == 0
    assert np.allclose(read(tmp_path / "b.h5").geometry.angles, plain.geometry.angles + np.deg2rad(30))


def test_what_reading_assumed_is_told_and_kept(tmp_path, capsys):
    beam, views = np.full((1, 1, 20), 900.0), np.full((12, 1, 20), 450.0)
    views[:, :, 8:12] = 100.0
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["exchange/data"], file["exchange/data_white"], file["exchange/theta"] = views, beam, np.arange(12) * 15.0
    found = converted(tmp_path, "", "out.nx")
    assert any("no pixel size" in text for text in found.warnings)
    assert "Warning: The file has no pixel size" in capsys.readouterr().out


def test_a_simulation_takes_its_angles_from_a_file(tmp_path, capsys):
    (tmp_path / "angles.txt").write_text("# of the goniometer\n0 10.5\n-30, 45;\n\n170\n")
    words = f"simulate --size 16 --angles {tmp_path / 'angles.txt'} -o {tmp_path / 'a.h5'}"
    assert cli.main(words.split()) == 0
    assert np.allclose(np.rad2deg(read(tmp_path / "a.h5").geometry.angles), [0, 10.5, -30, 45, 170])
    assert "5 views" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "", "north\n", "1 2 nan\n"])
def test_a_file_that_holds_no_angles_is_refused(tmp_path, text, capsys):
    if text is not None:
        (tmp_path / "angles.txt").write_text(text)
    words = f"simulate --size 16 --angles {tmp_path / 'angles.txt'} -o {tmp_path / 'a.h5'}"
    assert cli.main(words.split()) == 2 and "angles" in capsys.readouterr().err
