"""Known slices: a stack is scored against them, slice by slice, and made without them."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.files import write_volume_scan
from ctuq.files.slices_truth import with_slices_truth
from ctuq.pipeline import ReconstructOptions, reconstruct_stack
from ctuq.pipeline.stack.scores import against_truth, scores_of
from ctuq.records import Blocks
from ctuq.tomo import Parallel3D, VolumeGrid, VolumeScan, radians, ray_transform
from ctuq.tomo.rays.stack import slice_of
from ctuq.uncertainty.results.volume import VolumeResult

ROWS, N = 6, 12
FBP = ReconstructOptions(method="fbp", size=N)


@pytest.fixture(scope="module")
def known():
    """Cylinders that grow with the height, in slices of 12 x 12 pixels of 1 mm that lie 2 mm apart; and their parallel scan."""
    space = Parallel3D(angles=radians(np.arange(20) * 9.0), rows=ROWS, columns=16, pixel=1.0, row_pixel=2.0)
    y, x = np.mgrid[5.5:-6:-1, -5.5:6]
    volume = np.stack([0.05 * (np.hypot(x - 1, y) < 2.2 + 0.4 * z) for z in range(ROWS)]).astype(np.float32)
    A = ray_transform(VolumeGrid((N, N), 1.0), space.plane, backend="matrix")
    rays = np.stack([(A.matrix @ image.ravel()).reshape(A.geometry.shape) for image in volume])
    noise = 0.002 * np.random.default_rng(0).standard_normal(rays.shape)
    return VolumeScan((rays + noise).astype(np.float32), space, grid=VolumeGrid((ROWS, N, N), 1.0)), volume


def taken(known, path, volume, rows=range(ROWS)):
    np.save(path, volume)
    return with_slices_truth(known[0], path, rows=rows, of=ROWS)


@pytest.mark.parametrize("of", ["all rows", "the chosen ones"])
def test_chosen_slices_are_scored_against_their_own_by_the_command(known, tmp_path, of, capsys):
    scan, volume = known
    write_volume_scan(scan, tmp_path / "scan.h5")
    tifffile.imwrite(tmp_path / "truth.tif", volume if of == "all rows" else volume[1:6:2], photometric="minisblack")
    words = ["--stack", "--method", "fbp", "--size", str(N), "--slices", "1:6:2", "--truth", str(tmp_path / "truth.tif")]
    assert main(["reconstruct", str(tmp_path / "scan.h5"), *words, "-o", str(tmp_path / "run")]) == 0
    found = VolumeResult.load(tmp_path / "run" / "results.h5")
    attenuation = found.truth.max()
    np.testing.assert_allclose(attenuation, 0.05, rtol=0.02)
    np.testing.assert_array_equal(found.truth > 0, volume[1:6:2] > 0)
    error = (found.mean - found.truth).astype(np.float64)
    np.testing.assert_allclose(found.slices["truth_rmse"], np.sqrt((error**2).mean((1, 2))), rtol=1e-6)
    assert found.scores["psnr"] == pytest.approx(20 * np.log10(attenuation / np.sqrt((error**2).mean())), rel=1e-6)
    assert "truth_rms_z" not in found.scores
    assert f"Against the known truth: {found.scores['psnr']:.1f} dB" in capsys.readouterr().out


def test_the_truth_has_no_part_in_the_slices_and_is_averaged_onto_their_plane(known, tmp_path):
    scan, volume = known
    fine = volume.repeat(2, 1).repeat(2, 2) + np.linspace(0, 1e-3, 2 * N, dtype=np.float32)
    with_it = taken(known, tmp_path / "t.npy", fine)
    found, blind = (reconstruct_stack(part, options=FBP) for part in (with_it, scan))
    np.testing.assert_array_equal(found.mean, blind.mean)
    assert blind.truth is None and "psnr" not in blind.scores
    np.testing.assert_allclose(found.truth, fine.reshape(ROWS, N, 2, N, 2).mean((2, 4)), rtol=1e-5)


def test_a_result_of_all_views_is_a_truth_on_its_own_plane(known, tmp_path):
    scan = replace(known[0], grid=None)
    whole = reconstruct_stack(scan, options=replace(FBP, method="sirt"))
    assert whole.pitches[0] == 2.0
    whole.save(tmp_path / "whole.h5")
    told = with_slices_truth(scan, tmp_path / "whole.h5", rows=range(ROWS), of=ROWS)
    assert slice_of(told.grid) == slice_of(whole.grid)
    np.testing.assert_array_equal(told.truth, whole.mean)
    assert not any("nothing of its grid" in text for text in told.warnings)
    replace(whole, slice_pitch=2.5).save(tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"2\.5 mm apart, the scan's rows 2 mm"):
        with_slices_truth(scan, tmp_path / "other.h5", rows=range(ROWS), of=ROWS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v: v[:4], r"\(4, 12, 12\).*each of the 6 rows"),
        (lambda v: v[:, :10], "square slice"),
        (lambda v: v[0], "three axes"),
        (lambda v: -v - np.linspace(0, 1e-3, N), "do not resemble"),
        (lambda v: np.roll(v, 7, axis=2) + np.linspace(0, 1e-3, N), "do not resemble"),
        (lambda v: v * np.nan, "do not resemble"),
    ],
)
def test_slices_of_something_else_are_refused(known, tmp_path, change, told):
    with pytest.raises(InputError, match=told):
        taken(known, tmp_path / "t.npy", change(known[1]))


def test_slices_in_another_unit_are_told(known, tmp_path):
    told = taken(known, tmp_path / "t.npy", 10 * known[1] + np.linspace(0, 1e-4, N, dtype=np.float32)).warnings
    assert any("0.1 times as much" in text for text in told)


def test_scores_are_those_of_the_slices_that_were_made():
    rng = np.random.default_rng(0)
    truth, std = rng.random((4, 9, 9)), 0.1 + rng.random((4, 9, 9))
    z = rng.standard_normal(truth.shape)
    mean = truth + std * z
    mean[2] = std[2] = np.nan
    table = against_truth(*(Blocks(truth.shape, volume.__getitem__) for volume in (mean, std, truth)))
    kept = [0, 1, 3]
    assert np.isnan([column[2] for name, column in table.items() if name != "truth_peak"]).all()
    found = scores_of(table)
    assert found["truth_rms_z"] == pytest.approx(np.sqrt((z[kept] ** 2).mean()))
    assert found["truth_cover_95"] == pytest.approx((np.abs(z[kept]) <= 1.959964).mean())
    assert found["rmse"] == pytest.approx(np.sqrt(((mean - truth)[kept] ** 2).mean()))
    assert found["psnr"] == pytest.approx(20 * np.log10(truth[kept].max() / found["rmse"]))
    assert scores_of({"truth_rmse": np.full(3, np.nan), "truth_peak": np.ones(3)}) == {}
