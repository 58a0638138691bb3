import warnings

import pytest
import torch
from torch import nn

from ctuq.errors import InputError
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical, Gaussian
from ctuq.laplace.tangent.model import linearise
from ctuq.linops.operator import LinearOperator, Space

N, C = 6, 3


def seeded(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(*(make() for make in layers)).double().eval()


def mlp(outputs=C):
    return seeded(lambda: nn.Linear(2, 4), nn.Tanh, lambda: nn.Linear(4, outputs))


def cnn():
    return seeded(
        lambda: nn.Conv2d(1, 2, 3),
        lambda: nn.BatchNorm2d(2),
        nn.ReLU,
        lambda: nn.MaxPool2d(2),
        nn.Flatten,
        lambda: nn.Linear(8, C),
    )


def homogeneous():
    """No biases and a linear last layer: J theta is twice the output, whatever the input."""
    return seeded(lambda: nn.Linear(2, 4, bias=False), nn.ReLU, lambda: nn.Linear(4, 1, bias=False))


def scale_invariant():
    """A normalisation undoes the first layer's scale, the last layer is linear: J theta is the output."""
    return seeded(
        lambda: nn.Linear(2, 4, bias=False), lambda: nn.LayerNorm(4, eps=1e-14), nn.Tanh, lambda: nn.Linear(4, 1, bias=False)
    )


class Weighing(LinearOperator):
    """Image (4, 5) to sums of its rows."""

    def __init__(self, dtype=torch.float64):
        self.domain, self.range = Space((4, 5), dtype), Space((4,), dtype)

    def _apply(self, x):
        return x.sum(2)

    def _apply_transpose(self, y):
        return y[..., None].expand(-1, -1, 5)


def problem(likelihood, rng, net=None, **options):
    net = mlp() if net is None else net
    shape = (N, 1, 6, 6) if isinstance(net[0], nn.Conv2d) else (N, 2)
    x = torch.randn(*shape, generator=rng, dtype=torch.float64)
    y = torch.randn(N, C, generator=rng, dtype=torch.float64)
    if isinstance(likelihood, Categorical):
        y = torch.randint(0, C, (N,), generator=rng)
    elif isinstance(likelihood, Bernoulli):
        y = (y > 0).long()
    return linearise(net, x, likelihood=likelihood, **options), y


@pytest.mark.parametrize("net", [mlp, cnn])
@pytest.mark.parametrize("likelihood", [Gaussian(), Categorical(), Bernoulli()])
def test_curvature_of_the_features_is_the_hessian_of_the_tangent_model(likelihood, net, rng):
    model, y = problem(likelihood, rng, net(), offset="taylor")
    y, J, H = likelihood.targets(model.outputs, y), model.jacobian.dense(), model.features.dense()

    def negative_log(theta):
        return likelihood.negative_log(model.constant + (J @ theta).reshape(N, C), y)

    # At the trained weights the tangent model's outputs are the network's, where the curvature is taken.
    truth = torch.func.hessian(negative_log)(model.weights)
    torch.testing.assert_close(H.T @ H, truth, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(model.gauss_newton().dense(), truth, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("offset", ["taylor", "features", "delta"])
def test_gaussian_target_makes_least_squares_the_likelihood_of_the_tangent_model(offset, rng):
    weights = torch.rand(N, C, generator=rng, dtype=torch.float64) + 0.1
    model, y = problem(Gaussian(weights=weights), rng, offset=offset)
    theta = torch.randn(model.weights.shape, generator=rng, dtype=torch.float64)
    squares = 0.5 * (model.features(theta) - model.target(y)).square().sum()
    outputs = {
        "taylor": model.outputs + model.jacobian(theta - model.weights),
        "features": model.jacobian(theta),
        "delta": model.outputs + model.jacobian(theta),
    }[offset]
    torch.testing.assert_close(squares, (0.5 * weights * (y - outputs).square()).sum())
    torch.testing.assert_close(model.constant + model.jacobian(theta), outputs)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli()])
@pytest.mark.parametrize("offset", ["taylor", "delta"])
def test_target_of_classes_expands_the_negative_log_likelihood_at_the_network(likelihood, offset, rng):
    model, y = problem(likelihood, rng, offset=offset)
    H, t, y = model.features.dense(), model.target(y).flatten(), likelihood.targets(model.outputs, y)
    here = model.weights if offset == "taylor" else torch.zeros_like(model.weights)
    J = model.jacobian.dense()
    gradient = torch.func.grad(lambda theta: likelihood.negative_log(model.constant + (J @ theta).reshape(N, C), y))(here)
    torch.testing.assert_close(H.T @ (H @ here - t), gradient, rtol=1e-9, atol=1e-11)


def test_network_whose_tangent_model_is_itself_has_no_gap(rng):
    x = torch.randn(N, 2, generator=rng, dtype=torch.float64)
    model = linearise(scale_invariant(), x)
    assert model.offset_gap < 1e-10
    assert (model.offset, model.centre) == ("taylor", "mode")
    torch.testing.assert_close(model.constant, torch.zeros(N, 1).double(), rtol=0, atol=1e-10)
    assert linearise(homogeneous(), x, offset="taylor").offset_gap == pytest.approx(1, rel=1e-12)


def test_automatic_offset_suits_the_likelihood_and_warns_of_a_wide_gap(rng):
    x = torch.randn(N, 2, generator=rng, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"misses the network's output by 100% .*offset='taylor'"):
        model = linearise(homogeneous(), x)
    assert (model.offset, model.centre) == ("taylor", "mode")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for likelihood in (Categorical(), Bernoulli()):
            model = linearise(mlp(), x, likelihood=likelihood)
            assert (model.offset, model.centre) == ("features", "network")
        chosen = linearise(mlp(), x, likelihood=Categorical(), offset="taylor")
    assert (chosen.offset, chosen.centre) == ("taylor", "mode")


@pytest.mark.parametrize("offset", ["taylor", "features", "delta"])
def test_predictive_mean_follows_the_offset_and_is_the_network_at_its_own_weights(offset, rng):
    model, _ = problem(Gaussian(), rng, offset=offset)
    new = torch.randn(4, 2, generator=rng, dtype=torch.float64)
    outputs, J = model.at(new)
    torch.testing.assert_close(outputs, model.network(new).detach())
    mode = torch.randn(model.weights.shape, generator=rng, dtype=torch.float64)
    mean = model.mean(outputs, J, mode)
    base = {"taylor": outputs - J(model.weights), "features": 0 * outputs, "delta": outputs}[offset]
    torch.testing.assert_close(mean, base + J(mode))
    same = {"taylor": model.weights, "delta": torch.zeros_like(model.weights)}
    if offset in same:
        torch.testing.assert_close(model.mean(outputs, J, same[offset]), outputs)


def test_predictions_centred_at_the_network_do_not_see_the_mode(rng):
    model, _ = problem(Categorical(), rng)
    outputs, J = model.at()
    assert J is model.jacobian
    torch.testing.assert_close(model.mean(outputs, J, torch.ones_like(model.weights)), model.predicted)


def test_observed_model_is_that_of_the_one_image(rng):
    net = seeded(lambda: nn.Conv2d(1, 2, 3, padding=1), nn.Tanh, lambda: nn.Conv2d(2, 1, 3, padding=1))
    x, A = torch.randn(1, 1, 4, 5, generator=rng, dtype=torch.float64), Weighing()
    model = linearise(net, x, observe=A, offset="taylor")
    image, J = model.at()
    torch.testing.assert_close(image, net(x)[0, 0].detach())
    torch.testing.assert_close(model.outputs, A(image))
    assert (model.n, model.m, J.range.shape) == (4, 4, (4, 5))
    y = torch.randn(4, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(model.target(y), y - A(image - J(model.weights)))
    other, J = model.at(x + 1)
    torch.testing.assert_close(other, net(x + 1)[0, 0].detach())
    assert J.range.shape == (4, 5)


def test_an_operator_that_does_not_take_the_image_is_refused(rng):
    net, x = seeded(lambda: nn.Conv2d(1, 1, 3)), torch.randn(1, 1, 6, 6, generator=rng, dtype=torch.float64)
    with pytest.raises(InputError, match=r"shape \(4, 4\), but what observes it takes \(4, 5\)"):
        linearise(net, x, observe=Weighing(), offset="taylor")
    with pytest.raises(InputError, match="cast one"):
        linearise(net, torch.randn(1, 1, 6, 7, generator=rng).double(), observe=Weighing(torch.float32), offset="taylor")


def test_targets_are_checked_and_float64(rng):
    model, y = problem(Gaussian(), rng, mlp().float().double(), offset="taylor")
    assert model.target(y.float()).dtype == torch.float64
    with pytest.raises(InputError, match="Targets are"):
        model.target(y[:-1])
    model, y = problem(Categorical(), rng)
    with pytest.raises(InputError, match="from 3 to 3"):
        model.target(torch.full((N,), C))


def test_single_outputs_take_flat_targets(rng):
    x, y = torch.randn(N, 2, generator=rng, dtype=torch.float64), torch.randn(N, generator=rng, dtype=torch.float64)
    model = linearise(mlp(1), x, offset="delta")
    torch.testing.assert_close(model.target(y), (y - model.outputs[:, 0])[:, None])


def test_other_inputs_must_look_like_the_models(rng):
    model, _ = problem(Gaussian(), rng, offset="taylor")
    with pytest.raises(InputError, match=r"inputs have shape \(2,\), not \(3,\)"):
        model.at(torch.zeros(4, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="NaN"):
        model.at(torch.full((4, 2), float("nan"), dtype=torch.float64))


def test_chosen_parameters_are_the_flat_vector(rng):
    x = torch.randn(N, 2, generator=rng, dtype=torch.float64)
    model = linearise(mlp(), x, parameters=["2.bias", "2.weight"], offset="taylor")
    assert [block.name for block in model.blocks] == ["2.bias", "2.weight"]
    # With its bias the last layer is linear: the tangent model is the network.
    assert model.offset_gap < 1e-12
    assert model.weights.shape == (C + 4 * C,)


def test_float32_networks_agree_with_float64_ones(rng):
    x, y = torch.randn(N, 2, generator=rng, dtype=torch.float64), torch.randn(N, C, generator=rng, dtype=torch.float64)
    double, single = linearise(mlp(), x, offset="taylor"), linearise(mlp().float(), x.float(), offset="taylor")
    torch.testing.assert_close(single.features.dense().double(), double.features.dense(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(single.target(y), double.target(y), rtol=1e-5, atol=1e-6)
    assert single.constant.dtype == torch.float64


def test_new_inputs_of_another_type_are_refused(rng):
    model, _ = problem(Gaussian(), rng, offset="taylor")
    with pytest.raises(InputError, match=r"inputs are torch\.float64, not torch\.float32"):
        model.at(torch.zeros(3, 2))


def test_networks_without_outputs_are_refused():
    with pytest.raises(InputError, match=r"output of shape \(1, 0\), which holds nothing"):
        linearise(torch.nn.Linear(2, 0).eval(), torch.zeros(3, 2))
