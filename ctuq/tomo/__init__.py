"""Scanning geometries, scans and the ray transform between images and sinograms."""

from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam, VolumeGrid, default_grid, radians
from ctuq.tomo.rays.backends import ray_transform
from ctuq.tomo.rays.transform import RayTransform, adjoint_mismatch, require_exact_transpose
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
    "radians",
    "ray_transform",
    "require_exact_transpose",
]
