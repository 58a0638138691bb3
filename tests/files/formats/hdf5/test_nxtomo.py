import h5py
import numpy as np
import pytest
from scanned import misfit, predicted

from ctuq.errors import InputError
from ctuq.files import read, read_volume
from ctuq.tomo.axis import axis_column
from ctuq.tomo.geometry import ParallelBeam

pytest.importorskip("nxtomo")
import pint
from nxtomo.application.nxtomo import NXtomo
from nxtomo.nxobject.nxdetector import ImageKey

VIEWS, COLUMNS, PIXEL, BEAM, DARK = 30, 80, 0.25, 20000.0, 100.0
DEGREES = np.arange(VIEWS) * 6.0
UNIT = pint.get_application_registry()


def _counts(geometry=None):
    geometry = geometry or ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=PIXEL)
    return BEAM * np.exp(-predicted(geometry))[:, None].repeat(2, axis=1) + DARK


def _save(path, counts, entry="entry0000", degrees=DEGREES, monitor=None, change=lambda scan: None):
    """As ESRF writes it: darks, flats, projections, flats."""
    dark, flat = np.full((2, *counts.shape[1:]), DARK), np.full((2, *counts.shape[1:]), BEAM + DARK)
    frames = np.concatenate([dark, flat, counts, flat])
    if monitor is not None:
        lit = np.r_[2 : len(frames)]
        frames[lit] = DARK + (frames[lit] - DARK) * (monitor / monitor[0])[lit, None, None]
    scan = NXtomo()
    keys = (
        [ImageKey.DARK_FIELD] * 2 + [ImageKey.FLAT_FIELD] * 2 + [ImageKey.PROJECTION] * len(counts) + [ImageKey.FLAT_FIELD] * 2
    )
    scan.instrument.detector.data = frames.astype(np.float32)
    scan.instrument.detector.image_key_control = keys
    scan.instrument.detector.x_pixel_size = scan.instrument.detector.y_pixel_size = PIXEL * UNIT.millimeter
    scan.instrument.detector.distance = 0.3 * UNIT.meter
    scan.sample.rotation_angle = np.r_[np.zeros(4), degrees, degrees[-1], degrees[-1]] * UNIT.degree
    scan.sample.name = "Zahn"
    if monitor is not None:
        scan.control.data = monitor * 1e-3 * UNIT.ampere
    change(scan)
    scan.save(str(path), entry, overwrite=True)
    return path


def _axis(position, half=None):
    def change(scan):
        scan.instrument.detector.x_rotation_axis_pixel_position = float(position)
        scan.instrument.detector.half_acquisition = half

    return change


def test_a_file_of_the_library_is_read(tmp_path):
    scan = read(_save(tmp_path / "a.nx", _counts()), axis_column=39.5)
    assert misfit(scan) < 1e-5 and scan.geometry.pixel == pytest.approx(PIXEL)
    assert np.allclose(np.rad2deg(scan.geometry.angles), DEGREES) and scan.provenance.facts["sample"] == "Zahn"


@pytest.mark.parametrize(
    ("position", "half", "column"),
    [(30.0, True, 69.5), (-31.0, True, 8.5), (2.5, False, 42.0), (69.5, True, 69.5), (30.0, False, 30.0)],
)
def test_the_axis_counts_from_the_middle_also_in_half_acquisition(tmp_path, position, half, column):
    degrees = np.arange(60) * 6.0
    beam = ParallelBeam(angles=np.deg2rad(degrees), columns=COLUMNS, pixel=PIXEL, detector_offset=(39.5 - column) * PIXEL)
    scan = read(_save(tmp_path / "a.nx", _counts(beam), degrees=degrees, change=_axis(position, half)))
    assert axis_column(scan.geometry) == pytest.approx(column) and misfit(scan) < 1e-5
    assert any(f"at column {column:g}" in text for text in scan.warnings) == (position == 30.0)


@pytest.mark.parametrize(("half", "column"), [(None, 30.0), (True, 69.5)])
def test_files_of_others_count_from_where_their_projections_say(tmp_path, half, column):
    degrees = np.arange(60) * 6.0
    beam = ParallelBeam(angles=np.deg2rad(degrees), columns=COLUMNS, pixel=PIXEL, detector_offset=(39.5 - column) * PIXEL)
    path = _save(tmp_path / "a.nx", _counts(beam), degrees=degrees, change=_axis(30.0, half))
    with h5py.File(path, "a") as file:
        del file["entry0000"].attrs["version"]
    scan = read(path)
    assert axis_column(scan.geometry) == pytest.approx(column) and any("first column or from" in text for text in scan.warnings)


def test_a_detector_that_is_turned_left_to_right_is_turned_over(tmp_path):
    def change(scan):
        scan.instrument.detector.set_transformation_from_lr_flipped(True)
        scan.instrument.detector.set_transformation_from_ud_flipped(True)
        scan.instrument.detector.x_rotation_axis_pixel_position = -3.0

    beam = ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=PIXEL, detector_offset=-3 * PIXEL)
    path = _save(tmp_path / "a.nx", _counts(beam)[:, :, ::-1], change=change)
    scan = read(path)
    assert misfit(scan) < 1e-5 and any("turned left to right" in text for text in scan.warnings)
    with h5py.File(path, "a") as file:
        file["entry0000/instrument/detector/transformations/ry"][...] = 90
    assert any("ry by 90°" in text for text in read(path).warnings)


def test_a_camera_turned_upside_down_gives_the_volume_of_one_that_is_not(tmp_path):
    def change(scan):
        scan.instrument.detector.x_rotation_axis_pixel_position = 0.0

    def turned(scan):
        change(scan)
        scan.instrument.detector.set_transformation_from_lr_flipped(True)
        scan.instrument.detector.set_transformation_from_ud_flipped(True)

    counts = _counts()
    counts[:, 1] = 0.5 * (counts[:, 1] + BEAM + DARK)  # fainter
    upright = read_volume(_save(tmp_path / "a.nx", counts, change=change))
    again = read_volume(_save(tmp_path / "b.nx", counts[:, ::-1, ::-1], change=turned))
    assert not np.allclose(upright.projections[0], upright.projections[1], atol=0.05)
    np.testing.assert_allclose(again.projections, upright.projections, atol=1e-6)
    assert any("upside down" in text for text in again.warnings)


def test_frames_are_scaled_by_the_beam_monitor(tmp_path):
    monitor = 200 - 40 * np.arange(VIEWS + 6) / (VIEWS + 6) + np.random.default_rng(0).normal(size=VIEWS + 6)
    scan = read(_save(tmp_path / "a.nx", _counts(), monitor=monitor), axis_column=39.5)
    assert misfit(scan) < 1e-5 and any("control/data" in text and "scaled" in text for text in scan.warnings)


@pytest.mark.parametrize("monitor", [np.zeros(VIEWS + 6), np.arange(VIEWS + 6.0)])
def test_a_monitor_that_saw_no_beam_is_left_out_and_told(tmp_path, monitor):
    path = _save(tmp_path / "a.nx", _counts(), change=lambda scan: setattr(scan.control, "data", monitor * UNIT.ampere))
    scan = read(path, axis_column=39.5)
    assert misfit(scan) < 1e-5 and any("control/data" in text and "left out" in text for text in scan.warnings)


def test_of_several_entries_one_is_chosen_by_its_name(tmp_path):
    path = _save(tmp_path / "a.nx", _counts())
    beam = ParallelBeam(angles=np.deg2rad(DEGREES + 30), columns=COLUMNS, pixel=PIXEL)
    _save(path, _counts(beam), entry="entry0001", degrees=DEGREES + 30)
    scan = read(path, axis_column=39.5)
    assert np.isclose(scan.geometry.angles[0], 0)
    assert any("Of 2 entries (entry0000, entry0001) only the first" in text for text in scan.warnings)
    chosen = read(path, axis_column=39.5, entry="/ENTRY0001")
    assert np.isclose(chosen.geometry.angles[0], np.deg2rad(30)) and not any("entries" in text for text in chosen.warnings)
    (tmp_path / "a.yaml").write_text("entry: entry0001\naxis_column: 39.5\n")
    assert np.allclose(read(path).geometry.angles, chosen.geometry.angles)
    with pytest.raises(InputError, match=r"0 entries named 'entry7'; it has entry0000, entry0001"):
        read(path, entry="entry7")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="no NXtomo file"):
        read(tmp_path / "a.npz", entry="entry0000")


def test_alignment_images_and_the_pixel_at_the_sample(tmp_path):
    def change(scan):
        keys = list(scan.instrument.detector.image_key_control)
        keys[6] = ImageKey.ALIGNMENT
        scan.instrument.detector.image_key_control = keys
        scan.sample.x_pixel_size = scan.sample.y_pixel_size = PIXEL * UNIT.millimeter
        scan.instrument.detector.x_pixel_size = scan.instrument.detector.y_pixel_size = 10 * PIXEL * UNIT.millimeter

    scan = read(_save(tmp_path / "a.nx", _counts(), change=change), axis_column=39.5)
    assert scan.n_angles == VIEWS - 1 and misfit(scan) < 1e-5
    assert any("alignment" in text for text in scan.warnings) and any(
        "pixel size at the sample" in text for text in scan.warnings
    )


def test_a_detector_of_another_name_and_a_definition_as_attribute_are_found(tmp_path):
    path = _save(tmp_path / "a.nx", _counts())
    with h5py.File(path, "a") as file:
        file.move("entry0000/instrument/detector", "entry0000/instrument/pcoedge")
        del file["entry0000/definition"]
        del file["entry0000/data"]
    assert misfit(read(path, axis_column=39.5)) < 1e-5


@pytest.mark.parametrize("name", ["x_rotation_axis_pixel_position", "distance", "x_pixel_size", "half_acquisition"])
@pytest.mark.parametrize("value", ["n/a", h5py.Empty("f4"), np.nan])
def test_words_and_nothing_in_place_of_a_number_are_as_if_it_were_not_there(tmp_path, name, value):
    path = _save(tmp_path / "a.nx", _counts())
    with h5py.File(path, "a") as file:
        detector = file["entry0000/instrument/detector"]
        if name in detector:
            del detector[name]
        detector[name] = value
    scan = read(path, axis_column=39.5)
    assert scan.n_angles == VIEWS and scan.geometry.pixel == (1.0 if name == "x_pixel_size" else pytest.approx(PIXEL))


def test_an_entry_may_lie_deep(tmp_path):
    path = _save(tmp_path / "a.nx", _counts())
    with h5py.File(path, "a") as file:
        file.create_group("raw/of/the")
        file.move("entry0000", "raw/of/the/tomo_entry")
    assert misfit(read(path, axis_column=39.5, entry="tomo_entry")) < 1e-5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("instrument/detector/data", "group in place of data"),
        ("instrument/detector/image_key", "image keys of .* are no numbers"),
        ("sample/rotation_angle", "rotation angles of .* are no numbers"),
    ],
)
def test_groups_in_place_of_data_are_refused(tmp_path, name, words):
    path = _save(tmp_path / "a.nx", _counts())
    with h5py.File(path, "a") as file:
        del file["entry0000"][name]
        file.create_group(f"entry0000/{name}")
    with pytest.raises(InputError, match=words):
        read(path)


def test_without_frames_of_projections_the_file_is_refused(tmp_path):
    path = _save(tmp_path / "a.nx", _counts())
    with h5py.File(path, "a") as file:
        file["entry0000/instrument/detector/image_key"][...] = 1
    with pytest.raises(InputError, match="no projection"):
        read(path)
