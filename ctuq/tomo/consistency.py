"""How well any object can explain a scan whose axis falls on a column: the residual of a short reconstruction."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ctuq.tomo.geometry import FanBeam, Geometry, VolumeGrid, bytes_of, full_turn
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.scan import Scan, binned_rays
from ctuq.tomo.shadow import Shadow

_ITERATIONS = 20
_MATRICES = 4
"""Kept, of 3 MB each. To read the walnut eleven were built: 1.17 CPU s in place of 0.63."""
_MARGIN = 1.02
# The corners of the square stay on this side of the source.
_SOURCE = 0.69


class Consistency:
    """A scan at reduced width with one matrix; candidates for the axis are tried by shifting the projections.

    Two things that are known make few views and half acquisitions tell where the axis is. Where a view sees air at an edge of
    the detector, there is air beyond it too, and the columns beyond count as measured; where it does not, nothing is known
    of them. And an object that is seen whole lies in the circle about the axis that its shadow reaches to.

    Parameters
    ----------
    scan : Scan
    shadow : Shadow
        Of all its views.
    centre, half : float
        Columns ``centre - half`` to ``centre + half`` are worked with; they may lie outside the detector.
    width : int
        About so many columns after averaging.
    groups : int
        The residual is also given without each of so many interleaved groups of views.
    """

    def __init__(self, scan: Scan, shadow: Shadow, *, centre: float, half: float, width: int, groups: int):
        self.factor = max(1, int(np.ceil(2 * half / width - 0.2)))
        first = int(np.floor(centre - half))
        n = self.factor * int(np.ceil((2 * half + 1) / self.factor))
        self._middle = first + (n - 1) / 2
        self._shadow = shadow
        self._full_turn = full_turn(scan.geometry.angles)
        self._values, self._weights = _extended(scan, self.factor, first, n)
        offset = replace(scan.geometry, detector_offset=scan.geometry.axis_offset * scan.geometry.magnification)
        geometry = replace(offset, columns=n).binned(self.factor)
        cells, voxel = geometry.columns, _MARGIN * geometry.pixel_at_axis
        if isinstance(geometry, FanBeam):
            cells = max(2, min(cells, int(2 * _SOURCE * geometry.source_to_axis / voxel)))
        self._transpose = _transpose(VolumeGrid((cells, cells), voxel), _ByValue(geometry))
        x = _MARGIN * (np.arange(cells) + 0.5 - cells / 2)
        self._distance = np.hypot(x[:, None], x).ravel()
        views = np.arange(scan.n_angles)
        self._kept = np.stack([np.ones(scan.n_angles, bool), *(views % groups != k for k in range(groups))], axis=1)

    def misfits(self, column: float) -> NDArray[np.float64]:
        """Relative residuals of a short CGLS with the axis at a column, (1 + groups,): all views, then without each group."""
        y, root = self._moved(column)
        T = self._transpose[self._distance <= self._reach(column)]
        A = T.T
        r, g = y.copy(), T @ (root * y)
        p, gamma = g.copy(), _squares(g)
        for _ in range(_ITERATIONS):
            q = root * (A @ p)
            r -= _over(gamma, _squares(q)) * q
            g = T @ (root * r)
            before, gamma = gamma, _squares(g)
            p = g + _over(gamma, before) * p
        return np.sqrt(_over(_squares(r), _squares(y))).astype(np.float64)

    def _reach(self, column: float) -> float:
        """Radius of the object about the axis, in averaged columns; without bound where its outline is not seen."""
        left, right = self._shadow.cut
        if (left and right) or ((left or right) and not self._full_turn):
            return np.inf
        # In a full turn the whole reach of the object passes over either side of the detector.
        first, last = abs(column - self._shadow.first), abs(self._shadow.last - column)
        far = last if left else first if right else max(first, last)
        return max((far + 1.5) / self.factor + 0.5, 2.0)

    def _moved(self, column: float) -> tuple[NDArray, NDArray]:
        """Weighted projections and root weights (ray, 1 + groups), the axis in the middle."""
        from scipy.ndimage import shift

        by = self._middle - column
        values = shift(self._values, (0, by), order=3, mode="nearest")
        weights = np.maximum(shift(self._weights, (0, by), order=1, mode="nearest"), 0)
        moved, worth = binned_rays(values, weights, self.factor)
        assert worth is not None
        root = (np.sqrt(worth)[:, :, None] * self._kept[:, None, :]).reshape(-1, self._kept.shape[1]).astype(np.float32)
        return root * moved.reshape(-1, 1).astype(np.float32), root


class _ByValue:
    """A geometry that is another's equal by its numbers."""

    def __init__(self, geometry: Geometry):
        self.geometry, self._bytes = geometry, bytes_of(geometry)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByValue) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)


@lru_cache(maxsize=_MATRICES)
def _transpose(grid: VolumeGrid, beam: _ByValue) -> sp.csr_array:
    """The rays' matrix, transposed: of one scan each question about its angles and its axis asks for the same."""
    return build_matrix(grid, beam.geometry).T.tocsr()


def _extended(scan: Scan, factor: int, first: int, n: int) -> tuple[NDArray, NDArray]:
    """Projections and weights of ``n`` columns from ``first`` on, with the air that is known beyond the detector."""
    from scipy.ndimage import gaussian_filter1d

    columns = scan.geometry.columns
    weights = np.ones(scan.geometry.shape) if scan.weights is None else np.asarray(scan.weights, np.float64)
    # Unless noise is smoothed first, shifts by half a column interpolate it away and look better than they are.
    values = gaussian_filter1d(np.asarray(scan.projections, np.float64), factor, axis=1, mode="nearest")
    places = np.arange(first, first + n)
    inside = np.clip(places, 0, columns - 1)
    values, weights = values[:, inside], weights[:, inside]
    air = scan.shadow.air
    usual = np.median(weights[weights > 0])
    for side, beyond in ((0, places < 0), (1, places >= columns)):
        weights[:, beyond] = np.where(air[:, side], usual, 0.0)[:, None]
        values[:, beyond] = np.where(air[:, side, None], 0.0, values[:, beyond])
    return values, weights


def _squares(x: NDArray) -> NDArray[np.float32]:
    return np.asarray(np.sum(x * x, axis=0, dtype=np.float64), np.float32)


def _over(numerator: NDArray, denominator: NDArray) -> NDArray[np.float32]:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
