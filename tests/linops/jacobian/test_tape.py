"""What a record of a network's calls keeps, shares and trusts."""

import weakref

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from ctuq.linops.jacobian.layers import Opaque, Rectifier
from ctuq.linops.jacobian.network import Frozen, jacobian_of


class Fork(nn.Module):
    """Takes another way for inputs of negative mean; one of its ways is an autograd function of the user."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = self.one(x)
        return self.two(Triple.apply(y) if x.mean() < 0 else torch.tanh(y))


class Triple(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return 3 * x.detach()  # which the record takes for a constant

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *grads):
        return 3 * grads[0]


def seeded(*makers):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layers = [make() for make in makers]
        for layer in layers:
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                for value in (layer.weight.data, layer.bias.data, layer.running_mean):
                    value.normal_()
                layer.running_var.uniform_(0.5, 2)
        return nn.Sequential(*layers).double().eval()


def images():
    return seeded(
        lambda: nn.Conv2d(2, 4, 3, stride=2, bias=False),
        lambda: nn.BatchNorm2d(4),
        lambda: nn.LeakyReLU(0.2),
        lambda: nn.Conv2d(4, 3, 1),
        lambda: nn.BatchNorm2d(3),
        nn.ReLU,
        lambda: nn.AdaptiveAvgPool2d(2),
        nn.Flatten,
        lambda: nn.Linear(12, 5),
        lambda: nn.BatchNorm1d(5),
        nn.Tanh,
    )


def tokens():
    return seeded(lambda: nn.Linear(5, 4), nn.ReLU, lambda: nn.Linear(4, 3, bias=False))


def reference(module, inputs, names):
    chosen = {name: value for name, value in module.named_parameters() if name in names}
    parts = jacrev(lambda values: functional_call(module, values, (inputs,)))(chosen)
    size = module(inputs).numel()
    return torch.cat([parts[name].reshape(size, -1) for name in names], 1).detach()


CASES = {"images": (images, (3, 2, 9, 8)), "tokens": (tokens, (2, 3, 5))}


@pytest.mark.parametrize("kind", ["weight", "bias", "all"])
@pytest.mark.parametrize("case", CASES)
def test_rules_of_common_layers_are_exact_in_weights_and_biases(case, kind, rng):
    make, shape = CASES[case]
    module, inputs = make(), torch.randn(*shape, generator=rng, dtype=torch.float64)
    names = [name for name, _ in module.named_parameters() if kind in (name.split(".")[-1], "all")]
    _, J = jacobian_of(module, inputs, parameters=names)
    truth = reference(module, inputs, names)
    assert not any(isinstance(node.rule, Opaque) for node in J._tape.nodes)
    torch.testing.assert_close(J.dense(), truth, rtol=0, atol=1e-12)
    torch.testing.assert_close(J.T.dense().T, truth, rtol=0, atol=1e-12)


def test_a_transpose_is_added_to_what_is_there(rng):
    module, inputs = images(), torch.randn(3, 2, 9, 8, generator=rng, dtype=torch.float64)
    _, J = jacobian_of(module, inputs, chunk=2)
    total, u = J.domain.randn(5, rng=rng), J.range.randn(5, rng=rng)
    before = total.clone()
    assert J.add_transpose(u, total) is total
    torch.testing.assert_close(total, before + J.T(u), rtol=1e-12, atol=1e-12)


def test_an_activation_is_kept_once_for_all_that_need_it(rng):
    module = seeded(lambda: nn.Conv2d(2, 6, 3), nn.ReLU, lambda: nn.Conv2d(6, 8, 3), nn.ReLU, lambda: nn.Conv2d(8, 1, 3))
    inputs = torch.randn(1, 2, 40, 40, generator=rng, dtype=torch.float64)
    _, J = jacobian_of(module, inputs)
    assert sum(isinstance(node.rule, Rectifier) for node in J._tape.nodes) == 2
    assert J.bytes == 8 * (2 * 40**2 + 6 * 38**2 + 8 * 36**2)


class Shared(nn.Module):
    """What an activation gets or gives is read elsewhere too."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))

    def forward(self, x):
        a = self.one(x)
        b = nn.functional.leaky_relu(a, 0.2)
        c = nn.functional.relu(self.two(b))
        return nn.functional.relu(self.three(c) + a + b).relu() + c


def test_activations_overwrite_only_what_nothing_else_reads(rng):
    module, inputs = seeded(Shared), torch.randn(1, 2, 6, 5, generator=rng, dtype=torch.float64)
    _, J = jacobian_of(module, inputs)
    truth = reference(module, inputs, [block.name for block in J.blocks])
    v, u = J.domain.randn(3, rng=rng), J.range.randn(3, rng=rng)
    before = v.clone(), u.clone()
    torch.testing.assert_close(J(v).flatten(1), v @ truth.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(J.T(u), u.flatten(1) @ truth, rtol=0, atol=1e-12)
    assert torch.equal(v, before[0])
    assert torch.equal(u, before[1])


def test_values_that_no_product_needs_are_freed_while_the_network_runs(rng):
    module = seeded(*(maker for _ in range(6) for maker in (lambda: nn.Conv2d(3, 3, 3, padding=1), nn.Tanh)))
    network, inputs = Frozen.of(module), torch.randn(1, 3, 30, 30, generator=rng, dtype=torch.float64)
    outputs, most = [], []

    def watch(_, __, output):
        outputs.append(weakref.ref(output))
        most.append(sum(ref() is not None for ref in outputs))

    for layer in module:
        layer.register_forward_hook(watch)
    network.linearise(inputs)
    assert len(most) == 2 * 12
    assert max(most[:12]) <= 3


def test_a_network_is_compared_with_autograd_once(rng):
    module, calls = images(), []
    module.register_forward_hook(lambda *_: calls.append(1))
    network = Frozen.of(module)
    for _ in range(3):
        network.linearise(torch.randn(3, 2, 9, 8, generator=rng, dtype=torch.float64))
    assert len(calls) == 2 + 1 + 1


def test_another_chain_of_calls_is_compared_again(rng):
    module = Fork().double()
    network, x = Frozen.of(module), torch.rand(4, 3, generator=rng, dtype=torch.float64)
    for inputs in (x, -x, x, -x):
        _, J = network.linearise(inputs)
        truth = reference(module, inputs, [block.name for block in J.blocks])
        torch.testing.assert_close(J.T.dense().T, truth, rtol=0, atol=1e-12)
