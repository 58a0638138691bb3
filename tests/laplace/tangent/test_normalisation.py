import warnings

import pytest
import torch
from linear_models import fitted
from torch import nn

from ctuq.errors import InputError
from ctuq.laplace.priors.diagonal import FilterProcess, blocks_prior, g_prior, isotropic, layerwise
from ctuq.laplace.tangent.model import linearise
from ctuq.laplace.tangent.normalisation import before_normalisation, check_prior
from ctuq.linops.jacobian.network import Frozen
from ctuq.recon.unet import UNet, UNetOptions

EPS = 1e-14


def seeded(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(*(make() for make in layers)).double().eval()


def layer_norm():
    return seeded(
        lambda: nn.Linear(2, 6),
        lambda: nn.LayerNorm(6, eps=EPS),
        nn.Tanh,
        lambda: nn.Linear(6, 6),
        nn.Tanh,
        lambda: nn.Linear(6, 1),
    )


def group_norm():
    layers = (lambda: nn.Conv1d(1, 4, 2, padding=1), lambda: nn.GroupNorm(2, 4, eps=EPS), nn.ReLU, nn.Flatten)
    return seeded(*layers, lambda: nn.Linear(12, 1))


def batch_norm():
    net = seeded(lambda: nn.Linear(2, 6), lambda: nn.BatchNorm1d(6, eps=EPS), nn.Tanh, lambda: nn.Linear(6, 1))
    net[1].running_mean.copy_(torch.linspace(-0.5, 0.5, 6))
    net[1].running_var.copy_(torch.linspace(0.5, 1.5, 6))
    return net


def rescale(net, k):
    """Multiply the weights before the normalisation, and what batch normalisation remembers of them, by k."""
    with torch.no_grad():
        net[0].weight.mul_(k)
        net[0].bias.mul_(k)
        if isinstance(net[1], nn.BatchNorm1d):
            net[1].running_mean.mul_(k)
            net[1].running_var.mul_(k**2)


def evidence_and_prediction(make_prior, net, rng):
    x = torch.randn(24, 2, generator=rng, dtype=torch.float64)
    new = torch.randn(5, 2, generator=rng, dtype=torch.float64)
    y = torch.sin(2 * x[:, 0]) + x[:, 1] + 0.1 * torch.randn(24, generator=rng, dtype=torch.float64)
    shape = (lambda z: z[:, None]) if isinstance(net[0], nn.Conv1d) else (lambda z: z)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = linearise(net, shape(x), offset="features")
    prior = make_prior(model)
    H = model.features.dense()
    found = fitted(H, model.target(y).flatten(), prior)
    _, J = model.at(shape(new))
    S = prior.covariance(torch.eye(H.shape[1], dtype=torch.float64), found.psi)
    K = H @ S @ H.T + float(found.sigma2) * torch.eye(len(H), dtype=torch.float64)
    cross = J.dense() @ S
    covariance = cross @ J.dense().T - cross @ H.T @ torch.linalg.solve(K, H @ cross.T)
    return found.log_evidence, covariance.diagonal().sqrt()


@pytest.mark.parametrize("make", [layer_norm, group_norm, batch_norm])
@pytest.mark.parametrize("k", [0.1, 10.0])
def test_g_prior_does_not_see_weights_rescaled_before_a_normalisation_but_isotropic_does(make, k):
    def results(make_prior, factor):
        net = make()
        before = net(torch.ones(1, 1, 2).double() if make is group_norm else torch.ones(1, 2).double())
        rescale(net, factor)
        after = net(torch.ones(1, 1, 2).double() if make is group_norm else torch.ones(1, 2).double())
        torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-10)
        return evidence_and_prediction(make_prior, net, torch.Generator().manual_seed(4))

    (value, std), (value_k, std_k) = results(g_prior, 1.0), results(g_prior, k)
    assert value_k == pytest.approx(value, rel=1e-6)
    torch.testing.assert_close(std_k, std, rtol=1e-4, atol=0)
    (value, std), (value_k, std_k) = results(isotropic, 1.0), results(isotropic, k)
    assert abs(value_k - value) > 1e-2
    assert float((std_k / std - 1).abs().max()) > 1e-3


def test_layerwise_variances_absorb_a_rescaling_too():
    net, scaled = layer_norm(), layer_norm()
    rescale(scaled, 10.0)
    value, std = evidence_and_prediction(layerwise, net, torch.Generator().manual_seed(4))
    value_k, std_k = evidence_and_prediction(layerwise, scaled, torch.Generator().manual_seed(4))
    assert value_k == pytest.approx(value, abs=1e-3)
    torch.testing.assert_close(std_k, std, rtol=1e-2, atol=0)


class Functional(nn.Module):
    """Normalisations as functions, after activations, pooling and reshaping; one layer normalised on one way only."""

    def __init__(self):
        super().__init__()
        self.stem, self.side, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Linear(4, 4)
        self.free = nn.Linear(4, 4)

    def forward(self, x):
        y = nn.functional.max_pool2d(nn.functional.relu(self.stem(x)), 2)
        y = nn.functional.instance_norm(y).mean((2, 3)) + torch.tanh(self.side(x)).mean((2, 3))
        return self.free(nn.functional.layer_norm(self.last(y)[:, :4].reshape(-1, 2, 2), (2, 2)).flatten(1))


def test_weights_before_a_normalisation_are_found_however_it_is_written():
    found = before_normalisation(Frozen.of(seeded(Functional)), torch.zeros(1, 1, 8, 8).double())
    assert found == ("0.stem.weight", "0.last.weight")


def test_every_convolution_of_a_normalised_unet_but_the_last_and_the_skips_is_found():
    for groups in (0, 2):
        network = UNet(UNetOptions(channels=(4, 4), skips=(2,), groups=groups), torch.Generator().manual_seed(0))
        frozen = Frozen.of(network)
        found = before_normalisation(frozen, torch.zeros(1, 1, 8, 8))
        wanted = [b.name for b in frozen.blocks if b.name[:2] in ("do", "up")] if groups else []
        assert list(found) == wanted


def test_chosen_parameters_only_are_told():
    net = layer_norm()
    assert before_normalisation(Frozen.of(net), torch.zeros(1, 2).double()) == ("0.weight",)
    assert before_normalisation(Frozen.of(net, ["3.weight", "5.weight"]), torch.zeros(1, 2).double()) == ()


def quiet(net, x, **options):
    return linearise(net, x, offset="features", **options)


def test_a_shared_precision_before_a_normalisation_is_warned_of_and_others_are_not():
    model = quiet(layer_norm(), torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    with pytest.warns(UserWarning, match=r"'variance' is shared by 0.weight, which stand before a normalisation.*g_prior"):
        check_prior(model, isotropic(model))
    alone = blocks_prior(model, {"first": ["0.weight"], "rest": ["3.weight", "5.weight"]})
    mixed = blocks_prior(model, {"first": ["0.weight", "5.weight"], "rest": ["3.weight"]})
    with pytest.warns(UserWarning, match="'variance first'"):
        check_prior(model, mixed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prior in (layerwise(model), alone, g_prior(model)):
            check_prior(model, prior)
        bare = quiet(seeded(lambda: nn.Linear(2, 3), nn.Tanh, lambda: nn.Linear(3, 1)), torch.ones(2, 2).double())
        check_prior(bare, isotropic(bare))


def test_filter_processes_that_share_a_block_of_normalised_convolutions_are_warned_of():
    network = UNet(UNetOptions(channels=(4, 4), skips=(0,), groups=2), torch.Generator().manual_seed(0))
    model = quiet(network, torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    names = [b.name for b in model.blocks]
    with pytest.warns(UserWarning, match=r"'variance all' is shared by down.0.0.weight, .*, \.\.\., which"):
        check_prior(model, FilterProcess(model, {"all": names[:-1], "out": names[-1:]}))


def test_a_prior_that_misses_parameters_is_refused():
    model = quiet(layer_norm(), torch.ones(2, 2).double())
    with pytest.raises(InputError, match=r"misses 5\.weight"):
        check_prior(model, isotropic(model.blocks[:-1]))
    larger = quiet(seeded(lambda: nn.Linear(2, 90), lambda: nn.Linear(90, 1)), torch.ones(2, 2).double())
    with pytest.raises(InputError, match="build it from this model"):
        check_prior(model, isotropic(larger))


def test_weights_that_are_divided_by_their_own_size_are_free_of_scale():
    new, old = nn.utils.parametrizations, nn.utils
    net = nn.Sequential(new.weight_norm(nn.Linear(3, 4)), new.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2)).eval()
    found = before_normalisation(Frozen.of(net), torch.randn(1, 3, generator=torch.Generator().manual_seed(0)))
    assert found == ("0.parametrizations.weight.original1", "1.parametrizations.weight.original")
    net = nn.Sequential(old.weight_norm(nn.Linear(3, 4)), old.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2)).eval()
    assert before_normalisation(Frozen.of(net), torch.zeros(1, 3)) == ("0.weight_v", "1.weight_orig")
