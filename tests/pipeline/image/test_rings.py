"""Gains of columns in a reconstruction: taken out where rays tell them, told with their interval, else nothing."""

import numpy as np
import pytest
import torch

import ctuq
from ctuq.app.report.page import render_report
from ctuq.pipeline.bars import asked_errors
from ctuq.pipeline.image.rings import gains_of
from ctuq.recon.dip import Data, DIPOptions
from ctuq.systematics.catalogue import KINDS, STRONG
from ctuq.systematics.detector import rough
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, radians, ray_transform
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.uncertainty.results.unseen_views import predict_views

SETTINGS = {"size": 16, "field": 24.0, "samples": 100, "directions": 0, "dip": DIPOptions(iterations=150)}
NOISE, SIZE, GRID = 0.01, 16, VolumeGrid((16, 16), 1.5)


def views_of(angles, gains, seed=0):
    """Rays of ellipses on a grid three times as fine, with gains."""
    image = 0.05 * PHANTOMS["ellipses"](48, np.random.default_rng(0)).astype(np.float32)
    geometry = ParallelBeam(angles=radians(angles), columns=24, pixel=1.5)
    A = ray_transform(VolumeGrid((48, 48), 0.5), geometry, backend="matrix")
    noise = NOISE * np.random.default_rng(seed).standard_normal(geometry.shape)
    truth = image.reshape(SIZE, 3, SIZE, 3).mean((1, 3))
    return Scan((A(torch.from_numpy(image)).numpy() + noise - gains).astype(np.float32), geometry, truth=truth, grid=GRID)


@pytest.fixture(scope="module")
def gains():
    basis = rough(24).numpy()
    return basis @ (basis.T @ (6 * NOISE * np.random.default_rng(3).standard_normal(24)))


ANGLES = np.arange(0, 180, 12.0)


@pytest.fixture(scope="module")
def made(gains):
    scan = views_of(ANGLES, gains)
    return [ctuq.reconstruct(scan, systematics=text, **SETTINGS) for text in ("none", "gain,hardening=0.01")]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def data_of(scan):
    y = torch.tensor(scan.projections)
    return Data(ray_transform(GRID, scan.geometry, backend="matrix"), y, torch.ones_like(y))


def test_intervals_hold_gains_and_none_are_seen_where_none_are(gains):
    clean = gains_of(data_of(views_of(ANGLES, 0.0)))
    assert clean.log_odds < 0
    sd = clean.covariance.diagonal().sqrt().numpy()
    assert np.all(np.abs(clean.values.numpy()) < 1.96 * sd)
    found = gains_of(data_of(views_of(ANGLES, gains)))
    assert found.log_odds > STRONG
    off = np.abs(found.values.numpy() - gains) / found.covariance.diagonal().sqrt().numpy()
    assert np.mean(off < 1.96) >= 0.85
    assert rms(found.values.numpy() - gains) < 0.6 * rms(gains)


def test_flux_that_drifts_hides_no_gains_and_makes_none(gains):
    drift = np.log(np.linspace(1, 0.9, len(ANGLES)))[:, None]
    clean = views_of(ANGLES, drift)
    assert gains_of(data_of(clean)).log_odds < STRONG
    found = gains_of(data_of(views_of(ANGLES, gains + drift)))
    assert found.log_odds > STRONG
    assert rms(found.values.numpy() - gains) < 0.6 * rms(gains)


def test_flux_that_falls_to_half_hides_no_gains(gains):
    """An image takes what all views share for an object beside it; three images left two thirds of that, and hid the gains."""
    drift = np.log(np.linspace(1, 0.5, len(ANGLES)))[:, None]
    found = gains_of(data_of(views_of(ANGLES, gains + drift)))
    assert found.log_odds > STRONG
    assert rms(found.values.numpy() - gains) < 0.7 * rms(gains)


def test_an_axis_beside_its_place_is_no_gain():
    scan = views_of(ANGLES, 0.0)
    data = data_of(scan)
    moved = ParallelBeam(angles=scan.geometry.angles, columns=24, pixel=1.5, axis_offset=0.75)
    assert gains_of(Data(ray_transform(GRID, moved, backend="matrix"), data.y, data.weights)).log_odds < STRONG


def test_dead_columns_and_rays_say_nothing(gains):
    data = data_of(views_of(ANGLES, gains))
    weights, y = data.weights.clone(), data.y.clone()
    weights[:, 9] = 0
    weights[::4, 15] = 0
    y[weights == 0] = 50.0
    found = gains_of(Data(data.A, y, weights))
    other = gains_of(Data(data.A, torch.where(weights == 0, 1.0, y), weights))
    torch.testing.assert_close(found.values, other.values, rtol=1e-2, atol=1e-4)
    sd = found.covariance.diagonal().sqrt()
    assert bool(found.values.isfinite().all()) and float(sd[9]) > 1.5 * float(sd.median())
    assert np.mean(np.abs(found.values.numpy() - gains) < 1.96 * sd.numpy()) >= 0.8


def test_gains_are_taken_out_and_told(made, gains):
    plain, freed = made
    told = freed.systematics["gain"]
    assert plain.removed is None and not plain.systematics
    np.testing.assert_allclose(freed.removed, np.broadcast_to(-0.01 * told.values, freed.removed.shape), atol=1e-6)
    np.testing.assert_array_equal(told.values, told.taken)
    np.testing.assert_allclose(told.samples.mean(0), told.values, atol=5 * told.std.max() / 10)
    np.testing.assert_allclose(told.samples.std(0), told.std, rtol=0.4)
    assert np.mean(np.abs(0.01 * told.values - gains) < 1.96 * 0.01 * told.std) >= 0.85
    assert rms(freed.mean - freed.truth) < rms(plain.mean - plain.truth)
    assert rms(freed.comparisons["fbp"] - freed.truth) < rms(plain.comparisons["fbp"] - plain.truth)
    assert 0 < told.share < 1 and told.effect is None
    assert "without the gains of detector columns" in " ".join(freed.warnings)
    assert "Gain of each column: off by" in render_report(freed, {})


def test_results_with_gains_come_back_from_their_file(made, tmp_path):
    freed = made[1]
    freed.save(tmp_path / "r.h5")
    again = ctuq.Result.load(tmp_path / "r.h5")
    np.testing.assert_array_equal(again.removed, freed.removed)
    np.testing.assert_array_equal(again.systematics["gain"].values, freed.systematics["gain"].values)
    np.testing.assert_array_equal(again.std_rays, freed.std_rays)


def test_unseen_views_are_foretold_with_the_gains(made, gains):
    unseen = views_of(ANGLES + 6, gains, seed=5)
    A = ray_transform(GRID, unseen.geometry, backend="matrix")
    off = [rms(predict_views(result, A)[0] - unseen.projections) for result in made]
    assert off[1] < off[0]
    mean, variance = predict_views(made[1], A)
    assert np.mean(np.abs(mean - unseen.projections) < 1.96 * np.sqrt(variance)) > 0.85


def test_a_right_scan_stays_as_it_is():
    scan = views_of(ANGLES, 0.0)
    settings = SETTINGS | {"samples": 4, "dip": DIPOptions(iterations=50)}
    first, second = (ctuq.reconstruct(scan, systematics=text, **settings) for text in ("hardening", "gain,hardening"))
    np.testing.assert_array_equal(first.mean, second.mean)
    assert second.removed is None and second.systematics["gain"].taken is None
    assert 1 <= second.std.mean() / first.std.mean() < 1.05
    third = ctuq.reconstruct(scan, systematics="default", **settings)
    assert "gain" not in third.systematics and third.removed is None
    every = ctuq.reconstruct(scan, systematics="all", **settings)
    assert set(every.systematics) == {*KINDS} - {"distance", "truncation"}
    (told,) = (text for text in every.warnings if text.startswith("Of all systematic errors left out"))
    assert told.endswith("left out: distance, as its rays are parallel, and have no distances.")
    assert not any("left out" in text for text in third.warnings)
    assert "gain" not in " ".join(every.warnings) and "Gain of each column: zero within" in render_report(every, {})


def test_all_over_an_arc_has_the_axis_that_the_default_leaves_out():
    arc = views_of(np.arange(0, 90, 6.0), 0.0)
    assert [wish.name for wish in asked_errors("default", arc)] == ["hardening", "truncation"]
    assert len(asked_errors("all", arc)) == len(KINDS)
