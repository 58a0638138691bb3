"""Networks that are drawn: channels left out, and walks over the weights."""

from types import SimpleNamespace

import pytest
import torch

from ctuq.errors import InputError
from ctuq.recon.dropout import dropped
from ctuq.recon.langevin import langevin
from ctuq.recon.unet import UNet, UNetOptions


@pytest.fixture
def network(rng):
    return UNet(UNetOptions(channels=(8, 8), skips=(2,)), rng)


def test_channels_are_left_out_in_draws_and_never_in_looks(network, rng):
    image = torch.rand(1, 1, 16, 16, generator=rng)
    plain, state = network(image).detach(), torch.get_rng_state()
    with dropped(network, 0.2, rng=rng):
        first, second = network(image).detach(), network(image).detach()
        with torch.no_grad():
            looked = network(image)
    assert not torch.equal(first, second) and not torch.equal(first, plain)
    assert torch.equal(looked, plain) and torch.equal(network(image), plain)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_stays_makes_up_for_what_is_left_out(network, rng):
    image = torch.rand(1, 1, 16, 16, generator=rng)
    first = network.down[0][0]
    seen = []
    with dropped(network, 0.3, rng=rng):
        # After the mask, since hooks run in their order.
        hook = first.register_forward_hook(lambda m, i, out: seen.append(out.detach()))
        for _ in range(400):
            network(image)
        hook.remove()
    kept = torch.stack([(out != 0).any((-1, -2)).float().mean() for out in seen]).mean()
    assert float(kept) == pytest.approx(0.7, abs=0.03)
    torch.testing.assert_close(torch.stack(seen).mean(0), first(image).detach(), rtol=0.2, atol=0.05)


def test_a_network_without_such_convolutions_is_refused(rng):
    with (
        pytest.raises(InputError, match="no 3 x 3 convolution"),
        dropped(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 5)), 0.1, rng=rng),
    ):
        pass


def test_one_by_one_convolutions_are_left_alone(network, rng):
    with dropped(network, 0.999, rng=rng):
        assert not network.out._forward_hooks and not network.skip["0"]._forward_hooks
        assert all(block[0]._forward_hooks for block in network.down)


@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_a_walk_has_the_variance_of_a_linear_problem(noise, rng):
    weights = {"w": torch.tensor([[1.0, -1.0, 2.0, 0.5]])}
    fit = SimpleNamespace(A=lambda x: x, y=torch.tensor([[[1.0, -1.0], [2.0, 0.5]]]), weights=torch.ones(1, 2, 2))
    images = langevin(
        lambda w: w["w"].reshape(1, 2, 2),
        weights,
        fit,
        noise=noise,
        steps=3000,
        skipped=500,
        every=1,
        rng=rng,
    )
    assert images.shape == (2500, 2, 2)
    prior = float(weights["w"].square().mean())
    expected = 1 / (1 / noise + 1 / prior)
    assert float(images.var(0).mean()) == pytest.approx(expected, rel=0.3)
    assert float((images.mean(0) - fit.y[0]).abs().max()) < 4 * expected**0.5


def test_a_walk_of_the_same_numbers_is_the_same(network, rng):
    start = {"w": torch.full((1, 4), 0.3)}
    fit = SimpleNamespace(A=lambda x: x, y=torch.ones(1, 2, 2), weights=torch.ones(1, 2, 2))
    given = dict(noise=0.1, steps=30, skipped=10, every=5)

    def walked(seed):
        made = torch.Generator().manual_seed(seed)
        return langevin(lambda w: w["w"].reshape(1, 2, 2), start, fit, rng=made, **given)

    assert torch.equal(walked(1), walked(1)) and not torch.equal(walked(1), walked(2))
    assert len(walked(1)) == 4 and torch.equal(start["w"], torch.full((1, 4), 0.3))
