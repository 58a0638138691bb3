"""Beam hardening as the rays of one material tell it, and a scan without it."""

from dataclasses import dataclass, replace

import numpy as np

from ctuq.systematics.catalogue import KINDS, Wish
from ctuq.systematics.material import Told
from ctuq.tomo.scan import Scan

_FLAT = 0.05
"""Beyond, the inside is told not to be flat: of the disc HTC ta 0.7 % is left, of tb, whose views leave arcs out, 7 %."""

_DENSE = 0.01
"""Of a disc with a part of twice its density the hardening came out at -0.005 +- 0.016 in place of 0.08."""


@dataclass(frozen=True, eq=False)
class Hardened:
    """What one material's rays say of the beam.

    Parameters
    ----------
    told : Told
    sd : float
        Standard deviation of the hardening c, per unit of line integral.
    flat : float
        Rms deviation from flat inside of the object that is left, over its attenuation.
    dense : float
        Share of the object's pixels that are denser by a third in the image before.
    """

    told: Told
    sd: float
    flat: float
    dense: float

    @property
    def c(self) -> float:
        """Beam hardening, per unit of line integral."""
        return self.told.c

    def taken_from(self, scan: Scan) -> Scan:
        """The scan with line integrals as a beam of one energy makes them, and noise that grew with them."""
        p, slope = self.told.curve.line_integrals(scan.projections.astype(np.float64))
        weights = np.ones_like(scan.projections) if scan.weights is None else scan.weights
        step = f"line integrals freed of beam hardening: read {self.told.curve.offset:.4g} + p - {self.told.curve.c:.4g} p^2"
        return replace(
            scan,
            projections=p.astype(np.float32),
            weights=(weights * slope**2).astype(np.float32),
            provenance=scan.provenance.then(f"{step} + {self.told.curve.d:.4g} p^3").warned(*self.sentences()),
        )

    def sentences(self) -> tuple[str, ...]:
        """What was assumed and found."""
        unit, c, sd, air = KINDS["hardening"].unit, self.c, self.sd, self.told.curve.offset
        told = (
            f"The object is taken to be of one material (--material uniform): beam hardening is {c:.3g} ± {sd:.2g} {unit} "
            f"and was taken out of the rays, and with it {air:.2g} that air reads; a factor of all line integrals stays "
            "unknown.",
        )
        if self.flat > _FLAT:
            told += (
                f"After that the inside of the object is still not flat, by {100 * self.flat:.0f} % (rms): it may hold a "
                "second material, or too few views show it; if it is not of one material, leave --material uniform out.",
            )
        if self.dense > _DENSE:
            told += (
                f"{100 * self.dense:.0f} % of the object's pixels are denser by a third than most: if they are of a second "
                "material, the hardening that is told is wrong, by more than its interval; leave --material uniform out then.",
            )
        if self.told.outlying > _FLAT:
            told += (
                f"No one material explains {100 * self.told.outlying:.0f} % of the object's rays, which were left out of the "
                "estimate: the object may hold a second material.",
            )
        return told

    def asked(self, wanted: tuple[Wish, ...]) -> tuple[Wish, ...]:
        """Systematic errors with the hardening that is left, as unsure as it was estimated."""
        return (*(wish for wish in wanted if wish.name != "hardening"), Wish("hardening", self.sd, needed=False))
