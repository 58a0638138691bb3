import numpy as np
import pytest
import torch

from ctuq.linops.jacobian.network import linearise
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo import ParallelBeam, VolumeGrid, radians, ray_transform
from ctuq.uncertainty import tangent

SIZE, VIEWS, COLUMNS, SCALE = 8, 9, 10, 0.04


@pytest.fixture(scope="session")
def tiny():
    """A small network on 8 x 8 pixels, its Jacobian, and a noisy parallel scan of something like its image."""
    rng = torch.Generator().manual_seed(1)
    grid = VolumeGrid((SIZE, SIZE), 1.0)
    A = ray_transform(grid, ParallelBeam(angles=radians(np.arange(VIEWS) * 20), columns=COLUMNS, pixel=1.0), backend="matrix")
    output, jacobian = linearise(
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
    """``make(prior, space)`` builds the tangent model in the space that is named."""

    def build(prior="isotropic", space="image", image=None):
        monkeypatch.setattr(tangent, "_SMALL_IMAGE", {"image": 4096, "projection": 0}[space])
        monkeypatch.setattr(tangent, "_IMAGE_SPACE_RATIO", 0.0)
        A, y, weights, fitted, jacobian = tiny
        image = fitted if image is None else image
        model = tangent.TangentModel(A, y, weights, image=image, jacobian=jacobian, scale=SCALE, prior=prior)
        assert model.plan.space == space
        return model

    return build
