"""Whether a scan has enough rays that count for an image, and what to tell where it has few."""

import numpy as np

from ctuq.errors import InputError
from ctuq.tomo.scan import Views

_FEWEST = 10
"""Rays: fewer are refused."""
_MISSING = 0.5
"""Share of the rays: where more are missing, that is told."""


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
    return told
