"""Whether the rays contradict where the rotation axis is said to be."""

from ctuq.tomo.axis import AxisSearch, axis_column, find_axis, seems_right
from ctuq.tomo.scan import Scan

OPENING = "The rotation axis is taken at column"


def contradicting_axis(scan: Scan, *, columns: float = 1.0, times: float = 1.05) -> AxisSearch | None:
    """The axis that the rays show, where they clearly show another than the scan's geometry has; else None.

    It is searched over the whole detector (`ctuq.tomo.axis.find_axis`), in 0.1 to 1.5 seconds. A search without a clear result
    contradicts nothing, and neither does an axis within so many columns or four standard deviations, nor one that does not
    explain the rays so many times better.
    """
    if seems_right(scan):
        return None
    found = find_axis(scan)
    return found if found.contradicts(axis_column(scan.geometry), columns=columns, times=times) else None


def doubt_of_axis(scan: Scan, found: AxisSearch) -> str:
    """A sentence for the user about an axis that contradicts the scan's."""
    there, column = axis_column(scan.geometry), f"{found.column:.1f}"
    return (
        f"{OPENING} {there:.1f}, but the rays say {column} ± {max(found.uncertainty, 0.1):.1f} (misfit "
        f"{100 * found.misfit:.2g} %, at {there:.1f} {100 * found.misfit_at_start:.2g} %): set 'axis_column: {column}' or "
        "'axis_column: search' in a geometry file."
    )
