import math

import pytest
import scipy.optimize
import torch
from linear_models import ONE, TWO, Exact, normal, point, problem
from torch import nn

from ctuq.laplace.system.mode import newton_mode, whitened
from ctuq.laplace.system.problem import Labels, Problem, System
from ctuq.laplace.system.sampling import Draws, condition
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical
from ctuq.linops.basic import Dense, Symmetric
from ctuq.linops.operator import Space
from ctuq.linops.solve import CG, Cholesky


@pytest.mark.parametrize("n", [15, 40])
@pytest.mark.parametrize("solver", [Cholesky(), CG(rtol=1e-12)])
def test_mode_is_ridge_regression(n, solver, rng):
    groups = torch.arange(n) % 2
    p, matrix = problem(rng, n, groups=groups)
    at = point([0.3, -0.5], [0.2, 0.6])
    system = System(p, TWO, at)
    found = condition(system, Draws.of(p, 1, rng=rng), solver, with_mode=True).mode
    exact = Exact.of(p, matrix, TWO, at.psi, at.sigma2)
    torch.testing.assert_close(found.weights, exact.mode, rtol=1e-9, atol=1e-9)
    left = (p.target - matrix @ exact.mode).square() / at.sigma2[groups]
    torch.testing.assert_close(found.misfit, p.by_group(left))
    penalty = exact.mode @ TWO.precision(exact.mode[None], at.psi)[0]
    assert found.penalty == pytest.approx(float(penalty), rel=1e-9)
    torch.testing.assert_close(found.pull, TWO.precision(exact.mode[None], at.psi)[0], rtol=1e-8, atol=1e-8)
    # log p(t) = log p(t | mode) - 1/2 penalty - 1/2 log det(I + B B^T)
    noise = at.sigma2[groups]
    log_det = float(torch.logdet(exact.K / (noise.sqrt()[:, None] * noise.sqrt())))
    assert found.log_likelihood - 0.5 * found.penalty - 0.5 * log_det == pytest.approx(exact.evidence, rel=1e-10)


def labelled(rng, likelihood, n=25, c=3, P=24):
    matrix = normal(rng, n * c, P)
    space = Space((n, c), torch.float64)
    logits = (matrix @ normal(rng, P)).reshape(n, c)
    offset = 0.3 * normal(rng, n, c)
    y = logits.argmax(1) if isinstance(likelihood, Categorical) else (logits > 0).double()
    labels = Labels(likelihood, Dense(matrix, range=space), offset, y)
    ones = torch.ones(1, dtype=torch.float64)
    return Problem(Dense(matrix, range=space), torch.zeros(n, c, dtype=torch.float64), ones, False, labels=labels), matrix


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli()])
def test_mode_of_labels_is_where_the_gradient_of_the_log_posterior_vanishes(likelihood, rng):
    p, matrix = labelled(rng, likelihood)
    at = point([0.4, -0.6], [1.0])
    found = newton_mode(System(p, TWO, at), p.labels)
    precision = TWO.precision(torch.eye(24, dtype=torch.float64), at.psi)

    def loss(w):
        outputs = p.labels.offset + (matrix @ w).reshape(25, 3)
        if isinstance(likelihood, Categorical):
            return nn.functional.cross_entropy(outputs, p.labels.y, reduction="sum"), w @ precision @ w
        return nn.functional.binary_cross_entropy_with_logits(outputs, p.labels.y, reduction="sum"), w @ precision @ w

    w = found.weights.clone().requires_grad_(True)
    data, penalty = loss(w)
    data_value, penalty_value = float(data.detach()), float(penalty.detach())
    (gradient,) = torch.autograd.grad(data + penalty / 2, w)
    (pull,) = torch.autograd.grad(-loss(w)[0], w)
    assert float(gradient.norm()) < 1e-4 * float(pull.norm())
    assert found.penalty == pytest.approx(penalty_value, rel=1e-9)
    assert found.log_likelihood == pytest.approx(-data_value, rel=1e-9)
    torch.testing.assert_close(found.pull, pull, rtol=1e-3, atol=1e-4)

    def objective(x):
        v = torch.from_numpy(x).requires_grad_(True)
        data, penalty = loss(v)
        value = data + penalty / 2
        return float(value.detach()), torch.autograd.grad(value, v)[0].numpy()

    best = scipy.optimize.minimize(objective, torch.zeros(24).double().numpy(), jac=True, options={"gtol": 1e-9})
    torch.testing.assert_close(found.weights, torch.from_numpy(best.x), rtol=1e-4, atol=1e-4)


def test_search_from_the_mode_ends_there_at_once(rng):
    p, _ = labelled(rng, Categorical())
    system = System(p, ONE, point([0.0], [1.0]))
    first = newton_mode(system, p.labels)
    again = newton_mode(system, p.labels, start=whitened(system, first))
    assert again.steps == 1
    torch.testing.assert_close(again.weights, first.weights)


def test_a_wide_prior_needs_shorter_steps_and_still_converges(rng):
    p, _ = labelled(rng, Categorical())
    found = newton_mode(System(p, ONE, point([9.0], [1.0])), p.labels)
    assert found.residual < 1e-6


def test_too_few_steps_are_told(rng):
    p, _ = labelled(rng, Categorical())
    with pytest.warns(UserWarning, match="gradient"):
        newton_mode(System(p, ONE, point([3.0], [1.0])), p.labels, max_steps=1)


def test_the_curvature_at_the_outputs_is_a_preconditioner_of_the_search(rng):
    p, matrix = labelled(rng, Categorical())
    system = System(p, ONE, point([2.0], [1.0]))
    plain = newton_mode(system, p.labels)
    B = matrix.T.reshape(24, 25, 3)
    curvature = B.flatten(1) @ p.labels.likelihood.curvature(p.labels.offset, B).flatten(1).T
    inverse = torch.linalg.inv(torch.eye(24, dtype=torch.float64) + math.exp(2.0) * curvature)
    helped = newton_mode(system, p.labels, preconditioner=Symmetric(lambda v: v @ inverse, Space((24,), torch.float64)))
    torch.testing.assert_close(helped.weights, plain.weights, rtol=1e-4, atol=1e-4)
    assert helped.steps < plain.steps
