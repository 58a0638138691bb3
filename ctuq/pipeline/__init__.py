"""The main job: from a scan to an image with calibrated error bars."""

from ctuq.pipeline.image.job import plan, reconstruct
from ctuq.pipeline.running.options import METHODS, Progress, ReconstructOptions
from ctuq.pipeline.stack.job import reconstruct_stack
from ctuq.pipeline.views import match_detector
from ctuq.pipeline.volume.job import reconstruct_volume
from ctuq.tomo.field import choose_grid

__all__ = [
    "METHODS",
    "Progress",
    "ReconstructOptions",
    "choose_grid",
    "match_detector",
    "plan",
    "reconstruct",
    "reconstruct_stack",
    "reconstruct_volume",
]
