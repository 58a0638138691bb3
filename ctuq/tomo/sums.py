"""What the sums of views over the detector tell.

Every parallel view of an object that is seen whole has the same (Helgason-Ludwig consistency of order zero).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import robust_std
from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import edge_columns, noise_of

_FEWEST = 8
_UNEQUAL, _SIGMAS = 0.04, 6.0
"""Of the sums' median, robust standard deviation: of the shipped tooth they differ by 0.3 %, of drawn objects by their noise.
Views whose values are divided by their own largest differ by 3 %, and one that grows by 0.7 to 1.3 by 18 %."""
_AIR, _ENDS = 0.03, 0.04
_ON_SIDE, _VARIES = 2.0, 0.05
"""Of drawn balls rows vary by 0.005 and columns by 0.42, of noisy particles in electrons by 0.09 and 0.20."""


def doubt_of_sums(scan: Scan) -> str | None:
    """One sentence where the views cannot be of one object that is seen whole, by their sums; None where nothing speaks of it.

    What air reads at the edges may differ from view to view: the sums without it count then. Of fans nothing is known so
    exactly.
    """
    views, columns = scan.projections.shape
    if views < _FEWEST or columns < 8:
        return None
    counts = np.ones(scan.projections.shape, bool) if scan.weights is None else scan.weights > 0
    seen = counts.any(axis=1)
    y = np.where(counts, scan.projections, np.nan).astype(np.float64)
    if seen.sum() < _FEWEST or not np.isfinite(y).any():
        return None
    means = np.full(views, np.nan)
    means[seen] = np.nanmean(y[seen], axis=1)
    if (ends := _ends_in_air(means, y)) is not None:
        first, last = ends
        return (
            f"The first {first} and the last {last} views see air alone, and the views between see more at the detector's "
            "edges: views and columns may be exchanged; if so, say 'transpose: true' in a geometry file."
        )
    if isinstance(scan.geometry, FanBeam) or any(scan.shadow.cut):
        return None
    n = edge_columns(columns)
    edges = np.concatenate([y[seen, :n], y[seen, -n:]], axis=1)
    # Of views without a ray that counts at the edges nothing is known of air: a slit leaves none in any view.
    air = np.nansum(edges, axis=1) / np.maximum(np.isfinite(edges).sum(axis=1), 1)
    middle = float(np.median(means[seen]))
    spread = min(robust_std(means[seen]), robust_std(means[seen] - air))
    noise = noise_of(scan.projections) / np.sqrt(columns)
    if middle <= 0 or spread < max(_UNEQUAL * middle, _SIGMAS * noise):
        return None
    return (
        f"The views' sums over the detector differ by {spread / middle:.2g} of their median (noise {noise / middle:.1g}), but "
        "parallel rays see the same amount of an object in every view: check the flats and the exposure of each view, and "
        "whether the sample stays in its row. Error bars do not know of it."
    )


def lies_on_its_side(rays: Sequence[NDArray] | NDArray) -> str | None:
    """One sentence where the columns of pictures, and not their rows, hold the same amount in all parallel views.

    Parameters
    ----------
    rays : sequence of array, shape (angle, column)
        Of each row; no copy of them all is made.
    """
    if min(len(rays), *rays[0].shape) < _FEWEST:
        return None
    rows = np.stack([row.sum(axis=1, dtype=np.float64) for row in rays])
    columns = sum(rays, np.zeros(rays[0].shape)).T
    if not rows.any():
        return None
    of_rows, of_columns = (float(sums.std(axis=1).mean() / np.abs(sums).mean()) for sums in (rows, columns))
    if of_rows < max(_ON_SIDE * of_columns, _VARIES):
        return None
    return (
        f"From view to view the pictures' columns hold the same amount within {of_columns:.1g} of it, their rows within "
        f"{of_rows:.1g}: the pictures seem to lie on their side, with the rotation axis along their rows; if so, say "
        "'transpose: true' in a geometry file."
    )


def _ends_in_air(means: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[int, int] | None:
    """How many views at the beginning and the end see next to nothing, if both do and the detector's edges see more."""
    most = float(np.nanpercentile(means, 90))
    if not most > 0:
        return None
    empty = ~(np.abs(means) > _AIR * most)
    first, last = int(np.argmin(empty)), int(np.argmin(empty[::-1]))
    few = max(2, int(_ENDS * len(means)))
    if min(first, last) < few or empty[first : len(means) - last].any():
        return None
    between = y[first : len(means) - last]
    sides = [side[np.isfinite(side)] for side in (between[:, 0], between[:, -1])]
    return (first, last) if all(side.size and side.mean() > _AIR * most for side in sides) else None
