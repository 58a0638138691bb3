"""To and from the Core Imaging Library (CIL): geometries of a slice, and the ray transform as its ``LinearOperator``.

CIL's axes are ctuq's in x and y, but its arrays (horizontal_y, horizontal_x) begin at the lowest y, so that its image is ours
with the rows turned over, and its angles turn the sample where ctuq's turn the scanner: they are minus ours. Both follow from
the vectors that CIL hands to ASTRA. CIL has no unit of length; all is taken as mm.
"""

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import BackendError, GeometryError
from ctuq.tomo.geometry import FanBeam, Geometry, ParallelBeam, VolumeGrid
from ctuq.tomo.rays.transform import RayTransform

_AXES = ("angle", "horizontal")


def framework() -> ModuleType:
    """The module ``cil.framework``.

    Raises
    ------
    BackendError
        If CIL is not installed, with the command that installs it.
    """
    try:
        import cil.framework as found  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BackendError(
            "CIL is not installed, and PyPI has it not; install it: conda install -c conda-forge -c ccpi cil."
        ) from error
    return found


def to_cil(grid: VolumeGrid, geometry: Geometry) -> tuple[Any, Any]:
    """CIL's ``ImageGeometry`` and ``AcquisitionGeometry`` of a slice.

    Raises
    ------
    BackendError
        If CIL is not installed.
    GeometryError
        If the grid is a volume.
    """
    cil = framework()
    if len(grid.shape) != 2:
        raise GeometryError(f"CIL's operator is of slices so far, and the grid has {len(grid.shape)} axes.")
    (height, width), (x, y) = grid.shape, grid.centre
    image = cil.ImageGeometry(
        voxel_num_x=width, voxel_num_y=height, voxel_size_x=grid.voxel, voxel_size_y=grid.voxel, center_x=x, center_y=y
    )
    first, centre, column = replace(geometry, angles=np.zeros(1)).vectors()[0].reshape(4, 3)[:3, :2]
    across = {"detector_direction_x": (column / np.linalg.norm(column)).tolist()}
    if isinstance(geometry, FanBeam):
        made = cil.AcquisitionGeometry.create_Cone2D(
            source_position=first.tolist(), detector_position=centre.tolist(), **across
        )
    else:
        made = cil.AcquisitionGeometry.create_Parallel2D(
            ray_direction=(first / np.linalg.norm(first)).tolist(), detector_position=centre.tolist(), **across
        )
    made.set_angles(-np.rad2deg(geometry.angles), angle_unit="degree")
    made.set_panel(geometry.columns, pixel_size=(geometry.pixel, geometry.pixel))
    made.set_labels(list(_AXES))
    return image, made


def from_cil(made: Any) -> tuple[Geometry, bool]:
    """Our geometry of a slice's ``AcquisitionGeometry``, and whether its columns run the other way.

    Raises
    ------
    GeometryError
        If it has rows or energy channels, or is no circular scan.
    """
    kind, labels = str(made.geom_type), tuple(made.dimension_labels)
    if kind not in ("parallel", "cone") or set(labels) != set(_AXES):
        raise GeometryError(f"Slices of CIL with the axes {', '.join(_AXES)} are read, not '{kind}' with {', '.join(labels)}.")
    system, panel, angles = made.config.system, made.config.panel, made.config.angles
    axis, detector, across = (
        _xy(part) for part in (system.rotation_axis.position, system.detector.position, system.detector.direction_x)
    )
    source = _xy(system.source.position) if kind == "cone" else None
    along = _xy(system.ray.direction) if source is None else detector - source
    across = across / np.linalg.norm(across)
    # Columns run to the right as seen from the source; where CIL's run to the left the array is turned over.
    mirrored = bool(across[0] * along[1] - across[1] * along[0] < 0)
    across = -across if mirrored else across
    normal = np.array([-across[1], across[0]])
    turned = np.asarray(angles.angle_data, np.float64) + float(angles.initial_angle)
    turned = turned if str(angles.angle_unit).startswith("rad") else np.deg2rad(turned)
    shared: dict[str, Any] = {
        "angles": np.arctan2(across[1], across[0]) - turned,
        "columns": int(panel.num_pixels[0]),
        "pixel": float(panel.pixel_size[0]),
    }
    is_reversed = mirrored != ("right" in str(panel.origin))
    if source is None:
        return ParallelBeam(**shared, detector_offset=float((detector - axis) @ across)), is_reversed
    return FanBeam(
        **shared,
        source_to_axis=float((axis - source) @ normal),
        source_to_detector=float((detector - source) @ normal),
        detector_offset=float((detector - source) @ across),
        axis_offset=float((axis - source) @ across),
    ), is_reversed


def as_cil_operator(A: RayTransform) -> Any:
    """The ray transform as a ``cil.optimisation.operators.LinearOperator``, whose ``adjoint`` is its exact transpose.

    Parameters
    ----------
    A : RayTransform
        Of a slice.

    Returns
    -------
    LinearOperator
        From ImageData (horizontal_y, horizontal_x) in 1/mm, rows from below, to AcquisitionData (angle, horizontal).

    Raises
    ------
    BackendError
        If CIL is not installed.
    GeometryError
        If the grid is a volume.
    """
    image, made = to_cil(A.grid, A.geometry)
    from cil.optimisation.operators import LinearOperator  # pyright: ignore[reportMissingImports]

    def filled(values: NDArray, geometry: Any, out: Any) -> Any:
        target = geometry.allocate(None) if out is None else out
        target.fill(np.ascontiguousarray(values, np.float32))
        return target

    def tensor(values: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(A.device)

    class Projection(LinearOperator):
        def __init__(self):
            super().__init__(domain_geometry=image, range_geometry=made)

        def direct(self, x: Any, out: Any = None) -> Any:
            """Project."""
            return filled(A(tensor(x.as_array()[::-1])).cpu().numpy(), made, out)

        def adjoint(self, x: Any, out: Any = None) -> Any:
            """Back-project."""
            return filled(A.T(tensor(x.as_array())).cpu().numpy()[::-1], image, out)

    return Projection()


def _xy(vector: Any) -> NDArray[np.float64]:
    found = np.ravel(vector).astype(np.float64)
    if found.size != 2 or not np.isfinite(found).all():
        raise GeometryError(f"A position or direction of CIL's slice has two numbers, got {found.tolist()}.")
    return found
