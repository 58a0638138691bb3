"""A known volume from a file: in its own grid or one that is told, and refused where it is of something else."""

import numpy as np
import pytest
import tifffile

from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.files import read_volume, write_volume_scan
from ctuq.pipeline.volume.job import reconstruct_volume
from ctuq.tomo import VolumeScan
from ctuq.tomo.solids import solid_scan
from ctuq.uncertainty.results.volume import VolumeResult

TURN = np.arange(20) * 2 * np.pi / 20


@pytest.fixture(scope="module")
def known():
    return solid_scan("ball", 12, TURN, noise=0.01, seed=0, distances=(100.0, 200.0))


@pytest.fixture
def blind(known, tmp_path):
    """A scan's file that knows neither truth nor grid."""
    path = tmp_path / "scan.h5"
    write_volume_scan(VolumeScan(known.projections, known.geometry), path)
    return path


def test_the_result_of_all_views_scores_that_of_few(known, blind, tmp_path):
    whole = reconstruct_volume(known, method="sirt", size=12)
    whole.save(tmp_path / "whole.h5")
    command = ["reconstruct", str(blind), "--volume", "--method", "sirt", "--every", "2", "--size", "12"]
    assert main([*command, "--truth", str(tmp_path / "whole.h5"), "-o", str(tmp_path / "run")]) == 0
    found = VolumeResult.load(tmp_path / "run" / "results.h5")
    np.testing.assert_array_equal(found.truth, whole.mean)
    assert found.grid == whole.grid
    assert found.scores["psnr"] > 20
    assert "against the known truth" in (tmp_path / "run" / "report.html").read_text().lower()


def test_a_truth_on_another_grid_is_averaged_over_voxels(known, blind, tmp_path):
    write_volume_scan(known, tmp_path / "known.h5")
    scan = read_volume(blind, truth=tmp_path / "known.h5")
    assert scan.grid == known.grid and scan.warnings == ()
    found = reconstruct_volume(scan, method="sirt", size=6)
    np.testing.assert_allclose(found.truth, known.truth.reshape(6, 2, 6, 2, 6, 2).mean((1, 3, 5)), atol=1e-7)


def test_the_truth_is_never_used_to_reconstruct(known, blind, tmp_path):
    write_volume_scan(known, tmp_path / "known.h5")
    with_it = reconstruct_volume(read_volume(blind, truth=tmp_path / "known.h5"), method="tv", size=12)
    without = reconstruct_volume(VolumeScan(known.projections, known.geometry, grid=known.grid), method="tv", size=12)
    np.testing.assert_array_equal(with_it.mean, without.mean)


@pytest.mark.parametrize("kind", ["tif", "npy", "mask"])
def test_an_array_is_laid_where_the_rays_see_and_that_is_told(known, tmp_path, kind):
    path = tmp_path / f"truth.{'npy' if kind == 'mask' else kind}"
    volume = (known.truth > 0.025).astype(np.uint8) if kind == "mask" else known.truth
    np.save(path, volume) if path.suffix == ".npy" else tifffile.imwrite(path, volume)
    write_volume_scan(VolumeScan(known.projections, known.geometry, grid=known.grid), tmp_path / "scan.h5")
    scan = read_volume(tmp_path / "scan.h5", truth=path)
    assert scan.grid == known.grid
    assert any("says nothing of its grid" in text for text in scan.warnings)
    np.testing.assert_allclose(scan.truth.max(), known.truth.max(), rtol=0.06)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda volume: volume[:, :, ::-1] * 100, "100"),
        (lambda volume: np.roll(volume, 3, axis=1), "explains"),
        (lambda volume: np.full_like(volume, np.nan), "NaN"),
        (lambda volume: volume[:5], "shape"),
        (lambda volume: volume[0], "three axes"),
        (lambda volume: 0 * volume, "do not resemble"),
        (lambda volume: -volume, "do not resemble"),
        (lambda volume: volume.astype(complex), "real numbers"),
    ],
)
def test_what_is_of_something_else_is_refused_or_doubted(known, tmp_path, change, told):
    np.save(tmp_path / "truth.npy", change(np.asarray(known.truth)))
    write_volume_scan(VolumeScan(known.projections, known.geometry, grid=known.grid), tmp_path / "scan.h5")
    try:
        warnings = read_volume(tmp_path / "scan.h5", truth=tmp_path / "truth.npy").warnings
    except InputError as error:
        assert told in str(error)
    else:
        assert any(told in text or "as much as" in text for text in warnings)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x93NUMPY\x01"])
def test_damaged_files_are_refused_in_a_sentence(blind, tmp_path, content, capsys):
    for name in ("truth.npy", "truth.tif", "truth.h5"):
        (tmp_path / name).write_bytes(content)
        command = ["reconstruct", str(blind), "--volume", "--method", "fdk", "--truth", str(tmp_path / name)]
        assert main([*command, "-o", str(tmp_path / "run")]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_scan_without_a_truth_is_none(blind):
    with pytest.raises(InputError, match="without a truth"):
        read_volume(blind, truth=blind)
