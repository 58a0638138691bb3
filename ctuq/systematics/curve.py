"""What a beam of many energies makes of the line integrals of one material, and the way back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FLATTEST = 0.2
"""Slope at which a curve goes on as a straight line: a cubic bends back where no beam does."""
_POINTS, _AHEAD = 4096, 8.0


@dataclass(frozen=True)
class Curve:
    """A line integral p reads ``offset + p - c p^2 + d p^3``.

    Of a beam through one material c is the variance of its attenuation over twice its squared mean, d the third cumulant over
    six times its cubed mean: the logarithm's first terms.

    Parameters
    ----------
    offset : float
        What air reads.
    c : float
        Beam hardening, per unit of line integral.
    d : float
        Per squared unit.
    """

    offset: float = 0.0
    c: float = 0.0
    d: float = 0.0

    def read(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """What line integrals read; those below 0 as they are."""
        q = np.maximum(p, 0)
        return self.offset + p - self.c * q**2 + self.d * q**3

    def slope(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of `read`."""
        q = np.maximum(p, 0)
        return 1 - 2 * self.c * q + 3 * self.d * q**2

    def line_integrals(self, y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Line integrals that read y, and the slope of the curve there.

        The curve is followed from 0 until its slope is a fifth; beyond, it is taken for straight.
        """
        read = np.asarray(y, np.float64) - self.offset
        top = max(float(read.max(initial=0.0)), 1e-300)
        p = np.linspace(0, _AHEAD * top, _POINTS)
        flat = np.flatnonzero(self.slope(p) < _FLATTEST)
        last = int(flat[0]) - 1 if len(flat) else _POINTS - 1
        p, known = p[: last + 1], (self.read(p) - self.offset)[: last + 1]
        found = np.interp(read, known, p)
        beyond = np.maximum(read - known[-1], 0)
        slope = np.maximum(self.slope(found), _FLATTEST)
        return np.where(read < 0, read, found + beyond / slope), np.where(read < 0, 1.0, slope)
