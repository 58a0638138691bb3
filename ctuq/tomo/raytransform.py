"""The ray transform: image to sinogram, with its exact transpose, for batches, under autograd and torch.func."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from numpy.typing import NDArray

from ctuq.linops.operator import LinearOperator
from ctuq.tomo.geometry import Geometry, VolumeGrid


class RayTransform(LinearOperator):
    """``A`` maps images ``(..., y, x)`` in 1/mm to sinograms ``(..., angle, column)``; ``A.T`` back-projects.

    Attributes
    ----------
    grid : VolumeGrid
    geometry : ParallelBeam or FanBeam
    exact_transpose : bool
        Whether ``A.T`` is the transpose of ``A`` to rounding; uncertainty needs it.
    """

    grid: VolumeGrid
    geometry: Geometry
    exact_transpose: bool

    @property
    def device(self) -> torch.device:
        return self.domain.device

    @abstractmethod
    def subset(self, indices: Sequence[int] | NDArray) -> "RayTransform":
        """The ray transform of the chosen views."""
