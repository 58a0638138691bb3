"""The geometry of a volume's scan in words, and drawn from three sides."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ctuq.tomo.footprint import corners
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D, VolumeGeometry

_SOURCE, _DETECTOR, _GRID = "#c2410c", "#1d4ed8", "#111827"
_SIDES = (("from above", 0, 1), ("along y", 0, 2), ("along x", 1, 2))
_MOST_DRAWN = 60


def draw_space(geometry: VolumeGeometry, grid: VolumeGrid | None = None) -> Figure:
    """Sources, detectors, the rays of the first view to its detector's corners and the volume: from above and from two sides.

    Parameters
    ----------
    geometry : ConeBeam, Parallel3D or FreeBeam
    grid : VolumeGrid, optional
        The volume; left out of the drawing where it is None.

    Returns
    -------
    Figure
        Axes in mm, the rotation axis along z through the origin.
    """
    figure = Figure(figsize=(13.5, 5.2), layout="constrained")
    starts, ends = _rays(geometry, grid)
    for (title, across, up), axes in zip(_SIDES, figure.subplots(1, 3), strict=True):
        _draw_views(axes, starts, ends, (across, up), geometry.diverging)
        if grid is not None:
            low, high = corners(grid)[[0, -1]]
            x, y = (np.array([low[axis], high[axis]]) for axis in (across, up))
            axes.plot(x[[0, 1, 1, 0, 0]], y[[0, 0, 1, 1, 0]], color=_GRID, lw=1.4, label="volume")
        axes.plot(*([0, 0] if up == 1 else [[0, 0], list(axes.get_ylim())]), "+" if up == 1 else "-.", color=_GRID, lw=0.8)
        names = "xyz"
        axes.set(xlabel=f"{names[across]} (mm)", ylabel=f"{names[up]} (mm)", title=title, aspect="equal")
    figure.axes[0].legend(fontsize=8, loc="upper right")
    degrees = np.rad2deg(geometry.angles)
    kind = geometry_lines(geometry)[0][1]
    figure.suptitle(
        f"{kind}: {len(degrees)} views from {degrees.min():.4g}° to {degrees.max():.4g}°, "
        f"{geometry.rows} x {geometry.columns} pixels"
    )
    return figure


def _rays(geometry: VolumeGeometry, grid: VolumeGrid | None) -> tuple[NDArray, NDArray]:
    """Where the rays to the four corners of the detector begin and end in each view, (angle, 4, 3)."""
    first, centre, column, row = np.split(geometry.vectors()[:, None, :], 4, axis=-1)
    half = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2 * [geometry.columns, geometry.rows]
    ends = centre + half[:, :1] * column + half[:, 1:] * row
    if geometry.diverging:
        return np.broadcast_to(first, ends.shape), ends
    # Parallel rays begin and end well outside.
    reach = np.abs(ends).max() if grid is None else max(np.abs(ends).max(), np.abs(corners(grid)).max())
    unit = first / np.linalg.norm(first, axis=-1, keepdims=True)
    return ends - 1.5 * reach * unit, ends + 1.5 * reach * unit


def _draw_views(axes: Axes, starts: NDArray, ends: NDArray, side: tuple[int, int], diverging: bool) -> None:
    across, up = side
    step = max(1, len(ends) // _MOST_DRAWN)
    for end in ends[::step]:
        outline = end[[0, 1, 2, 3, 0]]
        axes.plot(outline[:, across], outline[:, up], color=_DETECTOR, alpha=0.15, lw=0.8)
    if diverging:
        axes.plot(starts[:, 0, across], starts[:, 0, up], "o", ms=2.5, color=_SOURCE, alpha=0.6, label="source of each view")
    for start, end in zip(starts[0], ends[0], strict=True):
        axes.plot([start[across], end[across]], [start[up], end[up]], color=_SOURCE, lw=0.8, alpha=0.8)
    outline = ends[0][[0, 1, 2, 3, 0]]
    axes.plot(outline[:, across], outline[:, up], color=_DETECTOR, lw=2.4, label="detector of the first view")


def geometry_lines(geometry: VolumeGeometry) -> list[tuple[str, str]]:
    """Name and phrase of everything that a geometry of a volume says."""
    degrees = np.rad2deg(geometry.angles)
    kind = (
        "cone beam"
        if isinstance(geometry, ConeBeam)
        else "parallel rays"
        if isinstance(geometry, Parallel3D)
        else "free vectors"
    )
    rows = [
        ("beam", kind),
        ("views", f"{len(degrees)} from {degrees.min():.4g}° to {degrees.max():.4g}°"),
        ("detector", f"{geometry.rows} rows of {geometry.columns} columns"),
    ]
    if isinstance(geometry, FreeBeam):
        return rows
    lengths = ("pixel", "row_pixel", "source_to_axis", "source_to_detector", "detector_offset", "row_offset", "axis_offset")
    rows += [(name, f"{getattr(geometry, name):.6g} mm") for name in lengths if hasattr(geometry, name)]
    turns = ("roll", "tilt", "yaw", "axis_tilt")
    return rows + [(name, f"{np.rad2deg(value):.4g}°") for name in turns if (value := getattr(geometry, name, 0.0))]
