"""What a file holds before it is a scan: values as they were stored, and the part of the geometry that the file tells."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.places import Layout
from ctuq.memory import require_room
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.noise_law import NoiseLaw
from ctuq.tomo.scan import Scan

VALUES = ("log", "transmission", "counts")
AXIS = ("axis_column", "axis_offset", "detector_offset")
"""Fields that say where the rotation axis is."""
TURNS = ("roll", "tilt", "yaw", "axis_tilt")
SPACE = ("rows", "middle_row", "row_pixel", "rows_upwards", *TURNS)
"""Fields of volumes only: how many rows, the row (0-based, as stored) in the plane through the source, the rows' pitch
in mm, whether rows are stored from below (pictures are from above), and turns in radians."""
START, OTHER = "axis_start", "axis_other"
"""Fields of the column that a file gives where the axis is to be searched all the same, which holds if nothing is found, and of
another one that its axis may have been meant at, between which the projections decide."""


TURNED = "turned"


@dataclass(frozen=True)
class Pictures:
    """Which pictures are a scan's, or where in an HDF5 file they lie, and what they are.

    Parameters
    ----------
    stack : str, optional
        "projections" or "sinograms"; None where nobody says so, and then projections as far as the angles agree; `TURNED` are
        projections whose pictures lie on their side, their rows along the rotation axis.
    files : str, optional
        Pattern of the names in a folder.
    aside : tuple of Path
        Flats and darks, which may lie in the same folder.
    layout : Layout
        Places in an HDF5 file of any layout.
    entry : str, optional
        Which entry of an NXtomo file.
    """

    stack: str | None = None
    files: str | None = None
    aside: tuple[Path, ...] = ()
    layout: Layout = field(default_factory=Layout)
    entry: str | None = None


@dataclass(frozen=True, eq=False)
class Raw:
    """One row of detector data as a file tells it.

    Parameters
    ----------
    format : str
        Name of the layout for people, such as "DXchange HDF5".
    values : array, shape (angle, column)
    kind_of_values : str
        "log" (line integrals), "transmission" (I / I0) or "counts".
    fields : mapping
        What is known of the geometry, in mm and radians: kind, angles, pixel, source_to_axis, source_to_detector,
        detector_offset, axis_offset, axis_column; of volumes those of `SPACE`.
    flats, darks : array, shape (frame, column), optional
    flats_after : array, shape (frame,), optional
        How many views had been taken before each flat, where the file tells; the open beam is interpolated between them.
    weights : array, shape (angle, column), optional
    truth : array, shape ``grid.shape``, optional
    grid : VolumeGrid, optional
    row, rows : int
        Which detector row of how many was read; None of 1 for a sinogram.
    order_known : bool
        False of a stack that may be of sinograms as well as of projections.
    air_at_edges : bool
        Whether what the outer columns of each view read is air, to be taken off it.
    bad_columns : array of bool, shape (column,), optional
        Columns that somebody knows to be bad.
    facts : mapping of str to str
        Sample, instrument, licence, citation.
    notes : tuple of str
        The history that the file tells, for the record.
    warnings : tuple of str
        What was assumed, repaired or left out in reading, one sentence each: become those of the scan, see
        `ctuq.tomo.scan.Provenance`.
    remarks : mapping of str to str
        Field to a warning of what was assumed to read it, told unless a geometry file gives the field.
    doubts : mapping of str to str
        Field to the sentence by which the file is refused, as it cannot be read, unless a geometry file gives the field.
    assumed : mapping
        Fields that the format leaves out and is usually right about: they hold where nobody says otherwise.
    stated : bool
        Whether the file itself says what its values are; else that is a guess, which a scanner's habits overrule.
    vectors : array, shape (angle, 12), optional
        Of a volume's scan whose every view has a source and a detector of its own: what `ctuq.tomo.FreeBeam` takes, rows in the
        order of ``rows_upwards``.
    whole : Scan, optional
        The scan itself where the file holds one that ctuq wrote; nothing is to be made of it.
    noise : NoiseLaw, "learned" or None
        What counts vary by: a law, or one that is learned of the flats, or each count is a quantum.
    one_of_many : bool
        Whether it is read as one row of a volume, which may see nothing but air.
    turned : bool
        Whether the row is a column of pictures that lie on their side; their flats and darks do so too.

    Raises
    ------
    InputError
        If something is not made of real numbers, or the weights are of another shape than the values.
    """

    format: str
    values: NDArray
    kind_of_values: str
    fields: Mapping[str, object]
    flats: NDArray | None = None
    darks: NDArray | None = None
    flats_after: NDArray | None = None
    weights: NDArray | None = None
    truth: NDArray | None = None
    grid: VolumeGrid | None = None
    row: int | None = None
    rows: int = 1
    order_known: bool = True
    air_at_edges: bool = False
    bad_columns: NDArray | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: Mapping[str, str] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)
    assumed: Mapping[str, object] = field(default_factory=dict)
    stated: bool = False
    vectors: NDArray | None = None
    whole: Scan | None = None
    noise: NoiseLaw | Literal["learned"] | None = "learned"
    one_of_many: bool = False
    turned: bool = False

    def __post_init__(self):
        for name in ("values", "flats", "darks", "weights", "truth"):
            array = getattr(self, name)
            if array is not None and array.dtype.kind not in ("uif" if name == "values" else "buif"):
                raise InputError(f"The {name} of this file ({self.format}) are {array.dtype}; real numbers are needed.")
        if self.weights is not None and self.weights.shape != self.values.shape:
            raise InputError(
                f"The weights have shape {self.weights.shape}, the projections {self.values.shape}; they must agree."
            )

    def warned(self, *sentences: str) -> "Raw":
        """The same with more warnings: say with the number what was done, and what to give if it is wrong."""
        return replace(self, warnings=tuple(dict.fromkeys((*self.warnings, *sentences))))

    def settled(self) -> "Raw":
        """The same with what is assumed in place of what nobody told, and a warning where that is a length.

        Raises
        ------
        InputError
            If a field is in doubt and nobody told it.
        """
        for key, sentence in self.doubts.items():
            if key not in self.fields:
                raise InputError(sentence)
        taken = {key: value for key, value in self.assumed.items() if key not in self.fields}
        settled = replace(
            self.warned(*self.remarks.values()), fields={**taken, **self.fields}, assumed={}, remarks={}, doubts={}
        )
        if "pixel" not in taken:
            return settled
        text = "The file has no pixel size: {:g} mm is taken, so attenuation is per pixel; give 'pixel' in a geometry file."
        return settled.warned(text.format(taken["pixel"]))


def middle_row(shape: tuple[int, ...], row: int | None, source: str) -> int:
    """The detector row to read of a stack (angle, row, column): the one asked for, else the middle one.

    Raises
    ------
    InputError
        If the row does not exist.
    ResourceError
        If it is larger than memory.
    """
    rows = shape[1]
    row = rows // 2 if row is None else row
    if not 0 <= row < rows:
        raise InputError(f"Row {row} was asked for, but '{source}' has rows 0 to {rows - 1}.")
    require_room((shape[0], *shape[2:]), 8, f"A detector row of '{source}'", "save fewer views or bin its columns", copies=3)
    return row


def as_sinogram(values: NDArray, row: int | None, source: str, *, stack: str | None = None) -> tuple[NDArray, int | None, int]:
    """One row of (angle, row, column) data, of (row, angle, column) sinograms or, `TURNED`, (angle, column, row) pictures, or a
    sinogram as it is.

    Returns
    -------
    tuple
        The sinogram, the row's number and the number of rows.
    """
    if values.ndim != 3:
        return values, None, 1
    if stack == "sinograms":
        values = values.swapaxes(0, 1)
    elif stack == TURNED:
        values = values.swapaxes(1, 2)
    row = middle_row(values.shape, row, source)
    return values[:, row], row, values.shape[1]
