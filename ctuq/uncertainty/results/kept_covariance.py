"""The covariance of an image kept in few images, for questions to come: means over regions, profiles, further draws.

With cosine waves U (smooth images) and directions L that hold all that P does to them, ``P = L^T L + R`` and ``R U^T = 0``:
what is left has no smooth part. Independent pixels in its place would have one: rays know a region's mean far better than its
pixels, and without the waves the variance of a mean came out up to 19 times too large. So R is taken as the covariance of
independent pixels given that they have nothing of U,

    R = D - D U^T (U D U^T)^-1 U D,

with the variances D that make up each pixel's own variance.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_WAVES = 8
_ROUNDS, _STRIDE = 12, 5.0


def waves_of(directions: int, shape: Sequence[int]) -> int:
    """Waves along each axis for so many directions: half of these, or fewer."""
    half, most = max(directions, 0) // 2, min(_MOST_WAVES, min(shape) // 2)
    return max(n for n in range(max(most, 0) + 1) if n ** len(shape) <= half)


def cosine_waves(shape: Sequence[int], waves: int) -> NDArray[np.float64]:
    """The ``waves`` lowest cosines along each axis times those along the others, orthonormal rows (waves^axes, pixels)."""
    rows = np.ones((1, 1))
    for n in shape:
        rows = np.einsum("ap,bn->abpn", rows, _cosines(n, waves)).reshape(len(rows) * waves, rows.shape[1] * n)
    return rows


class KeptCovariance:
    """``P`` from its directions, the waves that they hold, and the std of each pixel.

    Parameters
    ----------
    directions : array, shape (k, y, x) or (k, z, y, x)
        From `ctuq.uncertainty.model.posterior.ImagePosterior.directions`.
    std : array, shape (y, x) or (z, y, x)
    waves : int
        Along each axis.
    """

    def __init__(self, directions: NDArray, std: NDArray, waves: int):
        self._shape = std.shape
        self._L = directions.reshape(len(directions), std.size).astype(np.float64)
        self._U = cosine_waves(std.shape, waves)
        rest = np.maximum(std.reshape(-1).astype(np.float64) ** 2 - np.sum(self._L**2, axis=0), 0)
        self._D = self._independent(rest)
        self._back = self._inverse(self._D) @ (self._U * self._D)

    def __call__(self, functionals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint covariance (n, n) of functionals (n, y * x)."""
        along, weighted = functionals @ self._L.T, functionals * self._D
        return along @ along.T + weighted @ functionals.T - (weighted @ self._U.T) @ (self._back @ functionals.T)

    def times(self, functionals: NDArray[np.float64]) -> NDArray[np.float64]:
        """``P w`` of each functional, (n, y * x)."""
        weighted = functionals * self._D
        return self.resolved(functionals) + weighted - (weighted @ self._U.T) @ self._back

    def resolved(self, functionals: NDArray[np.float64]) -> NDArray[np.float64]:
        """The part of ``P w`` that the directions hold, (n, y * x)."""
        return (functionals @ self._L.T) @ self._L

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """``n`` deviations from the mean, (n, y, x)."""
        white = rng.standard_normal((n, len(self._D))) * np.sqrt(self._D)
        white -= (white @ self._U.T) @ self._back
        return (rng.standard_normal((n, len(self._L))) @ self._L + white).reshape(n, *self._shape)

    def parts(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """L (k, *shape), D (*shape) and ``(U D U^T)^-1``: all that a program without ctuq needs."""
        return self._L.reshape(-1, *self._shape), self._D.reshape(self._shape), self._inverse(self._D)

    def _independent(self, rest: NDArray[np.float64]) -> NDArray[np.float64]:
        """D whose R has the diagonal ``rest``, by a fixed point: all but a few in a hundred of it is D's own."""
        D = rest
        for _ in range(_ROUNDS * bool(len(self._U))):
            UD = self._U * D
            left = D - np.sum(UD * (self._inverse(D) @ UD), axis=0)
            ratio = np.divide(rest, left, out=np.ones_like(rest), where=left > 0)
            D = D * np.clip(ratio, 1 / _STRIDE, _STRIDE)
        return D

    def _inverse(self, D: NDArray[np.float64]) -> NDArray:
        return np.linalg.pinv((self._U * D) @ self._U.T, rcond=1e-12, hermitian=True)


def _cosines(n: int, waves: int) -> NDArray[np.float64]:
    rows = np.cos(np.pi * np.arange(waves)[:, None] * (np.arange(n) + 0.5) / n)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
