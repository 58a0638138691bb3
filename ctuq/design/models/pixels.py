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
        Pixels (y, x).
    lengthscale : float
        In pixels; the correlation at distance r is ``exp(-r / lengthscale)``, the exponential of the lengthscale's own value
        and of nothing else.
    """

    shape: tuple[int, ...]
    lengthscale: float

    def table(self, shape: tuple[int, ...]) -> Tensor:
        """Kernel values at distances (0 .. y - 1, 0 .. x - 1) in pixels, float64."""
        down, right = (torch.arange(n, dtype=torch.float64) for n in shape)
        return torch.exp(-torch.hypot(down[:, None], right[None, :]) / self.lengthscale)

    def times(self, x: Tensor) -> Tensor:
        """``x S`` for rows (k, d), exact: a circulant twice as large holds every distance (Dietrich and Newsam 1997)."""
        height, width = self.shape
        quarter = self.table((height + 1, width + 1))
        ring = torch.cat([quarter, quarter[1:-1].flip(0)], 0)
        ring = torch.cat([ring, ring[:, 1:-1].flip(1)], 1).to(x.device)
        images = torch.fft.rfft2(x.reshape(-1, height, width), s=ring.shape)
        out = torch.fft.irfft2(images * torch.fft.rfft2(ring), s=ring.shape)
        return out[:, :height, :width].reshape(len(x), -1)

    def dense(self) -> Tensor:
        """S, (d, d), float64."""
        height, width = self.shape
        table = self.table(self.shape)
        columns = torch.arange(width)
        toeplitz = table[:, (columns[:, None] - columns).abs()]
        rows = torch.arange(height)
        out = torch.empty(height, width, height, width, dtype=torch.float64)
        for i in range(height):
            out[i] = toeplitz[(rows - i).abs()].transpose(0, 1)
        return out.reshape(height * width, -1)
