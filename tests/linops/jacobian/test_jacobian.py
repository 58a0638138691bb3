import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.utils import parametrizations

from ctuq.errors import InputError
from ctuq.linops.jacobian import convolution
from ctuq.linops.jacobian.layers import Opaque
from ctuq.linops.jacobian.network import Frozen, fixed_share, jacobian_of, squeeze, weight_names
from ctuq.recon.unet import UNet, UNetOptions

UNETS = {
    "plain": (UNetOptions(channels=(4, 6), skips=(2,), groups=0), (8, 6)),
    "group norm, odd sizes": (UNetOptions(channels=(4, 6, 4), skips=(2, 0), groups=2), (9, 7)),
    "sigmoid": (UNetOptions(channels=(3, 3), skips=(0,), groups=3, activation="sigmoid"), (5, 8)),
    "volume": (UNetOptions(channels=(2, 4), skips=(2,), groups=2, dims=3), (5, 4, 6)),
}


class Double(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *grads):
        return 2 * grads[0]

    @staticmethod
    def jvp(ctx, *tangents):
        return 2 * tangents[0]


class Residual(nn.Module):
    """Calls with and without a rule of their own, two images at once, one weight used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding="same")
        self.wide = nn.Conv2d(4, 4, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1))
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.grow = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.last = nn.Linear(3, 3)

    def forward(self, x):
        x = self.norm(self.first(x))
        x = torch.tanh(x + self.depthwise(x)) * x
        x = torch.cat([torch.nn.functional.max_pool2d(x, 2), torch.ones_like(x[:, :1, ::2, ::2])], 1)[:, :4]
        x = self.grow(2 - self.wide(torch.nn.functional.gelu(x))).mean((2, 3))
        return self.last(self.last(x).sigmoid())


class Hard(nn.Module):
    """What a record of calls cannot follow: changes in place, splits, autograd functions of the user."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.one, self.two = kind, nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 3)

    def forward(self, x):
        x = self.one(x)
        if self.kind == "in place":
            x = nn.functional.relu(x, inplace=True)
        elif self.kind == "split":
            x = torch.cat(x.split(2, 1)[::-1], 1)
        else:
            x = Double.apply(x)
        return self.two(x)


def seeded(make, *args):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make(*args).double().eval()


def unet(options, dtype=torch.float64):
    return UNet(options, torch.Generator().manual_seed(3)).to(dtype)


def reference(module, inputs, names):
    """The dense Jacobian by torch.func."""
    chosen = {name: value for name, value in module.named_parameters() if name in names}
    parts = jacrev(lambda values: functional_call(module, values, (inputs,)))(chosen)
    output = module(inputs)
    return torch.cat([parts[name].reshape(output.numel(), -1) for name in names], 1).detach()


def assert_exact(module, inputs, names=None, chunk=None):
    output, J = jacobian_of(module, inputs, parameters=names, chunk=chunk)
    truth = reference(module, inputs, [block.name for block in J.blocks])
    torch.testing.assert_close(output, squeeze(module(inputs).detach()), rtol=0, atol=0)
    assert truth.abs().max() > 0
    scale = truth.abs().max() * 1e-12
    torch.testing.assert_close(J.dense(), truth, rtol=0, atol=float(scale))
    torch.testing.assert_close(J.T.dense(), truth.T, rtol=0, atol=float(scale))
    return J


@pytest.mark.parametrize("case", UNETS)
def test_unet_products_equal_torch_func_and_need_no_fallback(case, rng):
    options, shape = UNETS[case]
    J = assert_exact(unet(options), torch.randn(1, 1, *shape, generator=rng, dtype=torch.float64))
    assert not any(isinstance(node.rule, Opaque) for node in J._tape.nodes)


@pytest.mark.parametrize(("work", "rows"), [(0, 2), (0, 8), (10**9, 8)])
@pytest.mark.parametrize("case", UNETS)
def test_patches_in_small_blocks_and_convolutions_by_row_give_the_same_products(case, work, rows, rng, monkeypatch):
    monkeypatch.setitem(convolution._BLOCK_BYTES, "cpu", 2**12)
    monkeypatch.setattr(convolution, "_FEW_PIXELS", 0)
    monkeypatch.setattr(convolution, "_LITTLE_WORK", work)
    options, shape = UNETS[case]
    assert_exact(unet(options), torch.randn(1, 1, *shape, generator=rng, dtype=torch.float64), chunk=rows)


@pytest.mark.parametrize("shape", [(7,), (2, 5), (3, 4, 6), (1, 1, 1)])
@pytest.mark.parametrize("most", [0, 1, 3, 7, 24, 100])
def test_parts_cover_an_array_once_and_are_contiguous(shape, most):
    seen = torch.zeros(shape, dtype=torch.int64)
    for part in convolution._parts(shape, most):
        assert seen[part].is_contiguous()
        assert seen[part].numel() <= max(1, most)
        seen[part] += 1
    assert (seen == 1).all()


def test_any_parameter_can_be_chosen_in_any_order(rng):
    module = unet(UNETS["group norm, odd sizes"][0])
    names = [name for name, _ in module.named_parameters()][::-1]
    assert_exact(module, torch.randn(1, 1, 6, 6, generator=rng, dtype=torch.float64), names)


def test_other_layers_several_images_and_shared_weights(rng):
    module = seeded(Residual)
    J = assert_exact(module, torch.randn(2, 2, 8, 6, generator=rng, dtype=torch.float64))
    assert J.range.shape == (2, 3)


@pytest.mark.parametrize("kind", ["in place", "split", "autograd function"])
def test_networks_that_cannot_be_recorded_go_through_torch_func(kind, rng):
    assert_exact(seeded(Hard, kind), torch.randn(1, 1, 6, 7, generator=rng, dtype=torch.float64))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("groups", [0, 4])
def test_transpose_is_exact(dtype, tolerance, groups, rng):
    module = unet(UNetOptions(channels=(8, 8, 8), skips=(4, 4), groups=groups), dtype)
    _, J = jacobian_of(module, torch.randn(1, 1, 21, 18, generator=rng, dtype=dtype))
    v, u = J.domain.randn(5, rng=rng), J.range.randn(5, rng=rng)
    v, u = v - v.mean(1, keepdim=True), u - u.mean((1, 2), keepdim=True)
    Jv, Ju = J(v), J.T(u)
    gap = (Jv * u).double().sum((1, 2)) - (Ju * v).double().sum(1)
    assert (gap.abs() <= tolerance * Jv.norm(dim=(1, 2)) * u.norm(dim=(1, 2))).all()


def test_chunks_do_not_change_the_products(rng):
    module, x = unet(UNETS["group norm, odd sizes"][0]), torch.randn(1, 1, 9, 7, generator=rng, dtype=torch.float64)
    _, whole = jacobian_of(module, x)
    v, u = whole.domain.randn(5, rng=rng), whole.range.randn(5, rng=rng)
    for chunk in (1, 2, 5):
        _, J = jacobian_of(module, x, chunk=chunk)
        torch.testing.assert_close(J(v), whole(v), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(J.T(u), whole.T(u), rtol=1e-12, atol=1e-12)


def test_products_never_run_the_network_again(rng):
    module, calls = unet(UNETS["plain"][0]), []
    module.register_forward_hook(lambda *_: calls.append(1))
    _, J = jacobian_of(module, torch.randn(1, 1, 8, 6, generator=rng, dtype=torch.float64))
    before = len(calls)
    J(J.domain.randn(3, rng=rng))
    J.T(J.range.randn(3, rng=rng))
    assert before == 2
    assert len(calls) == before


def test_weights_changed_later_do_not_change_the_linearisation(rng):
    module = unet(UNETS["plain"][0])
    _, J = jacobian_of(module, torch.randn(1, 1, 8, 6, generator=rng, dtype=torch.float64))
    v = J.domain.randn(1, rng=rng)
    before = J(v)
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()
    torch.testing.assert_close(J(v), before, rtol=0, atol=0)


def test_flat_vector_holds_the_weights_block_by_block_in_the_order_of_torch(rng):
    module = unet(UNETS["group norm, odd sizes"][0])
    _, J = jacobian_of(module, torch.randn(1, 1, 9, 7, generator=rng, dtype=torch.float64))
    values = dict(module.named_parameters())
    assert [block.name for block in J.blocks] == [name for name, value in values.items() if value.ndim == 4]
    for block in J.blocks:
        torch.testing.assert_close(J.weights[block.slice].reshape(block.shape), values[block.name].detach())
    assert J.T(J.range.randn(2, rng=rng)).is_contiguous()


def test_default_parameters_are_weights_of_convolutions_and_linear_layers():
    names = weight_names(seeded(Residual))
    assert names == [f"{layer}.weight" for layer in ("first", "wide", "depthwise", "grow", "last")]


class Sequence(nn.Module):
    """A layer over sequences (n, 5, 4), and two outputs of its last state."""

    def __init__(self, body, size, attends=False):
        super().__init__()
        self.body, self.head, self.attends = body, nn.Linear(size, 2), attends

    def forward(self, x):
        out = self.body(x, x, x) if self.attends else self.body(x)
        out = out[0] if isinstance(out, tuple) else out
        return self.head(out[:, -1] if out.ndim == 3 else out)


class Own(nn.Module):
    """Attention, and parameters, written by hand."""

    def __init__(self):
        super().__init__()
        self.place, self.gain, self.qkv = nn.Parameter(torch.randn(1, 5, 4)), nn.Parameter(torch.ones(4)), nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in self.qkv(x + self.place).chunk(3, -1))
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1) * self.gain


WORDS = torch.arange(15).reshape(3, 5) % 7
LAYERS = {
    "lstm": lambda: Sequence(nn.LSTM(4, 6, batch_first=True), 6),
    "gru": lambda: Sequence(nn.GRU(4, 3, num_layers=2, bidirectional=True, batch_first=True), 6),
    "weight norm": lambda: Sequence(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 6)), nn.Tanh()), 6),
    "spectral norm": lambda: Sequence(nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 6)), nn.Tanh()), 6),
    "embedding": lambda: nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 2)),
    "sparse embedding": lambda: nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Flatten(), nn.Linear(20, 2)),
    "attention": lambda: Sequence(nn.MultiheadAttention(4, 2, batch_first=True), 4, attends=True),
    "transformer": lambda: Sequence(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 4),
    "own attention": Own,
    "prelu": lambda: Sequence(nn.Sequential(nn.Linear(4, 6), nn.PReLU()), 6),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layer", LAYERS)
def test_all_weights_are_linearised_whatever_the_layers(layer, dtype, rng):
    torch.manual_seed(0)
    module = LAYERS[layer]().to(dtype).eval()
    x = WORDS if "embedding" in layer else torch.randn(3, 5, 4, generator=rng).to(dtype)
    before = module(x)
    frozen = Frozen.of(module)
    _, J = frozen.linearise(x)
    left_out = {name for name, _ in module.named_parameters()} - {block.name for block in J.blocks}
    assert all("bias" in name or "norm" in name for name in left_out)
    exact = Frozen.of(module.double())
    w, step = exact.weights, 1e-5
    x = x if "embedding" in layer else x.double()
    moved = [[exact(x, *exact.leaves(w + s * e)) for s in (step, -step)] for e in torch.eye(len(w), dtype=torch.float64)]
    truth = torch.stack([(a - b).detach().reshape(-1) / (2 * step) for a, b in moved], 1)
    tolerance = {"rtol": 0, "atol": 1e-7 if dtype == torch.float64 else 1e-5}
    torch.testing.assert_close(J.dense().double(), truth, **tolerance)
    eye = torch.eye(J.range.size, dtype=dtype).reshape(-1, *J.range.shape)
    torch.testing.assert_close(J.T(eye).double(), truth, **tolerance)
    torch.testing.assert_close(module.to(dtype)(x if "embedding" in layer else x.to(dtype)), before)


def test_switches_of_torch_are_as_they_were_after_a_linearisation():
    module = nn.Sequential(nn.Embedding(7, 4, sparse=True), Sequence(nn.LSTM(4, 6, batch_first=True), 6), nn.ReLU(inplace=True))
    states = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    jacobian_of(module.eval(), WORDS)
    assert module[0].sparse and module[2].inplace
    assert states == (
        torch.backends.mkldnn.enabled,
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
    )


def test_weights_that_were_fixed_are_left_out_of_those_that_are_learned():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    assert (weight_names(module), fixed_share(module)) == (["0.weight", "2.weight"], 0.0)
    module[0].weight.requires_grad_(False)
    assert (weight_names(module), fixed_share(module)) == (["2.weight"], 0.6)
    module.requires_grad_(False)
    assert (weight_names(module), fixed_share(module)) == (["0.weight", "2.weight"], 0.0)


def test_biases_and_scales_of_parametrised_layers_are_no_weights():
    linear = parametrizations.weight_norm(nn.Linear(3, 4), "bias", dim=0)
    scaled = parametrizations.weight_norm(nn.LayerNorm(4))
    assert weight_names(nn.Sequential(linear, scaled)) == ["0.weight"]


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.1)])
def test_layers_that_are_not_a_fixed_function_are_refused(layer):
    module = nn.Sequential(nn.Conv2d(1, 1, 3), layer)
    with pytest.raises(InputError, match="training mode"):
        jacobian_of(module, torch.zeros(1, 1, 4, 4))


def test_unknown_missing_and_repeated_parameters_are_refused():
    module, x = nn.Sequential(nn.Conv2d(1, 1, 3)), torch.zeros(1, 1, 4, 4)
    with pytest.raises(InputError, match="no parameter named 'weights'"):
        jacobian_of(module, x, parameters=["weights"])
    with pytest.raises(InputError, match="at least one"):
        jacobian_of(module, x, parameters=[])
    with pytest.raises(InputError, match="only once"):
        jacobian_of(module, x, parameters=["0.bias", "0.bias"])
    with pytest.raises(InputError, match="at least 1"):
        jacobian_of(module, x, chunk=0)
