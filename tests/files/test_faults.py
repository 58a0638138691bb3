"""Files that are broken, hostile or contradict themselves: one sentence that names the file, in bounded time and memory."""

import zipfile
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from ctuq.errors import CtuqError
from ctuq.files import describe, read, write_scan
from ctuq.files.formats.arrays import system_matrix
from ctuq.guard import UnforeseenError
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.scan import Scan

VIEWS, COLUMNS = 6, 10
DEGREES = np.arange(VIEWS) * 30.0
SINOGRAM = np.outer(1 + 0.1 * np.arange(VIEWS), np.r_[0, 0, 1, 2, 3, 3, 2, 1, 0, 0]).astype(np.float32) / 5
LOG = "kind: parallel\nvalues: log\npixel: 0.5\n"
GEOMETRY = LOG + "angles: {first: 0, step: 30, count: 6}\n"


def refused(path, words="", **options):
    """Read and described, a file gives the same kind of sentence."""
    with pytest.raises(CtuqError, match=words) as caught:
        read(path, **options)
    text = str(caught.value)
    assert not isinstance(caught.value, UnforeseenError), text
    assert path.parent.name in text and len(text) < 1200 and "\n" not in text
    return text


def _npz(path, **changed):
    arrays = {"sinogram": SINOGRAM, "angles_deg": DEGREES, "kind": "parallel", "pixel": 0.5} | changed
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def _dxchange(path, change=lambda file: None, **changed):
    nodes = {"exchange/data": np.exp(-np.repeat(SINOGRAM[:, None], 3, axis=1)), "exchange/theta": DEGREES} | changed
    with h5py.File(path, "w") as file:
        for name, value in nodes.items():
            file[name] = value
        change(file)
    path.with_suffix(".yaml").write_text("kind: parallel\npixel: 0.5\naxis_column: 4.5\n")
    return path


GEOMETRY_FILES = {
    "aliases without end": "a0: &a0 [0, 0]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)),
    "one alias": GEOMETRY + "axis_offset: &x 0.1\ndetector_offset: *x\n",
    "a circle": "angles: &a [*a]\n",
    "deep nesting": "angles: " + "[" * 5000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(200)),
    "a key twice": GEOMETRY + "pixel: 0.7\n",
    "a key inside twice": LOG + "angles: {first: 0, first: 1, step: 30, count: 6}\n",
    "eight megabytes": "#" * (8 << 20),
    "no mapping": "- 1\n- 2\n",
    "binary": "\x00\x01\x02",
    "a number of a thousand digits": GEOMETRY.replace("0.5", "9" * 1000),
    "a number of ten thousand digits": GEOMETRY.replace("0.5", "9" * 10000),
    "python": GEOMETRY + "sample: !!python/object/apply:os.system ['true']\n",
    "a count below zero": LOG + "angles: {first: 0, step: 30, count: -6}\n",
    "a count of parts": LOG + "angles: {first: 0, step: 30, count: 6.5}\n",
    "a count without end": LOG + "angles: {first: 0, step: 30, count: .inf}\n",
    "a count that is none": LOG + "angles: {first: 0, step: 30, count: .nan}\n",
    "a count of 1e12": LOG + "angles: {first: 0, step: 30, count: 1000000000000}\n",
    "a count that is true": LOG + "angles: {first: 0, step: 30, count: true}\n",
    "an angle of 1e300": LOG + "angles: {first: 1.0e+300, step: 30, count: 6}\n",
    "angles beyond all turns": LOG + "angles: [0, 1.0e+9, 60, 90, 120, 150]\n",
    "angles that are true or false": LOG + "angles: [true, false, true, false, true, false]\n",
    "angles in lists": LOG + "angles: [[0, 30], [60, 90], [120, 150]]\n",
    "angles that are no numbers": LOG + "angles: [.nan, 30, 60, 90, 120, 150]\n",
    "angles with more to say": LOG + "angles: {first: 0, step: 30, count: 6, unit: rad}\n",
    "no angles": LOG + "angles: []\n",
    "angles that are all one": LOG + "angles: [0, 0, 0, 0, 0, 0]\n",
    "an axis twice": GEOMETRY + "axis_column: 4\ndetector_offset: 1\n",
    "other columns": GEOMETRY + "columns: 9\n",
    "columns below zero": GEOMETRY + "columns: -3\n",
    "columns in parts": GEOMETRY + "columns: 10.5\n",
    "a pixel of nothing": GEOMETRY.replace("0.5", "0"),
    "a pixel below zero": GEOMETRY.replace("0.5", "-0.5"),
    "a pixel of 1e200": GEOMETRY.replace("0.5", "1.0e+200"),
    "a row below zero": GEOMETRY + "row: -1\n",
    "a scale of nothing": GEOMETRY + "scale: 0\n",
    "a beam of no kind": GEOMETRY.replace("parallel", "[parallel]"),
    "values of no kind": GEOMETRY.replace("log", "{a: 1}"),
    "an axis outside": GEOMETRY + "axis_column: 1.0e+12\n",
}


@pytest.mark.parametrize("name", GEOMETRY_FILES)
def test_a_geometry_file_that_is_nonsense_is_refused(tmp_path, name):
    tifffile.imwrite(tmp_path / "a.tif", SINOGRAM)
    (tmp_path / "a.yaml").write_text(GEOMETRY_FILES[name])
    refused(tmp_path / "a.tif")


ARRAYS = {
    "no axis": {"sinogram": np.float32(1)},
    "four axes": {"sinogram": SINOGRAM[None, None]},
    "boolean projections": {"sinogram": SINOGRAM > 0.2},
    "complex projections": {"sinogram": SINOGRAM + 1j},
    "projections of dates": {"sinogram": np.zeros((6, 10), "M8[s]")},
    "structured projections": {"sinogram": np.zeros((6, 10), [("a", "f4")])},
    "complex angles": {"angles_deg": DEGREES + 1j},
    "angles of text": {"angles_deg": np.array(["0", "30", "60", "90", "120", "150"])},
    "boolean angles": {"angles_deg": DEGREES > 10},
    "infinite angles": {"angles_deg": DEGREES * np.inf},
    "angles of 1e300": {"angles_deg": DEGREES * 1e300},
    "angles twice": {"angles": np.deg2rad(DEGREES + 1)},
    "flats of no axis": {"flats": np.float32(1), "values": "counts"},
    "flats of other columns": {"flats": np.ones((2, 9)), "values": "counts"},
    "complex weights": {"weights": np.ones((6, 10), complex)},
    "weights below zero": {"weights": -np.ones((6, 10))},
    "a truth of three axes": {"truth": np.ones((2, 2, 2)), "voxel": 1.0},
    "a complex truth": {"truth": np.ones((4, 4), complex), "voxel": 1.0},
    "a voxel of nothing": {"truth": np.ones((4, 4)), "voxel": 0.0},
    "a kind of many": {"kind": np.array(["parallel", "fan"])},
    "an axis twice": {"axis_column": 4.5, "detector_offset": 1.0},
    "an infinite pixel": {"pixel": np.inf},
    "a fan of no distance": {"kind": "fan"},
    "a source behind the detector": {"kind": "fan", "source_to_axis": 100.0, "source_to_detector": 50.0},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_nonsense_are_refused(tmp_path, name):
    refused(_npz(tmp_path / "a.npz", **ARRAYS[name]))


MATRICES = {
    "an index too large": {"A_indices": lambda a: np.where(a == a.max(), 10**9, a)},
    "an index below zero": {"A_indices": lambda a: a - 10**9},
    "indices of parts": {"A_indices": lambda a: a + 0.5},
    "a pointer that falls": {"A_indptr": lambda a: a[::-1].copy()},
    "a pointer too large": {"A_indptr": lambda a: a * 1000},
    "a pointer too short": {"A_indptr": lambda a: a[:-1]},
    "fewer data": {"A_data": lambda a: a[:-1]},
    "complex data": {"A_data": lambda a: a + 1j},
    "a shape of three": {"A_shape": lambda a: np.r_[a, 1]},
    "a shape below zero": {"A_shape": lambda a: -a},
    "a shape of terabytes": {"A_shape": lambda a: np.array([10**12, 10**12])},
    "an empty matrix": {"A_data": lambda a: a[:0], "A_indices": lambda a: a[:0], "A_indptr": lambda a: a * 0},
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_damaged_sparse_matrix_never_reaches_scipy(tmp_path, name):
    import scipy.sparse as sp

    from ctuq.tomo.rays.entries import build_matrix

    beam = ParallelBeam(angles=np.deg2rad(DEGREES) - np.pi / 2, columns=COLUMNS, pixel=np.hypot(6, 6) / COLUMNS)
    A = sp.csr_array(build_matrix(VolumeGrid((6, 6), 1.0), beam))
    image = np.pad(np.ones((4, 4), np.float32), 1)
    parts = {"A_data": A.data, "A_indices": A.indices, "A_indptr": A.indptr, "A_shape": np.array(A.shape)}
    whole = {"image": image, "angles": np.deg2rad(DEGREES), "sinogram": (A @ image.ravel()).reshape(VIEWS, COLUMNS), **parts}
    np.savez(tmp_path / "sound.npz", **whole)
    assert read(tmp_path / "sound.npz").truth is not None
    np.savez(tmp_path / "a.npz", **whole | {key: change(parts[key]) for key, change in MATRICES[name].items()})
    refused(tmp_path / "a.npz")
    if "empty" not in name:
        with pytest.raises(CtuqError):
            system_matrix(tmp_path / "a.npz")


def test_headers_that_declare_terabytes_are_refused_before_anything_is_read(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    start = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    (tmp_path / "a.npy").write_bytes(start)
    (tmp_path / "endless.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + header)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("sinogram.npy", start)
    for name in ("a.npy", "a.npz", "endless.npy"):
        refused(tmp_path / name, "declares|header")


def test_a_stack_of_a_million_million_values_is_described_by_its_one_row(tmp_path):
    path = tmp_path / "a.npy"
    shape = (VIEWS, 10**10, 16)
    np.lib.format.open_memmap(path, "w+", np.float32, (1, 1, 1))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    with path.open("wb") as file:  # sparse: 3.8 TB that take no room
        file.write(b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n")
        start = file.tell()
        try:
            file.truncate(start + 4 * int(np.prod(shape, dtype=object)))
        except OSError:
            pytest.skip("no sparse files of that size here")
    path.with_suffix(".yaml").write_text(GEOMETRY + "stack: projections\n")
    told = describe(path)[0]
    assert told.data.startswith("6 views of 16 columns") and "10000000000" in told.data


def _bomb_npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sinogram.npy", bytes(4000))
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # how large it becomes, by both of its headers
        place = content.index(mark) + at
        content[place : place + 4] = (0xF0000000).to_bytes(4, "little")
    path.write_bytes(content)


def _bomb_hdf5(path):
    with h5py.File(path, "w") as file:
        node = file.create_dataset("exchange/data", (4, 2, 50_000_000), "u1", chunks=(1, 1, 50_000_000), compression="gzip")
        node[0, 0] = 0
        file["exchange/theta"] = DEGREES[:4]


def _bomb_png(path):
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (60000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def _bomb_tiff(path):
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), photometric="minisblack", rowsperstrip=16)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(60000)


def _bomb_matlab(path):
    scipy.io.savemat(path, {"other": 1.0})
    inside = zlib.compress((14).to_bytes(4, "little") + (0x7FFFFFFF).to_bytes(4, "little") + bytes(1000))
    tag = (15).to_bytes(4, "little") + len(inside).to_bytes(4, "little")
    path.write_bytes(path.read_bytes()[:128] + tag + inside)


BOMBS = {"a.npz": _bomb_npz, "a.h5": _bomb_hdf5, "a.png": _bomb_png, "a.tif": _bomb_tiff, "a.mat": _bomb_matlab}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_what_they_declare(tmp_path, name):
    path = tmp_path / name
    BOMBS[name](path)
    path.with_suffix(".yaml").write_text(GEOMETRY)
    assert path.stat().st_size < 4 << 20
    refused(path, "declares")


HDF5 = {
    "data that are a group": lambda file: (file.__delitem__("exchange/data"), file.create_group("exchange/data")),
    "data that are a type": lambda file: (file.__delitem__("exchange/data"), file.__setitem__("exchange/data", np.dtype("f4"))),
    "terabytes never stored": lambda file: (
        file.__delitem__("exchange/data"),
        file.create_dataset("exchange/data", (10**4, 10**4, 10**4), "u2", chunks=(64, 64, 64)),
    ),
    "flats of terabytes": lambda file: file.create_dataset("exchange/data_white", (10**6, 3, 10**6), "u2", chunks=(64, 3, 64)),
    "flats of one row": lambda file: file.__setitem__("exchange/data_white", np.ones((2, 1, 10))),
    "flats of one axis": lambda file: file.__setitem__("exchange/data_white", np.ones(10)),
    "angles of text": lambda file: (file.__delitem__("exchange/theta"), file.__setitem__("exchange/theta", ["a"] * 6)),
    "a data link to itself": lambda file: (
        file.__delitem__("exchange/data"),
        file.__setitem__("exchange/data", h5py.SoftLink("/exchange/data")),
    ),
}


@pytest.mark.parametrize("name", HDF5)
def test_hdf5_of_another_shape_inside_is_refused(tmp_path, name):
    refused(_dxchange(tmp_path / "a.h5", HDF5[name]))


def test_circles_and_ten_thousands_of_names_are_no_trouble(tmp_path):
    def change(file):
        file["exchange/self"] = file["exchange"]
        file["round"] = h5py.SoftLink("/exchange")
        for i in range(10_000):
            file.create_group(f"more/{i:05d}")

    scan = read(_dxchange(tmp_path / "a.h5", change))
    assert scan.geometry.shape == (VIEWS, COLUMNS)


def _outside(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    data = np.exp(-np.repeat(SINOGRAM[:, None], 3, axis=1))
    with h5py.File(tmp_path / "far" / "secret.h5", "w") as file:
        file["x"] = data
    data.tofile(tmp_path / "far" / "secret.raw")
    return tmp_path / "near" / "a.h5", data


def _linked(path, way, target):
    layout = h5py.VirtualLayout((VIEWS, 3, COLUMNS), "f4")
    layout[:] = h5py.VirtualSource(str(target.with_suffix(".h5")), "x", (VIEWS, 3, COLUMNS))

    def change(file):
        del file["exchange/data"]
        if way == "link":
            file["exchange/data"] = h5py.ExternalLink(str(target.with_suffix(".h5")), "/x")
        elif way == "storage":
            place = [(str(target.with_suffix(".raw")), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset("exchange/data", (VIEWS, 3, COLUMNS), "f4", external=place)
        else:
            file.create_virtual_dataset("exchange/data", layout)

    return _dxchange(path, change)


@pytest.mark.parametrize("way", ["link", "storage", "virtual"])
@pytest.mark.parametrize("named", ["absolute", "relative"])
def test_data_from_outside_the_folder_need_leave(tmp_path, monkeypatch, way, named):
    path, _ = _outside(tmp_path)
    monkeypatch.chdir(path.parent)
    target = (
        tmp_path / "far" / "secret" if named == "absolute" else (path.parent / ".." / "far" / "secret").relative_to(path.parent)
    )
    refused(_linked(path, way, target), "--follow-links")
    assert read(path, follow_links=True).geometry.shape == (VIEWS, COLUMNS)


def test_links_of_links_and_symbolic_links_are_no_way_around(tmp_path):
    path, _ = _outside(tmp_path)
    with h5py.File(path.parent / "step.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "far" / "secret.h5"), "/x")
    refused(_linked(path, "link", path.parent / "step"), "--follow-links")
    (path.parent / "step.h5").unlink()
    (path.parent / "step.h5").symlink_to(tmp_path / "far" / "secret.h5")
    refused(path, "--follow-links")


def test_data_from_beside_are_read_and_told(tmp_path):
    path, data = _outside(tmp_path)
    with h5py.File(path.parent / "beside.h5", "w") as file:
        file["x"] = data
    scan = read(_linked(path, "link", path.parent / "beside"))
    assert any("beside.h5" in text for text in scan.warnings)


def test_our_own_scan_with_other_types_inside_is_refused(tmp_path):
    geometry = ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=0.5)
    for name, value in {
        "geometry/columns": "abc",
        "geometry/angles": "x",
        "geometry/pixel": True,
        "geometry/detector_offset": np.ones(3),
        "projections": SINOGRAM + 1j,
        "provenance/steps": 3,
        "provenance/facts": "x",
    }.items():
        path = tmp_path / "a.h5"
        write_scan(Scan(SINOGRAM, geometry), path)
        with h5py.File(path, "a") as file:
            del file[name]
            file[name] = value
            file[name].attrs["ctuq_type"] = "array" if isinstance(value, np.ndarray) else type(value).__name__
        refused(path)


def test_an_edited_scan_of_ours_is_read_with_a_warning(tmp_path):
    path = tmp_path / "a.h5"
    write_scan(Scan(SINOGRAM, ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=0.5)), path)
    assert not read(path).warnings
    with h5py.File(path, "a") as file:
        file["projections"][0, 0] = 7
    scan = read(path)
    assert scan.projections[0, 0] == 7 and any("edited" in text for text in scan.warnings)
