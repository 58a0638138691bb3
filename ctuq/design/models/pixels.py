"""The Matern-1/2 process over the pixels of an image: ``s exp(-r / l)``, by fast Fourier transforms or dense."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelMatern:
    """The exponential kernel at variance 1.

    Parameters
    ----------
    shape : tuple of int
        Pixels (y, x), or voxels (z, y, x).
    lengthscale : float
        In pixels; the correlation at distance r is ``exp(-r / lengthscale)``, the exponential of the lengthscale's own value
        and of nothing else.
    """

    shape: tuple[int, ...]
    lengthscale: float

    def table(self, shape: tuple[int, ...]) -> Tensor:
        """Kernel values at distances (0, 1, ... along each axis) in pixels, float64."""
        along = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
        return torch.exp(-torch.stack([a.square() for a in along]).sum(0).sqrt() / self.lengthscale)

    def times(self, x: Tensor) -> Tensor:
        """``x S`` for rows (k, d), exact: a circulant twice as large holds every distance (Dietrich and Newsam 1997)."""
        ring = self.table(tuple(n + 1 for n in self.shape))
        for axis, n in enumerate(self.shape):
            ring = torch.cat([ring, ring.narrow(axis, 1, n - 1).flip(axis)], axis)
        ring, axes = ring.to(x.device), tuple(range(-len(self.shape), 0))
        images = torch.fft.rfftn(x.reshape(-1, *self.shape), s=ring.shape, dim=axes)
        out = torch.fft.irfftn(images * torch.fft.rfftn(ring, dim=axes), s=ring.shape, dim=axes)
        return out[(slice(None), *(slice(n) for n in self.shape))].reshape(len(x), -1)

    def dense(self) -> Tensor:
        """S, (d, d), float64."""
        return _toeplitz(self.table(self.shape))


def _toeplitz(table: Tensor) -> Tensor:
    """The matrix of all differences (d, d) from their values, axis by axis: blocks of one axis are matrices of the others."""
    rows = torch.arange(len(table))
    if table.ndim == 1:
        return table[(rows[:, None] - rows).abs()]
    blocks = torch.stack([_toeplitz(part) for part in table])
    size = blocks.shape[-1]
    out = torch.empty(len(rows), size, len(rows), size, dtype=table.dtype)
    for i in rows.tolist():
        out[i] = blocks[(rows - i).abs()].transpose(0, 1)
    return out.reshape(table.numel(), table.numel())
