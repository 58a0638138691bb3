from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile

from ctuq.app import cli
from ctuq.files import read, read_volume, write_nxtomo, write_scan, write_volume_scan
from ctuq.tomo import ConeBeam, FanBeam, Parallel3D, ParallelBeam, Scan, VolumeGrid, VolumeScan


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
    assert cli.main(["convert", source, str(tmp_path / "some.h5"), "--rows", "2:5"]) == 0
    assert np.array_equal(read_volume(tmp_path / "some.h5").projections, stack[:, 4:1:-1].swapaxes(0, 1))
    assert cli.main(["convert", source, str(tmp_path / "more.h5"), "--rows", "2:7"]) == 2
    assert cli.main(["convert", source, str(tmp_path / "true.h5"), "--rows", "1:3", "--truth", source]) == 2
    assert not (tmp_path / "true.h5").exists()


FAN = FanBeam(angles=np.deg2rad(np.arange(12) * 30.0), columns=9, pixel=5.0, source_to_axis=400.0, source_to_detector=600.0)


def volume_file(tmp_path, kind):
    if kind == "own":
        beam = dict(angles=FAN.angles, rows=7, columns=9, pixel=0.5, row_pixel=0.4, row_offset=0.8)
        cone = ConeBeam(**beam, source_to_axis=40.0, source_to_detector=100.0, roll=0.1, tilt=0.2, yaw=-0.1)
        values = np.random.default_rng(2).random(cone.shape, dtype=np.float32)
        truth = np.random.default_rng(3).random((7, 4, 4), dtype=np.float32)
        write_volume_scan(VolumeScan(values, cone, values + 1, truth, VolumeGrid((7, 4, 4), 0.5)), tmp_path / "in.h5")
        return tmp_path / "in.h5"
    values = np.random.default_rng(2).random((7, 12, 9), dtype=np.float32)
    if kind == "tiff":
        tifffile.imwrite(tmp_path / "in.tif", values.swapaxes(0, 1))
        text = "kind: fan\nvalues: log\nangles: {first: 0, step: 30, count: 12}\npixel: 5\nsource_to_axis: 400\n"
        text += "source_to_detector: 600\naxis_column: 4\nmiddle_row: 5\nrow_pixel: 6\nroll: 2\n"
        (tmp_path / "in.yaml").write_text(text)
        return tmp_path / "in.tif"
    # A detector that was turned upside down, as another program says it.
    write_nxtomo([Scan(row, FAN) for row in values], tmp_path / "in.nx")
    with h5py.File(tmp_path / "in.nx", "a") as file:
        file["entry0000/instrument/detector/y_flipped"] = True
    return tmp_path / "in.nx"


def same(found, scan, out):
    """Line integrals near 0 lose digits as transmission; all else comes back as it was."""
    assert np.allclose(found.projections, scan.projections, atol=1e-6 if out == "nx" else 0)
    assert found.geometry == scan.geometry and found.grid == scan.grid
    for name in ("weights", "truth"):
        there, wanted = getattr(found, name), getattr(scan, name)
        assert (there is None) == (wanted is None) and (wanted is None or np.array_equal(there, wanted))


@pytest.mark.parametrize("out", ["nx", "h5"])
@pytest.mark.parametrize("kind", ["own", "tiff", "turned"])
def test_rows_are_written_as_the_volume_that_they_are(tmp_path, kind, out, capsys):
    """Of files with their rows from below the volume came out upside down, and places and turns were lost."""
    source = volume_file(tmp_path, kind)
    scan = read_volume(source)
    assert cli.main(["convert", str(source), str(tmp_path / f"all.{out}"), "--rows", "0:7"]) == 0
    same(read_volume(tmp_path / f"all.{out}"), scan, out)
    assert "12 views of 7 rows of 9 columns" in capsys.readouterr().out
    assert cli.main(["convert", str(tmp_path / f"all.{out}"), str(tmp_path / "again.h5"), "--rows", "0:7"]) == 0
    same(read_volume(tmp_path / "again.h5"), scan, out)


def pixels(vectors, rows, columns):
    """Where the centres of a detector's pixels are, (row, column, angle, 3)."""
    up, right = np.arange(rows)[:, None, None, None] - (rows - 1) / 2, np.arange(columns)[:, None, None] - (columns - 1) / 2
    return vectors[:, 3:6] + up * vectors[:, 9:] + right * vectors[:, 6:9]


def test_some_rows_and_columns_keep_their_place_in_space(tmp_path):
    source = volume_file(tmp_path, "own")
    scan = read_volume(source)
    assert cli.main(f"convert {source} {tmp_path / 'a.h5'} --rows 2:5 --columns 3:8 --every 2".split()) == 0
    found = read_volume(tmp_path / "a.h5")
    assert np.array_equal(found.projections, scan.projections[2:5, ::2, 3:8])
    assert np.array_equal(found.truth, scan.truth) and found.grid == scan.grid
    assert np.allclose(pixels(found.geometry.vectors(), 3, 5), pixels(scan.geometry.vectors(), 7, 9)[2:5, 3:8, ::2])
    assert np.allclose(found.geometry.vectors()[:, :3], scan.geometry.vectors()[::2, :3])


def test_rows_of_a_leaning_axis_keep_their_place_in_space():
    geometry = Parallel3D(angles=FAN.angles, rows=9, columns=8, pixel=0.5, row_pixel=0.4, roll=0.2, axis_tilt=0.5)
    found = geometry.part(range(1, 8, 3), range(5, 8))
    assert np.allclose(pixels(found.vectors(), 3, 3), pixels(geometry.vectors(), 9, 8)[1:8:3, 5:8])


def test_a_row_of_a_converted_volume_is_the_same_from_either_file(tmp_path):
    geometry = replace(read_volume(volume_file(tmp_path, "own")).geometry, roll=0.0, tilt=0.0, yaw=0.0)
    own, other, told = tmp_path / "up.h5", tmp_path / "up.nx", tmp_path / "told.yaml"
    write_volume_scan(VolumeScan(np.random.default_rng(4).random(geometry.shape, dtype=np.float32), geometry), own)
    assert cli.main(["convert", str(own), str(other), "--rows", "0:7"]) == 0
    assert np.allclose(read(own).projections, read(other).projections) and read(own).geometry == read(other).geometry
    assert np.allclose(read(own, row=1).projections, read(other, row=5).projections)
    told.write_text("source_to_axis: 41\n")
    for path in (own, other):
        again = read_volume(path, geometry=told)
        # Rays of noise alone are repaired here and there.
        assert np.median(np.abs(again.projections - read_volume(own).projections)) < 1e-6
        assert again.geometry.row_offset == pytest.approx(geometry.row_offset)


def test_free_vectors_are_written_as_our_own_file_alone(tmp_path, capsys):
    geometry = read_volume(volume_file(tmp_path, "own")).geometry.raised(np.arange(12.0))
    free, out = str(tmp_path / "free.h5"), str(tmp_path / "out.h5")
    write_volume_scan(VolumeScan(np.ones(geometry.shape, np.float32), geometry), free)
    assert cli.main(["convert", free, str(tmp_path / "out.nx"), "--rows", "0:7"]) == 2
    assert "vectors of its own" in capsys.readouterr().err
    assert cli.main(["convert", free, out, "--rows", "0:7", "--columns", "2:6"]) == 0
    assert np.allclose(pixels(read_volume(out).geometry.table, 7, 4), pixels(geometry.table, 7, 9)[:, 2:6])


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
