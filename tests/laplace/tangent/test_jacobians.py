import gc
import weakref

import pytest
import torch
from torch import nn

from ctuq.errors import InputError, ResourceError
from ctuq.laplace.tangent import jacobians
from ctuq.laplace.tangent.jacobians import DataJacobian, per_datum
from ctuq.laplace.tangent.likelihoods import Categorical
from ctuq.laplace.tangent.model import linearise
from ctuq.linops import memory
from ctuq.linops.jacobian.network import Frozen, Jacobian


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().double().eval()


def mlp():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 2, 3),
        nn.Flatten(),
        nn.Linear(2, 3),
    )


def image():
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.GroupNorm(1, 3), nn.SiLU(), nn.Conv2d(3, 1, 3, padding=1))


def single():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0))


NETWORKS = {"mlp": (mlp, (3,)), "cnn": (cnn, (1, 6, 6)), "image": (image, (1, 4, 5)), "single": (single, (3,))}
N = 7


@pytest.fixture(params=NETWORKS)
def problem(request, rng):
    make, shape = NETWORKS[request.param]
    network = Frozen.of(seeded(make))
    return network, torch.randn(N, *shape, generator=rng, dtype=torch.float64)


def truth(network, inputs):
    """The dense Jacobian by torch.func, all data in one output."""
    parts = torch.func.jacrev(lambda leaves: network(inputs, *leaves))(tuple(network.leaves()))
    size = network(inputs).numel()
    return torch.cat([part.reshape(size, -1) for part in parts], 1).detach()


def starve(monkeypatch, share=1e-9):
    monkeypatch.setattr(jacobians, "_KEPT_SHARE", share)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("batch", [None, 1, 3, 7])
def test_products_are_those_of_the_whole_whatever_the_batch_and_whether_it_is_kept(problem, batch, kept, rng, monkeypatch):
    network, inputs = problem
    if not kept:
        starve(monkeypatch)
    J = DataJacobian(network, inputs, batch=batch)
    assert J.kept == (kept or batch in (None, 7))
    dense = truth(network, inputs)
    torch.testing.assert_close(J.outputs, network(inputs).detach(), rtol=1e-12, atol=1e-12)
    v, u = J.domain.randn(3, rng=rng), J.range.randn(3, rng=rng)
    torch.testing.assert_close(J(v).flatten(1), v @ dense.T, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(J.T(u), u.flatten(1) @ dense, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("smooth", ["mlp", "image", "single"])
def test_products_are_derivatives_to_second_order_of_the_step(smooth, rng):
    make, shape = NETWORKS[smooth]
    network, inputs = Frozen.of(seeded(make)), torch.randn(N, *shape, generator=rng, dtype=torch.float64)
    J, v = DataJacobian(network, inputs), network.weights.new_empty(network.weights.shape).normal_(generator=rng)
    gaps = []
    for step in (1e-3, 5e-4):
        ends = [network(inputs, *network.leaves(network.weights + sign * step * v)).detach() for sign in (1, -1)]
        gaps.append(float(((ends[0] - ends[1]) / (2 * step) - J(v)).norm() / J(v).norm()))
    # The error of central differences falls fourfold with half the step.
    assert gaps[0] < 1e-4
    assert gaps[1] < 0.3 * gaps[0] + 1e-10


@pytest.mark.parametrize("case", NETWORKS)
def test_transpose_is_exact_in_float32(case, rng):
    make, shape = NETWORKS[case]
    J = DataJacobian(Frozen.of(seeded(make).float()), torch.randn(N, *shape, generator=rng), batch=3)
    v, u = J.domain.randn(5, rng=rng), J.range.randn(5, rng=rng)
    Jv, Ju = J(v).flatten(1).double(), J.T(u).double()
    gap = (Jv * u.flatten(1)).sum(1) - (Ju * v).sum(1)
    assert (gap.abs() <= 1e-6 * Jv.norm(dim=1) * u.flatten(1).double().norm(dim=1)).all()


def test_dense_matrix_is_assembled_datum_by_datum(problem, monkeypatch):
    network, inputs = problem
    J, dense = DataJacobian(network, inputs), truth(network, inputs)
    torch.testing.assert_close(J.dense(), dense, rtol=1e-10, atol=1e-12)
    monkeypatch.setattr(jacobians, "_ROWS_BYTES", {"cpu": 1})
    torch.testing.assert_close(J.dense(), dense, rtol=1e-10, atol=1e-12)


def test_networks_that_vmap_refuses_are_assembled_one_by_one(problem, monkeypatch):
    network, inputs = problem

    def refuse(*_, **__):
        raise RuntimeError("vmap: no batching rule")

    batched = per_datum(network, inputs)
    monkeypatch.setattr(jacobians, "vmap", refuse)
    torch.testing.assert_close(per_datum(network, inputs), batched, rtol=1e-11, atol=1e-12)


def test_rows_are_those_of_the_chosen_data(problem, rng):
    network, inputs = problem
    index = torch.tensor([5, 0, 5])
    J = DataJacobian(network, inputs)
    v = J.domain.randn(2, rng=rng)
    torch.testing.assert_close(J.rows(index)(v), J(v)[:, index])


def test_memory_does_not_grow_with_the_number_of_data(rng, monkeypatch):
    starve(monkeypatch)
    network = Frozen.of(seeded(cnn))
    J = DataJacobian(network, torch.randn(12, 1, 6, 6, generator=rng, dtype=torch.float64), batch=2)
    alive, linearised = [], Frozen.linearise

    def count(self, inputs, **options):
        out = linearised(self, inputs, **options)
        alive.append(sum(type(o) is Jacobian for o in gc.get_objects()))
        return out

    gc.collect()
    monkeypatch.setattr(Frozen, "linearise", count)
    J.T(J(J.domain.randn(2, rng=rng)))
    assert len(alive) == 12
    assert max(alive) == 1


@pytest.mark.parametrize("n", [4, 16])
def test_products_with_mini_batches_hold_one_linearisation_whatever_the_number_of_data(n, rng, monkeypatch):
    model = linearise(
        seeded(cnn), torch.randn(n, 1, 6, 6, generator=rng, dtype=torch.float64), likelihood=Categorical(), batch=1
    )
    made, most, linearised = [], [], Frozen.linearise

    def count(self, inputs, **options):
        out = linearised(self, inputs, **options)
        made.append(weakref.ref(out[1]))
        most.append(sum(ref() is not None for ref in made))
        return out

    gc.collect()
    gc.disable()  # what only a collection would free counts as held
    monkeypatch.setattr(Frozen, "linearise", count)
    starve(monkeypatch)
    try:
        theta = model.features.domain.randn(2, rng=rng)
        for index in torch.arange(n).split(2):
            H = model.rows(index)
            theta = theta - 0.1 * H.T(H(theta))
            del H
    finally:
        gc.enable()
    assert len(made) >= n
    assert max(most) == 1


def test_sizing_a_batch_leaves_nothing_behind(rng):
    module, outputs = seeded(cnn), []
    network = Frozen.of(module)
    module.register_forward_hook(lambda _, __, output: outputs.append(weakref.ref(output)))
    jacobians._saved_bytes(network, torch.randn(1, 1, 6, 6, generator=rng, dtype=torch.float64))
    assert [ref() for ref in outputs] == [None]


def test_linearisations_that_fit_are_kept_and_the_network_is_not_run_again(rng, monkeypatch):
    module, calls = seeded(cnn), []
    J = DataJacobian(Frozen.of(module), torch.randn(6, 1, 6, 6, generator=rng, dtype=torch.float64), batch=2)
    module.register_forward_hook(lambda *_: calls.append(1))
    J.T(J(J.domain.randn(2, rng=rng)))
    assert J.kept
    assert not calls


@pytest.mark.parametrize(("free", "batch"), [(None, N), (2**20, N), (60_000, 2), (10_000, 1)])
def test_batches_shrink_with_the_free_memory(free, batch, rng, monkeypatch):
    monkeypatch.setattr(jacobians, "available_memory", lambda device: free)
    network = Frozen.of(seeded(mlp))
    J = DataJacobian(network, torch.randn(N, 3, generator=rng, dtype=torch.float64))
    assert J.batch >= batch if batch == N else J.batch < N


def test_weights_and_buffers_changed_later_do_not_change_the_model(rng, monkeypatch):
    starve(monkeypatch)
    module = seeded(cnn)
    J = DataJacobian(Frozen.of(module), torch.randn(4, 1, 6, 6, generator=rng, dtype=torch.float64), batch=2)
    v = J.domain.randn(1, rng=rng)
    before = J(v)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            value.zero_()
    torch.testing.assert_close(J(v), before, rtol=0, atol=0)


def test_a_network_put_back_into_training_is_refused_when_it_has_to_run_again(rng, monkeypatch):
    starve(monkeypatch)
    module = seeded(cnn)
    J = DataJacobian(Frozen.of(module), torch.randn(4, 1, 6, 6, generator=rng, dtype=torch.float64), batch=2)
    module.train()
    with pytest.raises(InputError, match="training mode"):
        J(J.domain.randn(1, rng=rng))


def test_a_matrix_larger_than_memory_is_refused(rng, monkeypatch):
    network = Frozen.of(seeded(mlp))
    J = DataJacobian(network, torch.randn(N, 3, generator=rng, dtype=torch.float64))
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    with pytest.raises(ResourceError, match="matrix-free"):
        J.dense()
