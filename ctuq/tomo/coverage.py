"""Which detector columns the image throws its shadow on: guards against rays that miss it, before any projector runs."""

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import GeometryError
from ctuq.tomo.geometry import FanBeam, Geometry, VolumeGrid


def detector_columns(geometry: Geometry, points: NDArray) -> NDArray[np.float64]:
    """Where points (x, y) in mm fall on the detector in each view.

    Parameters
    ----------
    points : array, shape (n, 2)

    Returns
    -------
    array, shape (angle, n)
        Column coordinate; the first column's centre is at 0.
    """
    vectors = geometry.vectors()
    first, centre, step = vectors[:, None, 0:2], vectors[:, None, 3:5], vectors[:, None, 6:8]
    if isinstance(geometry, FanBeam):
        ray = points - first
        along = centre - first
        normal = np.stack([-step[..., 1], step[..., 0]], axis=-1)
        hit = first + ray * (along * normal).sum(-1, keepdims=True) / (ray * normal).sum(-1, keepdims=True)
    else:
        hit = points[None]
    return ((hit - centre) * step).sum(-1) / geometry.pixel**2 + (geometry.columns - 1) / 2


def require_coverage(grid: VolumeGrid, geometry: Geometry) -> None:
    """Refuse a geometry with views that miss the image, or with the source inside it.

    Raises
    ------
    GeometryError
        With the number of views that miss.
    """
    if len(grid.shape) != 2:
        raise GeometryError(f"{type(geometry).__name__} projects images (y, x); the grid has {len(grid.shape)} axes.")
    left, right, bottom, top = grid.extent
    if isinstance(geometry, FanBeam):
        x, y = geometry.vectors()[:, 0:2].T
        inside = (left < x) & (x < right) & (bottom < y) & (y < top)
        if inside.any():
            raise GeometryError(
                f"The source lies inside the image in {inside.sum()} of {inside.size} views; "
                "check the source to axis distance, or choose a smaller grid (both mm)."
            )
    corners = np.array([(left, bottom), (left, top), (right, bottom), (right, top)])
    columns = detector_columns(geometry, corners)
    missed = (columns.max(1) < -0.5) | (columns.min(1) > geometry.columns - 0.5)
    if missed.any():
        raise GeometryError(
            f"The image casts no shadow on the detector in {missed.sum()} of {missed.size} views; "
            "check the offsets and the grid's centre (mm)."
        )
