"""Where among the angles the held-out views may lie: ways to choose k of the views at these angles (radians), as indices."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ctuq.recon.holdout import choose_views

Place = Callable[[NDArray[np.float64], int], NDArray[np.int64]]
_GOLDEN = (5**0.5 - 1) / 2


def even(angles: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """As by default: spread evenly, over a limited arc from end to end."""
    return choose_views(angles, k)[1]


def between(angles: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Evenly, half way between those of the default of a whole turn."""
    return _by_angle(angles, np.arange(k) / k)


def random(angles: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Anywhere; another scan has others."""
    rng = np.random.default_rng([k, len(angles), int(1e6 * np.ptp(angles))])
    return np.sort(rng.choice(len(angles), k, replace=False))


def edges(angles: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Blocks of neighbours, one at each end of the angles."""
    order = np.argsort(angles, kind="stable")
    return np.sort(np.concatenate([order[: (k + 1) // 2], order[len(order) - k // 2 :]]))


def golden(angles: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Each the golden ratio of all angles after the one before."""
    return _by_angle(angles, (np.arange(1, k + 1) * _GOLDEN) % 1)


def _by_angle(angles: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Views at shares, 0 to 1, of the way through all angles."""
    order = np.argsort(angles, kind="stable")
    return np.sort(order[(shares * len(angles)).astype(int)])


PLACES: dict[str, Place] = {place.__name__: place for place in (even, random, edges, golden, between)}
