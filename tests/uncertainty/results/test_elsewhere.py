"""Results in other programs: their places in mm, their axes, and the same numbers."""

import numpy as np
import pytest

import ctuq
from ctuq.uncertainty.results.elsewhere import axes_of


@pytest.fixture(scope="module")
def result():
    scan = ctuq.simulate("shepp-logan", size=16, angles=6)
    grid = ctuq.VolumeGrid((16, 16), scan.grid.voxel, (3.0, -5.0))
    rng = np.random.default_rng(0)
    samples = scan.truth + 0.01 * rng.standard_normal((4, 16, 16))
    return ctuq.calibrate(scan.truth, samples, scan, [2], grid=grid)


@pytest.fixture(scope="module")
def volume():
    mean = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    geometry = ctuq.ConeBeam(angles=np.zeros(1), rows=2, columns=4, pixel=1.0, source_to_axis=50.0, source_to_detector=90.0)
    grid = ctuq.VolumeGrid((2, 3, 4), 0.5, (1.0, 2.0, 3.0))
    return ctuq.VolumeResult(mean=mean, grid=grid, geometry=geometry, method="fdk", std=mean + 1, slice_pitch=2.0)


def test_axes_are_those_of_the_grid_in_mm(result, volume):
    axes = axes_of(result.grid, (result.grid.voxel,) * 2)
    left, right, bottom, top = result.grid.extent
    half = result.grid.voxel / 2
    assert list(axes) == ["y", "x"]
    found = [axes["x"][0], axes["x"][-1], axes["y"][-1], axes["y"][0]]
    np.testing.assert_allclose(found, [left + half, right - half, bottom + half, top - half])
    axes = axes_of(volume.grid, volume.pitches)
    np.testing.assert_allclose(axes["z"], [2, 4])
    np.testing.assert_allclose(axes["y"], [2.5, 2, 1.5])


@pytest.mark.parametrize("which", ["result", "volume"])
def test_a_layers_pixels_lie_where_the_grid_has_them(which, request):
    given = request.getfixturevalue(which)
    layers = {settings["name"]: (data, settings, kind) for data, settings, kind in given.to_napari()}
    data, settings, kind = layers["mean"]
    assert kind == "image" and settings["visible"] and not layers["std"][1]["visible"]
    np.testing.assert_array_equal(data, given.mean)
    axes = axes_of(given.grid, (given.grid.voxel,) * 2 if which == "result" else given.pitches)
    for axis, (name, places) in enumerate(axes.items()):
        expected = -places if name == "y" else places
        np.testing.assert_allclose(settings["translate"][axis] + settings["scale"][axis] * np.arange(len(places)), expected)
    low, high = settings["contrast_limits"]
    assert low < high and settings["metadata"]["units"] == "1/mm"


def test_samples_are_a_stack_to_flip_through(result):
    data, settings, _ = next(layer for layer in result.to_napari() if layer[1]["name"] == "samples")
    assert data.shape == (4, 16, 16)
    assert len(settings["scale"]) == len(settings["translate"]) == 3


def test_a_dataset_is_read_by_positions_in_mm(result, volume):
    pytest.importorskip("xarray")
    data = result.to_xarray()
    left, _, _, top = result.grid.extent
    assert float(data["mean"].sel(x=left, y=top, method="nearest")) == result.mean[0, 0]
    assert data["samples"].dims == ("sample", "y", "x") and data["std"].attrs["units"] == "1/mm"
    assert data["x"].attrs["units"] == "mm" and data.attrs["method"] == result.method
    assert float(volume.to_xarray()["std"].sel(z=4, y=1.5, x=0.25, method="nearest")) == volume.std[1, 2, 0]


def test_numpy_takes_a_result_for_its_mean(result, volume):
    np.testing.assert_array_equal(np.asarray(result), result.mean)
    assert np.asarray(volume, dtype=np.float64).dtype == np.float64
    assert np.asarray(result) is not None and np.array(result, copy=True) is not result.mean
