import pytest
import torch

from ctuq.recon.unet import UNet, UNetOptions


def output(options, shape, seed=0):
    network = UNet(options, torch.Generator().manual_seed(seed))
    return network(torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("shape", [(16, 16), (17, 13), (9, 30)])
@pytest.mark.parametrize("skips", [(0, 4), (2, 0), (3, 3)])
def test_output_has_the_shape_of_the_input(shape, skips):
    assert output(UNetOptions(channels=(4, 6, 8), skips=skips), shape).shape == (2, 1, *shape)


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 7, 9)])
def test_volumes_are_the_same_code(shape):
    assert output(UNetOptions(channels=(4, 4, 4), groups=2, dims=3), shape).shape == (2, 1, *shape)


def test_weights_repeat_with_the_seed():
    options = UNetOptions(channels=(4, 4), skips=(2,))
    a, b, c = (UNet(options, torch.Generator().manual_seed(seed)).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["down.0.0.weight"], c["down.0.0.weight"])


@pytest.mark.parametrize(("activation", "low", "high"), [("sigmoid", 0, 1), ("relu", 0, torch.inf), ("softplus", 0, torch.inf)])
def test_activations_bound_the_output(activation, low, high):
    network = UNet(UNetOptions(channels=(4, 4), skips=(2,), activation=activation), torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.out.weight.mul_(100)
        x = network(torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)))
    assert float(x.min()) >= low
    assert float(x.max()) <= high


def test_output_starts_flat():
    x = output(UNetOptions(activation="none"), (32, 32))
    assert x.std().item() < 0.2


def test_groups_normalise_each_convolution_inside():
    plain, grouped = (UNet(UNetOptions(groups=g), torch.Generator().manual_seed(0)) for g in (0, 4))
    count = [sum(isinstance(m, torch.nn.GroupNorm) for m in network.modules()) for network in (plain, grouped)]
    assert count == [0, 10]


def test_skips_carry_the_fine_scale():
    """Without skips, the output cannot tell inputs apart that the coarse scale does not see."""
    options = UNetOptions(channels=(4, 4), skips=(2,))
    network = UNet(options, torch.Generator().manual_seed(0))
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = network(x)
    with torch.no_grad():
        dict(network.named_parameters())["skip.0.weight"].zero_()
    assert not torch.allclose(whole, network(x))
