import pytest
import torch

from ctuq.gp import Matern32


@pytest.fixture
def kernel():
    return Matern32.of(1.3, [0.8, 1.4])


@pytest.fixture
def data(rng):
    """Noisy values of a smooth function at 60 points of a plane: x, y, and 7 new inputs."""
    x = 2 * torch.randn(60, 2, generator=rng, dtype=torch.float64)
    y = torch.sin(x[:, 0]) + 0.5 * x[:, 1] + 0.3 * torch.randn(60, generator=rng, dtype=torch.float64)
    return x, y, 2 * torch.randn(7, 2, generator=rng, dtype=torch.float64)
