from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.sparse.linalg import lsqr
from skimage.io import imsave

from ctuq.errors import InputError
from ctuq.files import demo_scan, describe, read
from ctuq.files.formats.pictures import load_picture
from ctuq.tomo.axis import axis_column, find_axis
from ctuq.tomo.geometry import default_grid
from ctuq.tomo.rays.entries import build_matrix

FAN = (
    "kind: fan\nvalues: log\nangles: {first: 0, step: 15, count: 24}\npixel: 0.7\nsource_to_axis: 110\n"
    "source_to_detector: 300\ndetector_offset: 0.27\n"
)


def _write_tiff(path, array):
    tifffile.imwrite(path, np.asarray(array), photometric="minisblack")
    return path


def test_one_picture_is_a_sinogram(tmp_path, fan, fan_scan):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections)
    (tmp_path / "a.yaml").write_text(FAN + "sample: nut\n")
    scan = read(path)
    assert scan.geometry == fan and np.array_equal(scan.projections, fan_scan.projections)
    assert scan.weights is None and scan.provenance.facts == {"sample": "nut"}


def test_a_16_bit_png_is_scaled_transposed_and_reversed(tmp_path, fan_scan):
    levels = np.round((fan_scan.projections - fan_scan.projections.min()) * 2000).astype(np.uint16)
    imsave(tmp_path / "a.png", np.ascontiguousarray(levels[:, ::-1].T), check_contrast=False)
    (tmp_path / "a.yaml").write_text(FAN + "transpose: true\nreverse_columns: true\nscale: 0.0005\n")
    assert np.allclose(read(tmp_path / "a.png").projections, levels * 0.0005, rtol=1e-6)


def test_clockwise_angles_are_turned(tmp_path, fan, fan_scan):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections)
    (tmp_path / "a.yaml").write_text(FAN + "clockwise: true\n")
    assert np.array_equal(read(path).geometry.angles, -fan.angles)


@pytest.mark.parametrize("layout", ["folder", "pages"])
def test_a_stack_of_counts_is_corrected_with_the_row_asked_for(tmp_path, fan, fan_scan, layout):
    counts = np.full((24, 5, 40), 900.0)
    counts[:, 3] = 800 * np.exp(-fan_scan.projections) + 100
    folder = tmp_path / "scan"
    if layout == "folder":
        folder.mkdir()
        for i, picture in enumerate(counts.astype(np.float32)):
            _write_tiff(folder / f"view{i}.tif", picture)
        path, sidecar = folder, folder / "geometry.yaml"
    else:
        path, sidecar = _write_tiff(tmp_path / "scan.tif", counts.astype(np.float32)), tmp_path / "scan.yaml"
    flat = _write_tiff(tmp_path / "flat.tif", np.full((5, 40), 900, np.uint16))
    sidecar.write_text(FAN.replace("values: log", "values: counts") + f"flat: {flat}\ndark: 100\nrow: 3\n")
    scan = read(path)
    assert scan.geometry == fan and np.allclose(scan.projections, fan_scan.projections, atol=2e-3)
    assert any("row 3 of 5" in step for step in scan.provenance.steps)
    assert np.allclose(read(path, row=1).projections, 0, atol=1e-4)


def test_counts_without_flats_are_refused(tmp_path, fan_scan):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections)
    (tmp_path / "a.yaml").write_text(FAN.replace("values: log", "values: counts"))
    with pytest.raises(InputError, match=r"no flats.*'flat:'"):
        read(path)
    (tmp_path / "a.yaml").write_text(FAN.replace("values: log", "values: counts") + "flat: none.tif\n")
    with pytest.raises(InputError, match="does not exist"):
        read(path)


def test_transmission_becomes_line_integrals(tmp_path, fan_scan):
    path = _write_tiff(tmp_path / "a.tif", np.exp(-fan_scan.projections))
    (tmp_path / "a.yaml").write_text(FAN.replace("values: log", "values: transmission"))
    assert np.allclose(read(path).projections, fan_scan.projections, atol=1e-5)


def test_nan_is_repaired_and_counted(tmp_path, fan_scan):
    broken = fan_scan.projections.copy()
    broken[3, 7], broken[5, 9] = np.nan, np.inf
    path = _write_tiff(tmp_path / "a.tif", broken)
    (tmp_path / "a.yaml").write_text(FAN)
    scan = read(path)
    assert scan.weights[3, 7] == 0 and scan.weights[5, 9] == 0 and (scan.weights == 0).sum() == 2
    assert any("2 bad rays of 960" in step for step in scan.provenance.steps)
    assert "2 not finite" in describe(path)[0].values


def test_the_axis_can_be_told_or_searched(tmp_path, fan_scan):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections)
    (tmp_path / "a.yaml").write_text(FAN.replace("detector_offset: 0.27", "axis_column: 18.25"))
    assert axis_column(read(path).geometry) == pytest.approx(18.25)
    (tmp_path / "a.yaml").write_text(FAN.replace("detector_offset: 0.27", "axis_column: search"))
    assert axis_column(read(path).geometry) == pytest.approx(axis_column(fan_scan.geometry), abs=0.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: cone\n", "'kind'.*parallel, fan"),
        ("colour: red\n", "unknown key colour"),
        ("angles: north\n", "'angles'"),
        ("angles: [0, x]\n", "'angles'"),
        ("angles: {first: 0, step: 1}\n", "'angles'"),
        ("pixel: big\n", "'pixel'.*number"),
        ("pixel: .nan\n", "'pixel'.*number"),
        ("transpose: 1\n", "'transpose'.*true or false"),
        ("values: photons\n", "'values'"),
        ("a: [1\n", "not valid YAML at line"),
        ("just words\n", "'key: value'"),
        ("!!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_faulty_geometry_file_is_refused(tmp_path, fan_scan, text, words):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        read(path)


@pytest.mark.parametrize(
    ("removed", "words"),
    [("kind", "kind"), ("pixel", "pixel"), ("angles", "angles"), ("source_to_axis", "source_to_axis")],
)
def test_what_the_geometry_lacks_is_named(tmp_path, fan_scan, removed, words):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections)
    text = "\n".join(line for line in FAN.splitlines() if not line.startswith(removed + ":"))
    (tmp_path / "a.yaml").write_text(text)
    assert describe(path)[0].missing == (words,)
    with pytest.raises(InputError, match=f"does not say its {words}: give a geometry file"):
        read(path)


def test_other_numbers_of_angles_are_refused_with_a_hint(tmp_path, fan_scan):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections.T)
    (tmp_path / "a.yaml").write_text(FAN)
    with pytest.raises(InputError, match="40 projections but 24 angles; set 'transpose: true'"):
        read(path)


def test_degrees_out_of_scale_are_refused(tmp_path, fan_scan):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections)
    (tmp_path / "a.yaml").write_text(FAN.replace("step: 15", "step: 1500"))
    with pytest.raises(InputError, match="more than a turn"):
        read(path)


def test_pictures_that_cannot_be_used_are_refused(tmp_path, fan_scan):
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no TIFF, PNG or FITS"):
        read(tmp_path / "none")
    imsave(tmp_path / "colour.png", np.zeros((8, 8, 3), np.uint8), check_contrast=False)
    with pytest.raises(InputError, match=r"colour picture, as a screen shows it; .* give what the detector wrote"):
        read(tmp_path / "colour.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "view.jpg")
    (tmp_path / "view.tif").write_bytes((tmp_path / "view.jpg").read_bytes())
    for name in ("view.jpg", "view.tif"):
        with pytest.raises(InputError, match="JPEG picture, whose values were changed to make it small; give what the det"):
            read(tmp_path / name)
    for name in ("a.tif", "a.png"):
        path = tmp_path / name
        imsave(path, (fan_scan.projections * 100).astype(np.uint16), check_contrast=False)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match="whole"):
            read(path)
    two = tmp_path / "two"
    two.mkdir()
    for i, size in enumerate((4, 5)):
        _write_tiff(two / f"{i}.tif", np.ones((size, 6)))
    with pytest.raises(InputError, match="another size"):
        read(two)


def test_pictures_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "scan"
    folder.mkdir()
    for i in range(12):
        _write_tiff(folder / f"p{i}.tif", np.full((1, 8), 1.0 + i, np.float32))
    (folder / "geometry.yaml").write_text("kind: parallel\nvalues: log\npixel: 1\nangles: {first: 0, step: 10, count: 12}\n")
    assert np.array_equal(read(folder).projections[:, 0], 1.0 + np.arange(12))


@pytest.mark.parametrize("mode", [(2, np.float32), (12, np.float16), (6, np.uint16)])
def test_mrc_stacks_are_read(tmp_path, mode, fan_scan):
    number, dtype = mode
    data = np.round(np.repeat(fan_scan.projections[:, None], 3, axis=1) * 50).clip(0).astype(dtype)
    header = np.zeros(256, "<i4")
    header[:4] = (*data.shape[::-1], number)
    header[23] = 16
    path = tmp_path / "a.mrc"
    path.write_bytes(header.tobytes() + b"\0" * 16 + data.tobytes())
    (tmp_path / "a.yaml").write_text(FAN)
    assert np.array_equal(read(path).projections, data[:, 1].astype(np.float32))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="truncated"):
        read(path)


def test_the_demo_walnut_has_its_geometry(shipped):
    scan = read(demo_scan())
    assert scan.geometry.shape == (120, 328) and scan.geometry.detector_offset == 0.27
    assert (shipped / "walnut" / "walnut.png").read_bytes() == demo_scan().read_bytes()
    small = scan.every(4).binned(4)
    assert find_axis(small).column == pytest.approx(axis_column(small.geometry), abs=0.1)


def test_the_walnut_fits_its_geometry_and_not_the_mirrored_one():
    scan = read(demo_scan()).every(3).binned(4)

    def misfit(beam):
        matrix = build_matrix(default_grid(scan.geometry, 82), beam)
        return lsqr(matrix, scan.projections.ravel(), iter_lim=20)[3] / np.linalg.norm(scan.projections)

    mirrored = replace(scan.geometry, angles=-scan.geometry.angles)
    assert misfit(scan.geometry) < 0.03 and misfit(mirrored) > 3 * misfit(scan.geometry)


def test_a_packed_part_beyond_the_end_of_the_file_is_refused_before_room_is_made(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((6, 10), np.float32), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["StripByteCounts"].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 4] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    monkeypatch.setattr(tifffile.TiffFile, "asarray", lambda *_: pytest.fail("read"))
    with pytest.raises(InputError, match="beyond its end"):
        load_picture(path)


def test_numbers_mean_what_they_look_like(tmp_path, fan_scan):
    path = _write_tiff(tmp_path / "a.tif", fan_scan.projections)
    angles = ", ".join(f"{15 * i:03d}" for i in range(24))
    (tmp_path / "a.yaml").write_text(FAN.replace("{first: 0, step: 15, count: 24}", f"[{angles}]").replace("0.7", "010"))
    scan = read(path)
    assert np.allclose(np.rad2deg(scan.geometry.angles), 15.0 * np.arange(24)) and scan.geometry.pixel == 10
    (tmp_path / "a.yaml").write_text(FAN.replace("0.7", "1:30"))
    with pytest.raises(InputError, match="':30', a unit that is not known"):
        read(path)


@pytest.mark.parametrize(("name", "told"), [("a.npy", "no TIFF, PNG or FITS"), (".", "directory"), ("b.png", "no such file")])
def test_what_is_no_picture_is_not_called_a_damaged_one(tmp_path, name, told):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(InputError, match=told):
        load_picture(tmp_path / name)


def test_flats_beside_the_projections_are_named_by_a_pattern(tmp_path, fan, fan_scan):
    """As neutron beamlines keep them: all in one folder, of which the open beam is ob_* and the dark current dc_*."""
    counts = np.round(50000 * np.exp(-fan_scan.projections) + 100).astype(np.uint16)
    for i, view in enumerate(counts):
        _write_tiff(tmp_path / f"ct_{i:03}.tif", np.stack([view, view]))
    for i in range(3):
        _write_tiff(tmp_path / f"ob_{i}.tif", np.full((2, 40), 50099 + i, np.uint16))
        _write_tiff(tmp_path / f"dc_{i}.tif", np.full((2, 40), 99 + i, np.uint16))
    told = FAN.replace("log", "counts") + "row: 1\n"
    (tmp_path / "geometry.yaml").write_text(told + "flat: ob_*.tif\ndark: dc_?.tif\n")
    scan = read(tmp_path)
    assert scan.geometry == fan and np.allclose(scan.projections, fan_scan.projections, atol=1e-3)
    (tmp_path / "geometry.yaml").write_text(told + "flat: open_*.tif\ndark: dc_?.tif\nfiles: ct_*.tif\n")
    with pytest.raises(InputError, match=r"open_.*does not exist"):
        read(tmp_path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", None])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("pages", [1, 3])
def test_compressed_tiffs_are_read_as_they_were_written(tmp_path, compression, dtype, pages):
    # OpenCV packs by LZW unless it is told not to, and tifffile does not unpack that by itself.
    values = (np.random.default_rng(0).random((pages, 12, 20)) * 250).astype(dtype)
    first, *others = [Image.fromarray(page) for page in values]
    first.save(tmp_path / "a.tif", compression=compression, save_all=pages > 1, append_images=others)
    found = load_picture(tmp_path / "a.tif")
    assert found.dtype == dtype and np.array_equal(found, values if pages > 1 else values[0])


def test_a_cut_lzw_tiff_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).random((40, 40)).astype(np.float32)).save(
        tmp_path / "a.tif", compression="tiff_lzw"
    )
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:-200])
    with pytest.raises(InputError, match="not a whole TIFF"):
        load_picture(tmp_path / "a.tif")


def test_a_folder_of_other_pictures_says_what_is_there(tmp_path):
    for n in range(3):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"view{n}.jpg")
    with pytest.raises(InputError, match=r"no TIFF, PNG or FITS picture but 3 \.jpg; give what the detector wrote"):
        read(tmp_path)
