"""Which detector row of a cone beam is a fan: the one in the plane through the source that is square to the rotation axis."""

import numpy as np

from ctuq.files.formats.raw import middle_row

_STEEPEST = 1.0


def fan_row(rows: int, row: int | None, plane: float, slope: float, source: str) -> tuple[int, tuple[str, ...]]:
    """The row to read, and a warning if its rays leave the plane by more than a degree.

    Parameters
    ----------
    rows : int
        Of the detector.
    row : int, optional
        The one asked for; else the nearest to the plane.
    plane : float
        Where the plane meets the detector, in rows (0-based, whole numbers at pixel centres).
    slope : float
        Pitch of the rows over the distance from source to detector; 0 for parallel rays.
    source : str

    Raises
    ------
    InputError
        If the row does not exist.
    """
    chosen = int(np.clip(np.floor(plane + 0.5), 0, rows - 1)) if row is None else middle_row((0, rows), row, source)
    angle = np.rad2deg(np.arctan(abs(chosen - plane) * slope))
    if angle <= _STEEPEST:
        return chosen, ()
    text = f"Detector row {chosen} is read as a fan, but its rays rise {angle:.1f}° out of the middle plane (row {plane:.0f})."
    return chosen, (text,)


def tilted(degrees: float) -> str:
    """The warning for a rotation axis that is not along the detector's rows."""
    return f"The rotation axis is tilted by {degrees:.2f}°, which is left out; the mid-plane row is least affected."
