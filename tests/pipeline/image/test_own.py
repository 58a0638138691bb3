"""Parts of one's own in the place of ours: a network, a ray transform."""

import numpy as np
import pytest
import torch
from torch import nn

import ctuq
from ctuq.errors import BackendError, InputError
from ctuq.recon.dip import DIPOptions
from ctuq.recon.own import own_network, own_weights
from ctuq.tomo import matrix_transform

FEW = DIPOptions(iterations=60)


@pytest.fixture(scope="module")
def scan():
    return ctuq.simulate("rectangles", size=12, angles=8, seed=3)


def network():
    torch.manual_seed(0)
    first, middle, last = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1)
    return nn.Sequential(first, nn.LeakyReLU(0.2), middle, nn.LeakyReLU(0.2), last)


def test_a_network_of_ones_own_is_fitted_and_has_error_bars(scan):
    mine = network()
    before = [value.clone() for value in mine.parameters()]
    result = ctuq.reconstruct(scan, size=12, network=mine, dip=FEW)
    assert (result.std > 0).all() and result.calibration is not None
    assert np.corrcoef(result.mean.ravel(), scan.truth.ravel())[0, 1] > 0.8
    assert "Conv2d(1, 16" in result.settings["dip.module"]
    for value, old in zip(mine.parameters(), before, strict=True):
        assert torch.equal(value, old)
    other = ctuq.reconstruct(scan, size=12, dip=FEW)
    assert np.abs(other.mean - result.mean).max() > 1e-4


def test_a_fit_that_is_begun_anew_begins_near_the_given_weights():
    own = own_network(network(), torch.ones(1, 1, 4, 4))
    first, again = own_weights(own, 2), own_weights(own, 2, rng=torch.Generator().manual_seed(1))
    for name, value in own.named_parameters():
        assert torch.equal(first[name][1], value)
        off = (again[name] - value).square().mean().sqrt() / value.square().mean().sqrt()
        assert 0.02 < off < 0.4


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (nn.Identity(), "no weights"),
        (nn.Conv2d(1, 2, 1), "same size"),
        (nn.Conv2d(3, 1, 1), "cannot take"),
        (nn.Conv2d(1, 1, 3), "same size"),
    ],
)
def test_a_network_that_makes_no_image_is_refused_in_one_sentence(scan, module, told):
    with pytest.raises(InputError, match=told):
        ctuq.reconstruct(scan, size=12, network=module, dip=FEW)


def test_a_projector_of_ones_own_becomes_a_matrix_with_its_exact_transpose(scan):
    ours = ctuq.ray_transform(scan.grid, scan.geometry)
    blur = torch.tensor([[[0.25, 0.5, 0.25]]])

    def project(x):
        rays = ours(x)
        return nn.functional.conv1d(rays.reshape(-1, 1, rays.shape[-1]), blur, padding=1).reshape(rays.shape)

    mine = matrix_transform(project, scan.grid, scan.geometry)
    x, y = torch.rand(12, 12), torch.rand(mine.range.shape)
    torch.testing.assert_close(mine(x), project(x[None])[0], rtol=1e-4, atol=1e-4)
    assert float((mine(x) * y).sum()) == pytest.approx(float((x * mine.T(y)).sum()), rel=1e-5)
    result = ctuq.reconstruct(scan, ray_transform=mine, dip=FEW)
    assert result.grid == scan.grid and (result.std > 0).all()
    usual = ctuq.reconstruct(scan, "sirt", ray_transform=ours)
    np.testing.assert_allclose(usual.mean, ctuq.reconstruct(scan, "sirt", size=12).mean, rtol=1e-5, atol=1e-7)


def test_a_ray_transform_that_does_not_fit_is_refused(scan, tmp_path):
    ours = ctuq.ray_transform(scan.grid, scan.geometry)
    with pytest.raises(InputError, match="at its angles"):
        ctuq.reconstruct(scan.every(2), "sirt", ray_transform=ours)
    with pytest.raises(InputError, match="cannot be gone on with"):
        ctuq.reconstruct(scan, "sirt", ray_transform=ours, checkpoint=tmp_path / "c.h5")
    with pytest.raises(BackendError, match="not linear"):
        matrix_transform(lambda x: ours(x) ** 2, scan.grid, scan.geometry)
    with pytest.raises(BackendError, match="asks for"):
        matrix_transform(lambda x: ours(x)[..., 1:], scan.grid, scan.geometry)
