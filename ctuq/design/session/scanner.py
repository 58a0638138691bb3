"""The scanner of a session: a detector of one row or of many, and its views as the design takes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.algebra.criteria import box_region
from ctuq.design.area import OrbitBeam, averaged, binned_beam, flat_transform
from ctuq.design.constraints import candidate_transform
from ctuq.design.measurements import checked_rays, checked_weights
from ctuq.errors import GeometryError
from ctuq.files.formats.ownscan import geometry_from_tree, geometry_tree
from ctuq.files.formats.ownvolume import space_from_tree, space_tree
from ctuq.tomo.footprint import volume_grid
from ctuq.tomo.geometry import Geometry, VolumeGrid, default_grid
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.rays.stack import slice_of
from ctuq.tomo.scan import binned_rays
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D

Beam = Geometry | OrbitBeam


def tree_of(beam: Beam) -> dict[str, Any]:
    """As nested values for a session's file.

    Raises
    ------
    GeometryError
        If the vectors are free.
    """
    if isinstance(beam, FreeBeam):
        raise GeometryError("The next angle of a scan with free vectors is not defined; give a cone or a parallel beam.")
    return space_tree(beam) if isinstance(beam, ConeBeam | Parallel3D) else geometry_tree(beam)


def beam_of(tree: Mapping[str, Any]) -> Beam:
    """What `tree_of` took apart.

    Raises
    ------
    InputError
        If this ctuq does not know it.
    """
    if "rows" not in tree:
        return geometry_from_tree(tree)
    beam = space_from_tree(tree)
    assert isinstance(beam, ConeBeam | Parallel3D)
    return beam


def _view_shape(beam: Beam) -> tuple[int, ...]:
    """Of a projection: (columns,), or (rows, columns) of an area detector, its rows upwards."""
    return (beam.rows, beam.columns) if isinstance(beam, ConeBeam | Parallel3D) else (beam.columns,)


def rays_of_a_view(beam: Beam, size: int) -> int:
    """How many rays of a view the design keeps, columns and rows averaged."""
    grid = _grid(beam, size)
    if isinstance(beam, ConeBeam | Parallel3D):
        coarse, _ = binned_beam(beam, grid)
        return coarse.rows * coarse.columns
    return beam.binned(beam.binning(grid)).columns


def transform_of(beam: Beam, size: int) -> MatrixRayTransform:
    """The ray transform of all candidates to an image, or to a volume, of so many pixels across."""
    grid = _grid(beam, size)
    if isinstance(beam, ConeBeam | Parallel3D):
        return flat_transform(grid, binned_beam(beam, grid)[0])
    return candidate_transform(beam.binned(beam.binning(grid)), grid, beam.angles)[0]


def region_of(grid: VolumeGrid, box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Pixels in a box, of a volume at every height."""
    if len(grid.shape) == 2:
        return box_region(grid, box)
    return np.broadcast_to(box_region(slice_of(grid), box), grid.shape)


def views_taken(
    beam: Beam, grid: VolumeGrid, count: int, projections: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Projections and weights of so many views as rows of the design's rays, from those that were measured.

    Raises
    ------
    InputError
        If a shape does not match the geometry, or a value is NaN.
    """
    shape = _view_shape(beam)
    y = checked_rays(projections, count, shape, "projections")
    w = None if weights is None else checked_weights(weights, count, shape)
    if not isinstance(beam, ConeBeam | Parallel3D):
        return binned_rays(y, w, beam.binning(grid))
    rows = [None if a is None else np.ascontiguousarray(a.swapaxes(0, 1)) for a in (y, w)]
    assert rows[0] is not None
    found = averaged(rows[0], rows[1], binned_beam(beam, grid)[1])
    return found[0], None if w is None else found[1]


def _grid(beam: Beam, size: int) -> VolumeGrid:
    return volume_grid(beam, size) if isinstance(beam, ConeBeam | Parallel3D) else default_grid(beam, size)
