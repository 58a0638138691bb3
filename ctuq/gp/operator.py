"""The covariance matrix of a Gaussian process at its data, by blocks of rows; kept only where it fits."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.gp.kernels import Kernel
from ctuq.linops import LinearOperator, Space
from ctuq.linops.memory import available_memory, require_memory

_BLOCK, _TILE = 2**18, 512
_SHARE = 0.3


class KernelOperator(LinearOperator):
    """``K + noise I`` with ``K = k(x, x)``.

    Parameters
    ----------
    kernel : Kernel
    x : Tensor, shape (n, d)
    noise : float
        Variance added to the diagonal.
    dtype : torch.dtype
        Of the vectors and of the kernel's values; distances are computed in float64.
    keep : bool, optional
        Whether the matrix is kept (n^2 values); by default if it takes less than 30 % of the memory that is left.
        Otherwise each product computes it anew.
    """

    def __init__(
        self, kernel: Kernel, x: Tensor, *, noise: float = 0.0, dtype: torch.dtype = torch.float32, keep: bool | None = None
    ):
        kernel.check(x)
        self.kernel, self.x, self.noise, self.dtype = kernel, x, noise, dtype
        self.domain = self.range = Space((len(x),), dtype, x.device)
        size = len(x) ** 2 * torch.empty((), dtype=dtype).element_size()
        left = available_memory(x.device)
        self.kept = keep if keep is not None else left is None or size < _SHARE * left
        self._store: list[Tensor] = []

    def with_noise(self, noise: float) -> "KernelOperator":
        """The same kernel matrix, not computed again, with another noise variance."""
        other = copy.copy(self)
        other.noise = noise
        return other

    @torch.no_grad()
    def rows(self, index: Tensor, v: Tensor) -> Tensor:
        """``((K + noise I) v)[index]`` for each row of ``v`` (k, n), shape (k, |index|): the work of one mini-batch."""
        return (v.to(self.dtype) @ self.columns(index).T).to(v) + self.noise * v[:, index]

    @torch.no_grad()
    def block(self, index: Tensor) -> Tensor:
        """``(K + noise I)[index, index]`` in float64."""
        out = self.kernel(self.x[index], self.x[index], dtype=torch.float64)
        out.diagonal().add_(self.noise)
        return out

    @torch.no_grad()
    def columns(self, index: Tensor) -> Tensor:
        """``K[index]`` without noise, shape (|index|, n)."""
        if self.kept:
            return self._matrix()[index]
        return self.kernel(self.x[index], self.x, dtype=self.dtype)

    def diagonal(self) -> Tensor:
        """Diagonal of ``K + noise I``, float64, shape (n,)."""
        return self.kernel.diagonal(self.x.double()).detach() + self.noise

    @torch.no_grad()
    def exact(self, v: Tensor) -> Tensor:
        """The product with ``v`` (k, n) in float64, by float64 values of the kernel: what a residual is judged by."""
        stored = self._store and self.dtype == torch.float64
        return self._apply(v.double()) if stored else self._product(v.double(), torch.float64)

    @torch.no_grad()
    def dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The matrix, to be written over: a matrix of this type that is kept is handed out, and computed anew when next needed.

        Raises
        ------
        ResourceError
            If it does not fit.
        """
        if self._store and dtype == self.dtype:
            out = self._store.pop()
        else:
            size = len(self.x) ** 2 * torch.empty((), dtype=dtype).element_size()
            advice = "use CG, stochastic dual descent or inducing points"
            require_memory(size, f"The covariance matrix of {len(self.x)} points", advice, self.x.device)
            out = torch.empty(len(self.x), len(self.x), dtype=dtype, device=self.x.device)
            self._fill(out)
        out.diagonal().add_(self.noise)
        return out

    @torch.no_grad()
    def _apply(self, x: Tensor) -> Tensor:
        return torch.add(x @ self._matrix(), x, alpha=self.noise) if self.kept else self._product(x, self.dtype)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._apply(y)

    def _matrix(self) -> Tensor:
        if not self._store:
            self._store.append(torch.empty(len(self.x), len(self.x), dtype=self.dtype, device=self.x.device))
            self._fill(self._store[0])
        return self._store[0]

    def _fill(self, out: Tensor) -> None:
        for rows, columns, tile in self._tiles(out.dtype):
            out[rows, columns] = tile
            out[columns, rows] = tile.T

    def _product(self, v: Tensor, dtype: torch.dtype) -> Tensor:
        out = self.noise * v
        for rows, columns, tile in self._tiles(dtype):
            out[:, rows] += v[:, columns] @ tile.T
            if rows != columns:
                out[:, columns] += v[:, rows] @ tile
        return out

    def _tiles(self, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor]]:
        """Tiles of K on and above the diagonal, each small enough for the cache."""
        parts = list(slices(len(self.x), _BLOCK // _TILE))
        for i, rows in enumerate(parts):
            for columns in parts[i:]:
                yield rows, columns, self.kernel(self.x[rows], self.x[columns], dtype=dtype)


def slices(n: int, columns: int | None = None) -> Iterator[slice]:
    """Blocks of rows of a matrix (n, ``columns`` or n) that stay near the cache."""
    step = max(1, _BLOCK // max(1, columns or n))
    return (slice(start, min(n, start + step)) for start in range(0, n, step))


def check_data(kernel: Kernel, sigma2: float, x: Tensor, y: Tensor) -> None:
    """Refuse data that do not fit.

    Raises
    ------
    InputError
        If shapes do not fit, values are not finite or the noise is not positive.
    """
    kernel.check(x)
    if y.shape != x.shape[:1]:
        raise InputError(f"Targets of shape {tuple(y.shape)} do not fit {len(x)} inputs: give one number for each input.")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise InputError("Inputs or targets have values that are not finite: drop those rows.")
    if not sigma2 > 0:
        raise InputError(f"The noise variance of a Gaussian process is {sigma2:g}: give a positive number.")
