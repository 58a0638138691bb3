"""Where the axis is taken from: the file, its geometry file, or a search; and that this is told."""

import h5py
import numpy as np
import pytest

from ctuq.files import read
from ctuq.tomo.axis import axis_column, with_axis_column
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import RelativeNoise, simulate

COLUMNS = 48
MIDDLE = (COLUMNS - 1) / 2


def _counts(column, degrees=360, views=40, width=30.0):
    """Counts of 20,000 in the open beam, with the axis at a column."""
    angles = np.deg2rad(np.linspace(0, degrees, views, endpoint=False))
    geometry = with_axis_column(ParallelBeam(angles=angles, columns=COLUMNS, pixel=1.0), column)
    rng = np.random.default_rng(0)
    grid = VolumeGrid((40, 40), width / 40, (1.0, -2.0))
    scan = simulate(lambda n: ellipses(n, rng), geometry, grid, RelativeNoise(0.01), rng=rng, attenuation=0.04)
    return np.rad2deg(angles), 20000 * np.exp(-scan.projections)


def _nxtomo(path, column, position):
    degrees, counts = _counts(column)
    images = np.concatenate([np.full((1, COLUMNS), 20000.0), counts])[:, None]
    with h5py.File(path, "w") as file:
        file["entry/definition"] = "NXtomo"
        detector = file.create_group("entry/instrument/detector")
        detector["data"], detector["image_key"] = images, np.r_[1, np.zeros(len(counts))]
        detector["x_pixel_size"] = 1e-3
        detector["x_pixel_size"].attrs["units"] = "m"
        detector["x_rotation_axis_pixel_position"] = position
        file["entry/sample/rotation_angle"] = np.r_[0.0, degrees]
        file["entry/sample/rotation_angle"].attrs["units"] = "deg"
    return path


@pytest.mark.parametrize("column", [42.0, 12.0, 26.0, 6.0])
def test_an_nxtomo_position_counts_from_the_middle_or_from_the_first_column_as_the_projections_say(tmp_path, column):
    for position in {column - MIDDLE, column}:
        scan = read(_nxtomo(tmp_path / f"{position}.nx", column, position))
        assert axis_column(scan.geometry) == pytest.approx(column)
        told = [text for text in scan.warnings if "rotation axis" in text]
        assert bool(told) == (0 < position <= MIDDLE)


def _npz(path, views, yaml="", **fields):
    degrees, counts = _counts(28.0, 180, views)
    np.savez(path, sinogram=counts, angles_deg=degrees, kind="parallel", pixel=1.0, **fields)
    path.with_suffix(".yaml").write_text(f"values: counts\nflat: 20000\n{yaml}")
    return path


def test_a_search_that_finds_nothing_keeps_the_files_value(tmp_path):
    path = _npz(tmp_path / "a.npz", 2, "axis_column: search\n", axis_column=25.0)
    scan = read(path)
    assert axis_column(scan.geometry) == pytest.approx(25.0)
    assert any("taken at the file's value, column 25.00" in text for text in scan.warnings)
    found = read(_npz(tmp_path / "b.npz", 20, "axis_column: search\n", axis_column=25.0))
    assert axis_column(found.geometry) == pytest.approx(28.0, abs=0.2)


def test_two_views_without_an_axis_take_the_middle_and_say_so(tmp_path):
    scan = read(_npz(tmp_path / "a.npz", 2))
    assert axis_column(scan.geometry) == MIDDLE
    assert any("views of 2 angles" in text and "give axis_column" in text for text in scan.warnings)


def test_line_integrals_without_an_axis_take_the_middle_and_say_so(tmp_path):
    degrees, counts = _counts(28.0, 180, 6)
    np.savez(tmp_path / "a.npz", sinogram=-np.log(counts / 20000), angles_deg=degrees, kind="parallel", pixel=1.0)
    scan = read(tmp_path / "a.npz")
    assert axis_column(scan.geometry) == MIDDLE
    assert any("detector's middle, as nothing says" in text for text in scan.warnings)


@pytest.mark.parametrize("said", ["", "axis_column: 34", "axis_column: search"])
def test_an_axis_that_the_rays_contradict_is_told_when_a_file_is_read(tmp_path, said):
    degrees, counts = _counts(26.0, 180, 30)
    np.savez(tmp_path / "a.npz", sinogram=-np.log(counts / 20000), angles_deg=degrees, kind="parallel", pixel=1.0)
    (tmp_path / "a.yaml").write_text(f"values: log\n{said}\n")
    scan = read(tmp_path / "a.npz")
    told = [text for text in scan.warnings if "but the rays say 2" in text]
    kept = {"": MIDDLE, "axis_column: 34": 34.0}.get(said, 26.0)
    assert axis_column(scan.geometry) == pytest.approx(kept, abs=0.2)
    assert len(told) == (said != "axis_column: search")
    assert all("set 'axis_column: 26.0'" in text or "set 'axis_column: 25.9'" in text for text in told)
    # Its angles are right: about a wrong axis they would seem not to be.
    assert not any("angles" in text for text in scan.warnings)
    assert not any("but the rays say" in text for text in read(tmp_path / "a.npz", axis_column=26.0).warnings)


def test_wrong_angles_are_told_before_the_axis_that_was_found_by_them(tmp_path):
    degrees, counts = _counts(MIDDLE, 180, 40)
    np.savez(
        tmp_path / "a.npz",
        sinogram=-np.log(counts / 20000),
        angles_deg=2 * degrees,
        kind="parallel",
        pixel=1.0,
        axis_column=MIDDLE,
    )
    scan = read(tmp_path / "a.npz")
    assert any("angles" in text for text in scan.warnings) and not any("rays say" in text for text in scan.warnings)
