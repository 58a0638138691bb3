import gzip
import tracemalloc

import numpy as np
import pytest
from scanned import misfit, predicted

from ctuq.errors import InputError
from ctuq.files import read
from ctuq.files.formats import sizes
from ctuq.tomo.geometry import ParallelBeam

edfimage = pytest.importorskip("fabio.edfimage")

VIEWS, COLUMNS, PIXEL, BEAM, DARK = 30, 80, 0.25, 20000, 100
INFO = f"Energy= 19\nTOMO_N= {VIEWS}\nREF_N= 2\nDARK_N= 5\nScanRange= 180\nPixelSize= 250\n"


def _counts(rows=3):
    beam = ParallelBeam(angles=np.arange(VIEWS) * np.pi / VIEWS, columns=COLUMNS, pixel=PIXEL)
    counts = np.full((VIEWS, rows, COLUMNS), BEAM + DARK, np.float32)
    counts[:, 1] = BEAM * np.exp(-predicted(beam)) + DARK
    return counts


def _save(path, frame, **header):
    edfimage.EdfImage(data=frame, header=header).write(str(path))
    return path


def _scan(folder, name="Zahn_{:04d}.edf", info=INFO):
    folder.mkdir()
    counts = _counts()
    for number, frame in enumerate(counts):
        _save(folder / name.format(number), frame)
    for number in (0, VIEWS):
        _save(folder / f"refHST{number:04d}.edf", np.full(counts.shape[1:], BEAM + DARK, np.float32))
    _save(folder / "darkend0000.edf", np.full(counts.shape[1:], 5 * DARK, np.float32))
    if info:
        (folder / "Zahn_.info").write_text(info)
    return folder


def test_a_folder_of_esrf_is_read_with_its_flats_darks_and_angles(tmp_path):
    scan = read(_scan(tmp_path / "Zahn_"), axis_column=39.5)
    assert misfit(scan) < 1e-5 and scan.geometry.pixel == pytest.approx(PIXEL) and scan.weights is not None
    assert np.allclose(np.rad2deg(scan.geometry.angles), np.arange(VIEWS) * 6.0)


def test_returns_and_slices_are_no_views(tmp_path):
    folder = _scan(tmp_path / "Zahn_")
    for number in range(VIEWS, VIEWS + 3):
        _save(folder / f"Zahn_{number:04d}.edf", np.zeros((3, COLUMNS), np.float32))
    _save(folder / "Zahn_slice_0001.edf", np.zeros((9, 9), np.float32))
    scan = read(folder, axis_column=39.5)
    assert misfit(scan) < 1e-5 and any("3 pictures after the 30 projections" in text for text in scan.warnings)


def test_upper_case_commas_and_gzip_are_read(tmp_path):
    folder = _scan(tmp_path / "Zahn", "ZAHN_{:04d}.EDF", INFO.replace("250", "250,0").upper())
    path = folder / "ZAHN_0003.EDF"
    (folder / "ZAHN_0003.EDF.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert misfit(read(folder, axis_column=39.5)) < 1e-5


def test_a_stack_and_a_sinogram_in_one_file_are_read_in_either_byte_order(tmp_path):
    counts = _counts()
    stack = edfimage.EdfImage(data=counts[0])
    for frame in counts[1:]:
        stack.append_frame(data=frame)
    stack.write(str(tmp_path / "a.edf"))
    path = _save(tmp_path / "sino.edf", (-np.log((counts[:, 1] - DARK) / BEAM)).astype("f4"))
    header, numbers = path.read_bytes()[: -4 * VIEWS * COLUMNS], path.read_bytes()[-4 * VIEWS * COLUMNS :]
    assert b"LowByteFirst ;" in header
    path.write_bytes(header.replace(b"LowByteFirst ;", b"HighByteFirst;") + np.frombuffer(numbers, "<f4").byteswap().tobytes())
    yaml = f"kind: parallel\npixel: {PIXEL}\naxis_column: 39.5\nangles: {{first: 0, step: 6, count: {VIEWS}}}\n"
    (tmp_path / "a.yaml").write_text(yaml + f"values: counts\nflat: {BEAM + DARK}\ndark: {DARK}\n")
    (tmp_path / "sino.yaml").write_text(yaml + "values: log\n")
    assert misfit(read(tmp_path / "a.edf")) < 1e-5 and misfit(read(tmp_path / "sino.edf")) < 1e-5


def test_without_its_info_angles_are_asked_for(tmp_path):
    with pytest.raises(InputError, match="does not say its angles"):
        read(_scan(tmp_path / "Zahn_", info=""))


def test_damaged_and_odd_files_are_refused(tmp_path):
    folder = _scan(tmp_path / "Zahn_")
    _save(folder / "Zahn_0004.edf", np.zeros((4, 4), np.float32))
    with pytest.raises(InputError, match="one size"):
        read(folder)
    path = _save(tmp_path / "a.edf", np.zeros((30, 30), np.float32))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match="whole EDF"):
        read(path)


def test_what_a_file_declares_beyond_its_bytes_takes_no_memory(tmp_path):
    path = _save(tmp_path / "a.edf", np.ones((30, 40), np.float32))
    content = path.read_bytes()
    for wide, bytes_of in ((10**5, 4800), (10**6, 4800), (10**5, 4 * 10**5 * 30)):
        more = content.replace(b"Dim_1 = 40", b"Dim_1 = %d" % wide).replace(b"Size = 4800", b"Size = %d" % bytes_of)
        assert more != content
        path.write_bytes(more)
        tracemalloc.start()
        with pytest.raises(InputError, match="whole EDF"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
        tracemalloc.stop()


def test_a_bomb_is_refused_before_it_unfolds(tmp_path, monkeypatch):
    path = _save(tmp_path / "a.edf", np.zeros((300, 1000), np.float32))
    (tmp_path / "b.edf.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="angles"):
        read(tmp_path / "b.edf.gz")
    monkeypatch.setattr(sizes, "_HARMLESS", 1 << 16)
    with pytest.raises(InputError, match="declares"):
        read(tmp_path / "b.edf.gz")


def test_a_file_does_not_have_another_read(tmp_path):
    path = _save(tmp_path / "a.edf", np.ones((30, 40), np.float32), EDF_BinaryFileName=str(tmp_path / "other"))
    (tmp_path / "other").write_bytes(np.full(1200, 7, "<f4").tobytes())
    with pytest.raises(InputError, match="another file"):
        read(path)
