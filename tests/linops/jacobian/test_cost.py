"""Ways to make products, and the choice between them."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from ctuq.errors import InputError
from ctuq.linops.jacobian.cost import times_of_products
from ctuq.linops.jacobian.network import Frozen, ProductChoice, jacobian_of
from ctuq.recon.unet import UNet, UNetOptions


class Split(nn.Module):
    """Is not recorded call by call."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 3)

    def forward(self, x):
        return self.two(torch.cat(self.one(x).split(2, 1)[::-1], 1))


@pytest.fixture
def network():
    return UNet(UNetOptions(channels=(4, 6), skips=(2,)), torch.Generator().manual_seed(3))


@pytest.fixture
def image(rng):
    return torch.randn(1, 1, 40, 36, generator=rng)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("method", ["tape", "func"])
def test_the_choice_changes_products_by_rounding_only_and_equal_choices_not_at_all(method, rows, network, image, rng):
    choice = ProductChoice(vjp=method, jvp=method, vjp_rows=rows, jvp_rows=rows)
    _, truth = jacobian_of(network.double(), image.double())
    network.float()
    (_, J), (_, again) = (jacobian_of(network, image, choice=choice) for _ in range(2))
    v, u = J.domain.randn(5, rng=rng), J.range.randn(5, rng=rng)
    torch.testing.assert_close(J(v).double(), truth(v.double()), rtol=0, atol=2e-6 * float(truth(v.double()).abs().max()))
    torch.testing.assert_close(J.T(u).double(), truth.T(u.double()), rtol=0, atol=2e-6 * float(truth.T(u.double()).abs().max()))
    torch.testing.assert_close(J(v), again(v), rtol=0, atol=0)
    torch.testing.assert_close(J.T(u), again.T(u), rtol=0, atol=0)


def test_directions_are_chosen_apart(network, image, monkeypatch):
    _, J = jacobian_of(network, image, choice=ProductChoice(vjp="func", jvp="tape", vjp_rows=2, jvp_rows=3))
    calls = []
    for name in ("_tape", "_whole"):
        tape = getattr(J, name)
        monkeypatch.setattr(tape, "jvp", lambda x, f=tape.jvp, n=name: calls.append((n, "jvp", len(x[0]))) or f(x))
        monkeypatch.setattr(tape, "add_vjp", lambda x, s, f=tape.add_vjp, n=name: calls.append((n, "vjp", len(x))) or f(x, s))
    J(torch.ones(4, *J.domain.shape))
    J.T(torch.ones(4, *J.range.shape))
    assert calls == [("_tape", "jvp", 3), ("_tape", "jvp", 1), ("_whole", "vjp", 2), ("_whole", "vjp", 2)]


def test_a_measured_choice_can_be_recorded_and_used_again(network, image):
    cost = times_of_products(network, image)
    choice = ProductChoice(**asdict(cost.choice))
    assert jacobian_of(network, image, choice=choice)[1].choice == cost.choice
    assert min(cost.forward_seconds, cost.vjp_seconds, cost.jvp_seconds) > 0
    assert cost.seconds(vjps=3, jvps=2) == pytest.approx(3 * cost.vjp_seconds + 2 * cost.jvp_seconds)


def test_a_frozen_network_is_measured_once_for_each_shape(network, image):
    frozen = Frozen.of(network)
    assert times_of_products(frozen, image) is times_of_products(frozen, image + 1)
    assert times_of_products(frozen, image[..., 1:]) is not times_of_products(frozen, image)


def test_rows_pushed_at_once_fit_the_memory_given(network, image):
    _, J = jacobian_of(network, image)
    for rows in (1, 2, 6):
        memory = J.bytes + rows * J.row_bytes
        cost = times_of_products(network, image, memory=memory)
        assert max(cost.choice.vjp_rows, cost.choice.jvp_rows) <= rows
        assert cost.bytes <= memory
    assert J.rows_within(0) == 1


def test_networks_that_cannot_be_recorded_are_measured_by_torch_func(image):
    choice = times_of_products(Split(), image).choice
    assert (choice.vjp, choice.jvp) == ("func", "func")


@pytest.mark.parametrize("wrong", [{"vjp": "autograd"}, {"jvp_rows": 0}])
def test_impossible_choices_are_refused(wrong):
    with pytest.raises(InputError):
        replace(ProductChoice(), **wrong)
