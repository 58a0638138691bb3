import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from images import posterior_covariance, prior_covariance, rays_matrix, some_point

from ctuq.laplace.evidence.hyperprior import value_and_slope
from ctuq.uncertainty.calibration import held_out as module
from ctuq.uncertainty.calibration.scales import Scales
from ctuq.uncertainty.estimate import Evidence, estimate, fit_evidence, log_hyperprior
from ctuq.uncertainty.model import route as routes
from ctuq.uncertainty.model.noise import NoiseSolve
from ctuq.uncertainty.model.route import Route, route

HELD = np.array([1, 4, 7])


@pytest.fixture
def fixed_scales(monkeypatch):
    """Scales (3, 0.5), whatever the held-out views say."""
    monkeypatch.setattr(module, "learn_scales", lambda *_: Scales(3.0, 0.5, 0.1, 0.1))


def log_evidence(model, point):
    """By the dense formula, of the rays in their own units."""
    M = rays_matrix(model)
    K = M @ prior_covariance(model, point.psi) @ M.T + torch.diag(point.sigma2[0] / model.precision)
    t = model.target / model.precision.sqrt()
    return float(torch.distributions.MultivariateNormal(torch.zeros_like(t), K).log_prob(t))


def everything(model):
    return torch.ones(len(model.target), dtype=torch.bool)


def sampled(model, held=HELD):
    """A route that computes nothing densely."""
    unseen = int(np.isin(model.views.numpy(), held).sum())
    return Route(64, len(model.target), len(model.target) - unseen, 1000, model.factor.rank, False, False, False, 0)


@pytest.mark.parametrize("prior", ["isotropic", "layerwise", "filter", "g"])
@pytest.mark.parametrize("rank", [64, 20])
def test_the_evidence_told_is_that_of_the_hyperparameters_told(rank, prior, make, rng):
    model = make(prior, rank)
    found = fit_evidence(model, everything(model), rng=rng)
    assert found.error == 0
    assert found.value == pytest.approx(log_evidence(model, found.point), abs=1e-5)


@pytest.mark.parametrize("variation", [0.0, 100.0])
def test_evidence_times_hyperprior_is_largest_there(variation, make, rng):
    model = make(rank=20)
    found = fit_evidence(model, everything(model), variation=variation, rng=rng)
    prior = log_hyperprior(model, variation)
    at = found.point

    def height(vector):
        point = at.moved(vector)
        return log_evidence(model, point) + value_and_slope(prior, point.psi)[0]

    best = height(at.vector)
    for i in range(len(at.vector)):
        for step in (-0.1, 0.1):
            moved = at.vector.clone()
            moved[i] += step
            assert height(moved) < best + 1e-4


def test_floors_stay_off_zero(make, rng):
    model = make(rank=20)
    plain = fit_evidence(model, everything(model), rng=rng, floor_shape=0.0)
    kept = fit_evidence(model, everything(model), rng=rng)
    assert (model.prior.floors(kept.psi) >= model.prior.floors(plain.psi)).all()
    assert plain.value - 2.0 < kept.value <= plain.value + 1e-6


@pytest.mark.parametrize("variation", [0.0, 100.0])
def test_sampled_evidence_agrees_with_the_exact_one(variation, make):
    model = make(rank=20)
    exact, em = (
        fit_evidence(model, everything(model), variation=variation, rng=torch.Generator().manual_seed(3), method=method)
        for method in ("dense", "em")
    )
    assert em.method == "em" and not em.noiseless
    assert em.value == pytest.approx(log_evidence(model, em.point), abs=max(3 * em.error, 1e-3))
    prior = log_hyperprior(model, variation)
    heights = [log_evidence(model, e.point) + value_and_slope(prior, e.psi)[0] for e in (exact, em)]
    assert heights[0] - 1.0 < heights[1] <= heights[0] + 1e-3


@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 0), (20, 2)])
@pytest.mark.parametrize("route", ["exact", "sampled"])
def test_correction_is_the_conditional_mean_given_the_held_out_rays(route, rank, radius, make, tiny, fixed_scales):
    model = make(rank=rank, radius=radius)
    found = estimate(model, tiny[1], HELD, way=None if route == "exact" else sampled(model))
    point = found.evidence.point
    M, noise = rays_matrix(model), point.sigma2[0] / model.precision
    new = torch.isin(model.views, torch.from_numpy(HELD))
    P = posterior_covariance(model, point, rows=~new)
    residual = tiny[1].flatten()[model.rays].double()[new] - M[new] @ model.image.flatten().double()
    total = 3.0 * M[new] @ P @ M[new].T + torch.diag(0.5 * noise[new])
    correction = 3.0 * P @ M[new].T @ torch.linalg.solve(total, residual)
    miss = found.correction.flatten() - correction
    assert float(correction.norm()) > 0
    assert float(miss.norm()) < 1e-3 * float(correction.norm())


@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 0), (20, 2)])
def test_posterior_is_of_all_views(rank, radius, make, tiny):
    model = make(rank=rank, radius=radius)
    found = estimate(model, tiny[1], HELD)
    S = posterior_covariance(model, found.evidence.point)
    torch.testing.assert_close(found.posterior.std().flatten(), S.diagonal().sqrt(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("way", ["exact", "sampled"])
def test_held_out_rays_are_predicted_by_the_fitted_ones(way, make, tiny, fixed_scales):
    model = make(rank=20)
    found = estimate(model, tiny[1], HELD, way=None if way == "exact" else sampled(model))
    record, point = found.calibration, found.evidence.point
    measured, predicted, raw, calibrated = record.predictions
    assert record.views == (1, 4, 7)
    assert (record.image_scale, record.noise_scale) == (3.0, 0.5)
    np.testing.assert_allclose(measured, tiny[1][HELD].numpy(), rtol=1e-5)
    np.testing.assert_allclose(predicted, tiny[0](model.image)[HELD].numpy(), rtol=1e-4)
    new = torch.isin(model.views, torch.from_numpy(HELD))
    M, noise = rays_matrix(model)[new], (point.sigma2[0] / model.precision)[new]
    signal = (M @ posterior_covariance(model, point, rows=~new) * M).sum(1)
    tolerance = 1e-3 if way == "exact" else 0.03
    np.testing.assert_allclose(raw.ravel(), (signal + noise).sqrt().numpy(), rtol=tolerance)
    np.testing.assert_allclose(calibrated.ravel(), (3 * signal + 0.5 * noise).sqrt().numpy(), rtol=tolerance)
    z = (measured - predicted) / calibrated
    assert record.calibrated["rms_z"] == pytest.approx(np.sqrt(np.mean(z**2)), rel=1e-4)


def test_rays_without_weight_in_a_held_out_view_repeat_their_neighbours(make, tiny):
    model = make()
    found = estimate(model, tiny[1], np.array([2, 7]))
    measured = found.calibration.predictions[0]
    assert not (model.rays == 23).any()
    assert measured[0, 3] == pytest.approx((measured[0, 2] + measured[0, 4]) / 2)
    assert np.isfinite(found.calibration.predictions).all()


def test_evidence_sees_only_the_fitted_rays(make, tiny):
    model, changed = make(), tiny[1].clone()
    changed[HELD] += 0.5
    before = estimate(model, tiny[1], HELD).evidence
    model.target[torch.isin(model.views, torch.from_numpy(HELD))] += 0.5
    after = estimate(model, changed, HELD).evidence
    assert after.value == before.value
    assert estimate(model, changed, np.zeros(0, np.int64)).evidence.value != before.value


def test_nothing_held_out_means_nothing_calibrated(make, tiny):
    found = estimate(make(), tiny[1], np.zeros(0, np.int64))
    assert found.calibration is None
    assert (found.scales.image, found.scales.noise) == (1, 1)
    assert float(found.correction.abs().max()) == 0


@pytest.mark.parametrize("way", ["exact", "sampled"])
def test_leave_one_angle_out_is_a_prediction_of_each_view_from_the_others(way, make, tiny):
    model = make(rank=20)
    found = estimate(model, tiny[1], HELD, way=None if way == "exact" else sampled(model))
    point = found.evidence.point
    M = rays_matrix(model)
    K = M @ prior_covariance(model, point.psi) @ M.T + torch.diag(point.sigma2[0] / model.precision)
    t, z = model.target / model.precision.sqrt(), []
    for view in model.views.unique():
        out, rest = model.views == view, model.views != view
        gain = K[out][:, rest] @ torch.linalg.inv(K[rest][:, rest])
        variance = (K[out][:, out] - gain @ K[rest][:, out]).diagonal()
        z.append((t[out] - gain @ t[rest]) / variance.sqrt())
    assert found.leave_one_out["rms_z"] == pytest.approx(float(torch.cat(z).square().mean().sqrt()), rel=1e-4)


def test_variation_hyperprior_shrinks_the_variance(make, rng):
    model = make()
    free, held = (fit_evidence(model, everything(model), rng=rng, variation=v) for v in (0.0, 1e4))
    assert float(held.psi[0]) < float(free.psi[0])


def test_an_exact_jacobian_and_a_factor_agree_on_the_error_bars(make, tiny):
    exact, factor = (estimate(make(rank=rank), tiny[1], HELD) for rank in (64, 50))
    ratio = factor.posterior.std() / exact.posterior.std()
    assert float((ratio - 1).abs().quantile(0.95)) < 0.05
    assert factor.posterior.error < 0.05


def test_routes_are_exact_while_that_is_cheap_and_smaller_where_memory_is():
    small, large = route(4096, 1950, 1755, 84544), route(262144, 15000, 14000, 84544)
    assert small.exact_evidence and small.noise_by == "float64" and small.exact_std
    assert large.exact_evidence and large.noise_by == "float32" and not large.exact_std
    assert "of 3072 rays" in large.reason
    assert large.bytes < 6 * 2**30
    poor = route(65536, 7000, 6300, 84544, memory=3 * 2**29)
    assert poor.rank < route(65536, 7000, 6300, 84544).rank
    assert poor.noise_by != "float64"
    assert route(262144, 50000, 45000, 84544).noise_by == "cg"
    assert poor.bytes < 3 * 2**29


@pytest.mark.parametrize(("pixels", "rays"), [(4096, 1950), (16384, 4920), (16384, 23000), (65536, 9000), (262144, 120000)])
def test_directions_fall_no_faster_than_memory_and_ample_memory_keeps_all(pixels, rays):
    """A little too little memory kept 17 of 1,114 directions, as what they do not change was over the budget by itself."""
    sizes = pixels, rays, int(0.9 * rays), 84544
    wanted = route(*sizes).rank
    ranks = [route(*sizes, memory=2**30 * quarters // 4).rank for quarters in range(0, 4 * 64)]
    assert ranks[-1] == wanted == route(*sizes, memory=2**40).rank
    assert all(less <= more for less, more in itertools.pairwise(ranks))
    assert min(ranks) == routes._FEWEST
    # In proportion, but where what they do not change comes over its share, and where steps hold two arrays for one.
    assert all(ranks[half] > 0.2 * ranks[2 * half] for half in range(1, len(ranks) // 2))
    assert all(ranks[half] > 0.49 * ranks[2 * half] for half in (1, 2))


def test_what_a_user_with_too_little_memory_keeps():
    short = [route(4096, 1950, 1755, 84544, memory=int(2**30 * gib)) for gib in (1.2, 1.0, 0.8)]
    assert all(each.rank > least for each, least in zip(short, (1100, 900, 700), strict=True))
    assert all(each.bytes < gib * 2**30 for each, gib in zip(short, (1.2, 1.0, 0.8), strict=True))


def test_a_factor_is_given_up_for_steps_only_where_that_saves_memory():
    assert [routes.noise_route(n, 0.0) for n in (100, 8192, 8193, 30000)] == ["float32", "float32", "cg", "cg"]


@pytest.mark.parametrize(("held", "most"), [([4], 768), (HELD, 768), (HELD, 4)])
def test_as_many_right_hand_sides_are_solved_as_planned(held, most, make, tiny, monkeypatch):
    monkeypatch.setattr(routes, "_HELD_OUT", most)  # of 4, the other rays are solved anew
    monkeypatch.setattr(routes, "_SOME", 4)
    solved, solve = [], NoiseSolve.__call__
    monkeypatch.setattr(NoiseSolve, "__call__", lambda noise, b, *to: solved.append(len(b)) or solve(noise, b, *to))
    model = make(rank=20)
    unseen, point = int(np.isin(model.views, held).sum()), some_point(model)
    view = len(model.target) // len(model.views.unique())
    planned = route(64, len(model.target), len(model.target) - unseen, 1000, view=view)
    planned = replace(planned, rank=20, noise_by="cg", together=unseen <= 20 + most)
    evidence = Evidence(point.psi, float(point.sigma2), 0.0, 0.0, True, "dense")
    estimate(model, tiny[1], np.array(held), way=planned, evidence=evidence)
    alone = 0 if planned.together else routes._CORRECTION  # solves of one right-hand side, which cost more
    assert sum(n for n in solved if n > 1) == pytest.approx(20 + planned.solves - alone, rel=0.1)


def test_some_point_of_the_tests_has_all_parts_matter(make):
    model = make(rank=20)
    point = some_point(model)
    assert log_evidence(model, point) > -1e6
