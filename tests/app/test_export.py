"""A volume's files for other programs: OME-Zarr as its specification says, TIFF stacks as ImageJ reads them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from ctuq.app.cli import main
from ctuq.errors import ResourceError
from ctuq.tomo import Parallel3D, VolumeGrid
from ctuq.uncertainty.results import omezarr
from ctuq.uncertainty.results.omezarr import write_ome_zarr
from ctuq.uncertainty.results.volume import VolumeResult

zarr = pytest.importorskip("zarr")
SHAPE = (20, 70, 66)


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    geometry = Parallel3D(angles=np.linspace(0, 3, 9), rows=SHAPE[0], columns=8, pixel=1.0)
    mean, std = rng.random(SHAPE, np.float32), 0.1 * rng.random(SHAPE, np.float32)
    grid = VolumeGrid(SHAPE, 0.5, (1.0, 2.0, 3.0))
    return VolumeResult(mean, grid, geometry, "dip", std=std, slice_pitch=2.0, warnings=("Mind the gap.",))


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    result.save(folder / "results.h5")
    return folder


@pytest.fixture
def written(folder, tmp_path, capsys):
    assert main(["export", str(folder), str(tmp_path / "out.zarr")]) == 0
    assert "mean and std of voxels of 0.5 x 0.5 x 2 mm (x, y, z)" in capsys.readouterr().out
    return tmp_path / "out.zarr"


def test_both_volumes_are_channels_of_the_finest_level(written, result):
    group = zarr.open_group(str(written), mode="r")
    assert group["0"].shape == (2, *SHAPE)
    np.testing.assert_array_equal(group["0"][0], result.mean)
    np.testing.assert_array_equal(group["0"][1], result.std)
    assert json.loads((written / ".zgroup").read_text()) == {"zarr_format": 2}
    assert json.loads((written / "0" / ".zarray").read_text())["dimension_separator"] == "/"


def test_the_metadata_are_those_of_ngff_with_places_in_mm(written):
    attributes = json.loads((written / ".zattrs").read_text())
    (scales,) = attributes["multiscales"]
    assert scales["version"] == "0.4"
    assert [axis["name"] for axis in scales["axes"]] == ["c", "z", "y", "x"]
    assert [axis.get("unit") for axis in scales["axes"]] == [None, "millimeter", "millimeter", "millimeter"]
    assert [level["path"] for level in scales["datasets"]] == ["0", "1"]
    scale, move = scales["datasets"][0]["coordinateTransformations"]
    assert scale == {"type": "scale", "scale": [1.0, 2.0, 0.5, 0.5]}
    assert move["translation"] == pytest.approx([0, 3 - 19, -2 - 34.5 / 2, 1 - 32.5 / 2])
    scale, move = scales["datasets"][1]["coordinateTransformations"]
    assert scale["scale"] == [1.0, 2.0, 1.0, 1.0]
    assert move["translation"] == pytest.approx([0, 3 - 19, -2 - 34.5 / 2 + 0.25, 1 - 32.5 / 2 + 0.25])
    assert [channel["label"] for channel in attributes["omero"]["channels"]] == ["mean (1/mm)", "std (1/mm)"]
    assert attributes["ctuq"]["warnings"] == ["Mind the gap."]


def test_napari_opens_both_channels_with_their_size(written, result):
    """By the plugin that napari opens OME-Zarr with; neither is needed to write one.

    It takes the first transformation of a level alone (0.10), so the volume's place is not asked for.
    """
    reader = pytest.importorskip("napari_ome_zarr").napari_get_reader(str(written))
    ((levels, told, kind),) = reader(str(written))
    assert kind == "image" and told["channel_axis"] == 0
    assert [name.split(": ")[-1] for name in told["name"]] == ["mean (1/mm)", "std (1/mm)"]
    assert list(told["visible"]) == [True, False]
    assert [level.shape for level in levels] == [(2, 20, 70, 66), (2, 20, 35, 33)]
    np.testing.assert_array_equal(levels[0][0], result.mean)
    np.testing.assert_array_equal(levels[0][1], result.std)
    np.testing.assert_allclose(told["scale"][-3:], (2.0, 0.5, 0.5))
    assert told["contrast_limits"][1] == pytest.approx([result.std.min(), result.std.max()])


def test_the_reference_reader_finds_a_valid_multiscale_image(written, result):
    """By the package ome-zarr, whose reader checks the metadata."""
    location = pytest.importorskip("ome_zarr.io").parse_url(str(written), mode="r")
    node = next(iter(pytest.importorskip("ome_zarr.reader").Reader(location)()))
    assert node.metadata["channel_names"] == ["mean (1/mm)", "std (1/mm)"]
    assert [axis["name"] for axis in node.metadata["axes"]] == ["c", "z", "y", "x"]
    scale, move = node.metadata["coordinateTransformations"][0]
    assert scale["scale"] == [1.0, 2.0, 0.5, 0.5] and move["translation"][1:] == pytest.approx([-16, -19.25, -15.25])
    np.testing.assert_array_equal(np.asarray(node.data[0][1]), result.std)


def test_coarser_levels_are_means_and_root_mean_squares(written, result):
    coarse = zarr.open_group(str(written), mode="r")["1"]
    assert coarse.shape == (2, 20, 35, 33)
    blocks = [volume.reshape(20, 35, 2, 33, 2) for volume in (result.mean, result.std)]
    np.testing.assert_allclose(coarse[0], blocks[0].mean((2, 4)), rtol=1e-6)
    np.testing.assert_allclose(coarse[1], np.sqrt((blocks[1] ** 2).mean((2, 4))), rtol=1e-6)


def test_odd_sizes_and_slices_without_numbers_are_kept(result, tmp_path, monkeypatch):
    monkeypatch.setattr(omezarr, "_COARSEST", 2)
    mean = np.arange(45, dtype=np.float32).reshape(5, 3, 3)
    mean[1] = np.nan
    odd = replace(result, mean=mean, std=None, grid=VolumeGrid((5, 3, 3), 1.0), slice_pitch=None)
    group = zarr.open_group(str(write_ome_zarr(odd, tmp_path / "odd.zarr")), mode="r")
    assert [group[name].shape for name in ("0", "1", "2")] == [(1, 5, 3, 3), (1, 3, 2, 2), (1, 2, 2, 2)]
    np.testing.assert_array_equal(np.isnan(group["0"][0]), np.isnan(mean))
    np.testing.assert_allclose(group["1"][0, 2], [[(36 + 37 + 39 + 40) / 4, (38 + 41) / 2], [(42 + 43) / 2, 44]])


def imagej_voxel(tiff):
    """Depth, height and width of a voxel in mm as ImageJ has them: sides by the tags, the unit by the description alone."""
    tags, told = tiff.pages[0].tags, tiff.imagej_metadata
    sides = [tags[f"{axis}Resolution"].value for axis in "YX"]
    mm = {"cm": 10.0, "mm": 1.0}[told["unit"]]
    return tuple(mm * side for side in (told["spacing"], *(below / above for above, below in sides)))


def test_tiff_stacks_hold_the_step_between_slices(folder, tmp_path, result):
    assert main(["export", str(folder), str(tmp_path / "tiffs")]) == 0
    for name in ("mean", "std"):
        with tifffile.TiffFile(tmp_path / "tiffs" / f"{name}.tif") as tiff:
            np.testing.assert_array_equal(tiff.asarray(), getattr(result, name))
            assert imagej_voxel(tiff) == pytest.approx((2.0, 0.5, 0.5))
            assert tiff.pages[0].tags["XResolution"].value == (20, 1)
    assert main(["export", str(folder), str(tmp_path / "tiffs")]) == 2


def test_what_cannot_be_exported_is_said_in_a_sentence(folder, written, tmp_path, capsys):
    (tmp_path / "file").touch()
    for source, out, told in (
        (tmp_path, "a.zarr", "no results.h5"),
        (folder, written.name, "exists already"),
        (folder, "file", "is a file"),
        (folder, "file/a.zarr", "Cannot write"),
    ):
        assert main(["export", str(source), str(tmp_path / out)]) == 2
        captured = capsys.readouterr().err
        assert told in captured
        assert captured.count("\n") == 1


def test_a_full_disk_is_told_and_leaves_nothing(result, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(omezarr, "_halve", full)
    with pytest.raises(ResourceError, match="no room"):
        write_ome_zarr(result, tmp_path / "out.zarr")
    assert list(tmp_path.iterdir()) == []
