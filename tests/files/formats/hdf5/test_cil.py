import re

import h5py
import numpy as np
import pytest
from scanned import DISCS, misfit, turned_sample
from scans import assert_converted

from ctuq.errors import InputError
from ctuq.files import describe, read, read_volume
from ctuq.tomo.geometry import FanBeam, ParallelBeam

VIEWS, COLUMNS, PIXEL = 24, 80, 0.8
DEGREES = np.arange(VIEWS) * 15.0


def _write(path, projections, *, labels=("angle", "horizontal"), attrs=None, scale=None, angles=DEGREES, **config):
    """As CIL's NEXUSDataWriter lays it out: positions in mm, angles by the turn of the sample."""
    with h5py.File(path, "w") as file:
        data = projections if scale is None else np.round(projections * scale + 7).astype(np.uint16)
        node = file.create_dataset("entry1/tomo_entry/data/data", data=data)
        node.attrs.update({"data_type": "AcquisitionData", "dimension": "2D", "num_channels": 1, "pixel_size_h": PIXEL})
        node.attrs.update({"pixel_size_v": PIXEL, "panel_origin": "bottom-left", "geometry": "cone"} | (attrs or {}))
        node.attrs.update({f"dim{i}": label for i, label in enumerate(labels)})
        if scale is not None:
            node.attrs.update({"scale": scale, "offset": 7})
        group = file.create_group("entry1/tomo_entry/config")
        group["angles"] = np.asarray(angles, np.float32)
        group["angles"].attrs.update({"angle_unit": "degree", "initial_angle": 0.0})
        for name, value in config.items():
            group[name.replace("__", "/")] = np.asarray(value, np.float32)
    return path


CONE = {
    "source__position": (0.4, -80, 0),
    "detector__position": (-1.1, 120, 0),
    "rotation_axis__position": (0.9, 0, 0),
    "detector__direction_x": (1, 0, 0),
}


def _cone(reverse=False):
    """Projections in CIL's frame, with the discs about the axis."""
    columns = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * PIXEL * (-1 if reverse else 1)
    pixels = np.stack([columns - 1.1 - 0.9, np.full(COLUMNS, 120.0)], axis=1)
    return turned_sample(DISCS, DEGREES, (0.4 - 0.9, -80), pixels)


def test_a_cone_beam_with_everything_off_centre_lies_where_cil_has_it(tmp_path):
    scan = read(_write(tmp_path / "a.nxs", _cone(), **CONE))
    assert isinstance(scan.geometry, FanBeam) and misfit(scan) < 1e-5
    assert scan.geometry.source_to_axis == pytest.approx(80) and scan.geometry.source_to_detector == pytest.approx(200)


@pytest.mark.parametrize("by", ["origin", "direction", "both"])
def test_panels_that_run_the_other_way_are_turned_over(tmp_path, by):
    attrs = {"panel_origin": "top-right"} if by != "direction" else {}
    config = CONE | ({"detector__direction_x": (-1, 0, 0)} if by != "origin" else {})
    assert misfit(read(_write(tmp_path / "a.nxs", _cone(by != "both"), attrs=attrs, **config))) < 1e-5


@pytest.mark.parametrize(("origin", "row"), [("bottom-left", 3), ("top-left", 1)])
def test_the_row_is_that_of_the_plane_through_the_source(tmp_path, origin, row):
    stack = np.zeros((5, VIEWS, COLUMNS), np.float32)
    stack[row] = _cone()
    config = CONE | {"source__position": (0.4, -80, PIXEL), "rotation_axis__direction": (0, 0, 1)}
    path = _write(
        tmp_path / "a.nxs", stack, labels=("vertical", "angle", "horizontal"), attrs={"panel_origin": origin}, **config
    )
    scan = read(path)
    assert misfit(scan) < 1e-5 and any(f"row {row} of 5" in step for step in scan.provenance.steps)


@pytest.mark.parametrize("origin", ["bottom-left", "top-left"])
def test_its_rows_are_converted_right_way_up(tmp_path, origin):
    stack = _cone()[None] * np.float32([[[0.9]], [[1.0]], [[1.0]], [[0.8]], [[0.7]]])
    config = CONE | {"source__position": (0.4, -80, PIXEL), "rotation_axis__direction": (0, 0, 1)}
    labels, attrs = ("vertical", "angle", "horizontal"), {"panel_origin": origin}
    assert_converted(_write(tmp_path / "a.nxs", stack, labels=labels, attrs=attrs, **config), tmp_path / "b.nx")


def test_a_parallel_beam_in_radians_with_compressed_numbers_is_read(tmp_path):
    columns = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * PIXEL
    pixels = np.stack([columns + 1.3 - 0.2, np.zeros(COLUMNS)], axis=1)
    path = _write(
        tmp_path / "a.nxs",
        turned_sample(DISCS, DEGREES + 30, None, pixels),
        attrs={"geometry": "parallel"},
        scale=30000,
        angles=np.deg2rad(DEGREES),
        ray__direction=(0, 1),
        detector__position=(1.3, 0),
        rotation_axis__position=(0.2, 0),
        detector__direction_x=(1, 0),
    )
    with h5py.File(path, "a") as file:
        file["entry1/tomo_entry/config/angles"].attrs.update({"angle_unit": "radian", "initial_angle": np.deg2rad(30)})
    scan = read(path)
    assert isinstance(scan.geometry, ParallelBeam) and misfit(scan) < 1e-3


def test_an_axis_that_points_down_turns_the_other_way(tmp_path):
    pixels = np.stack([(np.arange(COLUMNS) - 39.5) * PIXEL - 2.0, np.full(COLUMNS, 120.0)], axis=1)
    projections = turned_sample(DISCS, -DEGREES, (-0.5, -80), pixels)
    assert misfit(read(_write(tmp_path / "a.nxs", projections, rotation_axis__direction=(0, 0, -1), **CONE))) < 1e-5


def test_transmission_is_suspected_and_can_be_said(tmp_path):
    path = _write(tmp_path / "a.nxs", np.exp(-_cone()), **CONE)
    assert any("as transmission does in air" in text for text in describe(path)[0].warnings)
    with pytest.raises(InputError, match="largest at the detector's edges"):
        read(path)
    (tmp_path / "a.yaml").write_text("values: transmission\n")
    scan = read(path)
    assert misfit(scan) < 1e-5 and not any("change places" in text for text in scan.warnings)
    (tmp_path / "a.yaml").write_text("values: log\n")
    assert any("said to be line integrals but are largest at the detector's edges" in text for text in read(path).warnings)


def test_a_file_of_before_its_geometry_is_refused_with_what_reads_it(tmp_path):
    path = _write(tmp_path / "a.nxs", np.repeat(_cone()[None], 3, axis=0), labels=("vertical", "angle", "horizontal"), **CONE)
    with h5py.File(path, "a") as file:
        del file["entry1/tomo_entry/config"]
        file["entry1/tomo_entry/data/rotation_angle"] = DEGREES
    with pytest.raises(InputError, match=r"'data: .*', 'stack: sinograms' and 'angles: ") as refused:
        read(path)
    lines = ["kind: fan", *re.findall(r"'((?:data|stack|angles): [^']*)'", str(refused.value))]
    lines += ["source_to_axis: 80", "source_to_detector: 200", f"pixel: {PIXEL}", "axis_column: 39.5"]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    assert read_volume(path).projections.shape == (3, *_cone().shape)


@pytest.mark.parametrize(
    ("attrs", "labels", "words"),
    [
        ({"data_type": "ImageData"}, ("angle", "horizontal"), "ImageData of CIL"),
        ({}, ("channel", "horizontal"), "write one channel"),
        ({"geometry": "cone_flex"}, ("angle", "horizontal"), "no circular scan"),
    ],
)
def test_what_is_no_circular_scan_is_refused(tmp_path, attrs, labels, words):
    with pytest.raises(InputError, match=words):
        read(_write(tmp_path / "a.nxs", _cone(), attrs=attrs, labels=labels, **CONE))


def test_one_channel_of_a_fan_is_read_and_told(tmp_path):
    """Energies of a spectral scan, or frames of a process, as CIL writes several of one row."""
    sound = _cone()
    frames = np.stack([0 * sound, sound, 3 * sound], axis=0)
    path = _write(tmp_path / "a.nxs", frames, labels=("channel", "angle", "horizontal"), **CONE)
    scan = read(path)
    assert misfit(scan) < 1e-5 and any("Of 3 channels" in text and "middle one, 1" in text for text in scan.warnings)
    (tmp_path / "a.yaml").write_text("row: 2\n")
    other = read(path)
    assert np.allclose(other.projections, 3 * scan.projections, atol=1e-5)
    assert not any("channels" in text for text in other.warnings)
    (tmp_path / "a.yaml").write_text("row: 3\n")
    with pytest.raises(InputError, match="rows 0 to 2"):
        read(path)
    last = _write(tmp_path / "b.nxs", np.moveaxis(frames, 0, 2), labels=("angle", "horizontal", "channel"), **CONE)
    assert np.array_equal(read(last).projections, scan.projections)


def test_channels_of_several_rows_are_refused(tmp_path):
    many = np.zeros((2, VIEWS, 3, COLUMNS))
    with pytest.raises(InputError, match="write one channel"):
        read(_write(tmp_path / "a.nxs", many, labels=("channel", "angle", "vertical", "horizontal"), **CONE))
