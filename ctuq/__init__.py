"""X-ray CT that says how sure it is."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctuq.errors import CtuqError
    from ctuq.files import read
    from ctuq.pipeline import ReconstructOptions, reconstruct
    from ctuq.tomo import FanBeam, ParallelBeam, Scan, VolumeGrid, radians, ray_transform
    from ctuq.uncertainty.result import Result

__all__ = [
    "CtuqError",
    "FanBeam",
    "ParallelBeam",
    "ReconstructOptions",
    "Result",
    "Scan",
    "VolumeGrid",
    "radians",
    "ray_transform",
    "read",
    "reconstruct",
]

_HOMES = {
    "ctuq.errors": ("CtuqError",),
    "ctuq.files": ("read",),
    "ctuq.pipeline": ("ReconstructOptions", "reconstruct"),
    "ctuq.tomo": ("FanBeam", "ParallelBeam", "Scan", "VolumeGrid", "radians", "ray_transform"),
    "ctuq.uncertainty.result": ("Result",),
}


def __getattr__(name: str) -> object:
    # Imported on first use, so that `ctuq --help` does not wait for torch.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'ctuq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
