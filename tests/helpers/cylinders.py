"""A stack that tests share: a cylinder that grows with the height."""

import numpy as np
import torch

from ctuq.tomo import Parallel3D, ParallelBeam, VolumeGrid, VolumeScan, radians, ray_transform

N = 12


def cylinders(rows=5, views=15):
    """Noisy parallel scan of a cylinder that grows with the height: 12 pixels of 1 mm, rows 2 mm apart."""
    geometry = ParallelBeam(angles=radians(np.arange(views) * 180.0 / views), columns=12, pixel=1.0)
    y, x = np.mgrid[5.5:-6:-1, -5.5:6]
    volume = np.stack([0.05 * (np.hypot(x - 1, y) < 2.6 + 0.3 * z) for z in range(rows)]).astype(np.float32)
    A = ray_transform(VolumeGrid((N, N), 1.0), geometry, backend="matrix")
    clean = A(torch.from_numpy(volume)).numpy()
    noisy = clean + 0.01 * np.random.default_rng(0).standard_normal(clean.shape)
    space = Parallel3D(angles=geometry.angles, rows=rows, columns=12, pixel=1.0, row_pixel=2.0)
    return VolumeScan(noisy.astype(np.float32), space), volume
