"""FITS pictures: the numbers that the file means, or one sentence."""

import importlib

import numpy as np
import pytest

from ctuq.errors import BackendError, InputError
from ctuq.files import read, read_volume
from ctuq.files.formats.anyarray import read_array
from ctuq.files.formats.fitspicture import load_fits
from ctuq.files.formats.pictures import load_picture

fits = pytest.importorskip("astropy.io.fits")
COUNTS = np.random.default_rng(0).integers(20000, 60000, (12, 16)).astype(np.uint16)
GEOMETRY = """kind: parallel
angles: {first: 0, step: 20, count: 9}
pixel: 0.1
values: counts
axis_column: 7.5
"""


def _put(path, *parts, **options):
    fits.HDUList(list(parts)).writeto(path, **options)
    return path


def _scaled():
    part = fits.PrimaryHDU(COUNTS.astype(np.float64))
    part.scale("int16", bscale=2.0, bzero=40000.0)
    return part


@pytest.mark.parametrize(
    ("part", "off"),
    [
        (fits.PrimaryHDU(COUNTS), 0),  # 16 bits without a sign are kept by a zero of 32768
        (fits.PrimaryHDU(COUNTS.astype(np.int32)), 0),
        (fits.PrimaryHDU(COUNTS.astype(np.float32)), 0),
        (fits.PrimaryHDU(COUNTS[None, None]), 0),
        (_scaled(), 1),  # in steps of two
    ],
)
def test_numbers_are_those_that_the_file_means_in_the_machines_own_byte_order(tmp_path, part, off):
    values = load_fits(_put(tmp_path / "a.fits", part))
    assert values.dtype.isnative and values.shape == COUNTS.shape
    np.testing.assert_allclose(values, COUNTS, atol=off)


@pytest.mark.parametrize("packed", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
def test_a_packed_picture_is_the_same(tmp_path, packed):
    path = _put(tmp_path / "a.fz", fits.PrimaryHDU(), fits.CompImageHDU(COUNTS, compression_type=packed))
    assert np.array_equal(load_picture(path), COUNTS)
    whole = path.read_bytes()
    for left_out, told in ((2700, "not a whole FITS file"), (3000, "without a picture, or cut short")):
        path.write_bytes(whole[:-left_out])
        with pytest.raises(InputError, match=told):
            load_picture(path)


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float32])
def test_blank_pixels_are_no_numbers(tmp_path, kind):
    values = np.arange(1, 13, dtype=kind).reshape(3, 4)
    part = fits.PrimaryHDU(values.copy())
    if kind is np.float32:
        part.data[1, 2] = np.nan
    else:
        part.header["BLANK"] = 7 - (32768 if kind is np.uint16 else 0)
    found = load_fits(_put(tmp_path / "a.fits", part))
    assert np.array_equal(np.isnan(found), values == 7) and np.array_equal(found[values != 7], values[values != 7])


def test_the_picture_may_lie_in_any_one_part_beside_tables(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("time", "E", array=np.ones(3))])
    assert np.array_equal(load_fits(_put(tmp_path / "a.fits", fits.PrimaryHDU(), table, fits.ImageHDU(COUNTS))), COUNTS)
    with pytest.raises(InputError, match=r"several pictures \(12 x 16 in part 0, 3 x 4 in part 2\)"):
        load_fits(_put(tmp_path / "b.fits", fits.PrimaryHDU(COUNTS), table, fits.ImageHDU(np.ones((3, 4)))))
    with pytest.raises(InputError, match="without a picture"):
        load_fits(_put(tmp_path / "c.fits", fits.PrimaryHDU(), table))


@pytest.mark.parametrize("kept", [3, 9, 2880, 2900, 3200])
def test_a_cut_file_is_refused(tmp_path, kept):
    path = _put(tmp_path / "a.fits", fits.PrimaryHDU(COUNTS))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="FITS"):
        load_picture(path)


def test_what_only_lacks_the_filling_at_its_end_is_read(tmp_path):
    path = _put(tmp_path / "a.fits", fits.PrimaryHDU(COUNTS))
    path.write_bytes(path.read_bytes()[: 2880 + COUNTS.nbytes])
    assert np.array_equal(load_picture(path), COUNTS)


@pytest.mark.parametrize("written", ["            999999999", "                   -16", "                  1x"])
def test_a_size_that_cannot_be_is_refused(tmp_path, written):
    path = _put(tmp_path / "a.fits", fits.PrimaryHDU(COUNTS))
    path.write_bytes(
        path.read_bytes().replace(b"NAXIS1  =                   16", f"NAXIS1  = {written}"[:30].encode().ljust(30))
    )
    with pytest.raises(InputError):
        load_picture(path)


def test_numbers_that_do_not_fit_their_checksum_are_refused(tmp_path):
    path = _put(tmp_path / "a.fits", fits.PrimaryHDU(COUNTS), checksum=True)
    assert np.array_equal(load_picture(path), COUNTS)
    content = bytearray(path.read_bytes())
    content[-2800] ^= 8
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole FITS file"):
        load_picture(path)


def _scan():
    rng = np.random.default_rng(1)
    views = np.exp(-np.hypot(*np.ogrid[-1:1:12j, -1:1:16j])) + 0 * rng.random((9, 1, 1))
    return np.round(50000 - 30000 * views * (1 + 0.01 * rng.random((9, 12, 16)))).astype(np.uint16)


def test_a_folder_with_flats_and_a_stack_are_read_as_those_of_tiff_are(tmp_path, capsys):
    tifffile = importlib.import_module("tifffile")
    counts, flat, scans = _scan(), np.full((12, 16), 51000, np.uint16), []
    for kind in ("tif", "fits"):
        folder = tmp_path / kind
        folder.mkdir()
        for n, view in enumerate((*counts, flat)):
            name = folder / (f"view_{n:03}.{kind}" if n < 9 else f"flat.{kind}")
            tifffile.imwrite(name, view) if kind == "tif" else _put(name, fits.PrimaryHDU(view))
        (folder / "geometry.yaml").write_text(GEOMETRY + f"flat: flat.{kind}\nrow: 4\n")
        scans.append(read(folder))
    _put(tmp_path / "stack.fits", fits.PrimaryHDU(counts))
    (tmp_path / "stack.yaml").write_text(GEOMETRY + "flat: fits/flat.fits\nrow: 4\nstack: projections\n")
    scans.append(read(tmp_path / "stack.fits"))
    for scan in scans[1:]:
        np.testing.assert_array_equal(scan.projections, scans[0].projections)
    assert read_volume(tmp_path / "fits").projections.shape == (12, 9, 16)
    np.testing.assert_array_equal(read_array(tmp_path / "fits" / "flat.fits", "an image"), flat)
    assert not capsys.readouterr().err


def test_without_astropy_it_is_told_how_to_get_it(tmp_path, monkeypatch):
    path = _put(tmp_path / "a.fits", fits.PrimaryHDU(COUNTS))
    real = importlib.import_module

    def missing(name, *others):
        if name.startswith("astropy"):
            raise ImportError(name)
        return real(name, *others)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BackendError, match=r"FITS needs the package 'astropy': pip install 'ctuq\[readers\]'"):
        load_picture(path)
