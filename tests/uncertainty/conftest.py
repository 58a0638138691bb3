import numpy as np
import pytest
import torch

from ctuq.linops.jacobian.network import jacobian_of
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo import ParallelBeam, VolumeGrid, radians, ray_transform
from ctuq.uncertainty.model import factor
from ctuq.uncertainty.model.linear import image_model

SIZE, VIEWS, COLUMNS, SCALE = 8, 9, 10, 0.04


@pytest.fixture(scope="session")
def tiny():
    """A small network on 8 x 8 pixels, its Jacobian, and a noisy parallel scan of something like its image."""
    rng = torch.Generator().manual_seed(1)
    grid = VolumeGrid((SIZE, SIZE), 1.0)
    A = ray_transform(grid, ParallelBeam(angles=radians(np.arange(VIEWS) * 20), columns=COLUMNS, pixel=1.0), backend="matrix")
    output, jacobian = jacobian_of(
        UNet(UNetOptions(channels=(4, 4), skips=(2,)), rng), torch.rand(1, 1, SIZE, SIZE, generator=rng)
    )
    image = SCALE * output.reshape(SIZE, SIZE)
    y = A(image * (1 + 0.3 * torch.randn(SIZE, SIZE, generator=rng)))
    y = y + 0.01 * torch.randn(y.shape, generator=rng)
    weights = 0.5 + torch.rand(y.shape, generator=rng)
    weights[2, 3], weights[5] = 0, 0
    return A, y, weights, image, jacobian


@pytest.fixture
def make(tiny, monkeypatch):
    """``make(prior, rank, radius=2)`` builds the model with a factor of this rank, what it leaves out reaching its neighbours.

    64, the number of pixels, is the exact Jacobian.
    """

    def build(prior="isotropic", rank=SIZE**2, image=None, radius=0):
        monkeypatch.setattr(factor, "draws_of", lambda pixels, rays, dims=2: (64, radius))
        A, y, weights, fitted, jacobian = tiny
        chosen = fitted if image is None else image
        rng = torch.Generator().manual_seed(0)
        return image_model(A, y, weights, image=chosen, jacobian=jacobian, scale=SCALE, prior=prior, rank=rank, rng=rng)

    return build
