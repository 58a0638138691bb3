"""Systematic errors of a scan from the option to the sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ctuq
from ctuq.app.report.page import render_report
from ctuq.app.report.systematics import error_rows, errors_told
from ctuq.errors import InputError
from ctuq.pipeline import ReconstructOptions
from ctuq.pipeline.bars import asked_errors
from ctuq.quantities.regions import Circle
from ctuq.recon.dip import DIPOptions
from ctuq.tomo import Provenance
from ctuq.uncertainty.results.unseen_views import predict_views

SETTINGS = {"size": 16, "field": "all", "samples": 200, "dip": DIPOptions(iterations=120)}


@pytest.fixture(scope="module")
def made(noisy_scan):
    """Views of wrong flux, by a model without errors and with several."""
    flux = 0.03 * np.random.default_rng(3).standard_normal(noisy_scan.n_angles)
    scan = replace(noisy_scan, projections=noisy_scan.projections - flux[:, None].astype(np.float32))
    plain = ctuq.reconstruct(scan, systematics="none", **SETTINGS)
    return flux, plain, ctuq.reconstruct(scan, systematics="axis,flux,hardening=0.3", **SETTINGS)


def test_wrong_flux_is_told_view_by_view(made):
    flux, plain, result = made
    found = result.systematics["flux"]
    assert not plain.systematics and list(result.systematics) == ["flux", "axis", "hardening"]
    assert (found.unit, found.of, found.learned, found.hidden) == ("%", "view", True, False)
    assert np.abs(found.values - 100 * flux).max() < 5 * found.std.max()
    assert np.corrcoef(found.values, flux)[0, 1] > 0.9
    assert result.log_evidence > plain.log_evidence + 5
    assert found.samples.shape == (200, len(flux))
    np.testing.assert_allclose(found.samples.std(0), found.std, rtol=0.4)


def test_a_learned_size_is_the_evidence_s_whatever_the_image_s_scale(made):
    _, _, result = made
    assert result.calibration.image_scale > 1.05
    assert result.systematics["flux"].width == pytest.approx(100 * result.prior["flux"] ** 0.5)


def test_flux_of_held_out_views_alone_is_told_whole(noisy_scan, made):
    """By the size of the others' it was told as a tenth of what it was, by an interval of a twentieth of that."""
    held = list(made[1].calibration.views)
    flux = np.zeros(noisy_scan.n_angles)
    flux[held] = 0.05
    scan = replace(noisy_scan, projections=noisy_scan.projections - flux[:, None].astype(np.float32))
    result = ctuq.reconstruct(scan, systematics="flux", **SETTINGS)
    found = result.systematics["flux"]
    assert list(result.calibration.views) == held
    assert np.abs((found.values - 100 * flux) / found.std)[held].max() < 3 and found.values[held].min() > 3


def test_an_axis_beside_shifts_is_that_of_the_average_view(noisy_scan):
    """Told as that of the views that are not held out, of a fan it was 0.447 +- 0.008 mm where it was 0.5."""
    settings = SETTINGS | {"dip": DIPOptions(iterations=20), "samples": 20}
    told = ctuq.reconstruct(noisy_scan, systematics="axis,shift=0.5", **settings).systematics
    shift = told["shift"]
    assert np.abs(shift.values).max() > 1e-3 and abs(shift.values.mean()) < 1e-9
    assert np.abs(shift.samples.mean(1)).max() < 1e-5


def test_what_hides_in_the_image_keeps_its_width_and_makes_the_object_less_sure(made):
    _, _, result = made
    hidden = result.systematics["hardening"]
    assert hidden.values[0] == 0 and hidden.std[0] == pytest.approx(0.3) and 0.1 < hidden.share <= 1
    core = result.mean > 0.8 * result.mean.max()
    np.testing.assert_allclose(result.samples.std(0)[core], result.std[core], rtol=0.3)
    # Of the mean over the object, where pixels' own errors cancel, it is most of what is not known.
    whole = core[None].astype(float) / core.sum()
    deviations = (result.samples - result.mean)[:, core].mean(1)
    assert result.covariance(whole)[0, 0] == pytest.approx(float(np.mean(deviations**2)), rel=0.4)
    along = np.corrcoef(hidden.samples[:, 0], deviations)[0, 1]
    assert along > 0.7  # rays that hardening lowers are those of more attenuation


def test_each_error_is_a_sentence_and_a_row(made):
    _, plain, result = made
    flux, axis, hardening = errors_told(result)
    assert errors_told(plain) == [] and error_rows(plain) == []
    assert "significantly" in flux and "%" in flux
    assert "95 % interval" in axis and "mm" in axis
    assert "rays do not tell it from the object" in hardening and "0.3" in hardening
    assert [len(row) for row in error_rows(result)] == [4, 4, 4]
    page = render_report(result, {})
    assert "Systematic errors of the scan" in page and "Beam hardening" in page
    assert "Systematic errors of the scan" not in render_report(plain, {})


def monochromatic(scan):
    return replace(scan, provenance=replace(scan.provenance, facts={"beam": "Monochromatic"}))


def test_a_beam_may_harden_unless_it_is_known_to_have_one_energy(noisy_scan):
    known, unknown = (ctuq.reconstruct(s, **SETTINGS) for s in (monochromatic(noisy_scan), noisy_scan))
    assert list(known.systematics) == ["axis"] and known.std_rays is None
    assert list(unknown.systematics) == ["axis", "hardening"] and unknown.systematics["hardening"].width == pytest.approx(0.1)
    np.testing.assert_array_equal(known.mean, unknown.mean)
    np.testing.assert_allclose(unknown.std_rays, known.std, rtol=1e-4)
    core = known.mean > 0.8 * known.mean.max()
    assert np.median(unknown.std[core] / known.std[core]) > 1.15
    assert known.sigma2 == unknown.sigma2 and known.log_evidence == unknown.log_evidence
    _, told = errors_told(unknown)
    assert "held possible" in told and "--systematics none" in told
    page = render_report(unknown, {})
    assert 'value="std_rays"' in page and 'value="std_rays"' not in render_report(known, {})
    disc = [result.region(Circle(0, 0, 4)).budget for result in (known, unknown)]
    assert set(disc[1]) - set(disc[0]) == {"beam hardening"} and disc[1]["beam hardening"] > 0.1 * disc[0]["noise of the rays"]
    for source in disc[0]:
        assert disc[1][source] == pytest.approx(disc[0][source], rel=0.05, abs=0.02 * sum(disc[0].values()))
    # Of two scans by one scanner it cancels; of two it does not; and where one beam has none, it is the other's.
    here, away = Circle(0, 0, 4), replace(unknown, scan=replace(unknown.scan, provenance=Provenance(facts={"instrument": "b"})))
    alone = [unknown.difference(other, here).budget["beam hardening"] for other in (unknown, away, known)]
    assert alone[0] == pytest.approx(0, abs=1e-12) and alone[1:] == pytest.approx(
        [2 * disc[1]["beam hardening"], disc[1]["beam hardening"]]
    )
    named = ctuq.reconstruct(monochromatic(noisy_scan), systematics="axis,hardening", **SETTINGS)
    np.testing.assert_array_equal(named.std, unknown.std)


def test_values_in_a_unit_of_their_own_are_told_and_make_no_difference(noisy_scan):
    """Line integrals of a picture may be grey values, of which the square is no hardening."""
    one, grey = (ctuq.reconstruct(replace(noisy_scan, projections=k * noisy_scan.projections), **SETTINGS) for k in (5, 5e4))
    assert not any("unit of their own" in text for text in one.warnings)
    assert any("unit of their own" in text for text in grey.warnings)
    shares = [result.systematics["hardening"].share for result in (one, grey)]
    assert 0 < shares[1] < 1
    # Of integrals as if they ended at 2, and not of a thousand times what they are.
    largest = 5 * float(noisy_scan.projections.max())
    assert grey.systematics["hardening"].width == pytest.approx(0.1 * 2 / (1e4 * largest), rel=0.3)
    assert grey.std.max() < grey.mean.max()


def test_the_axis_is_looked_for_by_default_where_views_tell_it(disc_scan):
    half, arc, few = disc_scan.every(2), disc_scan.select(np.arange(disc_scan.n_angles // 2)), disc_scan.every(5)
    assert [w.name for w in asked_errors("default", half)] == ["axis", "gain", "hardening", "truncation"]
    for scan in (arc, few):
        assert [w.name for w in asked_errors("default", scan)] == ["hardening", "truncation"]
        assert [w.name for w in asked_errors("default,axis", scan)] == ["axis", "hardening", "truncation"]


def test_error_bars_without_hardening_say_so(noisy_scan):
    told = [ctuq.reconstruct(s, "tv", size=16).warnings for s in (noisy_scan, monochromatic(noisy_scan))]
    assert any("beam hardening" in text for text in told[0]) and not any("beam hardening" in text for text in told[1])
    assert not any("hardening" in text for text in ctuq.reconstruct(noisy_scan, "fbp", size=16).warnings)


def test_results_with_errors_read_back_equal(made, tmp_path):
    _, _, result = made
    result.save(tmp_path / "r.h5")
    again = ctuq.Result.load(tmp_path / "r.h5")
    np.testing.assert_array_equal(again.std_rays, result.std_rays)
    for name, found in result.systematics.items():
        for key, value in vars(found).items():
            np.testing.assert_array_equal(getattr(again.systematics[name], key), value)
    assert again.settings["systematics"] == "axis,flux,hardening=0.3"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "fbp", "systematics": "axis"}, "error bars of the method dip"),
        ({"uncertainty": False, "systematics": "default,flux"}, "error bars of the method dip"),
        ({"systematics": "rings"}, "no systematic error 'rings'"),
    ],
)
def test_errors_without_error_bars_and_unknown_ones_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        ReconstructOptions(**settings)


def test_an_error_that_the_scan_cannot_have_is_refused_before_the_fit(noisy_scan):
    with pytest.raises(InputError, match="rays are parallel"):
        ctuq.reconstruct(noisy_scan, systematics="distance", size=16, progress=lambda _: pytest.fail("the fit began"))


def test_what_hides_in_the_image_leaves_unseen_rays_as_sure_as_they_are(noisy_scan):
    """Thick parts: what an image cannot hide of hardening that is held possible was most of the rays' variance."""
    thick = replace(noisy_scan, projections=noisy_scan.projections * np.float32(4 / noisy_scan.projections.max()))
    widths = (0.01, 1.0)
    results = [ctuq.reconstruct(thick, systematics=f"hardening={width}", **SETTINGS) for width in widths]
    A = ctuq.ray_transform(results[0].grid, results[0].scan.geometry, backend="matrix")
    variances = [predict_views(result, A)[1] for result in results]
    np.testing.assert_allclose(variances[1], variances[0], rtol=0.02)
    assert results[1].std.mean() > 3 * results[0].std.mean()


@pytest.mark.parametrize(("method", "kind"), [("fbp", "constant"), ("tv", "noise"), ("sirt", "bootstrap")])
def test_images_that_differ_hold_what_no_ray_tells_too(method, kind, noisy_scan):
    thick = replace(noisy_scan, projections=noisy_scan.projections * np.float32(2 / noisy_scan.projections.max()))
    plain, held = (
        ctuq.reconstruct(thick, method, size=24, uncertainty=kind, systematics=asked) for asked in ("none", "hardening=0.3")
    )
    told = held.systematics["hardening"]
    assert told.std[0] == pytest.approx(0.3) and 0.1 < told.share <= 1 and not plain.systematics
    np.testing.assert_allclose(held.std**2, plain.std**2 + told.effect**2, rtol=1e-4)
    # What it does is what an image of rays that are so much lower is off by: most where rays are long, little in the air.
    inside = held.mean > 0.5 * held.mean.max()
    assert 0.1 < np.median(told.effect[inside] / held.mean[inside]) < 0.3 * 2  # of line integrals up to 2
    region = np.zeros(held.mean.shape, bool)
    region[8:16, 8:16] = True
    u, without = (result.region(region).standard_uncertainty for result in (held, plain))
    assert u**2 == pytest.approx(without**2 + told.effect[region].mean() ** 2, rel=0.02)
    assert any("hold what no ray tells of the scanner (beam hardening)" in text for text in held.warnings)
    if held.samples is not None:
        deviations = (held.samples - held.mean)[:, inside].mean(1)
        assert np.corrcoef(told.samples[:, 0], deviations)[0, 1] > 0.7
        A = ctuq.ray_transform(held.grid, held.scan.geometry, backend="matrix")
        np.testing.assert_allclose(predict_views(held, A)[1], predict_views(plain, A)[1], rtol=0.02)


def test_unseen_rays_are_foretold_with_errors_and_image_together(made, disc_scan):
    _, _, result = made
    others = disc_scan.select(np.arange(1, disc_scan.n_angles, 4))
    others = others.binned(others.geometry.columns // result.scan.geometry.columns)
    A = ctuq.ray_transform(result.grid, others.geometry, backend="matrix")
    mean, variance = predict_views(result, A)
    z = (others.projections - mean) / np.sqrt(variance)
    assert np.sqrt(np.mean(z**2)) < 1.5
    # An image that is unsure for hardening alone would foretell the rays worse than they are known.
    own = A(torch.from_numpy(result.samples - result.mean)).square().mean(0).numpy()
    flux = (0.01 * result.systematics["flux"].width) ** 2
    through = mean > 0.5 * mean.max()
    assert np.median((own / (variance - flux - result.sigma2))[through]) > 2
