"""A scan in a line, a table and a picture: taken as it is, for modules do not import one another in a circle."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ctuq.pictures import Panel, figure_of
from ctuq.tomo.geometry import Geometry
from ctuq.tomo.space import VolumeGeometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rows_of(scan: Any) -> list[tuple[str, str]]:
    """Names and phrases: views, beam, detector, values, what is known beside, and warnings."""
    geometry = scan.geometry
    degrees = np.rad2deg(geometry.angles)
    rows = [
        ("views", f"{scan.n_angles} view{'s' * (scan.n_angles != 1)}, {degrees.min():.4g}° to {degrees.max():.4g}°"),
        ("beam", f"{type(geometry).__name__}"),
        ("detector", _detector(geometry)),
        ("projections", f"line integrals {scan.projections.min():.3g} to {scan.projections.max():.3g}"),
    ]
    known = [name for name in ("weights", "truth") if getattr(scan, name) is not None]
    if known:
        rows.append(("beside", "with " + " and ".join(known)))
    if scan.warnings:
        rows.append(("warnings", f"{len(scan.warnings)} warning{'s' * (len(scan.warnings) != 1)}"))
    return rows


def plot_scan(scan: Any) -> "Figure":
    """The sinogram, one row a view; of a volume's scan that of the middle detector row."""
    geometry, values = scan.geometry, scan.projections
    sinogram = values if values.ndim == 2 else values[len(values) // 2]
    count = len(sinogram)
    extent = (-0.5, sinogram.shape[1] - 0.5, count - 0.5, -0.5)
    panel = Panel(sinogram, "gray", extent, ("column", "angle (°)"), "line integral (no unit)")
    figure = figure_of({"sinogram" if values.ndim == 2 else f"detector row {len(values) // 2}": panel})
    marks = np.unique(np.linspace(0, count - 1, min(7, count)).round().astype(int))
    figure.axes[0].set_yticks(marks, [f"{np.rad2deg(geometry.angles[mark]):.4g}" for mark in marks])
    return figure


def _detector(geometry: Geometry | VolumeGeometry) -> str:
    *rows, _, columns = geometry.shape
    size = " x ".join(str(n) for n in (*rows, columns))
    return f"{size} columns" if not rows else f"{size} pixels"
