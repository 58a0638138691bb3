"""Errors of how a detector's counts become line integrals: each is a curve of the line integral p, the same for all rays.

They lower the rays through much material, and so darken the middle of a round object (cupping). On such an object no ray tells
them from real shading.
"""

from torch import Tensor

_USUAL, _MOST = 2.0, 12.0
"""The usual largest line integral; and the logarithm of 160,000 counts, which few detectors tell from none."""
_DARKEST = 7.0
"""Line integrals above are taken for this one: of a thousandth of the beam, scatter is no small error."""


def hardening(p: Tensor) -> Tensor:
    """Beam hardening, as the share that a line integral reads too low for each unit of it: ``-p^2``.

    The first term beyond a straight line of ``-log`` of a spectrum's mean transmission.

    Parameters
    ----------
    p : Tensor
        Line integrals.
    """
    return -p.clamp(min=0).square()


def excess(p: Tensor) -> float:
    """By how much line integrals are too large to be any; 1 where they are not.

    No ray is counted through more than `_MOST`: above, values are in a unit of their own, and an error whose size is known for
    integrals up to `_USUAL` has it for these, taken as ending there.
    """
    largest = float(p.max())
    return largest / _USUAL if largest > _MOST else 1.0


def scatter(p: Tensor) -> Tensor:
    """A constant background, scatter or dark counts, as a share of the open beam: ``d -log(e^-p + s) / d s = -e^p``."""
    return -p.clamp(min=0, max=_DARKEST).exp()


def scale(p: Tensor) -> Tensor:
    """A factor of all line integrals, such as of a wrong pixel size: p itself."""
    return p
