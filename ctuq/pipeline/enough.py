"""Whether a scan has enough rays that count for an image, and whether these see an object; what to tell where not."""

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.tomo.scan import Views
from ctuq.tomo.shadow import only_air

_FEWEST = 10
"""Rays: fewer are refused."""
_MISSING = 0.5
"""Share of the rays: where more are missing, that is told."""
_BESIDE, _EVEN = 5, 0.1
"""Share of the rays that are 0 and have so many beside them that are, from which on it is told: noise leaves none so."""


def told_of_rays(scan: Views) -> tuple[str, ...]:
    """Warnings of rays that are missing and of views that are too few.

    Raises
    ------
    InputError
        If hardly a ray is left.
    """
    used = np.ones(scan.projections.shape, bool) if scan.weights is None else scan.weights > 0
    rays, views = int(used.sum()), int(used.any(-1).reshape(-1, scan.n_angles).any(0).sum())
    if rays < _FEWEST:
        raise InputError(
            f"Of the scan's {used.size} rays {rays} can be used (the others are missing or of weight 0), and an image takes "
            f"{_FEWEST} at least; give a scan with more."
        )
    told = ()
    if used.size - rays > _MISSING * used.size:
        told += (f"{used.size - rays} of {used.size} rays are missing or of weight 0: much of the image is guessed.",)
    if views == 1:
        told += ("All rays are of one view: along them the image is guessed, and so are any error bars.",)
    return told + _told_of_zeros(scan.projections, used)


def _told_of_zeros(projections: NDArray, used: NDArray[np.bool_]) -> tuple[str, ...]:
    """A warning where air was set to 0; negative values that were cut off leave single zeros, and say nothing here.

    Of projections that were computed from an image a third were: the noise by them was a thirtieth of that of the others, and
    intervals of the network held 91 % of unseen rays in place of 95.
    """
    zeros = (projections == 0) & used
    among = zeros
    for _ in range(_BESIDE):
        among = among[..., 1:] & among[..., :-1]
    if float(among.sum()) < _EVEN * int(used.sum()):
        return ()
    return (
        f"{float(zeros.sum()) / int(used.sum()):.0%} of the rays are exactly 0, side by side: air was set to 0, or nothing has "
        "noise. Such rays make noise seem smaller than it is; give the air as it was measured, if you can.",
    )


def told_of_air(scan: Views) -> tuple[str, ...]:
    """A warning where no ray of an area detector meets an object: what is made of such rays is noise."""
    seen = scan.projections if scan.weights is None else scan.projections[scan.weights > 0]
    if seen.any() and not only_air(seen):
        return ()
    return (
        "The projections show no shadow, only air: the beam may miss the object, and what is made of them is noise; check "
        "where the detector and the object stand, and the flat fields.",
    )
