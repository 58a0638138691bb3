"""Where the rotation axis falls on the detector: by what a reconstruction cannot explain, for any geometry."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.consistency import Consistency
from ctuq.tomo.geometry import Geometry, full_turn
from ctuq.tomo.mirrored import mirrored_axis
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import Shadow

_FEW, _VIEWS = 24, 48
_COARSE, _FINE, _MOVES = 64, 144, 3
_EACH, _GROUPS = 8, 5
# On simulated scans of known axes the error was below this share of the distance at which the squared misfit doubles.
_OF_DOUBLING = 0.3
_SEEMS, _VAGUE = 0.5, 0.03
_FAR, _CLOSE, _OF_WIDTH, _CONTRAST, _BETTER, _SIGMAS = 3.0, 0.75, 0.003, 2.0, 1.5, 4.0
_EXPLAINED, _SAME = 0.5, 0.999
"""Largest misfit of an axis that is found, and over that at the start the largest of one that is found elsewhere. Of a detector
whose half is dead the misfit was 1.0 everywhere; where the axes of experiments/strangers.yaml are found, 0.01 to 0.12."""
UNCLEAR = "was searched without a clear result"
"""In the sentence of a search that found nothing."""


@dataclass(frozen=True)
class AxisSearch:
    """What the search found.

    Parameters
    ----------
    column : float
        Detector column (0-based, whole numbers at pixel centres) onto which the axis is projected, as far as it can be told.
    uncertainty : float
        Its standard deviation in columns: what leaving views out moves it, and how sharp the misfit's minimum is.
    misfit, misfit_at_start : float
        Relative residual of a few CGLS iterations there, and where the scan's geometry had the axis: on columns so coarse or
        fine that the two differ most.
    reason : str
        Why the column is not to be relied on, in a few words; empty if it is.
    clear : bool
        Whether the misfit has one minimum, though it may not be known to a column, so that the uncertainty means something.
    """

    column: float
    uncertainty: float
    misfit: float
    misfit_at_start: float
    reason: str = ""
    clear: bool = False

    @property
    def reliable(self) -> bool:
        """Whether the misfit has one clear minimum on the detector, wherever some of the views are left out."""
        return not self.reason

    def contradicts(self, start: float, *, columns: float = 1.0, times: float = 1.05) -> bool:
        """Whether the rays clearly show another axis than the column ``start``, even if they do not tell it to a column.

        Parameters
        ----------
        start : float
            The column that ``misfit_at_start`` is of.
        columns : float
            How far off it is to be, besides four standard deviations.
        times : float
            How many times better the rays are to be explained at the column that was found.
        """
        off = abs(self.column - start)
        return self.clear and off > max(columns, _SIGMAS * self.uncertainty) and self.misfit_at_start > times * self.misfit


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
    """Search the rotation axis over the whole detector by the residual of a short reconstruction, from coarse to fine.

    A wrong axis leaves projections that no object explains (Helgason-Ludwig consistency), for half and full turns, parallel and
    fan beams, few views and half acquisitions alike; see `ctuq.tomo.consistency`. The same is done without each view (of more
    than eight, without each fifth of them): what this moves the axis (jackknife) is part of its uncertainty, and where it
    moves it far, nothing was found.
    """
    start = axis_column(scan.geometry)
    reason = _hopeless(scan)
    if reason:
        return AxisSearch(start, float("inf"), 1.0, 1.0, reason)
    shadow, columns = scan.shadow, scan.geometry.columns
    # Of a half acquisition two views see what one sees of a whole object.
    level = _level(_thinned(scan, _VIEWS if any(shadow.cut) else _FEW), shadow, (columns - 1) / 2, 1.02 * columns, _COARSE)
    # An axis outside the detector leaves a hole that explains everything; near an edge a scan inside the object does so too.
    # Of less than a turn no view is seen from behind, so that there next to no ray is seen twice.
    ends = np.array([0.2, 0.8] if all(shadow.cut) else [0.0, 1.0] if full_turn(scan.geometry.angles) else [0.1, 0.9])
    tried = np.arange(ends[0] * (columns - 1), ends[1] * (columns - 1) + 0.01, level.factor)
    misfits = np.array([level.misfits(column) for column in tried])
    coarse = np.array([_lowest(tried, each) for each in misfits.T])
    reason, near = _unclear(misfits[:, 0], coarse, level.factor), float(coarse[0])
    if reason and any(shadow.cut) and (seen := mirrored_axis(scan)) is not None:
        reason, near, coarse = "", seen, np.full_like(coarse, seen)
    at_start = float(level.misfits(start)[0]) if abs(start - (columns - 1) / 2) < columns else 1.0
    lowest, moved = float(misfits[:, 0].min()), _jackknife(coarse[1:])
    if reason:
        return AxisSearch(float(coarse[0]), max(moved, level.factor), lowest, at_start, reason)
    column, uncertainty, finer = _refined(scan, shadow, near, level.factor, start)
    # Within a coarse column the minimum is interpolated; what moves it further is no matter of interpolation.
    uncertainty = float(np.sqrt(uncertainty**2 + max(0.0, moved**2 - (level.factor / 4) ** 2)))
    if uncertainty > max(_CLOSE, _OF_WIDTH * columns):
        reason = f"it would be known to {uncertainty:.1f} columns only"
    misfit = float(level.misfits(column)[0])
    # Coarse columns average noise away, but do not resolve a fraction of themselves: of a scan of 512 columns whose object has
    # a dense rim they had a misfit of 2.8 % at the axis and of 2.5 % six columns beside it, fine ones 0.15 and 3.6 %.
    if finer[1] * misfit > finer[0] * at_start:
        misfit, at_start = finer
    if nothing := _not_explained(misfit, at_start, elsewhere=abs(column - start) > max(1.0, _SIGMAS * uncertainty)):
        return AxisSearch(column, float("inf"), misfit, at_start, nothing)
    return AxisSearch(column, uncertainty, misfit, at_start, reason, clear=True)


def searched_axis(scan: Scan, kept: str = "the detector's middle") -> tuple[float, str]:
    """The column to take the axis at, and a sentence for the user: what was found, or what is kept where nothing is clear.

    An axis that is not known to a column is taken too where the rays contradict the one that would be kept: of a real scan of
    1024 columns it was 536.8 ± 4.8, its publishers say 534.5, and the detector's middle is 511.5.

    Parameters
    ----------
    scan : Scan
        Its geometry has the axis that is kept.
    kept : str
        What that is called.
    """
    found, start = find_axis(scan), axis_column(scan.geometry)
    if found.reliable or found.contradicts(start):
        return found.column, (
            f"The rotation axis was found at column {found.column:.2f} ± {max(found.uncertainty, 0.01):.2f} by a search "
            f"(misfit {100 * found.misfit:.2g} %, {100 * found.misfit_at_start:.2g} % at {kept}); give axis_column if you know "
            "better."
        )
    vague = found.uncertainty > _VAGUE * scan.geometry.columns
    guess = "" if vague else f", the best guess is {found.column:.1f} ± {found.uncertainty:.1f}"
    return start, (
        f"The rotation axis {UNCLEAR} ({found.reason}{guess}) and taken at {kept}, column {start:.2f}; give axis_column."
    )


def better_axis(scan: Scan, columns: tuple[float, float]) -> tuple[float, str]:
    """The one of two columns of the axis that explains the projections better, and a sentence for the user.

    The first is taken unless the other explains them clearly better.
    """
    first, other = columns
    misfits = np.ones(2)
    if not _hopeless(scan):
        shadow = scan.shadow
        misfits = misfits_at(scan, columns, shadow)
    if misfits[1] * _BETTER < misfits[0]:
        first, other, misfits = other, first, misfits[::-1]
    return first, (
        f"The file's position of the rotation axis may be counted from the detector's first column or from its middle: it is "
        f"taken at column {first:.2f} (misfit {100 * misfits[0]:.2g} %), not at {other:.2f} ({100 * misfits[1]:.2g} %); give "
        "axis_column if that is wrong."
    )


def misfits_at(scan: Scan, columns: Sequence[float], shadow: Shadow) -> NDArray[np.float64]:
    """Relative residuals of a few CGLS iterations with the axis at columns, on a coarse detector, for a scan of this shadow."""
    level = coarse_consistency(scan, shadow)
    return np.array([level.misfits(column)[0] for column in columns])


def coarse_consistency(scan: Scan, shadow: Shadow) -> Consistency:
    """Of some of the views on a coarse detector, for an axis anywhere on it."""
    n = scan.geometry.columns
    return Consistency(_thinned(scan, _VIEWS), shadow, centre=(n - 1) / 2, half=1.02 * n, width=_COARSE, groups=0)


def seems_right(scan: Scan) -> bool:
    """Whether no axis elsewhere is worth a search: beside the scan's and over the detector all explain the rays worse.

    Ten columns are tried without leaving views out, in a tenth of the search's time.
    """
    if _hopeless(scan):
        return True
    start, columns = axis_column(scan.geometry), scan.geometry.columns
    step = max(2.0, 2.04 * columns / _COARSE)
    beside = start + step * np.arange(-1, 2)
    over = np.linspace(0.1, 0.9, 7) * (columns - 1)
    misfits = misfits_at(scan, [*beside, *over], scan.shadow)
    return bool(misfits.argmin() == 1 and abs(_lowest(beside, misfits[:3]) - start) < _SEEMS)


def _hopeless(scan: Scan) -> str:
    different = len(np.unique(np.round(np.mod(scan.geometry.angles[_useful(scan)], 2 * np.pi), 6)))
    if scan.geometry.columns < 8:
        return f"the detector has {scan.geometry.columns} columns"
    if different < 3:
        return f"there are views of {different} angle{'s' * (different > 1)}"
    return "" if np.any(scan.projections) else "the projections are zero"


def _thinned(scan: Scan, views: int) -> Scan:
    useful = _useful(scan)
    return scan.select(useful[np.unique(np.linspace(0, len(useful) - 1, min(len(useful), views)).astype(int))])


def _useful(scan: Scan) -> NDArray[np.int64]:
    """Views with a ray that counts."""
    return np.arange(scan.n_angles) if scan.weights is None else np.flatnonzero(scan.weights.max(axis=1) > 0)


def _level(scan: Scan, shadow: Shadow, centre: float, half: float, width: int) -> Consistency:
    return Consistency(scan, shadow, centre=centre, half=half, width=width, groups=_groups(scan.n_angles))


def _groups(views: int) -> int:
    return views if views <= _EACH else _GROUPS


def _refined(scan: Scan, shadow: Shadow, best: float, reach: float, start: float) -> tuple[float, float, tuple[float, float]]:
    """The minimum near a column on finer columns, its uncertainty, and the misfits there and at a start that is as near."""
    scan, columns = _thinned(scan, _VIEWS), scan.geometry.columns
    half = max(best, columns - 1 - best) + 1 + 2 * reach
    level = _level(scan, shadow, best, half, _FINE)
    step = max(0.5 * level.factor, reach / 6)
    tried, misfits = np.zeros(0), np.zeros((0, 0))
    for _ in range(_MOVES):
        tried = best + step * np.arange(-3, 4)
        misfits = np.array([level.misfits(column) for column in tried])
        best = _lowest(tried, misfits[:, 0])
        if tried[0] < best < tried[-1]:
            break
    bend = np.polyfit(tried - best, misfits[:, 0] ** 2, 2)[0]
    doubling = float(misfits[:, 0].min() / np.sqrt(bend)) if bend > 0 else np.inf
    without = np.array([_lowest(tried, each) for each in misfits[:, 1:].T])
    near = abs(start - best) < 2 * reach
    there, at_start = (float(level.misfits(column)[0]) if near else 1.0 for column in (best, start))
    return best, float(np.hypot(_jackknife(without), _OF_DOUBLING * doubling)), (there, at_start)


def _unclear(misfits: NDArray, found: NDArray, factor: int) -> str:
    """Why a coarse search says nothing; empty if it does."""
    if misfits.argmin() in (0, len(misfits) - 1):
        return "the misfit falls towards the end of what was searched"
    if misfits.min() * _CONTRAST > np.median(misfits):
        return "the misfit is about the same everywhere"
    spread = _jackknife(found[1:])
    return f"it moves by {spread:.0f} columns when views are left out" if spread > _FAR * factor else ""


def _not_explained(misfit: float, at_start: float, *, elsewhere: bool) -> str:
    """Why a minimum of the misfit is no axis; empty if it may be one."""
    if misfit > _EXPLAINED:
        return f"no axis explains the projections: the misfit is {100 * misfit:.2g} % at best"
    return "no axis explains them better than the one that is kept" if elsewhere and misfit > _SAME * at_start else ""


def _jackknife(without: NDArray) -> float:
    """Standard deviation of an estimate from what it is without each group of the data."""
    return float(np.sqrt((len(without) - 1) * np.var(without)))


def _lowest(tried: NDArray, misfits: NDArray) -> float:
    i = int(np.argmin(misfits))
    if not 0 < i < len(tried) - 1:
        return float(tried[i])
    left, middle, right = misfits[i - 1 : i + 2] ** 2
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(tried[i] + np.clip(shift, -0.5, 0.5) * (tried[1] - tried[0]))
