from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import ctuq
from ctuq.errors import BackendError, InputError, ResourceError
from ctuq.pipeline import METHODS, ReconstructOptions, choose_grid, match_detector, reconstruct
from ctuq.pipeline.running.options import DEFAULT_BARS
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import Scan
from ctuq.tomo.simulate import phantom_scan

DIP = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,)), iterations=60, check_every=10)
N = 12
OPTIONS = ReconstructOptions(size=N, samples=20, dip=DIP, device="cpu")


@pytest.fixture(scope="module")
def scan(noisy_scan):
    return noisy_scan


@pytest.fixture(scope="module")
def result(scan):
    return reconstruct(scan, options=OPTIONS)


def same(a, b, tolerance=0.0):
    for name in ("mean", "std", "std_raw", "samples"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=tolerance, atol=tolerance, err_msg=name)
    assert a.log_evidence == pytest.approx(b.log_evidence, rel=tolerance or 1e-12)
    assert a.sigma2 == pytest.approx(b.sigma2, rel=tolerance or 1e-12)


def test_every_field_of_a_result_is_filled(result):
    assert result.mean.shape == result.std.shape == result.std_raw.shape == result.grid.shape == (N, N)
    assert result.samples.shape == (20, N, N)
    assert result.mean.dtype == result.std.dtype == result.samples.dtype == np.float32
    assert (result.std > 0).all() and np.isfinite(result.mean).all()
    assert result.std_error == 0
    assert result.sigma2 > 0 and np.isfinite(result.log_evidence)
    assert set(result.prior) == {"variance", "floor", "displacement"}
    assert set(result.comparisons) == {"fbp", "tv"}
    assert set(result.history) == {"iteration", "loss", "held_out_loss"}
    assert {"ray transform", "classical", "dip", "jacobian", "evidence", "samples"} <= set(result.timings)
    assert result.settings["dip.iterations"] == 60
    assert result.settings["dip.network.channels"] == "(4, 4)"
    assert {"ctuq", "torch", "numpy"} <= set(result.versions)


def test_three_views_calibrate_the_error_bars(result):
    record = result.calibration
    assert len(record.views) == 3
    assert record.predictions.shape == (4, 3, result.scan.geometry.columns)
    np.testing.assert_allclose(result.std, np.sqrt(record.image_scale) * result.std_raw, rtol=1e-5)
    assert not any("alibrated" in text for text in result.warnings)
    assert result.scores["held_out"] == record.calibrated
    assert result.scores["held_out_raw"] == record.raw


def test_samples_spread_about_the_mean_as_the_std_says(scan):
    result = reconstruct(scan, options=replace(OPTIONS, samples=600))
    spread = np.sqrt(np.mean((result.samples - result.mean) ** 2, axis=0))
    np.testing.assert_allclose(spread, result.std, rtol=5 / np.sqrt(2 * 600))


def test_scores_against_a_known_truth(result):
    assert {"psnr", "ssim", "rms_z", "cover_68", "cover_68_object", "rank_correlation", "log_likelihood_full"} <= set(
        result.scores["truth"]
    )
    assert {f"log_likelihood_patch_{p}" for p in (1, 2, 4, 7, 14)} <= set(result.scores["truth"])
    assert {"truth", "truth_raw", "leave_one_angle_out", "held_out", "held_out_raw"} == set(result.scores)
    assert result.scores["truth"]["rmse"] == pytest.approx(np.sqrt(np.mean((result.mean - result.truth) ** 2)), rel=1e-4)


def test_truth_is_never_used_to_reconstruct(scan, result):
    blind = reconstruct(replace(scan, truth=None), options=OPTIONS)
    same(blind, result)
    assert blind.truth is None
    assert set(blind.scores) == {"leave_one_angle_out", "held_out", "held_out_raw"}


def test_result_reads_back_equal(result, tmp_path):
    result.save(tmp_path / "result.h5")
    back = ctuq.Result.load(tmp_path / "result.h5")
    same(back, result)
    assert back.grid == result.grid
    assert back.scan.geometry == result.scan.geometry
    assert dict(back.settings) == dict(result.settings)
    assert back.calibration.views == result.calibration.views


def test_results_repeat_with_the_seed(scan, result):
    state = torch.random.get_rng_state()
    torch.manual_seed(12345)
    same(reconstruct(scan, options=OPTIONS), result)
    torch.random.set_rng_state(state)
    other = reconstruct(scan, options=replace(OPTIONS, seed=1, uncertainty=False))
    assert not np.allclose(other.history["loss"][:2], result.history["loss"][:2])


@pytest.mark.parametrize("method", [m for m in METHODS if m not in DEFAULT_BARS])
def test_classical_methods_give_an_image_alone(method, scan):
    result = reconstruct(scan, method, size=16)
    assert result.method == method
    assert result.std is None and result.samples is None and result.calibration is None
    assert result.comparisons == {}
    assert result.scores["truth"]["psnr"] > 10


def test_without_uncertainty_there_is_an_image_alone(scan):
    result = reconstruct(scan, options=replace(OPTIONS, uncertainty=False))
    assert result.std is None and result.calibration is None
    assert result.mean.max() > 0.02
    assert result.warnings == ()


def test_without_calibration_the_user_is_warned(scan):
    result = reconstruct(scan, options=replace(OPTIONS, calibrate=False))
    assert result.calibration is None
    np.testing.assert_array_equal(result.std, result.std_raw)
    assert any("Not calibrated" in text for text in result.warnings)
    assert "held_out" not in result.scores


def test_too_few_views_are_said_and_reported_raw(scan):
    result = reconstruct(scan.select([0, 4, 8, 12]), options=OPTIONS)
    assert result.calibration is None
    np.testing.assert_array_equal(result.std, result.std_raw)
    assert any("4 views are too few" in text for text in result.warnings)


def test_no_calibration_views_are_no_calibration(scan):
    none = reconstruct(scan, options=replace(OPTIONS, calibration_views=0))
    off = reconstruct(scan, options=replace(OPTIONS, calibrate=False))
    same(none, off)
    assert none.warnings == off.warnings
    one = reconstruct(scan.select([3]), options=OPTIONS)
    assert any("1 view is too few" in text for text in one.warnings)


def test_covariance_need_not_be_kept(scan, result):
    without = reconstruct(scan, options=replace(OPTIONS, directions=0))
    np.testing.assert_array_equal(without.std, result.std)
    assert without.directions is None
    with pytest.raises(InputError, match="no covariance"):
        without.covariance(np.ones((1, N, N)))


def test_number_of_calibration_views_can_be_chosen(scan):
    result = reconstruct(scan, options=replace(OPTIONS, calibration_views=2, samples=0))
    assert len(result.calibration.views) == 2
    assert result.samples.shape == (0, N, N)


@pytest.mark.parametrize("views", [15, 16, -1])
def test_calibration_views_must_leave_some_for_the_fit(views, scan):
    with pytest.raises(InputError, match="15"):
        reconstruct(scan, options=replace(OPTIONS, calibration_views=views))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "dip, fbp"),
        ({"sise": 32}, "size"),
        ({"size": 4}, "size must be 8 to 16384"),
        ({"size": 10**9}, "8 to 16384"),
        ({"samples": 10**9}, "samples must be 0"),
        ({"threads": 10**9}, "threads must be 0"),
        ({"device": "mps"}, "'cpu'"),
        ({"device": "xpu"}, "'cpu'"),
        ({"device": "meta"}, "'cpu'"),
        ({"device": ""}, "'cpu'"),
        ({"size": 20.5}, "whole number"),
        ({"samples": -1}, "samples must be 0"),
        ({"samples": 2.5}, "whole number"),
        ({"directions": -1}, "directions must be 0"),
        ({"variation": -1.0}, "hyperprior"),
        ({"variation": float("nan")}, "hyperprior"),
        ({"seed": -1}, "seed must be 0"),
        ({"seed": 2**70}, "seed"),
        ({"threads": -1}, "threads must be 0"),
        ({"prior": "horseshoe"}, "isotropic"),
        ({"device": "toaster"}, "'cpu'"),
    ],
)
def test_options_that_do_not_exist_are_refused_before_any_work(settings, message, scan):
    def never(progress):
        raise AssertionError(f"{progress.stage} was begun")

    with pytest.raises(InputError, match=message):
        reconstruct(scan, **settings, progress=never)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_by_name_is_refused_where_there_is_none(scan):
    with pytest.raises(BackendError, match="no GPU"):
        reconstruct(scan, "fbp", size=16, device="cuda")


class Interrupted:
    """Ctrl-C when the fit has told of its progress for the n-th time."""

    def __init__(self, n):
        self.left = n

    def __call__(self, progress):
        if progress.stage == "Deep Image Prior":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("looks", [2, 5])
def test_interrupted_run_goes_on_to_the_same_result(looks, scan, result, tmp_path):
    path = tmp_path / "checkpoint.h5"
    with pytest.raises(KeyboardInterrupt):
        reconstruct(scan, options=OPTIONS, progress=Interrupted(looks), checkpoint=path)
    told = []
    resumed = reconstruct(scan, options=OPTIONS, progress=told.append, checkpoint=path)
    same(resumed, result, 1e-6)
    first = next((p.done for p in told if p.stage == "Deep Image Prior"), 60)
    assert path.is_file() or looks == 2
    assert first > (40 if looks > 4 else 0)
    np.testing.assert_array_equal(resumed.history["iteration"], result.history["iteration"])


def test_resumed_run_keeps_its_number_of_threads(scan, tmp_path):
    path, before = tmp_path / "checkpoint.h5", torch.get_num_threads()
    options = replace(OPTIONS, uncertainty=False, dip=replace(DIP, iterations=20, check_every=2))
    try:
        with pytest.raises(KeyboardInterrupt):
            reconstruct(scan, options=replace(options, threads=2), progress=Interrupted(5), checkpoint=path)
        torch.set_num_threads(1)
        seen = set()
        reconstruct(scan, options=options, checkpoint=path, progress=lambda _: seen.add(torch.get_num_threads()))
        assert 2 in seen and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_an_image_that_cannot_fit_is_refused_before_anything_is_begun(scan, tmp_path, monkeypatch):
    monkeypatch.setattr("ctuq.linops.memory.available_memory", lambda device: 2**30)
    with pytest.raises(ResourceError, match="4096 x 4096 pixels needs about 69"):
        reconstruct(scan, options=replace(OPTIONS, size=4096), checkpoint=tmp_path / "checkpoint.h5")
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_another_scan_is_refused(scan, tmp_path):
    path = tmp_path / "checkpoint.h5"
    short = replace(OPTIONS, uncertainty=False)
    reconstruct(scan, options=short, checkpoint=path)
    weights = np.ones(scan.projections.shape, np.float32)
    weights[3] = 0.5
    others = [replace(scan, projections=scan.projections * 1.01), replace(scan, weights=weights), scan.select(range(14))]
    for other in others:
        with pytest.raises(InputError, match="another scan"):
            reconstruct(other, options=short, checkpoint=path)
    with pytest.raises(InputError, match="other options"):
        reconstruct(scan, options=replace(short, seed=1), checkpoint=path)


def test_rays_of_weight_zero_do_not_matter(scan):
    weights = np.ones(scan.projections.shape, np.float32)
    weights[:, 3], weights[5, 10:14] = 0, 0
    result = reconstruct(replace(scan, weights=weights), options=OPTIONS)
    assert np.isfinite(result.mean).all() and (result.std > 0).all()
    assert result.calibration is not None
    assert np.isfinite(result.calibration.predictions).all()


def weighted(scan, used):
    weights = np.zeros(scan.projections.shape, np.float32)
    weights.reshape(-1)[:used] = 1
    return replace(scan, weights=weights)


@pytest.mark.parametrize("method", ["dip", "fbp"])
@pytest.mark.parametrize("rays", [1, 9])
def test_a_scan_with_hardly_a_ray_is_refused(rays, method, scan):
    with pytest.raises(InputError, match=f"rays {rays} can be used"):
        reconstruct(weighted(scan, rays), method, size=16)


def test_missing_rays_and_a_lonely_view_are_told(scan):
    columns, size = scan.geometry.columns, scan.projections.size
    alone = reconstruct(weighted(scan, columns), "fbp", size=16).warnings
    assert any(f"{size - columns} of {size} rays are missing" in text for text in alone)
    assert any("one view" in text for text in alone)
    most = reconstruct(weighted(scan, size - columns), "fbp", size=16).warnings
    assert not any("rays are" in text for text in most)
    assert any("one view" in text for text in reconstruct(scan.select([3]), "fbp", size=16).warnings)


def test_view_without_any_weight_is_not_held_out(scan, result):
    weights = np.ones(scan.projections.shape, np.float32)
    weights[result.calibration.views[1]] = 0
    found = reconstruct(replace(scan, weights=weights), options=OPTIONS)
    assert len(found.calibration.views) == 3
    assert result.calibration.views[1] not in found.calibration.views
    assert np.isfinite(found.std).all()


@pytest.mark.parametrize("prior", ["layerwise", "filter", "g"])
def test_every_prior_gives_error_bars(prior, scan):
    result = reconstruct(scan.every(2), options=replace(OPTIONS, prior=prior, samples=4))
    assert (result.std > 0).all() and np.isfinite(result.std).all()
    assert all(value > 0 for value in result.prior.values())


def test_variation_hyperprior_gives_error_bars(scan):
    result = reconstruct(scan, options=replace(OPTIONS, variation=1.0, samples=4))
    assert (result.std > 0).all()


def test_progress_names_the_stages_in_order(scan):
    told = []
    reconstruct(scan, options=OPTIONS, progress=told.append)
    stages = list(dict.fromkeys(p.stage for p in told))
    assert stages == ["Gains of columns", "Classical reconstructions", "Deep Image Prior", "Jacobian", "Evidence", "Samples"]
    assert all(0 <= p.done <= p.total for p in told)


def test_grid_is_the_scans_own_or_the_field_of_view(scan):
    assert choose_grid(scan, 16).extent == scan.grid.extent
    free = choose_grid(Scan(scan.projections, scan.geometry), 16)
    assert free.voxel * 16 == pytest.approx(scan.geometry.field_of_view)


@pytest.mark.parametrize(("size", "columns"), [(24, 36), (12, 18), (8, 12)])
def test_detector_is_binned_while_its_columns_are_finer_than_a_pixel(size, columns, scan):
    assert match_detector(scan, choose_grid(scan, size)).geometry.columns == columns


def test_options_are_the_fields_that_a_user_can_name():
    assert {"method", "size", "uncertainty", "samples", "calibrate", "calibration_views", "prior", "seed"} <= {
        f.name for f in fields(ReconstructOptions)
    }


def test_what_an_image_leaves_out_is_told_and_the_field_is_kept_in_the_settings(scan):
    free = Scan(scan.projections, scan.geometry)
    result = reconstruct(free, "sirt", size=12, field=10.0, device="cpu")
    assert result.grid.voxel * 12 == pytest.approx(10) and result.settings["field"] == 10
    assert any("beyond the image" in text for text in result.warnings)
    assert reconstruct(free, "sirt", size=12, field="all", device="cpu").grid.extent[1] == pytest.approx(18)
    with pytest.raises(InputError, match="positive number of mm"):
        ReconstructOptions(field="everything")


def test_what_no_view_of_a_limited_arc_sees_has_longer_error_bars(disc_scan, result, tmp_path):
    assert not any("No view lies within" in text for text in result.warnings)
    arc = disc_scan.select(np.flatnonzero(disc_scan.geometry.angles < np.deg2rad(80)))
    found = reconstruct(arc, options=OPTIONS, checkpoint=tmp_path / "checkpoint.h5")
    longer = found.std / (np.sqrt(found.calibration.image_scale) * found.std_raw)
    assert longer.min() > 0.99
    assert any("No view lies within" in text for text in found.warnings)
    spread = found.draw(4000) - found.mean
    np.testing.assert_allclose(spread.std(axis=0), found.std, rtol=0.08)
    same(reconstruct(arc, options=OPTIONS, checkpoint=tmp_path / "checkpoint.h5"), found)


def test_error_bars_over_an_arc_have_room_for_what_no_view_sees():
    scan = phantom_scan("ellipses", 24, np.deg2rad(np.arange(0, 60, 4.0)), noise=0.02, seed=0)
    found = reconstruct(scan, "tv", size=24, device="cpu")
    inside = found.truth > 0.1 * found.truth.max()
    plain = np.sqrt(found.calibration.image_scale) * found.std_raw
    missed, missed_before = (np.abs(found.truth - found.mean) > 1.96 * std for std in (found.std, plain))
    assert (found.std >= 0.999 * plain).all() and np.median(found.std[inside] / plain[inside]) > 1.1
    assert missed[inside].mean() < 0.8 * missed_before[inside].mean()
