import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chi2, chisquare, kstest

import ctuq.gp.inducing as module
import ctuq.gp.pivots as pivots
from ctuq.errors import InputError
from ctuq.gp import RBF, GaussianProcess, condition_inducing
from ctuq.gp.pivots import kernel_pivots
from ctuq.linops.gaussian import log_evidence

NOISE = 0.09


@pytest.fixture
def process(kernel):
    return GaussianProcess(kernel, NOISE, mean=0.7)


@pytest.fixture
def posterior(process, data, rng):
    return condition_inducing(process, data[0], data[1], 12, rng=rng)


def blocks(kernel, z, x):
    return kernel(z, z), kernel(z, x)


def test_inducing_points_at_all_data_give_the_exact_process(process, data, kernel, rng):
    x, y, new = data
    post, exact = condition_inducing(process, x, y, x, rng=rng), process.condition(x, y, solver="cholesky", rng=rng)
    torch.testing.assert_close(post.mean(new), exact.mean(new), rtol=0, atol=1e-9)
    torch.testing.assert_close(post.std(new), exact.std(new), rtol=0, atol=1e-8)
    K = kernel(x, x) + NOISE * torch.eye(60, dtype=torch.float64)
    assert post.log_evidence_bound == pytest.approx(log_evidence(K, y - 0.7)[0], abs=1e-6)


def test_fewer_points_are_the_variational_formulas(posterior, process, data, kernel):
    x, y, new = data
    Kzz, Kzx = blocks(kernel, posterior.z, x)
    Kzn, prior = kernel(posterior.z, new), kernel(new, new)
    S = torch.linalg.inv(Kzz + Kzx @ Kzx.T / NOISE)
    torch.testing.assert_close(posterior.mean(new), 0.7 + Kzn.T @ S @ Kzx @ (y - 0.7) / NOISE, rtol=0, atol=1e-9)
    variance = (prior - Kzn.T @ torch.linalg.solve(Kzz, Kzn) + Kzn.T @ S @ Kzn).diagonal()
    torch.testing.assert_close(posterior.std(new), variance.sqrt(), rtol=0, atol=1e-8)
    torch.testing.assert_close(posterior.predict(new)[1], (variance + NOISE).sqrt(), rtol=0, atol=1e-8)
    Q = Kzx.T @ torch.linalg.solve(Kzz, Kzx)
    bound = log_evidence(Q + NOISE * torch.eye(60, dtype=torch.float64), y - 0.7)[0]
    bound -= float((kernel(x, x) - Q).trace()) / (2 * NOISE)
    assert posterior.log_evidence_bound == pytest.approx(bound, abs=1e-7)


def test_the_bound_rises_to_the_evidence(process, data, kernel, rng):
    x, y, _ = data
    exact = log_evidence(kernel(x, x) + NOISE * torch.eye(60, dtype=torch.float64), y - 0.7)[0]
    order = kernel_pivots(kernel, x, 60, rng=rng)[0]
    bounds = [condition_inducing(process, x, y, x[order[:count]], rng=rng).log_evidence_bound for count in (5, 15, 30, 60)]
    assert sorted(bounds) == bounds
    assert bounds[-1] <= exact + 1e-6


def test_mini_batches_change_nothing(posterior, process, data, monkeypatch):
    x, y, new = data
    monkeypatch.setattr(module, "_BATCH", 7)
    again = condition_inducing(process, x, y, posterior.z, rng=torch.Generator())
    torch.testing.assert_close(again.mean(new), posterior.mean(new))
    torch.testing.assert_close(again.std(new), posterior.std(new))
    assert again.log_evidence_bound == pytest.approx(posterior.log_evidence_bound)


@pytest.mark.parametrize("count", [6, 25, 60])
def test_samples_have_the_covariance_of_the_variational_posterior(count, process, data, kernel, rng):
    """At inducing points, at other data and elsewhere; given its features a draw is Gaussian, so distances are chi-square."""
    x, y, new = data
    post = condition_inducing(process, x, y, x[:count], rng=rng)
    at = torch.cat([x[:2] + 0.01, x[-3:] - 0.01, new])
    Kzz, Kzx = blocks(kernel, post.z, x)
    S = torch.linalg.inv(Kzz + Kzx @ Kzx.T / NOISE)
    gain = torch.linalg.solve(Kzz, kernel(post.z, at)).T
    paths = post.samples(1000, rng=torch.Generator().manual_seed(5), features=60)
    distances = []
    for group, (Phi, _) in zip(paths.split(), paths.prior.sets(), strict=True):
        half = Phi(at) - gain @ Phi(post.z)
        C = half @ half.T + kernel(at, post.z) @ S @ kernel(post.z, at)
        d = group(at) - post.mean(at)
        distances.append((d * torch.linalg.solve(C, d.T).T).sum(1))
    assert kstest(torch.cat(distances), chi2(len(at)).cdf).pvalue > 1e-3
    torch.testing.assert_close((paths(at) - post.mean(at)).square().mean(0).sqrt(), post.std(at), rtol=0.25, atol=0)


def test_the_pivoted_factor_is_exact_on_its_columns_and_below_elsewhere(data, kernel, rng):
    x, K = data[0], kernel(data[0], data[0])
    index, factor = kernel_pivots(kernel, x, 20, rng=rng)
    rest = K - factor @ factor.T
    assert factor.shape == (60, 20)
    assert len(index.unique()) == 20
    torch.testing.assert_close(rest[index], torch.zeros_like(rest[index]), rtol=0, atol=1e-10)
    assert torch.linalg.eigvalsh(rest)[0] > -1e-10
    whole, full = kernel_pivots(kernel, x, 100, rng=rng)
    assert sorted(whole.tolist()) == list(range(60))
    torch.testing.assert_close(full @ full.T, K, rtol=0, atol=1e-9)


def test_pivots_explain_more_than_uniform_columns(kernel, rng):
    """A dense cluster and sparse surroundings: uniform columns waste themselves on the cluster."""
    x = torch.cat([0.05 * torch.randn(200, 2, generator=rng), 8 * torch.randn(40, 2, generator=rng)]).double()
    K = kernel(x, x)

    def left(index):
        return float((K - K[:, index] @ torch.linalg.pinv(K[index][:, index], hermitian=True) @ K[index]).trace())

    pivots = sum(left(kernel_pivots(kernel, x, 15, rng=rng)[0]) for _ in range(10))
    uniform = sum(left(torch.randperm(240, generator=rng)[:15]) for _ in range(10))
    assert pivots < 0.9 * uniform


def test_coinciding_points_end_the_factor(kernel, rng):
    index, factor = kernel_pivots(kernel, torch.zeros(10, 2), 5, rng=rng)
    assert len(index) == factor.shape[1] == 1


def test_bad_input_is_refused(process, data, rng):
    x, y, _ = data
    with pytest.raises(InputError, match="rank of a factor is 0"):
        condition_inducing(process, x, y, 0, rng=rng)
    with pytest.raises(InputError, match="3 columns"):
        condition_inducing(process, x, y, torch.zeros(4, 3), rng=rng)


def test_blocks_of_proposals_pivot_as_one_by_one_sampling_does(rng, monkeypatch):
    """Each pivot is drawn in proportion to what the ones before it leave: all 24 orders of 3 of 4 points, by chi-square."""
    monkeypatch.setattr(pivots, "_PROPOSALS", 2)
    kernel, x = RBF.of(1.0, [1.0]), torch.tensor([[0.0], [0.3], [0.9], [2.5]], dtype=torch.float64)
    K = kernel(x, x)
    expected = {}
    for order in itertools.permutations(range(4), 3):
        chance, rest = 1.0, K.clone()
        for i in order:
            chance *= float(rest[i, i].clamp(min=0) / rest.diagonal().clamp(min=0).sum())
            rest = rest - torch.outer(rest[:, i], rest[:, i]) / rest[i, i]
        expected[order] = chance
    draws = Counter(tuple(kernel_pivots(kernel, x, 3, rng=rng)[0].tolist()) for _ in range(2000))
    likely = [order for order, chance in expected.items() if chance > 0.003]
    counts = [draws[order] for order in likely]
    frequencies = [2000 * expected[order] for order in likely]
    counts, frequencies = [*counts, 2000 - sum(counts)], [*frequencies, 2000 - sum(frequencies)]
    assert chisquare(counts, frequencies).pvalue > 1e-3
