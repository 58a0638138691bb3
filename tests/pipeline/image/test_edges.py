"""Error bars of the method tv: a Gaussian edge prior about the total-variation image."""

import numpy as np
import pytest

import ctuq
from ctuq.app import cli
from ctuq.errors import InputError
from ctuq.pipeline import ReconstructOptions, plan, reconstruct
from ctuq.pipeline.image import edges as module
from ctuq.pipeline.image import spreads
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ParallelBeam, VolumeGrid, radians, ray_transform
from ctuq.tomo.simulate import phantom_scan
from ctuq.uncertainty.restricted import NOTES


@pytest.fixture(scope="module")
def scan():
    return phantom_scan("ellipses", 24, radians(np.arange(15) * 12.0), noise=0.05, seed=2)


@pytest.fixture(scope="module")
def result(scan):
    return reconstruct(scan, "tv", size=24)


def test_tv_has_calibrated_error_bars_by_default(result):
    assert result.method == "tv"
    assert result.std.shape == (24, 24) and (result.std > 0).all()
    assert result.samples.shape == (64, 24, 24)
    assert len(result.calibration.views) == 3
    # Edges and flat parts are moved apart about one scale.
    assert result.calibration.edge_ratio != 1
    ends = sorted([result.calibration.edge_ratio**-0.25, result.calibration.edge_ratio**0.25])
    apart = result.std / (np.sqrt(result.calibration.image_scale) * result.std_raw)
    assert ends[0] * 0.999 < apart.min() < 1 < apart.max() < ends[1] * 1.001
    assert set(result.comparisons) == {"fbp", "tv"}
    assert set(result.prior) == {"variance", "softness (1/mm)"}
    assert np.isfinite(result.log_evidence) and result.sigma2 > 0
    assert {"truth", "truth_raw", "leave_one_angle_out", "held_out", "held_out_raw"} == set(result.scores)


def test_intervals_cover_what_they_should(result):
    truth = result.scores["truth"]
    assert truth["cover_95_object"] > 0.85
    assert 0.6 < truth["rms_z_object"] < 1.4
    assert truth["psnr"] > 22


def test_samples_and_regions_have_the_std_of_the_map(scan, result):
    many = reconstruct(scan, "tv", size=24, samples=800)
    spread = np.sqrt(np.mean((many.samples - many.mean) ** 2, axis=0))
    np.testing.assert_allclose(spread, result.std, rtol=6 / np.sqrt(2 * 800))
    region = np.zeros((1, 24, 24))
    region[0, 8:16, 8:16] = 1 / 64
    kept = float(np.sqrt(result.covariance(region)[0, 0]))
    assert kept == pytest.approx(float(np.std((many.samples - many.mean)[:, 8:16, 8:16].mean((1, 2)))), rel=0.15)


def test_without_uncertainty_the_image_is_plain_total_variation_of_all_views(scan, result):
    plain = reconstruct(scan, "tv", size=24, uncertainty=False)
    assert plain.std is None and plain.calibration is None
    np.testing.assert_allclose(plain.mean, result.comparisons["tv"], rtol=1e-5, atol=1e-7)


def test_the_truth_changes_nothing(scan, result):
    from dataclasses import replace

    blind = reconstruct(replace(scan, truth=None), "tv", size=24)
    np.testing.assert_array_equal(blind.std, result.std)
    np.testing.assert_array_equal(blind.mean, result.mean)


def test_every_route_gives_about_the_same_bars(scan, monkeypatch):
    small = {"size": 16, "samples": 4}
    result = reconstruct(scan, "tv", **small)
    assert result.plan["route"] == "pixels"
    for route in ("rays", "cg"):
        made = module.plan_of_edges
        with monkeypatch.context() as patched:
            patched.setattr(
                "ctuq.pipeline.image.job.plan_of_edges", lambda *a, r=route, m=made, **_: module.EdgePlan(r, m(*a).reason, 1, 1)
            )
            other = reconstruct(scan, "tv", **small)
        assert other.plan["route"] == route
        np.testing.assert_allclose(other.mean, result.mean, atol=2e-3 * result.mean.max())
        ratio = other.std / result.std
        assert np.sqrt(np.mean((ratio - 1) ** 2)) < (1e-3 if route == "rays" else 0.1)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(scan, result, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    path = tmp_path / "checkpoint.h5"
    with monkeypatch.context() as patched:
        patched.setattr("ctuq.pipeline.image.job.with_bars", stopped)
        with pytest.raises(KeyboardInterrupt):
            reconstruct(scan, "tv", size=24, checkpoint=path)
    again = reconstruct(scan, "tv", size=24, checkpoint=path)
    np.testing.assert_array_equal(again.samples, result.samples)


def test_a_plan_says_the_way_and_its_price(scan):
    told = str(plan(scan, options=ReconstructOptions(method="tv", size=24)))
    assert "edge prior" in told and "GiB" in told and "exact" in told
    with pytest.raises(InputError, match="have a plan"):
        plan(scan, options=ReconstructOptions(method="fbp", size=24))


SIMPLE = [
    ("fbp", "constant"),
    ("sirt", "bootstrap"),
    ("tv", "bootstrap"),
    ("fbp", "bootstrap"),
    ("dip", "bootstrap"),
    ("dip", "ensemble"),
    ("dip", "dropout"),
    ("dip", "sgld"),
    ("dip", "diagonal"),
    ("dip", "last-layer"),
    ("dip", "plug-in"),
    ("tv", "noise"),
    ("fbp", "noise"),
]


@pytest.mark.parametrize(("method", "kind"), [("tv", "gmrf"), ("tv", "matern"), *SIMPLE])
def test_every_kind_has_the_same_result_and_calibration(method, kind, scan, result, monkeypatch):
    # Few members: what is checked holds of any number of them.
    for name, fewer in {"_WALK": {"steps": 60, "skipped": 20, "every": 2}, "MEMBERS": 6, "NETWORKS": 3}.items():
        monkeypatch.setattr(spreads, name, fewer)
    dip = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,)), iterations=60, check_every=10)
    other = reconstruct(scan, method, size=24, uncertainty=kind, dip=dip)
    assert other.method == method
    assert other.calibration.views == result.calibration.views
    np.testing.assert_allclose(other.std, np.sqrt(other.calibration.image_scale) * other.std_raw, rtol=1e-5)
    assert other.std.shape == other.mean.shape == (24, 24) and (other.std >= 0).all()
    assert {"held_out", "held_out_raw", "truth", "truth_raw"} <= set(other.scores)
    assert other.calibration.image_scale >= 0.99 and other.sigma2 > 0
    assert other.settings["uncertainty"] == kind
    if kind in ("gmrf", "matern"):
        assert set(other.prior) == {"variance", "lengthscale (pixels)"}
        assert any("not that of total variation" in text for text in other.warnings)
    if kind in NOTES:
        assert NOTES[kind][0] in other.warnings
    if kind in ("bootstrap", "ensemble", "noise", "dropout", "sgld", "diagonal"):
        spread = np.std(other.samples, axis=0, ddof=1)
        np.testing.assert_allclose(spread, other.std, rtol=1e-2, atol=1e-2 * other.std.max())


@pytest.mark.parametrize("kind", ["edges", "bootstrap"])
def test_a_limited_arc_is_told_by_every_kind(kind, monkeypatch):
    monkeypatch.setattr(spreads, "MEMBERS", 6)
    arc = phantom_scan("ellipses", 16, radians(np.arange(12) * 4.0), noise=0.05, seed=2)
    found = reconstruct(arc, "tv", size=16, uncertainty=kind)
    assert any("No view lies within" in text for text in found.warnings)


def test_methods_of_no_error_bars_of_their_own_have_none_unless_asked(scan):
    assert ReconstructOptions(method="fbp").bars is None
    assert ReconstructOptions(method="fbp", uncertainty="bootstrap").bars == "bootstrap"
    with pytest.raises(InputError, match="need held-out views"):
        reconstruct(scan, "fbp", size=16, uncertainty="constant", calibrate=False)


def test_a_matern_process_of_too_many_pixels_is_refused_in_one_sentence(scan, monkeypatch):
    monkeypatch.setattr("ctuq.uncertainty.gaussian_bars._DENSE_PIXELS", 400)
    with pytest.raises(InputError, match="up to 20 x 20 pixels, got 24 x 24; take gmrf"):
        reconstruct(scan, "tv", size=24, uncertainty="matern")


@pytest.mark.parametrize(("method", "kind"), [("tv", "laplace"), ("dip", "edges"), ("fbp", "edges"), ("tv", "nonsense")])
def test_bars_that_a_method_has_not_are_refused(method, kind):
    with pytest.raises(InputError, match=f"no error bars '{kind}' of the method {method}"):
        ReconstructOptions(method=method, uncertainty=kind)


def test_few_views_are_told(scan):
    few = reconstruct(scan.select([0, 4, 8, 12]), "tv", size=16)
    assert few.calibration is None and any("too few" in text for text in few.warnings)
    assert (few.std > 0).all()


def test_the_command_takes_a_kind(scan, tmp_path, capsys):
    ctuq.files.write_scan(scan, tmp_path / "scan.h5")
    words = ["reconstruct", str(tmp_path / "scan.h5"), "--method", "tv", "--size", "12"]
    assert cli.main([*words, "-o", str(tmp_path / "run"), "--uncertainty", "edges", "--samples", "4"]) == 0
    assert (tmp_path / "run" / "std.tif").is_file() and (tmp_path / "run" / "report.html").is_file()
    assert cli.main([*words, "--plan"]) == 0
    assert cli.main([*words, "-o", str(tmp_path / "no"), "--uncertainty", "edges", "--no-uncertainty"]) == 2
    assert cli.main([*words, "-o", str(tmp_path / "no"), "--uncertainty", "what"]) == 2
    assert "give one of them" in (text := capsys.readouterr().err) and "'what'" in text


def test_a_diagonal_laplace_of_weights_that_are_not_independent_is_refused_before_the_fit():
    with pytest.raises(InputError, match="take the prior isotropic, layerwise or g"):
        ReconstructOptions(uncertainty="diagonal", prior="filter")
    assert ReconstructOptions(uncertainty="diagonal", prior="g").bars == "diagonal"


def test_the_plan_counts_the_iterations_that_are_asked_for(monkeypatch):
    monkeypatch.setattr(module, "timed", lambda work: 0.01)
    monkeypatch.setattr(module, "flop_seconds", lambda device: 0.0)
    A = ray_transform(VolumeGrid((8, 8), 1.0), ParallelBeam(angles=np.arange(6.0) / 2, columns=9, pixel=1.0), backend="matrix")
    usual, more, same = (module.plan_of_edges(A, 54, iterations=n).total for n in (None, 2000, 200))
    assert same == usual and more - usual == pytest.approx(1800 * 0.02)
