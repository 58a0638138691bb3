"""All rays as few numbers: the evidence is that of all rays, by brute force."""

import numpy as np
import pytest
import torch
from images import prior_covariance, some_point

from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.systematics.block import Block
from ctuq.uncertainty import estimate as module
from ctuq.uncertainty.estimate import fit_evidence
from ctuq.uncertainty.model import reduced as reducing
from ctuq.uncertainty.model.reduced import reduced
from ctuq.uncertainty.model.route import evidence_numbers, route


def with_errors(model):
    """Of one size that is learned, one that is known, and one that no ray tells."""
    count, rng = int(np.prod(model.shape)), torch.Generator().manual_seed(3)
    columns = [torch.randn(count, k, generator=rng, dtype=torch.float64) for k in (3, 2, 1)]
    kinds = (("flux", 0.1, True, False), ("axis", 0.1, False, False), ("hardening", 0.1, False, True))
    return model.with_errors([Block(n, c, w, learned=a, hidden=h) for (n, w, a, h), c in zip(kinds, columns, strict=True)])


def expectations(model):
    whole = ExactExpectation(model.problem(), model.prior, components=model.components())
    problem, components = reduced(model)
    return whole, ExactExpectation(problem, model.prior, components=components), problem


@pytest.mark.parametrize("errors", [False, True])
@pytest.mark.parametrize("rank", [64, 20])
def test_the_evidence_and_its_slope_are_those_of_all_rays(rank, errors, make, monkeypatch):
    monkeypatch.setattr(reducing, "_BLOCK", 30)
    model = make(rank=rank, prior="layerwise")
    model = with_errors(model) if errors else model
    whole, few, problem = expectations(model)
    assert problem.observations == 64 + 5 * errors < len(model.target)
    # Of so little noise rounding makes what all rays tell as uncertain.
    for sigma2, off in ((1e-4, 1e-8), (1e-9, 1e-4)):
        point = some_point(model, sigma2=(sigma2,))
        (value, slope, total), (same, like, sum_) = whole.value_and_slope(point), few.value_and_slope(point)
        assert same == pytest.approx(value, rel=1e-8)
        torch.testing.assert_close(like, slope, rtol=off, atol=off)
        assert sum_ == pytest.approx(total, rel=off)
        assert few(point).log_evidence == pytest.approx(value, rel=1e-8)
        torch.testing.assert_close(few(point).slope, slope, rtol=off, atol=off)
        torch.testing.assert_close(few(point).counts, whole(point).counts)


def test_the_evidence_is_the_density_of_all_rays_by_brute_force(make):
    model = make(rank=20)
    point = some_point(model)
    M = model.features.matrix.dense(0, len(model.target))
    K = M @ prior_covariance(model, point.psi) @ M.T + point.sigma2[0] * torch.eye(len(M), dtype=torch.float64)
    truth = torch.distributions.MultivariateNormal(torch.zeros(len(M), dtype=torch.float64), K).log_prob(model.target)
    value = expectations(model)[1].value_and_slope(point)[0]
    assert value == pytest.approx(float(truth + 0.5 * model.precision.log().sum()), rel=1e-8)


@pytest.mark.parametrize("most", [3072, 70])
def test_all_rays_are_used_where_they_are_more_than_pixels(most, make, monkeypatch):
    """Of 1,000 views of 32 x 32 pixels 3,072 of 48,000 rays made the evidence."""
    model, rng = make(), torch.Generator().manual_seed(0)
    every = torch.ones(len(model.target), dtype=torch.bool)
    with monkeypatch.context() as patch:
        patch.setattr(module, "evidence_numbers", lambda unknowns, rays: rays)
        patch.setattr(module, "EVIDENCE_RAYS", 3072)
        truth = fit_evidence(model, every, rng=rng)
    monkeypatch.setattr("ctuq.uncertainty.model.route.EVIDENCE_RAYS", most)
    found = fit_evidence(model, every, rng=rng)
    assert found.value == pytest.approx(truth.value, abs=1e-3)
    torch.testing.assert_close(found.psi, truth.psi, rtol=0, atol=0.05)


def test_rays_are_reduced_only_where_that_is_cheap():
    assert evidence_numbers(576, 17_000) == 576 and evidence_numbers(1024, 48_000) == 1024
    assert evidence_numbers(4096, 17_000) == 3072 and evidence_numbers(1728, 240_000) == 3072
    assert evidence_numbers(576, 500) == 500
    small, large = route(1024, 48_000, 44_000, 84544), route(4096, 11_000, 10_000, 84544)
    assert "exact evidence," in small.reason and "of 3072 rays" in large.reason
    assert small.evidence_of == 1024 and small.bytes < 3 * 2**30
