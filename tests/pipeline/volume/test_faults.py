"""What goes wrong with volumes and stacks: beams that miss, rays that are NaN, too little memory, a full disk."""

import errno
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from cylinders import N, cylinders

from ctuq.app.cli import main
from ctuq.files import read_volume, write_volume_scan
from ctuq.pipeline import ReconstructOptions, reconstruct_stack
from ctuq.pipeline.volume.doubts import doubts_of_volume
from ctuq.tomo.solids import solid_scan
from ctuq.uncertainty.results.volume import VolumeResult


@pytest.fixture(scope="module")
def cone():
    return solid_scan("shells", 8, np.deg2rad(np.arange(0, 360, 30)), noise=0.02, seed=0, distances=(100.0, 200.0))


def run(scan, folder, *words, name="scan.h5"):
    path = folder / name
    write_volume_scan(scan, path)
    return main(["reconstruct", str(path), "--volume", "--method", "fdk", "--size", "8", "-o", str(folder / "run"), *words])


def test_a_cone_that_passes_over_its_volume_is_refused_in_a_sentence(cone, tmp_path, capsys):
    over = replace(cone, geometry=replace(cone.geometry, row_offset=500.0))
    assert run(over, tmp_path) == 2
    told = capsys.readouterr().err
    assert "no shadow on the detector in 12 of 12 views" in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("level", [0.0, 0.002])
def test_a_cone_that_sees_nothing_but_air_is_told(cone, tmp_path, capsys, level):
    noise = np.random.default_rng(0).standard_normal(cone.projections.shape)
    air = replace(cone, projections=(level * noise).astype(np.float32), grid=None, truth=None)
    assert run(air, tmp_path) == 0
    assert "only air: the beam may miss the object" in capsys.readouterr().out
    found = VolumeResult.load(tmp_path / "run" / "results.h5")
    assert any("only air" in text for text in found.warnings)
    assert "only air" in (tmp_path / "run" / "report.html").read_text()


def test_an_object_is_not_taken_for_air(cone):
    for scan in (cone, replace(cone, projections=1e-4 * cone.projections)):
        assert not any("only air" in text for text in doubts_of_volume(scan, cone.grid))


def spoilt(scan, path, row, view):
    """The scan's rows as projections in a TIFF stack, of which one projection has NaN in three columns of one row."""
    shown = scan.projections[::-1].swapaxes(0, 1).copy()
    shown[view, scan.geometry.rows - 1 - row, 4:7] = np.nan
    tifffile.imwrite(path, shown, photometric="minisblack")
    degrees = np.rad2deg(scan.geometry.angles).tolist()
    path.with_suffix(".yaml").write_text(
        f"kind: parallel\nvalues: log\nangles: {degrees}\npixel: 1.0\nrow_pixel: 2.0\naxis_column: 5.5\nstack: projections\n"
    )
    return read_volume(path)


def test_nan_in_one_projection_weighs_nothing_and_touches_its_own_slice_alone(tmp_path):
    clean, tv = cylinders()[0], ReconstructOptions(method="tv", size=N, device="cpu", uncertainty=False)
    scan = spoilt(clean, tmp_path / "scan.tif", row=3, view=6)
    assert np.isfinite(scan.projections).all()
    lost = np.argwhere(scan.weights == 0)
    assert lost.tolist() == [[3, 6, 4], [3, 6, 5], [3, 6, 6]]
    assert any("3 of 900 rays" in text for text in scan.warnings)
    found, whole = reconstruct_stack(scan, options=tv), reconstruct_stack(clean, options=tv)
    for other in (0, 1, 2, 4):
        np.testing.assert_allclose(found.mean[other], whole.mean[other], atol=1e-5)
    assert 0 < np.abs(found.mean[3] - whole.mean[3]).max() < 0.3 * whole.mean[3].max()


@pytest.mark.parametrize("method", ["fdk", "sirt"])
def test_nan_in_one_projection_of_a_volume_leaves_it_finite_and_is_told(tmp_path, method):
    spoilt(cylinders()[0], tmp_path / "scan.tif", row=2, view=0)
    words = ["reconstruct", str(tmp_path / "scan.tif"), "--volume", "--method", method, "--size", "8"]
    assert main([*words, "-o", str(tmp_path / "run")]) == 0
    found = VolumeResult.load(tmp_path / "run" / "results.h5")
    assert np.isfinite(found.mean).all()
    assert any("3 of 900 rays" in text for text in found.warnings)


def test_a_volume_larger_than_memory_is_refused_before_it_is_begun(cone, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ctuq.linops.memory.available_memory", lambda device="cpu": 10_000)
    assert run(cone, tmp_path) == 4
    told = capsys.readouterr().err
    assert "GiB" in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_rows_larger_than_memory_are_refused_before_they_are_read(tmp_path, capsys, monkeypatch):
    spoilt(cylinders()[0], tmp_path / "scan.tif", row=2, view=0)
    monkeypatch.setattr("ctuq.memory._SMALL", 0)
    monkeypatch.setattr("ctuq.memory.free_memory", lambda: 20_000)
    assert main(["reconstruct", str(tmp_path / "scan.tif"), "--volume", "--method", "fdk", "-o", str(tmp_path / "run")]) == 4
    assert "GiB are free" in capsys.readouterr().err


def test_a_full_disk_at_the_end_of_a_volume_keeps_no_half_of_it(cone, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(VolumeResult, "save", full)
        assert run(cone, tmp_path) == 4
    assert "disk is full" in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.h5").exists()
    assert run(cone, tmp_path, "--resume") == 0
    assert np.isfinite(VolumeResult.load(tmp_path / "run" / "results.h5").mean).all()
