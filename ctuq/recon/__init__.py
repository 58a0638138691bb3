"""Reconstruction: classical methods of one signature, and the Deep Image Prior."""

from ctuq.recon.fbp import fbp
from ctuq.recon.fdk import fdk
from ctuq.recon.iterative import cgls, sirt
from ctuq.recon.tv import tv

CLASSICAL = {"fbp": fbp, "sirt": sirt, "cgls": cgls, "tv": tv}
"""Methods by name, each ``method(A, y, *, weights=None, ...)`` from (..., angle, column) to (..., y, x) in 1/mm."""

VOLUMES = {"fdk": fdk, "sirt": sirt, "cgls": cgls, "tv": tv}
"""The same of volumes, from (..., row, angle, column) to (..., z, y, x)."""

__all__ = ["CLASSICAL", "cgls", "fbp", "fdk", "sirt", "tv"]
