import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.files import describe, read, read_volume
from ctuq.tomo.axis import axis_column, with_axis_column
from ctuq.tomo.geometry import FanBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import RelativeNoise, simulate

DARK, BEAM = 50.0, 8000.0


def _object(size):
    return ellipses(size, np.random.default_rng(2))


def _counts(geometry, rows=3):
    """Raw counts (angle, row, column) whose middle row sees the object and the others air; and the object's projections."""
    scan = simulate(
        _object, geometry, VolumeGrid((32, 32), 0.5), RelativeNoise(0), rng=np.random.default_rng(0), attenuation=0.1
    )
    counts = np.full((scan.n_angles, rows, geometry.columns), BEAM + DARK)
    counts[:, rows // 2] = BEAM * np.exp(-scan.projections) + DARK
    return counts, scan.projections


def _write_dx(path, counts, degrees, names=("data_white", "data_dark"), theta="theta", units="degrees"):
    with h5py.File(path, "w") as file:
        group = file.create_group("exchange")
        group["data"] = counts.astype(np.float32)
        group[names[0]] = np.full((4, *counts.shape[1:]), BEAM + DARK, np.float32)
        group[names[1]] = np.full((4, *counts.shape[1:]), DARK, np.float32)
        if theta:
            group[theta] = degrees
            group[theta].attrs["units"] = units
        file["measurement/sample/name"] = "Zahn"
    return path


def _write_nx(path, counts, degrees, **detector):
    views, rows, columns = counts.shape
    key = np.r_[2, 2, 1, 1, np.zeros(views, int), 3, 1]
    flat, dark = np.full((1, rows, columns), BEAM + DARK), np.full((1, rows, columns), DARK)
    data = np.concatenate([dark, dark, flat, flat, counts, 0 * flat, flat])
    angle = np.r_[0, 0, 0, 0, degrees, 999, 0]
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry0000")
        entry["definition"] = "NXtomo"
        entry["sample/name"], entry["sample/rotation_angle"] = "Stein", angle
        entry["instrument/detector/data"], entry["instrument/detector/image_key"] = data.astype(np.float32), key
        for name, (value, units) in detector.items():
            entry[name.replace("__", "/")] = value
            entry[name.replace("__", "/")].attrs["units"] = units
    return path


@pytest.mark.parametrize(("energy", "known"), [(25.0, True), (0.0, False), (np.nan, False), ("25 keV", False)])
def test_a_monochromator_with_an_energy_makes_a_beam_that_cannot_harden(tmp_path, parallel, energy, known):
    counts, _ = _counts(parallel)
    degrees = np.rad2deg(parallel.angles)
    dx, nx = _write_dx(tmp_path / "s.h5", counts, degrees), _write_nx(tmp_path / "s.nx", counts, degrees)
    for path, place in ((dx, "measurement/instrument"), (nx, "entry0000/instrument")):
        assert not read(path).provenance.monochromatic
        with h5py.File(path, "a") as file:
            file[f"{place}/monochromator/energy"] = energy
        assert read(path).provenance.monochromatic == known


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"names": ("white_data", "dark_data"), "theta": "angles"},
        {"units": "rad", "degrees": np.deg2rad(np.arange(30) * 6.0)},
    ],
)
def test_dxchange_counts_become_line_integrals_of_the_middle_row(tmp_path, parallel, layout):
    counts, clean = _counts(parallel)
    path = _write_dx(tmp_path / "a.h5", counts, **({"degrees": np.arange(30) * 6.0} | layout))
    scan = read(path)
    assert np.allclose(scan.projections, clean, atol=1e-3)
    assert np.allclose(scan.geometry.angles, parallel.angles) and scan.geometry.pixel == 1.0
    assert scan.weights.mean() == pytest.approx(1, abs=1e-5) and scan.weights.std() > 0.05
    assert any("row 1 of 3" in step for step in scan.provenance.steps)
    assert any("no pixel size" in step for step in scan.provenance.steps)
    assert scan.provenance.facts["sample"] == "Zahn" and len(scan.provenance.sha256) == 64


@pytest.mark.parametrize("axes", ["theta:y:x", "y:theta:x", "x:y:theta", "theta, x, y", ["rotation_angle", "y", "x"]])
def test_dxchange_data_are_in_the_order_of_their_axes(tmp_path, parallel, axes):
    counts, clean = _counts(parallel)
    path = _write_dx(tmp_path / "a.h5", counts, np.arange(30) * 6.0)
    names = [
        {"rotation_angle": "theta"}.get(name, name) for name in (axes if isinstance(axes, list) else re.split("[:, ]+", axes))
    ]
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        file["exchange/data"] = counts.astype(np.float32).transpose([("theta", "y", "x").index(name) for name in names])
        file["exchange/data"].attrs["axes"] = axes
    assert np.allclose(read(path, axis_column=23.5).projections, clean, atol=1e-3)
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["axes"] = "energy:y:x"
    with pytest.raises(InputError, match="energy:y:x"):
        read(path)


def test_dxchange_axis_is_searched_and_another_can_be_given(tmp_path, parallel):
    counts, _ = _counts(with_axis_column(parallel, 25.6))
    path = _write_dx(tmp_path / "a.h5", counts, np.arange(30) * 6.0)
    assert axis_column(read(path).geometry) == pytest.approx(25.6, abs=0.25)
    assert axis_column(read(path, axis_column=20).geometry) == pytest.approx(20)
    with pytest.raises(InputError, match="rows 0 to 2"):
        read(path, row=3)


def test_dxchange_pixel_size_is_read_in_its_unit(tmp_path, parallel):
    counts, _ = _counts(parallel)
    path = _write_dx(tmp_path / "a.h5", counts, np.arange(30) * 6.0)
    with h5py.File(path, "a") as file:
        file["measurement/instrument/detector/actual_pixel_size_x"] = 1.4
        file["measurement/instrument/detector/actual_pixel_size_x"].attrs["units"] = "um"
    assert read(path, axis_column=23.5).geometry.pixel == pytest.approx(0.0014)


@pytest.mark.parametrize(("high", "unit"), [(2.8, "um"), (2.8e-3, "mm")])
def test_rows_that_are_binned_lie_further_apart_than_columns(tmp_path, parallel, high, unit):
    counts, _ = _counts(parallel)
    path = _write_dx(tmp_path / "a.h5", counts, np.arange(30) * 6.0)
    with h5py.File(path, "a") as file:
        for axis, size, word in (("x", 1.4, "um"), ("y", high, unit)):
            node = file.create_dataset(f"measurement/instrument/detector/actual_pixel_size_{axis}", data=size)
            node.attrs["units"] = word
    geometry = read_volume(path, axis_column=23.5).geometry
    assert geometry.pixel == pytest.approx(0.0014) and geometry.row_pitch == pytest.approx(0.0028)


def test_dxchange_without_angles_says_so_and_takes_them_from_a_geometry_file(tmp_path, parallel):
    counts, clean = _counts(parallel)
    path = _write_dx(tmp_path / "a.h5", counts, np.arange(30) * 6.0, theta="")
    with pytest.raises(InputError, match=r"does not say its angles.*count: 180"):
        read(path)
    (tmp_path / "a.yaml").write_text("angles: {first: 0, step: 6, count: 30}\npixel: 0.5\naxis_column: 23.5\n")
    scan = read(path)
    assert np.allclose(scan.projections, clean, atol=1e-3) and scan.geometry == parallel


def test_nxtomo_sorts_its_images_by_key(tmp_path, parallel):
    counts, clean = _counts(parallel)
    path = _write_nx(tmp_path / "a.nx", counts, np.arange(30) * 6.0, instrument__detector__x_pixel_size=(5e-4, "m"))
    scan = read(path)
    assert np.allclose(scan.projections, clean, atol=1e-3) and scan.geometry.pixel == pytest.approx(0.5)
    assert np.allclose(scan.geometry.angles, parallel.angles) and scan.provenance.facts["sample"] == "Stein"


@pytest.mark.parametrize("position", [25.5, 25.5 - 23.5])
def test_nxtomo_axis_is_taken_from_the_first_column_or_from_the_middle(tmp_path, parallel, position):
    counts, _ = _counts(parallel)
    detector = {"instrument__detector__x_rotation_axis_pixel_position": (position, "pixel")}
    path = _write_nx(tmp_path / "a.nx", counts, np.arange(30) * 6.0, **detector)
    assert axis_column(read(path).geometry) == pytest.approx(25.5)


def test_nxtomo_with_a_near_source_is_a_fan(tmp_path, parallel):
    fan = FanBeam(angles=parallel.angles * 2, columns=48, pixel=1.0, source_to_axis=100.0, source_to_detector=180.0)
    counts, clean = _counts(fan)
    path = _write_nx(
        tmp_path / "a.nx",
        counts,
        np.arange(30) * 12.0,
        instrument__detector__x_pixel_size=(1.0, "mm"),
        instrument__detector__distance=(0.08, "m"),
        instrument__source__distance=(-100.0, "mm"),
        instrument__detector__x_rotation_axis_pixel_position=(23.5, "pixel"),
    )
    scan = read(path)
    assert isinstance(scan.geometry, FanBeam) and replace(scan.geometry, angles=fan.angles, source_to_detector=180.0) == fan
    assert scan.geometry.source_to_detector == pytest.approx(180) and np.allclose(scan.projections, clean, atol=1e-3)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("sample/rotation_angle", "lacks 'sample/rotation_angle'"),
        ("instrument/detector/image_key", "image_key"),
        ("instrument/detector/data", "lacks 'data'"),
    ],
)
def test_nxtomo_without_a_part_says_which(tmp_path, parallel, broken, words):
    path = _write_nx(tmp_path / "a.nx", _counts(parallel)[0], np.arange(30) * 6.0)
    with h5py.File(path, "a") as file:
        del file[f"entry0000/{broken}"]
    with pytest.raises(InputError, match=words):
        read(path)


def test_nxtomo_with_other_numbers_of_angles_is_refused(tmp_path, parallel):
    path = _write_nx(tmp_path / "a.nx", _counts(parallel)[0], np.arange(30) * 6.0)
    with h5py.File(path, "a") as file:
        del file["entry0000/sample/rotation_angle"]
        file["entry0000/sample/rotation_angle"] = np.arange(7)
    with pytest.raises(InputError, match="36 images, 36 image keys and 7 angles"):
        read(path)


def test_other_and_truncated_hdf5_is_refused(tmp_path, parallel):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["volume"] = np.ones(3)
    with pytest.raises(InputError, match="holds volume"):
        read(tmp_path / "other.h5")
    path = _write_dx(tmp_path / "a.h5", _counts(parallel)[0], np.arange(30) * 6.0)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match="whole"):
        read(path)


def test_counts_of_nothing_are_refused(tmp_path, parallel):
    counts, _ = _counts(parallel)
    with pytest.raises(InputError, match="No ray counted"):
        read(_write_dx(tmp_path / "a.h5", 0 * counts, np.arange(30) * 6.0))


def test_the_shipped_tooth_is_centred(shipped):
    scan = read(shipped / "tooth" / "tooth.h5")
    assert scan.geometry.shape == (181, 640) and axis_column(scan.geometry) == pytest.approx(296.0, abs=0.75)
    assert scan.projections.max() == pytest.approx(1.95, abs=0.02) and np.median(scan.projections[:, :20]) == pytest.approx(
        0, abs=0.05
    )
    (told,) = describe(shipped / "tooth" / "tooth.h5")
    assert "10 flats, 10 darks" in told.values and told.axis == "to be searched" and not told.missing
