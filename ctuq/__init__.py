"""X-ray CT that says how sure it is."""

from typing import TYPE_CHECKING

from ctuq.late import attach
from ctuq.versions import version_of

if TYPE_CHECKING:
    from ctuq import baselines, design, files, gp, laplace, linops, pipeline, quantities, recon, tomo
    from ctuq.app.report.page import write_report
    from ctuq.errors import BudgetExhausted, CtuqError, InputError
    from ctuq.files import demo_scan, read, read_volume, write_scan
    from ctuq.pipeline import ReconstructOptions, reconstruct, reconstruct_stack, reconstruct_volume
    from ctuq.pipeline.everyday import convert, measure, simulate
    from ctuq.tomo import ConeBeam, FanBeam, Parallel3D, ParallelBeam, Scan, VolumeGrid, VolumeScan, radians, ray_transform
    from ctuq.uncertainty.calibration.foreign import calibrate
    from ctuq.uncertainty.results.image import Result
    from ctuq.uncertainty.results.volume import VolumeResult

__version__ = version_of("ctuq") or "unknown"

__all__ = [
    "BudgetExhausted",
    "ConeBeam",
    "CtuqError",
    "FanBeam",
    "InputError",
    "Parallel3D",
    "ParallelBeam",
    "ReconstructOptions",
    "Result",
    "Scan",
    "VolumeGrid",
    "VolumeResult",
    "VolumeScan",
    "__version__",
    "baselines",
    "calibrate",
    "convert",
    "demo_scan",
    "design",
    "files",
    "gp",
    "laplace",
    "linops",
    "measure",
    "pipeline",
    "quantities",
    "radians",
    "ray_transform",
    "read",
    "read_volume",
    "recon",
    "reconstruct",
    "reconstruct_stack",
    "reconstruct_volume",
    "simulate",
    "tomo",
    "write_report",
    "write_scan",
]

_HOMES = {
    "ctuq.app.report.page": ("write_report",),
    "ctuq.errors": ("BudgetExhausted", "CtuqError", "InputError"),
    "ctuq.files": ("demo_scan", "read", "read_volume", "write_scan"),
    "ctuq.pipeline": ("ReconstructOptions", "reconstruct", "reconstruct_stack", "reconstruct_volume"),
    "ctuq.pipeline.everyday": ("convert", "measure", "simulate"),
    "ctuq.tomo": (
        "ConeBeam",
        "FanBeam",
        "Parallel3D",
        "ParallelBeam",
        "Scan",
        "VolumeGrid",
        "VolumeScan",
        "radians",
        "ray_transform",
    ),
    "ctuq.uncertainty.calibration.foreign": ("calibrate",),
    "ctuq.uncertainty.results.image": ("Result",),
    "ctuq.uncertainty.results.volume": ("VolumeResult",),
}
_PARTS = ("baselines", "design", "files", "gp", "laplace", "linops", "pipeline", "quantities", "recon", "tomo")

# Imported on first use, so that `ctuq --help` does not wait for torch.
__getattr__, _ = attach(__name__, _HOMES, _PARTS)


def __dir__() -> list[str]:
    return __all__
