"""Scanning geometries, scans and the ray transform between images and sinograms."""

from typing import TYPE_CHECKING

from ctuq.late import attach

if TYPE_CHECKING:
    from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam, VolumeGrid, default_grid, radians
    from ctuq.tomo.rays.backends import ray_transform
    from ctuq.tomo.rays.own import matrix_transform
    from ctuq.tomo.rays.transform import RayTransform, adjoint_mismatch
    from ctuq.tomo.scan import Provenance, Scan
    from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D
    from ctuq.tomo.volume_scan import VolumeScan

__all__ = [
    "ConeBeam",
    "FanBeam",
    "FreeBeam",
    "Geometry",
    "Parallel3D",
    "ParallelBeam",
    "Provenance",
    "RayTransform",
    "Scan",
    "VolumeGrid",
    "VolumeScan",
    "adjoint_mismatch",
    "default_grid",
    "matrix_transform",
    "radians",
    "ray_transform",
]

_HOMES = {
    "ctuq.tomo.geometry": ("FanBeam", "Geometry", "ParallelBeam", "VolumeGrid", "default_grid", "radians"),
    "ctuq.tomo.rays.backends": ("ray_transform",),
    "ctuq.tomo.rays.own": ("matrix_transform",),
    "ctuq.tomo.rays.transform": ("RayTransform", "adjoint_mismatch"),
    "ctuq.tomo.scan": ("Provenance", "Scan"),
    "ctuq.tomo.space": ("ConeBeam", "FreeBeam", "Parallel3D"),
    "ctuq.tomo.volume_scan": ("VolumeScan",),
}

# Imported on first use: scans and results are read without torch, which takes two seconds.
__getattr__, __dir__ = attach(__name__, _HOMES)
