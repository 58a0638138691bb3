"""Where the rotation axis falls on the detector: by what a reconstruction cannot explain, for any geometry."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, shift

from ctuq.errors import InputError
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.rays.matrix import build_matrix
from ctuq.tomo.scan import Scan

_VIEWS = 48
_REACH = 0.15
_ITERATIONS = 20
_WIDTHS = (48, 96, 160)


@dataclass(frozen=True)
class AxisSearch:
    """What the search found.

    Parameters
    ----------
    column : float
        Detector column (0-based, whole numbers at pixel centres) onto which the axis is projected.
    misfit, misfit_at_start : float
        Relative residual of a few CGLS iterations there, and where the scan's geometry had the axis.
    reliable : bool
        Whether the misfit has a clear minimum inside the range that was searched.
    """

    column: float
    misfit: float
    misfit_at_start: float
    reliable: bool


def axis_column(geometry: Geometry) -> float:
    """Detector column onto which the rotation axis is projected, 0-based, whole numbers at pixel centres."""
    centre = (geometry.columns - 1) / 2
    return centre + (geometry.axis_offset * geometry.magnification - geometry.detector_offset) / geometry.pixel


def with_axis_column(geometry: Geometry, column: float) -> Geometry:
    """The geometry with its detector shifted so that the axis falls on ``column``."""
    shift = (column - axis_column(geometry)) * geometry.pixel
    return replace(geometry, detector_offset=geometry.detector_offset - shift)


def centred(scan: Scan, column: float, step: str) -> Scan:
    """The scan with its rotation axis at a column, and why."""
    return replace(scan, geometry=with_axis_column(scan.geometry, column), provenance=scan.provenance.then(step))


def find_axis(scan: Scan) -> AxisSearch:
    """Search the rotation axis by the residual of a short reconstruction, from coarse to fine.

    A wrong axis leaves projections that no object explains (Helgason-Ludwig consistency), for half and full turns, parallel and
    fan beams alike. The residual is that of 20 CGLS iterations on at most 48 views and about 160 columns; the last step fits
    a parabola. The search reaches 15 % of the detector's width to both sides of where the geometry has the axis.

    Raises
    ------
    InputError
        If there are fewer than 3 views, or nothing was measured.
    """
    if scan.n_angles < 3 or not np.any(scan.projections):
        raise InputError(
            "The rotation axis cannot be searched in fewer than 3 views or in projections of zeros; give its column."
        )
    views = np.unique(np.linspace(0, scan.n_angles - 1, min(scan.n_angles, _VIEWS)).astype(int))
    scan = scan.select(views)
    start = best = axis_column(scan.geometry)
    levels = [_Level(scan, width) for width in _WIDTHS]
    count = max(2, round(_REACH * scan.geometry.columns / levels[0].factor))
    reliable, step = False, 2.0 * levels[0].factor
    for number, level in enumerate(levels):
        step /= 2
        tried = best + step * np.arange(-count, count + 1)
        misfits = np.array([level.misfit(start - column) for column in tried])
        reliable = _clear(misfits) if number == 0 else reliable
        best, count = _lowest(tried, misfits), 3
    return AxisSearch(best, levels[-1].misfit(start - best), levels[-1].misfit(0.0), reliable)


class _Level:
    """A scan at reduced width with one matrix; candidates for the axis are tried by shifting the projections."""

    def __init__(self, scan: Scan, width: int):
        self.factor = max(1, round(scan.geometry.columns / width))
        # Unless noise is smoothed first, shifts by half a column interpolate it away and look better than they are.
        self._scan = replace(scan, projections=gaussian_filter1d(scan.projections, self.factor, axis=1, mode="nearest"))
        geometry = scan.geometry.binned(self.factor)
        side = 1.05 * geometry.columns * geometry.pixel_at_axis
        self._matrix = build_matrix(VolumeGrid((geometry.columns,) * 2, side / geometry.columns), geometry)
        self._transpose = self._matrix.T.tocsr()

    def misfit(self, columns: float) -> float:
        """Relative residual of a short CGLS on the projections moved by so many columns of the detector."""
        y, root = self._moved(columns)
        A, T = self._matrix, self._transpose
        r, g = y.copy(), T @ (root * y)
        p, gamma = g.copy(), float(g @ g)
        for _ in range(_ITERATIONS):
            q = root * (A @ p)
            r -= gamma / float(q @ q) * q
            g = T @ (root * r)
            p, gamma = g + float(g @ g) / gamma * p, float(g @ g)
        return float(np.linalg.norm(r) / np.linalg.norm(y))

    def _moved(self, columns: float) -> tuple[NDArray, NDArray]:
        """Weighted projections and root weights; what comes in from outside the detector has none."""
        scan = self._scan
        weights = np.ones(scan.geometry.shape, np.float32) if scan.weights is None else scan.weights
        values = shift(scan.projections, (0, columns), order=3, mode="nearest")
        worth = shift(weights, (0, columns), order=1, mode="constant", cval=0.0)
        moved = replace(scan, projections=values, weights=worth, truth=None).binned(self.factor)
        root = np.sqrt(np.asarray(moved.weights).ravel())
        return root * moved.projections.ravel(), root


def _clear(misfits: NDArray) -> bool:
    lowest = int(np.argmin(misfits))
    return bool(0 < lowest < len(misfits) - 1 and misfits[lowest] < 0.9 * np.median(misfits))


def _lowest(tried: NDArray, misfits: NDArray) -> float:
    i = int(np.argmin(misfits))
    if not 0 < i < len(tried) - 1:
        return float(tried[i])
    left, middle, right = misfits[i - 1 : i + 2] ** 2
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(tried[i] + np.clip(shift, -0.5, 0.5) * (tried[1] - tried[0]))
