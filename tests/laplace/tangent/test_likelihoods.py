import math

import pytest
import torch

from ctuq.errors import InputError
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical, Gaussian
from ctuq.laplace.tangent.metric import Metric

N, C = 5, 4


def precisions(rng, *batch):
    half = torch.randn(*batch, C, C, generator=rng, dtype=torch.float64)
    return half @ half.mT + torch.eye(C, dtype=torch.float64)


def cases(rng):
    """Likelihood, outputs, targets."""
    outputs = torch.randn(N, C, generator=rng, dtype=torch.float64)
    real = torch.randn(N, C, generator=rng, dtype=torch.float64)
    classes = torch.randint(0, C, (N,), generator=rng)
    weights = torch.rand(N, C, generator=rng, dtype=torch.float64) + 0.1
    image = torch.randn(N, C, 2, 3, generator=rng, dtype=torch.float64)
    return {
        "gaussian": (Gaussian(), outputs, real),
        "weighted": (Gaussian(weights=weights), outputs, real),
        "metric": (Metric(precisions(rng)), outputs, real),
        "metrics": (Metric(precisions(rng, N)), outputs, real),
        "categorical": (Categorical(), 2 * outputs, classes),
        "segmentation": (Categorical(), image, torch.randint(0, C, (N, 2, 3), generator=rng)),
        "bernoulli": (Bernoulli(), 3 * outputs, (real > 0).long()),
    }


@pytest.fixture(params=["gaussian", "weighted", "metric", "metrics", "categorical", "segmentation", "bernoulli"])
def case(request, rng):
    likelihood, outputs, y = cases(rng)[request.param]
    likelihood = likelihood.conform(outputs)
    return likelihood, outputs, likelihood.targets(outputs, y)


def matrix(function, outputs):
    eye = torch.eye(outputs.numel(), dtype=torch.float64).reshape(-1, *outputs.shape)
    return function(outputs, eye).flatten(1).T


def test_curvature_is_the_hessian_of_the_negative_log_likelihood(case):
    likelihood, outputs, y = case
    flat = outputs.numel()
    hessian = torch.func.hessian(lambda f: likelihood.negative_log(f, y))(outputs).reshape(flat, flat)
    torch.testing.assert_close(matrix(likelihood.curvature, outputs), hessian, rtol=1e-10, atol=1e-12)


def test_root_is_a_factor_of_the_curvature_and_its_transpose_is_one(case):
    likelihood, outputs, _ = case
    R, B = matrix(likelihood.root, outputs), matrix(likelihood.curvature, outputs)
    torch.testing.assert_close(R @ R.T, B, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(matrix(likelihood.root_transpose, outputs), R.T, rtol=1e-14, atol=1e-15)


def test_gradient_is_that_of_autograd_and_the_residual_explains_it(case):
    likelihood, outputs, y = case
    gradient = torch.func.grad(lambda f: likelihood.negative_log(f, y))(outputs)
    torch.testing.assert_close(likelihood.gradient(outputs, y), gradient, rtol=1e-11, atol=1e-12)
    explained = likelihood.root(outputs, likelihood.residual(outputs, y))
    torch.testing.assert_close(explained, -gradient, rtol=1e-10, atol=1e-11)


def test_rows_are_those_of_the_whole(case, rng):
    likelihood, outputs, y = case
    index = torch.tensor([3, 0, 3])
    v = torch.randn(2, *outputs.shape, generator=rng, dtype=torch.float64)
    part = likelihood.rows(index)
    torch.testing.assert_close(part.root(outputs[index], v[:, index]), likelihood.root(outputs, v)[:, index])
    torch.testing.assert_close(part.gradient(outputs[index], y[index]), likelihood.gradient(outputs, y)[index])


def test_categorical_curvature_does_not_see_a_constant(rng):
    likelihood, outputs, _ = cases(rng)["categorical"]
    assert float(likelihood.curvature(outputs, torch.ones_like(outputs)).abs().max()) < 1e-15


def test_draws_by_the_categorical_root_have_the_curvature_as_covariance(rng):
    likelihood, outputs, _ = cases(rng)["categorical"]
    k, one = 40000, outputs[:1]
    draws = likelihood.root(one, torch.randn(k, 1, C, generator=rng, dtype=torch.float64))[:, 0]
    B = matrix(likelihood.curvature, one)
    # The covariance of k draws has elementwise variance (B_ij^2 + B_ii B_jj) / k.
    z = (draws.T @ draws / k - B) / ((B**2 + torch.outer(B.diagonal(), B.diagonal())) / k).sqrt()
    assert float(z.abs().max()) < 4.5


def test_products_of_a_thousand_classes_hold_no_matrix_of_the_classes(rng):
    outputs = torch.randn(2000, 1000, generator=rng)
    likelihood = Categorical()
    # A matrix of the classes for each datum would take 8 GB.
    u = likelihood.root(outputs, likelihood.root_transpose(outputs, outputs))
    torch.testing.assert_close(u, likelihood.curvature(outputs, outputs), rtol=1e-3, atol=1e-6)


def test_certain_logits_keep_finite_gradients_and_residuals():
    outputs = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], dtype=torch.float64)
    y = torch.tensor([0, 0])
    r = Categorical().residual(outputs, y)
    assert bool(r.isfinite().all())
    torch.testing.assert_close(r[0].abs().max(), torch.tensor(math.exp(-60), dtype=torch.float64), rtol=1e-6, atol=1e-30)
    assert float(Bernoulli().curvature(outputs, torch.ones_like(outputs)).min()) == pytest.approx(math.exp(-60), rel=1e-9)


def test_weights_of_the_data_stand_for_those_of_single_outputs():
    outputs = torch.zeros(3, 1)
    likelihood = Gaussian(weights=torch.tensor([1.0, 4.0, 9.0]), groups=torch.tensor([0, 1, 0])).conform(outputs)
    assert likelihood.root(outputs, torch.ones(3, 1)).flatten().tolist() == [1, 2, 3]
    assert likelihood.groups.shape == (3, 1)
    per_output = Gaussian(groups=torch.arange(2)).conform(torch.zeros(3, 2))
    assert per_output.groups.tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(
    ("likelihood", "shape", "told"),
    [
        (Gaussian(sigma2=0.0), (N, C), "positive"),
        (Gaussian(weights=torch.tensor([1.0, 0.0, 1.0, float("nan")])), (N, C), "10 of 20 weights"),
        (Gaussian(weights=torch.ones(N, C + 1)), (N, C), "does not broadcast"),
        (Gaussian(groups=torch.tensor([0, 1, 3, 3])), (N, C), "without gaps"),
        (Gaussian(groups=torch.zeros(N, C)), (N, C), "integers"),
        (Categorical(), (N,), "at least 2 classes"),
        (Categorical(), (N, 1), "at least 2 classes"),
        (Metric(torch.eye(C)), (N, C + 1), "need outputs"),
        (Metric(-torch.eye(C)), (N, C), "positive definite"),
        (Metric(torch.eye(C) + torch.triu(torch.full((C, C), 0.1), 1)), (N, C), "symmetric"),
    ],
)
def test_likelihoods_that_do_not_suit_the_outputs_are_refused(likelihood, shape, told):
    with pytest.raises(InputError, match=told):
        likelihood.conform(torch.zeros(shape))


@pytest.mark.parametrize(
    ("likelihood", "y", "told"),
    [
        (Gaussian(), torch.zeros(N), "Targets are"),
        (Gaussian(), torch.zeros(C, N), "Targets are"),
        (Gaussian(), torch.full((N, C), float("nan")), "20 of 20 targets are NaN"),
        (Categorical(), torch.zeros(N), "class indices"),
        (Categorical(), torch.zeros(N, C, dtype=torch.long), "class indices"),
        (Categorical(), torch.full((N,), C), f"from {C} to {C}"),
        (Categorical(), torch.tensor([0, 1, 2, -1, 0]), "from -1 to 2"),
        (Bernoulli(), torch.full((N, C), 0.5), "20 of 20 targets are neither"),
        (Bernoulli(), torch.zeros(N), "Targets are"),
    ],
)
def test_targets_of_wrong_shape_or_value_are_refused(likelihood, y, told):
    with pytest.raises(InputError, match=told):
        likelihood.targets(torch.zeros(N, C), y)


def test_log_probabilities_are_logarithms_of_probabilities(rng):
    for name in ("categorical", "segmentation", "bernoulli"):
        likelihood, outputs, y = cases(rng)[name]
        y = likelihood.targets(outputs, y)
        p = likelihood.probabilities(outputs)
        chosen = torch.where(y == 1, p, 1 - p) if name == "bernoulli" else p.gather(1, y[:, None])[:, 0]
        torch.testing.assert_close(likelihood.log_probability(outputs, y), chosen.log())
        total = -likelihood.log_probability(outputs, y).sum()
        torch.testing.assert_close(likelihood.negative_log(outputs, y), total)
