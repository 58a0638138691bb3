"""Adaptors: our ray transform as an ODL operator, and geometries to and from tomosipo."""

from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import BackendError, GeometryError
from ctuq.text import shortened
from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam, VolumeGrid
from ctuq.tomo.rays.transform import RayTransform

_TOLERANCE = 1e-6


def as_odl_operator(A: RayTransform) -> Any:
    """The ray transform as an ``odl.Operator`` between weighted spaces.

    Parameters
    ----------
    A : RayTransform

    Returns
    -------
    odl.Operator
        From ``odl.uniform_discr`` on the grid in ODL's axis order (x, y), both upwards, to ``odl.rn`` of shape (angle, column)
        with the weight of one ray: its width at the axis times half a turn over the views. Its ``adjoint`` is the adjoint for
        these inner products: ``A.T`` times the ratio of that weight to the area of a pixel.
    """
    import odl

    left, right, bottom, top = A.grid.extent
    height, width = A.grid.shape
    domain = odl.uniform_discr([left, bottom], [right, top], (width, height), dtype="float32")
    ray = A.geometry.pixel_at_axis * np.pi / len(A.geometry.angles)
    target = odl.rn(A.geometry.shape, dtype="float32", weighting=ray)
    ratio = ray / A.grid.voxel**2

    def project(image):
        x = np.ascontiguousarray(np.asarray(image).T[::-1], dtype=np.float32)
        return A(torch.from_numpy(x).to(A.device)).cpu().numpy()

    def back_project(sinogram):
        y = torch.from_numpy(np.array(sinogram, dtype=np.float32)).to(A.device)
        return np.ascontiguousarray(ratio * A.T(y).cpu().numpy()[::-1].T)

    class Projection(odl.Operator):
        def __init__(self):
            super().__init__(domain, target, linear=True)

        def _call(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
            return project(x.asarray())

        @property
        def adjoint(self):
            return BackProjection()

    class BackProjection(odl.Operator):
        def __init__(self):
            super().__init__(target, domain, linear=True)

        def _call(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
            return back_project(x.asarray())

        @property
        def adjoint(self):
            return Projection()

    return Projection()


def as_deepinv(A: RayTransform) -> Any:
    """The ray transform as a ``deepinv.physics.LinearPhysics``, for images (batch, 1, y, x) in 1/mm.

    Parameters
    ----------
    A : RayTransform

    Returns
    -------
    deepinv.physics.LinearPhysics
        To sinograms (batch, 1, angle, column); its ``A_adjoint`` is the exact transpose.

    Raises
    ------
    BackendError
        If deepinv is not installed, or cannot be imported.
    """
    try:
        from deepinv.physics import LinearPhysics  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise BackendError("deepinv is not installed; install it: pip install deepinv.") from error
    except (ImportError, RuntimeError) as error:
        # So does a torchvision that was built for another torch, such as PyPI's beside a torch for the CPU.
        why = shortened(error, 200)
        raise BackendError(f"deepinv cannot be imported ({why}); torch and torchvision must be of one build.") from error
    return LinearPhysics(A=lambda x, **_: A(x), A_adjoint=lambda y, **_: A.T(y), img_size=(1, *A.grid.shape))


def to_tomosipo(grid: VolumeGrid, geometry: Geometry) -> tuple[Any, Any]:
    """A tomosipo volume of one slice and a vector projection geometry of one detector row, in mm.

    Positions agree. Arrays differ in the direction of y: tomosipo's rows go upwards, so ``x[None, ::-1]`` is our image ``x``;
    projections (row, angle, column) are ours with one row in front.

    Raises
    ------
    BackendError
        If tomosipo is not installed.
    GeometryError
        If the grid is not an image.
    """
    ts = tomosipo()
    if len(grid.shape) != 2:
        raise GeometryError(f"{type(geometry).__name__} projects images (y, x); the grid has {len(grid.shape)} axes.")
    left, right, bottom, top = grid.extent
    half = grid.voxel / 2
    volume = ts.volume(shape=(1, *grid.shape), extent=((-half, half), (bottom, top), (left, right)))
    first, centre, column, row = (part[:, ::-1] for part in np.split(geometry.vectors(), 4, axis=1))
    frame = dict(shape=(1, geometry.columns), det_pos=centre, det_v=row, det_u=column)
    if isinstance(geometry, FanBeam):
        return volume, ts.cone_vec(src_pos=first, **frame)
    return volume, ts.parallel_vec(ray_dir=first, **frame)


def from_tomosipo(volume: Any, projection: Any) -> tuple[VolumeGrid, Geometry]:
    """Our grid and geometry for a tomosipo volume of one slice and a circular scan of one detector row, lengths taken as mm.

    Raises
    ------
    BackendError
        If tomosipo is not installed.
    GeometryError
        If there are several slices or rows, voxels are not cubes, or the scan is not circular about the z axis.
    """
    tomosipo()
    if volume.shape[0] != 1 or projection.det_shape[0] != 1:
        raise GeometryError(
            f"Only one slice and one detector row are read, not {volume.shape[0]} and {projection.det_shape[0]}."
        )
    voxel = np.asarray(volume.voxel_size, dtype=float)
    if np.ptp(voxel[1:]) > _TOLERANCE * voxel[1]:
        raise GeometryError(f"The pixels must be square, not {voxel[1]} by {voxel[2]}; resample the volume.")
    _, y, x = volume.pos[0] if np.ndim(volume.pos) == 2 else volume.pos
    grid = VolumeGrid(tuple(volume.shape[1:]), float(voxel[1]), (float(x), float(y)))
    vectors = projection.to_vec()
    pitch = np.linalg.norm(vectors.det_u, axis=1)
    angles = np.arctan2(vectors.det_u[:, 1], vectors.det_u[:, 2])
    across = np.stack([np.zeros_like(angles), np.sin(angles), np.cos(angles)], axis=1)
    along = np.stack([np.zeros_like(angles), np.cos(angles), -np.sin(angles)], axis=1)
    pixel = _same(pitch, pitch, "pixel pitch")
    shared: dict[str, Any] = {"angles": angles, "columns": projection.det_shape[1], "pixel": pixel}
    shadow = _same(_dot(vectors.det_pos, across), pitch, "detector offset")
    if not projection.is_cone:
        if np.abs(_dot(vectors.ray_dir, across)).max() > _TOLERANCE * np.abs(vectors.ray_dir).max():
            raise GeometryError("The rays must meet the detector at right angles; this parallel geometry is tilted.")
        return grid, ParallelBeam(**shared, detector_offset=shadow)
    axis = -_same(_dot(vectors.src_pos, across), pitch, "source's sideways position")
    source = -_same(_dot(vectors.src_pos, along), pitch, "source to axis distance")
    detector = _same(_dot(vectors.det_pos, along), pitch, "axis to detector distance")
    if source < 0:
        raise GeometryError("The detector's columns run against the turn as seen from the source; reverse det_u and the data.")
    offsets: dict[str, Any] = {"axis_offset": axis, "detector_offset": shadow + axis}
    return grid, FanBeam(**shared, **offsets, source_to_axis=source, source_to_detector=source + detector)


def _same(values: NDArray, scale: NDArray, what: str) -> float:
    if np.ptp(values) > _TOLERANCE * max(scale.max(), np.abs(values).max()):
        raise GeometryError(
            f"The {what} changes from {values.min()} to {values.max()} over the views; the scan is not circular."
        )
    return float(values.mean())


def _dot(a: NDArray, b: NDArray) -> NDArray:
    return (a * b).sum(axis=1)


def tomosipo() -> ModuleType:
    """The module tomosipo.

    Raises
    ------
    BackendError
        If it is not installed, with the command that installs it.
    """
    try:
        import tomosipo  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BackendError(
            "tomosipo is not installed; install it with `pip install git+https://github.com/cicwi/tomosipo.git`."
        ) from error
    return tomosipo
