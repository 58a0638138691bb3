"""The Matern-1/2 process over the pixels of an image: ``s exp(-r / l)``, by fast Fourier transforms or dense."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ctuq.linops.gaussian import stable_cholesky


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


class KernelField:
    """The process as a prior over pixels with all that `ctuq.uncertainty.model.gaussian` asks, dense but for products.

    Parameters
    ----------
    kernel : PixelMatern
    device : torch.device
    """

    def __init__(self, kernel: PixelMatern, device: torch.device):
        self.kernel, self.device = kernel, device

    def times(self, x: Tensor) -> Tensor:
        """``x S`` for rows (k, d), float64; MKL's transform refuses no rows at all."""
        return self.kernel.times(x.double()) if len(x) else x.double()

    def diagonal(self) -> Tensor:
        """Variance of each pixel, (d,): 1."""
        return torch.ones(torch.Size(self.kernel.shape).numel(), dtype=torch.float64, device=self.device)

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws (n, d), float64."""
        return self._white(n, rng) @ self._factor.T

    def noise(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws (n, d) of covariance ``S^-1``."""
        return torch.linalg.solve_triangular(self._factor.T, self._white(n, rng).T, upper=True).T

    def precision_times(self, x: Tensor) -> Tensor:
        """``x S^-1`` for rows (k, d)."""
        return torch.cholesky_solve(x.double().T, self._factor).T

    def dense_precision(self) -> Tensor:
        """``S^-1``, (d, d)."""
        return torch.cholesky_inverse(self._factor)

    def with_precision(self, more: Tensor) -> "DenseField":
        """The field of precision ``S^-1 + diag(more)``, more positive (d,)."""
        return DenseField(self.dense_precision() + torch.diag(more))

    @cached_property
    def _factor(self) -> Tensor:
        return stable_cholesky(self.kernel.dense().to(self.device))

    def _white(self, n: int, rng: torch.Generator) -> Tensor:
        size = torch.Size(self.kernel.shape).numel()
        return torch.randn(n, size, generator=rng, dtype=torch.float64, device=rng.device).to(self.device)


class DenseField:
    """A field that is known by its precision (d, d).

    Parameters
    ----------
    precision : Tensor, float64
    """

    def __init__(self, precision: Tensor):
        self._factor = torch.linalg.cholesky(precision)

    def times(self, x: Tensor) -> Tensor:
        """``x S`` for rows (k, d)."""
        return torch.cholesky_solve(x.double().T, self._factor).T
