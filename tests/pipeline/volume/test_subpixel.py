"""What voxels cannot draw, of a volume's rays."""

import numpy as np
import torch

from ctuq.pipeline.subpixel import volume_noise
from ctuq.recon.dip import Data
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.joseph import build_volume_matrix
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.space import ConeBeam
from ctuq.tomo.subpixel import SHARE_IN_SPACE, curvature

_SIZE, _FINER = 12, 4
_CONE = ConeBeam(
    angles=np.arange(6) * np.pi / 3 + 0.1, rows=16, columns=20, pixel=1.75, source_to_axis=40.0, source_to_detector=70.0
)


def _ball(n):
    z, y, x = np.mgrid[[slice(-1 + 1 / n, 1, 2 / n)] * 3]
    return (((x - 0.1) ** 2 + (y + 0.05) ** 2 + (z - 0.07) ** 2) < 0.36).astype(float)


def _means(fine):
    n = len(fine) // _FINER
    return fine.reshape(n, _FINER, n, _FINER, n, _FINER).mean((1, 3, 5))


def test_it_is_the_mean_square_of_what_voxels_miss():
    fine = _ball(_SIZE * _FINER)
    mean, grid = _means(fine), VolumeGrid((_SIZE,) * 3, 1.0)
    matrix = build_volume_matrix(grid, _CONE)
    missed = build_volume_matrix(VolumeGrid(fine.shape, 1 / _FINER), _CONE) @ fine.ravel() - matrix @ mean.ravel()
    told = SHARE_IN_SPACE[True] * matrix.multiply(matrix) @ curvature(mean).ravel()
    assert 0.4 < np.mean(missed**2) / np.mean(told) < 2.5


def test_noise_of_a_volumes_rays_holds_it():
    grid = VolumeGrid((_SIZE,) * 3, 1.0)
    A, image = volume_transform(grid, _CONE), torch.from_numpy(_means(_ball(_SIZE * _FINER))).float()
    rng = torch.Generator().manual_seed(0)
    weights = torch.ones(_CONE.shape)
    weights[0] = 0
    y = A(image) + 0.01 * torch.randn(_CONE.shape, generator=rng)
    found = volume_noise(Data(A, y, weights), image)
    assert (found.weights[0] == 0).all()
    assert 0.5e-4 < found.least < 2e-4
    assert found.times > 2 and "more pixels" in found.told[0]
    matrix = build_volume_matrix(grid, _CONE)
    beside = SHARE_IN_SPACE[True] * matrix.multiply(matrix) @ curvature(image.numpy()).ravel()
    expected = torch.from_numpy(1 / (1 + beside / found.least)).reshape(_CONE.shape)
    torch.testing.assert_close(found.weights[1:], expected[1:].float(), rtol=1e-3, atol=1e-6)
