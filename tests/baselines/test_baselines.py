"""Libraries to compare with agree with the engine where they compute the same, and a missing one is told in a sentence."""

import math
import sys

import pytest
import torch
from torch import nn

from ctuq.baselines.networks import dropout, ensemble, laplace_torch
from ctuq.errors import CtuqError, InputError
from ctuq.laplace.predictive import probit
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical, Gaussian
from ctuq.laplace.tangent.model import linearise

PRECISION = 3.0


@pytest.fixture(scope="module")
def library():
    found = pytest.importorskip("laplace", exc_type=Exception)
    if not hasattr(found, "Laplace"):  # without the library, its name finds this folder of tests
        pytest.skip("laplace-torch is not installed")
    return found


def network(outputs=3, dropped=0.0):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Dropout(dropped), nn.Linear(6, outputs)]
    return nn.Sequential(*layers).double().eval()


def data(rng, n=25):
    return torch.randn(n, 4, generator=rng, dtype=torch.float64), torch.randint(0, 3, (n,), generator=rng)


def dense(model, new):
    noise = getattr(model.likelihood, "sigma2", None) or 1.0
    outputs, jacobian = model.at(new)
    rows, H = jacobian.dense().reshape(*outputs.shape, -1), model.features.dense()
    return outputs, rows @ torch.linalg.inv(PRECISION * torch.eye(H.shape[1], dtype=torch.float64) + H.T @ H / noise) @ rows.mT


def test_the_dense_posterior_of_classes_is_that_of_the_engine(library, rng):
    x, y = data(rng)
    model = linearise(network(), x, likelihood=Categorical())
    found = laplace_torch(model, y, structure="full", precision=PRECISION)
    new = x[:7] + 1
    outputs, covariance = dense(model, new)
    ours = probit(Categorical(), outputs, covariance.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(found.library(new, link_approx="probit"), ours, rtol=1e-6, atol=1e-8)


def test_the_dense_posterior_of_regression_is_that_of_the_engine(library, rng):
    x, _ = data(rng)
    y = torch.randn(25, 2, generator=rng, dtype=torch.float64)
    model = linearise(network(2), x, likelihood=Gaussian(0.2), offset="delta")
    found = laplace_torch(model, y, structure="full", precision=PRECISION)
    mean, variance = found.library(x[:5] + 1)
    outputs, covariance = dense(model, x[:5] + 1)
    torch.testing.assert_close(mean, outputs)
    torch.testing.assert_close(variance, covariance, rtol=1e-6, atol=1e-8)
    assert found.precision == PRECISION


@pytest.mark.parametrize("structure", ["kron", "diag", "full"])
def test_draws_have_the_variance_that_the_library_states(structure, library, rng):
    x, y = data(rng)
    model = linearise(network(), x, likelihood=Categorical())
    found = laplace_torch(model, y, structure=structure, precision=PRECISION)
    k = 4000
    draws = found.samples(k, x[:6], rng=rng) - model.at(x[:6])[0]
    # Biases, which the library's KFAC has beside the weights, are held fixed: no variance comes from them.
    rows = torch.zeros(18, 1, found.library.n_params, dtype=torch.float64)
    rows[:, 0, found.columns] = model.at(x[:6])[1].dense()
    stated = found.library.functional_variance(rows).reshape(6, 3)
    z = (draws.square().mean(0) / stated - 1) / math.sqrt(2 / k)
    assert float(z.abs().max()) < 4.5


def test_kfac_of_one_layer_and_one_output_without_bias_is_exact(library, rng):
    x, _ = data(rng)
    torch.manual_seed(0)
    net, y = nn.Sequential(nn.Linear(4, 1, bias=False)).double(), torch.randn(25, 1, generator=rng, dtype=torch.float64)
    model = linearise(net.eval(), x, likelihood=Gaussian(1.0), offset="delta")
    full, kron = (laplace_torch(model, y, structure=s, precision=PRECISION) for s in ("full", "kron"))
    torch.testing.assert_close(kron.library(x)[1], full.library(x)[1], rtol=1e-6, atol=1e-9)


def test_the_library_chooses_a_precision_where_none_is_given(library, rng):
    x, y = data(rng)
    model = linearise(network(), x, likelihood=Categorical(), parameters=["3.weight", "3.bias"])
    found = laplace_torch(model, y, structure="full")
    assert found.precision > 0 and found.precision != 1
    higher, lower = (laplace_torch(model, y, structure="full", precision=found.precision * s) for s in (3, 1 / 3))
    best = found.library.log_marginal_likelihood()
    assert best > higher.library.log_marginal_likelihood() and best > lower.library.log_marginal_likelihood()


def test_the_gauss_newton_matrix_of_curvlinops_is_that_of_the_engine(rng):
    curvlinops = pytest.importorskip("curvlinops", exc_type=Exception)
    x, y = data(rng)
    net = network()
    model = linearise(net, x, likelihood=Categorical(), parameters=[n for n, _ in net.named_parameters()])
    theirs = curvlinops.GGNLinearOperator(net, nn.CrossEntropyLoss(reduction="sum"), list(net.parameters()), [(x, y)])
    matrix = theirs @ torch.eye(len(model.weights), dtype=torch.float64)
    torch.testing.assert_close(matrix.detach(), model.gauss_newton().dense())


def test_a_missing_library_is_told_in_a_sentence(monkeypatch, rng):
    x, y = data(rng)
    monkeypatch.setitem(sys.modules, "laplace", None)
    with pytest.raises(CtuqError, match=r"pip install 'ctuq\[baselines\]'"):
        laplace_torch(linearise(network(), x, likelihood=Categorical()), y)


def test_unknown_structures_and_other_likelihoods_are_refused(rng):
    x, y = data(rng)
    with pytest.raises(InputError, match="no structure 'low'"):
        laplace_torch(linearise(network(), x, likelihood=Categorical()), y, structure="low")
    for likelihood in (Bernoulli(), Gaussian()):
        with pytest.raises(InputError, match="known noise variance"):
            laplace_torch(linearise(network(), x, likelihood=likelihood, offset="delta"), y)


def test_an_ensemble_stacks_its_members(rng):
    x, _ = data(rng)
    members = [network(), network(dropped=0.5)]
    torch.testing.assert_close(ensemble(members, x), torch.stack([m(x) for m in members]))
    with pytest.raises(InputError, match="at least one"):
        ensemble([], x)


def test_dropout_draws_one_function_at_a_time_and_leaves_no_trace(rng):
    x, _ = data(rng)
    net = network(dropped=0.5)
    twice = torch.cat([x[:5], x[:5]])
    state = torch.get_rng_state()
    draws = dropout(net, twice, 400, rng=rng)
    assert torch.equal(state, torch.get_rng_state()) and not any(m.training for m in net.modules())
    torch.testing.assert_close(draws[:, :5], draws[:, 5:])
    # The last layer is linear in the dropped units, so that the mean over masks is the network without them.
    z = (draws.mean(0) - net(twice).detach()) / (draws.std(0) / math.sqrt(400))
    assert float(z.abs().max()) < 4.5 and float(draws.std(0).min()) > 0
    with pytest.raises(InputError, match="no dropout"):
        dropout(network(), x, 2, rng=rng)
