"""Covariances of pixels that reach no further than a few pixels, known by draws.

N draws know each covariance to ``N^-1/2`` of the two pixels' standard deviations, and of pixels far apart, which have next to
nothing in common, that is noise alone. So it is cut off there, as ensemble Kalman filters do: the draws' covariance times a
taper that falls to nothing (Gaspari and Cohn, Q. J. R. Meteorol. Soc. 1999). Here the neighbourhood of each pixel is tapered
so, and the pixel's row of its symmetric root is a row of a sparse root R: ``V = R R^T`` is positive semi-definite whatever the
draws, and drawn by one product.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn.functional import pad

from ctuq.linops.gaussian import stable_cholesky
from ctuq.linops.sparse import SparseRows

_BATCH = 256
_REACH = 8.0
"""Of the taper, in pixels."""


class Rows(Protocol):
    """A matrix M (m, d) known by its rows, such as `SparseRows`."""

    def gram(self, v: Tensor, dtype: torch.dtype = ...) -> Tensor:
        """``M diag(v) M^T``."""
        ...

    def squares(self, v: Tensor) -> Tensor:
        """Its diagonal."""
        ...

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns as dense rows."""
        ...


@dataclass(frozen=True, eq=False)
class LocalCovariance:
    """``V = diag(own) + share R R^T``; without R, of independent pixels.

    Parameters
    ----------
    own : Tensor, float64, shape (d,)
    share : float
    root : SparseRows, shape (d, d), optional
        R.
    """

    own: Tensor
    share: float = 0.0
    root: SparseRows | None = None

    def scaled(self, factor: float) -> "LocalCovariance":
        """``factor V``."""
        return replace(self, own=factor * self.own, share=factor * self.share)

    def cpu(self) -> "LocalCovariance":
        """The same on the CPU."""
        root = None if self.root is None else SparseRows(self.root.scipy, "cpu")
        return replace(self, own=self.own.cpu(), root=root)

    def plus(self, own: Tensor) -> "LocalCovariance":
        """V and independent variances (d,) beside it."""
        return replace(self, own=self.own + own)

    @cached_property
    def diagonal(self) -> Tensor:
        """Variance of each pixel, (d,)."""
        return self.own if self.root is None else self.own + self.share * self.root.squares(torch.ones_like(self.own))

    def arrays(self) -> dict[str, Tensor]:
        """All numbers that it is made of, by name."""
        if self.root is None:
            return {"own": self.own}
        R = self.root.scipy
        parts = {"data": R.data, "indices": R.indices, "indptr": R.indptr}
        return {"own": self.own, "share": self.own.new_tensor(self.share)} | {n: torch.from_numpy(a) for n, a in parts.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Tensor]) -> "LocalCovariance":
        """From `arrays`, and whatever else is among them."""
        own = arrays["own"]
        if "data" not in arrays:
            return cls(own)
        root = sp.csr_array(tuple(arrays[name].numpy() for name in ("data", "indices", "indptr")), shape=(len(own),) * 2)
        return cls(own, float(arrays["share"]), SparseRows(root, own.device))

    def of_differences(self, first: Tensor, second: Tensor) -> Tensor:
        """Variance of the difference of each of the first pixels from one of the second."""
        out = self.own[first] + self.own[second]
        if self.root is None:
            return out
        R = self.root.scipy
        between = R[first.cpu().numpy()] - R[second.cpu().numpy()]
        return out + self.share * torch.from_numpy(between.power(2).sum(1)).to(out)

    def times(self, x: Tensor) -> Tensor:
        """``V x`` for each row of (k, d), float64."""
        return self.own * x if self.root is None else self.own * x + self.share * self.root(self.root.transposed(x))

    def fast(self, x: Tensor) -> Tensor:
        """``V x`` in float32."""
        own = self.own.float() * x
        return own if self.root is None else own + self.share * self.root.fast(self.root.fast_transposed(x))

    def matrix(self) -> Tensor:
        """V itself, (d, d): for small images."""
        return torch.cat([self.times(part) for part in torch.eye(len(self.own)).to(self.own).split(_BATCH)])

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws (n, d), float64."""
        out = self.own.sqrt() * self._normal(n, rng)
        return out if self.root is None else out + self.share**0.5 * self.root(self._normal(n, rng))

    def _normal(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, len(self.own), generator=rng, dtype=torch.float64, device=rng.device).to(self.own.device)

    def spread(self, x: Tensor) -> Tensor:
        """``S x`` for rows (k, d), in their type, ``V = S S^T``: dense where pixels have variances of their own beside R."""
        if self.root is None:
            return self.own.sqrt().to(x) * x
        return x @ self._dense.to(x).T if self._mixed else self.share**0.5 * self.root(x).to(x)

    def spread_transposed(self, x: Tensor) -> Tensor:
        """``S^T x`` for rows (k, d), in their type."""
        if self.root is None:
            return self.own.sqrt().to(x) * x
        return x @ self._dense.to(x) if self._mixed else self.share**0.5 * self.root.transposed(x).to(x)

    @cached_property
    def _mixed(self) -> bool:
        return bool(self.own.any())

    @cached_property
    def _dense(self) -> Tensor:
        return stable_cholesky(self.matrix())

    def gram(self, matrix: Rows, dtype: torch.dtype = torch.float64) -> Tensor:
        """``M V M^T``, (m, m)."""
        if self.root is None:
            return matrix.gram(self.own, dtype)
        assert isinstance(matrix, SparseRows)
        return matrix.gram(self.sparse, dtype)

    def between(self, middle: Tensor) -> Tensor:
        """``S^T X S`` of a symmetric matrix X (d, d), which may be overwritten."""
        if self.root is None:
            size = self.own.sqrt().to(middle)
            return middle.mul_(size).mul_(size[:, None])
        return self.spread_transposed(self.spread_transposed(middle).T)

    def squares(self, matrix: Rows) -> Tensor:
        """Diagonal of ``M V M^T``, (m,)."""
        out = matrix.squares(self.own)
        if self.root is None:
            return out
        assert isinstance(matrix, SparseRows)
        return out + self.share * matrix.after(self.root.scipy).squares(torch.ones_like(self.own))

    def columns(self, matrix: Rows) -> Callable[[int, int], Tensor]:
        """What gives rows ``start`` to ``stop`` of ``V M^T``, dense."""
        if self.root is None:
            return lambda start, stop: matrix.columns(start, stop) * self.own[start:stop, None]
        assert isinstance(matrix, SparseRows)
        return matrix.after(self.sparse).columns

    @cached_property
    def sparse(self) -> sp.csr_array:
        """V as SciPy has it."""
        own = sp.csr_array(sp.diags_array(self.own.cpu().numpy()))
        return own if self.root is None else sp.csr_array(own + self.share * (self.root.scipy @ self.root.scipy.T))


def localised(draws: Tensor, shape: tuple[int, ...], radius: int) -> LocalCovariance:
    """The covariance of draws (N, d) of images, cut off beyond ``2 radius`` pixels along either axis.

    A pixel's variance is that of the draws. Radius 0: independent pixels.

    Parameters
    ----------
    draws : Tensor, shape (N, d)
    shape : tuple of int
        (y, x); of any more axes only without a radius.
    radius : int
        Of a row of the root, in pixels.
    """
    if radius == 0:
        return LocalCovariance(draws.double().square().mean(0))
    (height, width), side = shape, 2 * radius + 1
    offsets = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64, device=draws.device)] * 2)
    taper = _taper(torch.cdist(offsets, offsets) / _REACH)
    images = pad(draws.double().T.reshape(height, width, -1) / len(draws) ** 0.5, (0, 0, *[radius] * 4))
    places = pad(torch.arange(height * width, device=draws.device).reshape(height, width), [radius] * 4, value=-1)
    rows = []
    for y in range(height):
        # (width, pixels of a neighbourhood, N) at once: a tenth of a GiB for 128 pixels and 512 draws.
        around = images[y : y + side].unfold(1, side, 1).permute(1, 0, 3, 2).flatten(1, 2)
        rows.append(_root_rows(around @ around.mT * taper))
    columns = places.unfold(0, side, 1).unfold(1, side, 1).reshape(height * width, -1).cpu().numpy()
    values, kept = torch.cat(rows).cpu().numpy(), columns >= 0
    counts = np.concatenate([[0], np.cumsum(kept.sum(1))])
    root = sp.csr_array((values[kept], columns[kept], counts), shape=(height * width,) * 2)
    return LocalCovariance(
        torch.zeros(height * width, dtype=torch.float64, device=draws.device), 1.0, SparseRows(root, draws.device)
    )


def _root_rows(C: Tensor) -> Tensor:
    """Of each covariance (k, n, n) the middle row of its symmetric root, whose square is that pixel's variance."""
    middle = C.shape[-1] // 2
    values, vectors = torch.linalg.eigh(C)
    rows = ((vectors[:, middle] * values.clamp(min=0).sqrt())[:, None] @ vectors.mT)[:, 0]
    size = rows.square().sum(1).clamp(min=torch.finfo(C.dtype).tiny)
    return rows * (C[:, middle, middle] / size).sqrt()[:, None]


def _taper(r: Tensor) -> Tensor:
    """Gaspari and Cohn's fifth-order function of the distance over its reach: 1 at 0, nothing beyond 1, a correlation."""
    r = 2 * r
    near = (((0.5 - r / 4) * r + 0.625) * r - 5 / 3) * r * r + 1
    far = ((((r / 12 - 0.5) * r + 0.625) * r + 5 / 3) * r - 5) * r + 4 - 2 / (3 * r.clamp(min=1))
    return torch.where(r <= 1, near, torch.where(r < 2, far, 0.0))
