import numpy as np
import pytest
import torch
from torch import nn

from ctuq.errors import InputError
from ctuq.laplace.tangent import features as module_features
from ctuq.laplace.tangent.features import GaussNewton, Take, probed_energy
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical, Gaussian
from ctuq.laplace.tangent.metric import Metric
from ctuq.laplace.tangent.model import linearise
from ctuq.linops.operator import LinearOperator, Space

N, C = 7, 3


class Views(LinearOperator):
    """Three views of four rays of a 4 x 5 image; ``axis`` is that of the views."""

    def __init__(self, matrix, axis=0):
        self.matrix, self.axis = matrix, axis
        self.domain = Space((4, 5), torch.float64)
        shape = (len(matrix), 4) if axis == 0 else (4, len(matrix))
        self.range = Space(shape, torch.float64)

    def _apply(self, x):
        y = torch.einsum("vrp,kp->kvr", self.matrix, x.flatten(1))
        return y if self.axis == 0 else y.mT

    def _apply_transpose(self, y):
        y = y if self.axis == 0 else y.mT
        return torch.einsum("vrp,kvr->kp", self.matrix, y).reshape(-1, 4, 5)


class Subset(Views):
    def subset(self, indices):
        return Subset(self.matrix[np.asarray(indices)], self.axis)


def seeded(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(*(make() for make in layers)).double().eval()


def mlp():
    return seeded(lambda: nn.Linear(2, 5), nn.Tanh, lambda: nn.Linear(5, C))


def image_net():
    return seeded(lambda: nn.Conv2d(1, 2, 3, padding=1), nn.Tanh, lambda: nn.Conv2d(2, 1, 3, padding=1))


def plain(kind, rng, **options):
    half = torch.randn(N, C, C, generator=rng, dtype=torch.float64)
    likelihood = {
        "gaussian": Gaussian(),
        "weighted": Gaussian(weights=torch.rand(N, C, generator=rng, dtype=torch.float64) + 0.1),
        "metric": Metric(half @ half.mT + torch.eye(C, dtype=torch.float64)),
        "categorical": Categorical(),
        "bernoulli": Bernoulli(),
    }[kind]
    return linearise(
        mlp(), torch.randn(N, 2, generator=rng, dtype=torch.float64), likelihood=likelihood, offset="delta", **options
    )


def observed(rng, kind=Subset, axis=0):
    matrix = torch.randn(3, 4, 20, generator=rng, dtype=torch.float64)
    A = kind(matrix, axis)
    weights = torch.rand(A.range.shape, generator=rng, dtype=torch.float64) + 0.1
    x = torch.randn(1, 1, 4, 5, generator=rng, dtype=torch.float64)
    return linearise(image_net(), x, likelihood=Gaussian(weights=weights), observe=A, offset="delta"), A, weights


def brute(model):
    """R^T times the Jacobian, from dense matrices."""
    outputs = model.outputs
    eye = torch.eye(outputs.numel(), dtype=torch.float64).reshape(-1, *outputs.shape)
    R = model.likelihood.root(outputs, eye).flatten(1).T
    J = model.jacobian.dense()
    A = model.features.observe.dense() if hasattr(model.features, "observe") else torch.eye(len(J), dtype=torch.float64)
    return R.T @ A @ J


KINDS = ["gaussian", "weighted", "metric", "categorical", "bernoulli"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [None, 3])
def test_features_of_data_are_the_whitened_jacobian(kind, batch, rng):
    model = plain(kind, rng, batch=batch)
    H = brute(model)
    torch.testing.assert_close(model.features.dense(), H, rtol=1e-11, atol=1e-12)
    v, u = model.features.domain.randn(2, rng=rng), model.features.range.randn(2, rng=rng)
    torch.testing.assert_close(model.features(v).flatten(1), v @ H.T, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(model.features.T(u), u.flatten(1) @ H, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_features_of_the_chosen_data(kind, rng):
    model = plain(kind, rng, batch=3)
    index = [6, 0, 6, 2]
    wanted = model.features.dense().reshape(N, C, -1)[index].flatten(0, 1)
    torch.testing.assert_close(model.rows(index).dense(), wanted)
    torch.testing.assert_close(model.rows(torch.tensor(index)).T.dense().T, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_gauss_newton_is_that_of_the_features_and_linearises_each_batch_once(kind, rng, monkeypatch):
    monkeypatch.setattr("ctuq.laplace.tangent.jacobians._KEPT_SHARE", 0.0)
    model = plain(kind, rng, batch=3)
    H, calls = model.features.dense(), []
    linearise_once = model.network.linearise
    monkeypatch.setattr(type(model.network), "linearise", lambda self, x, **_: calls.append(1) or linearise_once(x))
    precision = torch.rand(N, C, generator=rng, dtype=torch.float64) + 0.1
    G = model.gauss_newton(precision).dense()
    passes, calls[:] = len(calls), []
    torch.testing.assert_close(G, H.T @ (precision.flatten()[:, None] * H), rtol=1e-10, atol=1e-11)
    assert passes == 3
    torch.testing.assert_close(model.gauss_newton().T.dense(), H.T @ H, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", [Views, Subset])
def test_observed_features_go_through_the_observing_operator(kind, axis, rng):
    model, A, weights = observed(rng, kind, axis)
    J = model.jacobian.dense()
    H = weights.flatten().sqrt()[:, None] * (A.dense() @ J)
    torch.testing.assert_close(brute(model), H, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(model.features.dense(), H, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(model.features.T.dense(), H.T, rtol=1e-11, atol=1e-12)
    precision = torch.rand(model.outputs.shape, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(model.gauss_newton(precision).dense(), H.T @ (precision.flatten()[:, None] * H))


def test_features_of_more_observations_than_weights_are_assembled_by_the_other_side(rng):
    A = Views(torch.randn(30, 4, 20, generator=rng, dtype=torch.float64))
    model = linearise(image_net(), torch.randn(1, 1, 4, 5, generator=rng).double(), observe=A, offset="delta")
    assert model.m > model.weights.numel()
    torch.testing.assert_close(model.features.dense(), A.dense() @ model.jacobian.dense())


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_of_a_ray_transform_are_its_views_wherever_their_axis_stands(axis, rng):
    model, *_ = observed(rng, Subset, axis)
    assert model.n == 3
    H = model.features.dense().reshape(*model.outputs.shape, -1)
    rows = model.rows([2, 0])
    assert rows.observe.matrix.shape[0] == 2
    torch.testing.assert_close(rows.dense(), H.index_select(axis, torch.tensor([2, 0])).flatten(0, 1))


def test_rows_of_an_operator_without_subsets_are_taken_from_the_whole(rng):
    model, *_ = observed(rng, Views)
    H = model.features.dense().reshape(3, 4, -1)
    rows = model.rows(torch.tensor([1, 1]))
    torch.testing.assert_close(rows.dense(), H[[1, 1]].flatten(0, 1))
    torch.testing.assert_close(rows.T.dense(), H[[1, 1]].flatten(0, 1).T)


def test_taken_rows_have_the_exact_transpose():
    take = Take(Space((4, 2), torch.float64), torch.tensor([3, 0, 3]))
    torch.testing.assert_close(take.T.dense(), take.dense().T, rtol=0, atol=0)


def test_energies_are_exact_where_that_costs_no_more_than_the_probes(rng):
    for model in (plain("categorical", rng), observed(rng)[0]):
        truth = model.features.dense().square().sum(0)
        torch.testing.assert_close(model.energy(), truth, rtol=1e-11, atol=0)


def test_probed_energies_are_unbiased_with_the_stated_error(rng):
    features = plain("gaussian", rng).features
    H = features.dense()
    truth, probes = H.square().sum(0), 4000
    found = probed_energy(features, rng, probes)
    # Rademacher probes: variance 2 (E^2 - sum_n H_ni^4) / k, at most 2 E^2 / k.
    error = (2 * (truth**2 - (H**4).sum(0)) / probes).sqrt()
    assert float(((found - truth) / error).abs().max()) < 4.5
    assert bool((error <= truth * (2 / probes) ** 0.5).all())


def test_probes_come_in_batches_and_need_a_generator(rng, monkeypatch):
    monkeypatch.setattr(module_features, "_PROBES", 3)
    model = plain("gaussian", rng)
    assert probed_energy(model.features, rng, 64).shape == model.weights.shape
    with pytest.raises(InputError, match="give rng"):
        model.features.energy(rng=None, probes=C - 1)
    with pytest.raises(InputError, match="give rng"):
        observed(rng)[0].features.energy(rng=None, probes=11)


def test_gauss_newton_of_any_features_is_symmetric(rng):
    model, *_ = observed(rng)
    G = GaussNewton(model.features).dense()
    torch.testing.assert_close(G, G.T, rtol=1e-12, atol=1e-13)
    assert float(torch.linalg.eigvalsh(G).min()) > -1e-10
