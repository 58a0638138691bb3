"""Distances between a network and its tangent model: of first order in the draw, zero where the network is linear."""

import pytest
import torch
from torch import nn

from ctuq.errors import InputError
from ctuq.laplace.tangent.gaps import tangent_gaps
from ctuq.laplace.tangent.likelihoods import Gaussian
from ctuq.laplace.tangent.model import linearise


def model(rng, layers=None):
    torch.manual_seed(0)
    net = nn.Sequential(*(layers or [nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)])).double().eval()
    x = torch.randn(9, 3, generator=rng, dtype=torch.float64)
    return linearise(net, x, likelihood=Gaussian(1.0), offset="delta")


def test_gaps_are_told_for_all_weights_each_layer_and_each_depth(rng):
    m = model(rng)
    gaps = tangent_gaps(m, torch.randn(2, len(m.weights), generator=rng))
    assert [(g.moved, g.depth) for g in gaps] == [
        ("all", 2),
        ("0.weight", 0),
        ("2.weight", 1),
        ("4.weight", 2),
        ("up to 2.weight", 1),
    ]
    assert all(g.distance.shape == (1, 2) for g in gaps)


def test_the_distance_is_that_of_the_moved_network(rng):
    m = model(rng)
    draw = torch.randn(1, len(m.weights), generator=rng, dtype=torch.float64)
    (gap, *_) = tangent_gaps(m, draw, scales=(0.5,))
    moved = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    moved.load_state_dict(m.network.module.state_dict())
    state = dict(moved.named_parameters())
    with torch.no_grad():
        before = moved(m.inputs)
        for block in m.blocks:
            state[block.name] += 0.5 * draw[0, block.slice].reshape(block.shape)
        change = moved(m.inputs) - before
    tangent = 0.5 * m.at()[1](draw)[0]
    assert float(gap.distance) == pytest.approx(float((change - tangent).norm() / tangent.norm()), rel=1e-9)
    assert float(gap.movement) == pytest.approx(float(tangent.norm() / before.norm()), rel=1e-9)


def test_the_distance_is_of_first_order_in_the_draw(rng):
    m = model(rng)
    gaps = tangent_gaps(m, torch.randn(3, len(m.weights), generator=rng, dtype=torch.float64), scales=(1.0, 1e-3, 1e-4))
    for gap in gaps:
        if gap.moved != "4.weight":
            assert gap.order == pytest.approx(1, abs=0.02), gap.moved


def test_the_last_layer_alone_moves_along_its_tangent(rng):
    m = model(rng)
    gaps = {g.moved: g for g in tangent_gaps(m, torch.randn(2, len(m.weights), generator=rng))}
    assert float(gaps["4.weight"].distance.max()) < 1e-12 < 1e-3 < float(gaps["0.weight"].distance.min())


def test_wrong_draws_and_scales_are_refused(rng):
    m = model(rng)
    with pytest.raises(InputError, match="weights"):
        tangent_gaps(m, torch.zeros(2, 3))
    with pytest.raises(InputError, match="positive"):
        tangent_gaps(m, torch.zeros(2, len(m.weights)), scales=(0.0,))
    with pytest.raises(InputError, match="two scales"):
        _ = tangent_gaps(m, torch.randn(1, len(m.weights), generator=rng))[0].order
