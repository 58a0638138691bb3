import h5py
import numpy as np
import pytest
from scanned import misfit, predicted

from ctuq.errors import InputError
from ctuq.files import describe, read
from ctuq.files.sidecar import read_sidecar, treated, treatment
from ctuq.tomo.geometry import ParallelBeam

VIEWS, COLUMNS, PIXEL, BEAM, DARK = 30, 80, 0.25, 20000.0, 100.0
DEGREES = np.arange(VIEWS) * 6.0
COMMON = f"pixel: {PIXEL}\naxis_column: 39.5\n"


def _counts(rows=3):
    beam = ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=PIXEL)
    counts = np.full((VIEWS, rows, COLUMNS), BEAM + DARK, np.float32)
    counts[:, rows // 2] = BEAM * np.exp(-predicted(beam)) + DARK
    return counts


def _file(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


def _yaml(path, text):
    path.with_suffix(".yaml").write_text(COMMON + text)
    return path


def _level(value, frames=2):
    return np.full((frames, 3, COLUMNS), value, np.float32)


def test_a_beamline_file_is_read_by_the_paths_of_its_parts(tmp_path):
    """Diamond: frames of all kinds with an image key, and an angle for each."""
    frames = np.concatenate([_level(DARK), _level(BEAM + DARK), _counts(), _level(BEAM + DARK), _level(0.0, 1)])
    keys = np.r_[2, 2, 1, 1, np.zeros(VIEWS, int), 1, 1, 3]
    angles = np.r_[np.nan, 0, 0, 0, DEGREES, 180, 180, np.nan]
    names = {"entry1__pco__data": frames, "entry1__pco__keys": keys, "entry1__pco__angle": angles}
    path = _yaml(
        _file(tmp_path / "a.nxs", **names), "data: /entry1/pco/data\nimage_key: entry1/pco/keys\nangles: entry1/pco/angle\n"
    )
    scan = read(path)
    assert misfit(scan) < 1e-5 and scan.weights is not None and scan.n_angles == VIEWS
    assert any("1 frames with an image_key" in text for text in scan.warnings)
    assert "30 views of 80 columns, row 1 of 3" in describe(path)[0].data


def test_flats_darks_and_angles_may_lie_in_other_files(tmp_path):
    path = _file(tmp_path / "a b.h5", scan=_counts())
    (tmp_path / "calibration").mkdir()
    _file(tmp_path / "calibration" / "flats.h5", entry__data=_level(BEAM + DARK))
    _file(tmp_path / "darks.h5", entry__data=_level(DARK, 1)[0])
    _file(tmp_path / "motor.h5", theta=np.deg2rad(DEGREES))
    with h5py.File(tmp_path / "motor.h5", "a") as file:
        file["theta"].attrs["units"] = "rad"
    flats = "flats: {file: calibration/flats.h5, path: entry/data}\n"
    places = "data: scan\ndarks: 'D:\\messung\\darks.h5:/entry/data'\nangles: motor.h5:theta\n"
    assert misfit(read(_yaml(path, places + flats))) < 1e-5
    (tmp_path / "angles.txt").write_text("# degrees\n" + "\n".join(map(str, DEGREES)))
    assert misfit(read(_yaml(path, places.replace("motor.h5:theta", "angles.txt") + flats))) < 1e-5


def test_a_group_of_pictures_is_a_stack_in_the_order_of_their_numbers(tmp_path):
    """ALS: one dataset a picture, (1, row, column), flats and darks in the same group."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("20130101_tooth/20130101_tooth")
        for number, picture in enumerate(_counts()):
            group[f"20130101_tooth_0000_{number}.tif"] = picture[None]
        for number in range(2):
            group[f"20130101_toothbak_{number}.tif"] = _level(BEAM + DARK, 1)
            group[f"20130101_toothdrk_{number}.tif"] = _level(DARK, 1)
    folder = "20130101_tooth/20130101_tooth/20130101_tooth"
    places = f"data: {folder}_0000_*.tif\nflats: {folder}bak_*\ndarks: {folder}drk_*\n"
    path = _yaml(tmp_path / "a.h5", places + f"angles: {{first: 0, step: 6, count: {VIEWS}}}\n")
    assert misfit(read(path)) < 1e-5


def test_a_group_for_each_picture_is_a_stack_too(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number, picture in enumerate(_counts()):
            file[f"view_{number}/phase/raw"] = picture
            file[f"view_{number}/phase/other"] = np.zeros(3)
        file["flat/raw"], file["dark/raw"] = _level(BEAM + DARK, 1), _level(DARK, 1)
    places = "data: view_*/phase/r?w\nflats: flat/raw\ndarks: dark/raw\n"
    path = _yaml(tmp_path / "a.h5", places + f"angles: {{first: 0, step: 6, count: {VIEWS}}}\n")
    assert misfit(read(path)) < 1e-5
    with pytest.raises(InputError, match="holds no pictures"):
        read(_yaml(tmp_path / "a.h5", places.replace("r?w", "s?w")))


def test_brackets_in_a_name_that_is_there_are_no_pattern(tmp_path):
    path = _file(tmp_path / "a.h5", **{"run[1]__data": -np.log((_counts()[:, 1] - DARK) / BEAM), "run[1]__theta": DEGREES})
    assert misfit(read(_yaml(path, "data: run[1]/data\nangles: run[1]/theta\nvalues: log\n"))) < 1e-5


@pytest.mark.parametrize("how", ["rows first", "row", "sinogram", "four axes", "clockwise"])
def test_stacks_of_other_shapes_are_read(tmp_path, how):
    line, counts = -np.log((_counts()[:, 1] - DARK) / BEAM), -np.log((_counts() - DARK) / BEAM)
    data = {"rows first": counts.swapaxes(0, 1), "sinogram": line, "four axes": counts[:, None]}.get(how, counts)
    text = {"rows first": "stack: sinograms\n", "row": "row: 1\nstack: projections\n", "clockwise": "clockwise: true\n"}.get(
        how, ""
    )
    degrees = -DEGREES if how == "clockwise" else DEGREES
    path = _file(tmp_path / "a.h5", x__y=data, x__theta=degrees)
    assert misfit(read(_yaml(path, "data: x/y\nangles: x/theta\nvalues: log\n" + text))) < 1e-5


def test_parts_of_a_known_format_may_lie_elsewhere(tmp_path):
    path = _file(tmp_path / "a.h5", exchange__data=_counts())
    _file(tmp_path / "flats.h5", white=_level(BEAM + DARK), black=_level(DARK), angle=DEGREES)
    text = "flats: flats.h5:white\ndarks: flats.h5:black\nangles: flats.h5:angle\n"
    assert misfit(read(_yaml(path, text))) < 1e-5


def test_a_file_without_a_pixel_size_says_what_it_took(tmp_path):
    path = _file(tmp_path / "a.h5", x=-np.log((_counts() - DARK) / BEAM), theta=DEGREES)
    (tmp_path / "a.yaml").write_text("data: x\nangles: theta\naxis_column: 39.5\n")
    scan = read(path)
    assert scan.geometry.pixel == 1.0 and any("no pixel size" in text for text in scan.warnings)
    assert any("line integrals" in text for text in scan.warnings)


def test_places_are_kept_for_the_next_files_of_a_scanner(tmp_path):
    _file(tmp_path / "flats.h5", white=_level(1.0))
    (tmp_path / "g.yaml").write_text("data: a/b\nflats: flats.h5:white\nentry: entry0001\n")
    sidecar = read_sidecar(tmp_path / "g.yaml")
    again = treated(treatment(sidecar))
    assert again.layout.data is not None and again.layout.data.path == "a/b" and again.entry == "entry0001"
    assert again.layout.flats is not None and again.layout.flats.file == (tmp_path / "flats.h5").resolve()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: nothing/here\n", r"nothing at 'nothing/here'; it holds short, tall"),
        ("data: x\nimage_key: x\n", "image keys at 'x'"),
        ("data: x\nimage_key: theta\n", "no projection"),
        ("data: x\nflats: none.h5:x\n", "'none.h5', which does not exist"),
        ("data: x\nangles: x/y\n", "nothing at 'x/y'"),
        ("data: x\nangles: [0, 60, 120]\n", "30 projections but 3 angles"),
        ("data: x\nangles: short\n", "The 3 angles of 'short'"),
        ("data: x\nflats: theta\n", r"of \(1, 30\) rows and columns, but the projections of \(3, 80\)"),
        ("data: x\nflats: tall\n", r"of \(9, 80\) rows"),
        ("data: [1]\n", "'data'.*must be a path"),
        ("data: ''\n", "'data'.*must be a path"),
        ("data: words\n", "shape"),
    ],
)
def test_what_is_not_where_it_should_be_is_named(tmp_path, text, words):
    path = _file(
        tmp_path / "a.h5", x=_counts(), theta=DEGREES + 1, short=DEGREES[:3], words="hello", tall=np.ones((2, 9, COLUMNS))
    )
    text = text if "angles" in text else text + "angles: theta\n"
    with pytest.raises(InputError, match=words):
        read(_yaml(path, text))


def test_places_in_a_file_that_is_no_hdf5_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"'data' in the geometry file names 'x' inside .* no HDF5 file"):
        read(_yaml(tmp_path / "a.tif", "data: x\n"))


def test_projections_behind_links_are_named_where_the_layout_is_unknown(tmp_path):
    with h5py.File(tmp_path / "camera.h5", "w") as file:
        file["entry/data"] = np.ones((4, 5, 6), np.float32)
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file["entry/camera"] = h5py.ExternalLink("camera.h5", "/entry")
        file["entry/again"] = h5py.SoftLink("/entry")
        file["entry/lost"] = h5py.SoftLink("/nowhere")
        file["entry/keys"] = np.zeros((2, 3))
    with pytest.raises(InputError, match="such as 'data: entry/camera/data'"):
        read(tmp_path / "scan.nxs")
