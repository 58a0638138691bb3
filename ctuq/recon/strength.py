"""How smooth a total-variation image should be: as held-out rays like it."""

import torch

from ctuq.recon.start import Data
from ctuq.recon.tv import ITERATIONS, tv

# The strength is in units of the noise, and where edges make the fourth differences that tell it, 1 is too much: unseen rays of
# walnut, ta, tb and tooth at 48 x 48 are missed by 0.0446, 0.0175, 0.0202 and 0.0250 with 1, and by 0.0343, 0.0145, 0.0142 and
# 0.0141 with 0.1; phantoms are best with 0.3 to 1.
STRENGTHS = (1.0, 0.5, 0.25, 0.125)
"""Smoothest first, which is the usual one of `ctuq.recon.tv`."""
# What a smoother image's misfit may be over the smallest: rays are few, and flat objects like it smooth.
_EVEN = 1.03


@torch.no_grad()
def chosen_strength(fit: Data, stop: Data) -> tuple[float, float]:
    """The ``strength`` of `ctuq.recon.tv` whose image of some rays foretells others, and its misfit of these.

    It is the smoothest of those that do about as well as the best.

    Parameters
    ----------
    fit, stop : Data
        With a batch axis of 1, as `ctuq.recon.holdout.split` makes them.
    """
    strengths = fit.y.new_tensor(STRENGTHS)
    y, weights = (each.expand(len(strengths), *each.shape[1:]) for each in (fit.y, fit.weights))
    images = tv(fit.A, y, weights=weights, strength=strengths, iterations=ITERATIONS // 2)
    misfits = stop.misfit(images)
    chosen = int((misfits <= _EVEN * misfits.min()).nonzero()[0])
    return STRENGTHS[chosen], float(misfits[chosen])
