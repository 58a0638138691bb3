"""Small networks, trained a little, and an observation of their output."""

import torch
from linear_models import normal
from torch import nn

from ctuq.linops.operator import LinearOperator, Space


def trained(outputs=1, seed=3):
    """A small network, fitted a little, with inputs and function values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, outputs, bias=False)).double()
    x = normal(torch.Generator().manual_seed(seed), 60, 2)
    f = torch.stack([torch.sin(x[:, 0] + k) + 0.3 * x[:, 1] for k in range(outputs)], 1)
    optimiser = torch.optim.Adam(net.parameters(), 2e-2)
    for _ in range(100):
        optimiser.zero_grad()
        (net(x) - f).square().mean().backward()
        optimiser.step()
    return net.eval(), x, f


class Sums(LinearOperator):
    """Image (8,) to three weighted sums."""

    def __init__(self):
        self.domain, self.range = Space((8,), torch.float64), Space((3,), torch.float64)
        self._matrix = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(3, 8).sin()

    def _apply(self, x):
        return x @ self._matrix.T

    def _apply_transpose(self, y):
        return y @ self._matrix
