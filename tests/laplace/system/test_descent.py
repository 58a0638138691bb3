import pytest
import torch
from linear_models import TWO, Exact, normal, point, problem

from ctuq.errors import InputError
from ctuq.laplace.system.descent import DualSampler, PrimalSampler, SampleLoss, kept_fraction
from ctuq.laplace.system.problem import Problem, System
from ctuq.laplace.system.sampling import Draws, condition
from ctuq.linops.solve import Cholesky

AT = point([-1.0, -1.5], [0.4, 0.7])


def setting(rng, n=40, outputs=2):
    return problem(rng, n, outputs, groups=torch.arange(n * outputs).reshape(n, outputs) % 2)


@pytest.mark.parametrize("kept", [0.0, 0.3, 1.0])
def test_gradient_of_every_loss_vanishes_at_the_sample_and_the_mode(kept, rng):
    p, _ = setting(rng)
    system, draws = System(p, TWO, AT), Draws.of(p, 3, rng=rng)
    found = condition(system, draws, Cholesky())
    z = system.root_transpose(torch.cat([found.pull, found.mode.pull[None]]))
    z[:3] += draws.prior
    loss = SampleLoss(system, draws, kept=kept)
    assert float(loss.gradient(z, torch.arange(40)).abs().max()) < 1e-9
    parts = torch.stack([loss.gradient(z, index) for index in torch.arange(40).split(8)])
    assert float(parts.abs().max()) > 1e-2
    torch.testing.assert_close(parts.mean(0), torch.zeros_like(z), rtol=0, atol=1e-9)


@pytest.mark.parametrize("psi", [-4.0, 0.0])
def test_gradient_noise_at_the_optimum_is_what_leverages_say(psi, rng):
    p, matrix = problem(rng, 12, 2, P=24, spread=0.1, noise=1.0)
    system = System(p, TWO, point([psi, psi], [1.0]))
    S = torch.linalg.inv(torch.eye(24, dtype=torch.float64) + system.primal_gram().dense())
    B = (matrix @ system.root(torch.eye(24, dtype=torch.float64)).T).reshape(12, 2, 24)
    flat, eye = B.reshape(24, 24), torch.eye(24, dtype=torch.float64)
    size = float(B.square().sum())
    leverage = sum(float((b @ b.T @ b @ S @ b.T).trace()) for b in B) / size

    def variance(c):
        """Of the gradient from one datum: the residual B z - c e at the optimum has covariance (1 - 2 c) B S B^T + c^2 I."""
        covariance = (1 - 2 * c) * flat @ S @ flat.T + c**2 * eye
        own = covariance.reshape(12, 2, 12, 2).diagonal(dim1=0, dim2=2).movedim(-1, 0)
        single = sum(float((b @ b.T @ k).trace()) for b, k in zip(B, own, strict=True))
        return 12 * single - float((flat @ flat.T @ covariance).trace())

    # The gradient is linear in the 48 standard normals of a draw: its variance is the sum over unit draws.
    unit = torch.eye(48, dtype=torch.float64)
    draws = Draws(unit[:, :24], unit[:, 24:].reshape(48, 12, 2), None)
    z = condition(system, draws, Cholesky(), with_mode=False).pull
    z = system.root_transpose(z) + draws.prior
    for c in (0.0, 0.4, 1.0):
        loss = SampleLoss(system, draws, kept=c, with_mode=False)
        noise = torch.stack([loss.gradient(z, torch.tensor([j])) for j in range(12)])
        assert float(noise.square().sum((1, 2)).mean()) == pytest.approx(variance(c), rel=1e-8)
    assert (variance(1.0) < variance(0.0)) == (leverage > 0.5)
    assert variance(leverage) <= min(variance(0.0), variance(1.0))


def test_noise_is_kept_with_few_data_and_moved_with_many():
    assert kept_fraction(60, 100) == 1
    assert kept_fraction(40, 100) == 0


@pytest.mark.parametrize("sampler", [PrimalSampler, DualSampler])
def test_mini_batches_converge_to_the_sample_and_the_mode(sampler, rng):
    p, matrix = setting(rng)
    system, draws = System(p, TWO, AT), Draws(normal(rng, 3, 24), normal(rng, 3, 40, 2), None)
    exact = condition(system, draws, Cholesky())
    found = sampler(draws, rng=rng, batch=10, epochs=400)(system, True, None)
    assert float(found.residual.max()) < 0.05
    scale = float(exact.samples.norm())
    assert float((found.samples - exact.samples).norm()) < 0.05 * scale
    assert float((found.pull - exact.pull).norm()) < 0.05 * float(exact.pull.norm())
    mode = Exact.of(p, matrix, TWO, AT.psi, AT.sigma2).mode
    assert float((found.mode.weights - mode).norm()) < 0.05 * float(mode.norm())
    torch.testing.assert_close(found.squares, exact.squares, rtol=0.1, atol=0.1)
    assert found.mode.log_likelihood == pytest.approx(exact.mode.log_likelihood, abs=1)


def test_the_leverage_rule_follows_the_last_dimension(rng):
    p, _ = problem(rng, 8, 1, spread=0.05, noise=0.1)
    system = System(p, TWO, point([1.0, 1.0], [0.05]))
    descent = PrimalSampler(Draws(normal(rng, 3, 24), normal(rng, 3, 8), None), rng=rng, batch=4, rtol=10.0)
    assert descent.kept == 0
    descent(system, True, None)
    assert descent.kept == 1


def test_a_miss_is_told(rng):
    p, _ = setting(rng)
    draws = Draws.of(p, 2, rng=rng)
    with pytest.warns(UserWarning, match="SGD reached"):
        PrimalSampler(draws, rng=rng, batch=10, rtol=1e-9)(System(p, TWO, AT), True, None)


def test_dual_descent_needs_rows(rng):
    p, _ = setting(rng)
    bare = Problem(p.features, p.target, p.sigma2, groups=p.groups)
    with pytest.raises(InputError, match="rows"):
        DualSampler(Draws.of(p, 2, rng=rng), rng=rng, batch=4)(System(bare, TWO, AT), True, None)
