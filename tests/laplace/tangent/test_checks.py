"""A network that cannot be linearised is refused in one sentence that says what to do."""

import pytest
import torch
from torch import nn

from ctuq.errors import InputError, ResourceError
from ctuq.laplace.tangent import jacobians
from ctuq.laplace.tangent.likelihoods import Categorical
from ctuq.laplace.tangent.model import linearise
from ctuq.linops import memory


class Wrapped(nn.Module):
    """A linear layer and a function of its output."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(3, 4), function

    def forward(self, x):
        return self.function(self.layer(x))


class StraightThrough(torch.autograd.Function):
    """A derivative that is not the function's own, in the old style that torch.func does not take."""

    @staticmethod
    def forward(ctx, x):
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        return g


def no_grad(x):
    with torch.no_grad():
        return x * 2


FUNCTIONS = {
    "argmax": (lambda x: x.argmax(1), "gives torch.int64.*logits before argmax"),
    "tuple": (lambda x: (x, x), "gives tuple"),
    "numbers": (lambda x: x.detach().numpy(), "gives ndarray"),
    "detached": (lambda x: x.detach(), "cannot be differentiated in the chosen parameters"),
    "no_grad": (no_grad, "cannot be differentiated in the chosen parameters"),
    "sum over data": (lambda x: x.sum(), "first axis"),
    "first axis lost": (lambda x: x.T, "first axis"),
    "normalised over the batch": (lambda x: x - x.mean(0) + x, "changes with its neighbours"),
    "random": (lambda x: x + 0.1 * torch.rand_like(x), "changes with its neighbours|from run to run"),
    "infinite": (lambda x: x / 0, "NaN or infinite at the first datum"),
    "wrong shape": (lambda x: x @ torch.ones(5, 2), r"does not run on an input of shape \(1, 3\)"),
    "old function": (StraightThrough.apply, "torch.func cannot differentiate"),
}


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make().double()


def data():
    return torch.linspace(-1, 1, 15).reshape(5, 3)


@pytest.mark.parametrize("case", FUNCTIONS)
def test_outputs_that_are_no_differentiable_function_of_each_datum_are_refused(case):
    function, told = FUNCTIONS[case]
    with pytest.raises(InputError, match=told) as error:
        linearise(Wrapped(function), data(), offset="taylor")
    assert "\n" not in str(error.value)


class Branching(nn.Module):
    """A branch on the value of each row, by item(): it has no one answer under vmap."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        rows = self.layer(x).tanh().split(1)
        return torch.cat([2 * row if row.sum().item() > 0 else row for row in rows])


def test_branches_on_values_are_followed_as_they_are_at_the_data():
    net = seeded(Branching)
    x = data().double()
    signs = [row.sum().item() > 0 for row in net.layer(x).tanh()]
    assert any(signs)
    assert not all(signs)
    model = linearise(net, x, offset="taylor")
    (name,) = (b.name for b in model.blocks)
    values = {n: v.detach() for n, v in net.named_parameters()}

    def output(weight):
        return torch.func.functional_call(net, {**values, name: weight}, (x,))

    truth = torch.autograd.functional.jacobian(output, values[name]).reshape(20, -1)
    torch.testing.assert_close(model.jacobian(torch.eye(12).double()).flatten(1).T, truth)
    torch.testing.assert_close(model.jacobian.dense(), truth)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.Dropout(0.5)])
def test_layers_in_training_mode_are_refused(layer):
    with pytest.raises(InputError, match=r"training mode: call eval\(\)"):
        linearise(nn.Sequential(nn.Linear(3, 4), layer), data())


def test_nan_in_weights_buffers_or_inputs_is_told_by_name():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    with pytest.raises(InputError, match="1 of 15 input values"):
        linearise(net, data().masked_fill(torch.arange(15).reshape(5, 3) == 3, float("nan")))
    net[1].running_var[2] = float("inf")
    with pytest.raises(InputError, match=r"'1\.running_var' has values"):
        linearise(net, data())
    with torch.no_grad():
        net[0].bias[0] = float("nan")
    with pytest.raises(InputError, match=r"'0\.bias' has values that are NaN"):
        linearise(net, data())


def test_inputs_that_are_no_batch_of_the_right_type_are_refused():
    net = nn.Linear(3, 4)
    with pytest.raises(InputError, match="at least one datum"):
        linearise(net, torch.zeros(0, 3))
    with pytest.raises(InputError, match="at least one datum"):
        linearise(net, [[1.0, 2.0, 3.0]])
    with pytest.raises(InputError, match="does not run"):
        linearise(net, data().double())
    with pytest.raises(InputError, match="at least 1"):
        linearise(net, data(), batch=0)
    with pytest.raises(InputError, match="no offset 'tailor'"):
        linearise(net, data(), offset="tailor")
    with pytest.raises(InputError, match="on meta"):
        linearise(net, data().to("meta"))


def test_a_likelihood_that_does_not_suit_the_outputs_is_refused_before_any_product():
    with pytest.raises(InputError, match="at least 2 classes"):
        linearise(nn.Linear(3, 1), data(), likelihood=Categorical())


def test_too_little_memory_is_told_before_the_work(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device="cpu": 100)
    with pytest.raises(ResourceError, match=r"linearisation at one input needs about .*smaller input"):
        linearise(nn.Linear(3, 4), data(), offset="taylor")
    monkeypatch.setattr(memory, "available_memory", lambda device="cpu": 4000)
    monkeypatch.setattr(jacobians, "available_memory", lambda device="cpu": 4000)
    model = linearise(nn.Linear(3, 40), data(), offset="taylor")
    with pytest.raises(ResourceError, match="dense Jacobian needs about"):
        model.features.dense()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_half_precision_are_refused(dtype):
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype).eval()
    with pytest.raises(InputError, match=r"float16, too coarse .* call float\(\)"):
        linearise(net, torch.zeros(3, 2, dtype=dtype))
    net = net.float()
    net[2].half()
    with pytest.raises(InputError, match="float16 and float32, too coarse"):
        linearise(net, torch.zeros(3, 2))
    net[2].double()
    with pytest.raises(InputError, match=r"are float32 and float64: call float\(\) or double\(\)"):
        linearise(net, torch.zeros(3, 2))


class Coarse(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.layer(x)


def test_outputs_of_half_precision_are_refused():
    with pytest.raises(InputError, match=r"gives torch.bfloat16, too coarse .* autocast"):
        linearise(Coarse().eval(), torch.ones(3, 2))


def test_the_share_of_fixed_weights_is_told(rng):
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).eval()
    net[0].weight.requires_grad_(False)
    with pytest.warns(UserWarning, match="67% of the network's weights do not require gradients"):
        model = linearise(net, torch.randn(5, 2, generator=rng), offset="taylor")
    assert [block.name for block in model.blocks] == ["2.weight"]


class Multiplies(nn.Module):
    """Has a parameter that is called bias, and multiplies."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.bias = nn.Linear(2, 4), nn.Linear(4, 1), nn.Parameter(torch.full((200,), 0.1))

    def forward(self, x):
        return self.last(torch.tanh(self.first(x))) * self.bias.sum()


class Normalised(Multiplies):
    """The same, by its name a normalisation."""


def test_a_parameter_of_the_users_own_has_a_posterior_whatever_it_is_called(rng):
    net, x = Multiplies().eval(), torch.randn(5, 2, generator=rng)
    model = linearise(net, x, offset="taylor")
    assert [block.name for block in model.blocks] == ["bias", "first.weight", "last.weight"]


def test_the_share_of_what_is_left_out_for_its_layers_name_is_told(rng):
    with pytest.warns(UserWarning, match=r"92% of the network's parameters are those of layers that are called norms"):
        model = linearise(Normalised().eval(), torch.randn(5, 2, generator=rng), offset="taylor")
    assert [block.name for block in model.blocks] == ["first.weight", "last.weight"]
