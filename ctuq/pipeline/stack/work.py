"""What a slice's job is given: options, rays and lesson that all slices share, and the slice's own rays."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.laplace.system.problem import Point
from ctuq.pipeline.counted import weighed
from ctuq.pipeline.enough import told_of_rays
from ctuq.pipeline.running.devices import device_of
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.views import rays_inside, split_views
from ctuq.recon.dip import Data
from ctuq.scale import seed_of
from ctuq.stages import Stages
from ctuq.systematics.catalogue import Wish
from ctuq.tomo import ray_transform
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.calibration.scales import Scales
from ctuq.uncertainty.model.route import Route

Product = dict[str, Any]
"""What a slice gives: tensors and numbers by name, or why it failed under "failed"."""


@dataclass(frozen=True)
class Lesson:
    """What a few slices have taught: hyperparameters, the noise of a ray, and the scales of both.

    ``psi`` are logarithms: of the variances of a network's weights, or of softness (1/mm) and variance of the edge prior.
    """

    psi: tuple[float, ...]
    sigma2: float
    image_scale: float
    noise_scale: float

    @property
    def point(self) -> Point:
        """As the engine takes it."""
        return Point(torch.tensor(self.psi, dtype=torch.float64), torch.tensor([self.sigma2], dtype=torch.float64))

    @property
    def scales(self) -> Scales:
        """Of the error bars."""
        return Scales(self.image_scale, self.noise_scale, float("nan"), float("nan"))


@dataclass(frozen=True, eq=False)
class Setting:
    """What all slices of a stack share: options, the plane and its rays, the way of the error bars, the lesson, other views
    that judge, and systematic errors that no ray tells.

    ``way`` is a network's route, or one of `ctuq.uncertainty.model.gaussian.ROUTES` for the edge prior. ``kept`` is in how many
    images each slice keeps its covariance. ``growth`` is of the noise of rays without weights (`ctuq.tomo.count_noise`).
    ``numbers`` are what slices are called among all rows of the file: a slice's random numbers are its own, whichever others
    are made beside it.
    """

    options: ReconstructOptions
    plane: VolumeGrid
    geometry: Geometry
    way: Route | str | None = None
    lesson: Lesson | None = None
    judging: Geometry | None = None
    hidden: tuple[Wish, ...] = ()
    kept: int = 0
    growth: float = 0.0
    numbers: range | None = None


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice's number and its rays; the fit that it taught by; its rays in other views, and their weights."""

    number: int
    projections: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    fitted: Mapping[str, Any] | None = None
    judge: tuple[NDArray[np.float32], NDArray[np.float32] | None] | None = None


class Work:
    """One slice's scan on the shared rays."""

    def __init__(self, setting: Setting, item: Slice):
        self.options, self.item, self.setting = setting.options, item, setting
        if item.weights is not None and not item.weights.any():
            raise InputError("None of its rays counts (all are missing or of weight 0).")
        self.scan = Scan(item.projections, setting.geometry, item.weights)
        told_of_rays(self.scan)
        number = item.number if setting.numbers is None else setting.numbers[item.number]
        self.rng = torch.Generator().manual_seed(seed_of(self.options.seed, "slice", number))
        self.device = device_of(self.options.device)
        if setting.growth:
            self.scan = weighed(self.scan, setting.growth, self.options.size, self.device)
        self.views = split_views(self.options, self.scan)
        self.A = self.rays(setting.geometry, "auto" if self.options.bars is None else "matrix")

    def data(self, *, of_all: bool = False) -> Data:
        """The rays as what lies inside makes them; what lies outside by the fitted views, or all."""
        held = self.views.held[:0] if of_all else self.views.held
        return rays_inside(self.A, self.scan, held, device=self.device, stages=Stages())

    def rays(self, geometry: Geometry, backend: str) -> RayTransform:
        """Of the plane that all slices share."""
        return _rays(_Rays(self.setting.plane, geometry), str(self.device), backend)


class _Rays:
    """Plane and geometry as a key: a worker builds their ray transform once."""

    def __init__(self, plane: VolumeGrid, geometry: Geometry):
        self.plane, self.geometry = plane, geometry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rays) and (self.plane, self.geometry) == (other.plane, other.geometry)

    def __hash__(self) -> int:
        return hash((self.plane.shape, self.plane.voxel, self.geometry.shape))


@lru_cache(maxsize=2)
def _rays(key: _Rays, device: str, backend: str) -> RayTransform:
    return ray_transform(key.plane, key.geometry, device=device, backend=backend)
