import pytest
import torch
from linear_models import ONE, TWO, normal, point, problem

from ctuq.errors import InputError
from ctuq.laplace.system.problem import Problem, System, plus_identity
from ctuq.laplace.system.solver_choice import first_point
from ctuq.linops.basic import Dense
from ctuq.linops.operator import Space

GROUPS = torch.arange(60).reshape(30, 2) % 3


def dense_root(system, matrix, noise):
    """B, from one unit vector of weights at a time."""
    return matrix @ system.root(torch.eye(24, dtype=torch.float64)).T / noise[:, None].sqrt()


@pytest.mark.parametrize("batch", [None, 7])
def test_grams_are_those_of_the_whitened_features(batch, rng):
    p, matrix = problem(rng, 30, 2, groups=GROUPS, batch=batch)
    system = System(p, TWO, point([0.3, -0.5], [0.2, 0.5, 1.1]))
    B = dense_root(system, matrix, system.point.sigma2[GROUPS.reshape(-1)])
    torch.testing.assert_close(system.dual_gram().dense(), B @ B.T)
    torch.testing.assert_close(system.primal_gram().dense(), B.T @ B)
    torch.testing.assert_close(plus_identity(system.primal_gram()).dense(), torch.eye(24, dtype=torch.float64) + B.T @ B)
    torch.testing.assert_close(system.pulled_target()[0], B.T @ system.target.reshape(-1))


def test_a_faster_normal_product_is_used_and_equal(rng):
    p, matrix = problem(rng, 30, 2, groups=GROUPS)
    calls = []

    def normal_product(theta, precision):
        calls.append(1)
        return (theta @ matrix.T * precision.reshape(-1)) @ matrix

    fast = Problem(p.features, p.target, p.sigma2, groups=GROUPS, normal=normal_product)
    at = point([0.3, -0.5], [0.2, 0.5, 1.1])
    z = normal(rng, 3, 24)
    torch.testing.assert_close(System(fast, TWO, at).normal(z), System(p, TWO, at).normal(z))
    assert calls


@pytest.mark.parametrize("batch", [None, 7])
def test_squares_are_sums_over_groups(batch, rng):
    p, matrix = problem(rng, 30, 2, groups=GROUPS, batch=batch)
    sigma2 = torch.tensor([0.2, 0.5, 1.1], dtype=torch.float64)
    system, weights = System(p, ONE, point([0.0], sigma2.tolist())), normal(rng, 4, 24)
    left = p.target.reshape(-1) - weights @ matrix.T
    expected = torch.stack([left[:, GROUPS.reshape(-1) == g].square().sum(1) / sigma2[g] for g in range(3)], 1)
    torch.testing.assert_close(system.squares(weights, residual=True), expected)
    assert p.counts.tolist() == [20, 20, 20]


def test_log_density_is_the_normal_one(rng):
    p, matrix = problem(rng, 30, 2, groups=GROUPS, log_scale=1.5)
    sigma2 = torch.tensor([0.2, 0.5, 1.1], dtype=torch.float64)
    system, weights = System(p, ONE, point([0.0], sigma2.tolist())), normal(rng, 1, 24)
    noise = torch.distributions.Normal((weights @ matrix.T)[0], sigma2[GROUPS.reshape(-1)].sqrt())
    expected = float(noise.log_prob(p.target.reshape(-1)).sum()) + 1.5
    assert system.log_density(system.squares(weights, residual=True)[0]) == pytest.approx(expected, rel=1e-12)


def test_data_along_another_axis_are_taken_along_it(rng):
    matrix, t = normal(rng, 12, 24), normal(rng, 3, 4)

    def rows(index):
        chosen = matrix.reshape(3, 4, 24)[:, index].reshape(-1, 24)
        return Dense(chosen, range=Space((3, len(index)), torch.float64))

    groups = torch.arange(4).expand(3, 4)
    p = Problem(rows(torch.arange(4)), t, torch.ones(4, dtype=torch.float64), rows=rows, axis=1, groups=groups, batch=3)
    part = p.part(torch.tensor([1, 3]))
    torch.testing.assert_close(part.target, t[:, [1, 3]])
    assert part.groups.unique().tolist() == [1, 3]
    assert p.data == 4
    gram = System(p, ONE, point([0.0], [1.0] * 4)).primal_gram().dense()
    torch.testing.assert_close(gram, matrix.T @ matrix)


def test_start_explains_the_target(rng):
    p, matrix = problem(rng, 200)
    at = first_point(p, TWO, rng=rng, draws=400)
    theta = TWO.root(normal(rng, 4000, 24), at.psi)
    assert float((theta @ matrix.T).square().mean()) == pytest.approx(float(p.target.square().mean()), rel=0.2)
    assert float(at.sigma2[0]) == pytest.approx(0.1 * float(p.target.square().mean()))


def test_known_noise_stays(rng):
    p, _ = problem(rng, sigma2=torch.tensor([0.25], dtype=torch.float64))
    assert first_point(p, ONE, rng=rng).sigma2.tolist() == [0.25]


def test_what_does_not_fit_is_refused(rng):
    p, matrix = problem(rng)
    unknown = torch.full((1,), torch.nan, dtype=torch.float64)
    with pytest.raises(InputError, match=r"shape \(5,\)"):
        Problem(p.features, p.target[:5], unknown)
    with pytest.raises(InputError, match="not finite"):
        Problem(p.features, p.target * torch.nan, unknown)
    with pytest.raises(InputError, match="groups"):
        Problem(p.features, p.target, unknown, groups=torch.zeros(3, dtype=torch.long))
    with pytest.raises(InputError, match="rows"):
        Problem(p.features, p.target, unknown).part(torch.arange(3))
    with pytest.raises(InputError, match="zero"):
        first_point(Problem(Dense(matrix * 0), p.target, unknown), ONE, rng=rng)
