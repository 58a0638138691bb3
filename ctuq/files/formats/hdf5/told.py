"""What HDF5 of other programs tells: nodes by their names, lengths and angles by their units, with every doubt kept."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.angles import angles_of
from ctuq.files.formats.hdf5 import parts
from ctuq.files.formats.raw import Raw
from ctuq.files.units import millimetres
from ctuq.memory import require_room
from ctuq.tomo.scan import MONOCHROMATIC

_METRE, _LONGEST_TEXT = 1e3, 10_000
_PLAUSIBLE_PIXEL = (1e-6, 5.0)


@dataclass
class ToldGeometry:
    """Fields of a geometry as they are read, with what was assumed for them and what could not be read."""

    path: Path
    fields: dict[str, object] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)

    def angles(self, data: Any, views: NDArray[np.bool_] | None = None) -> None:
        """Angles by their unit; of the chosen images only."""
        try:
            values = numbers_of(data, "angles", self.path)
            angles, warnings = angles_of(values if views is None else values[views], unit_of(data), str(self.path))
        except InputError as error:
            self.doubts["angles"] = str(error)
            return
        self.fields["angles"] = angles
        if warnings:
            self.remarks["angles"] = " ".join(warnings)

    def pixel(self, data: Any, *, per: float = 1.0, remark: str = "") -> None:
        """A pixel size; without a unit metres where that is a pixel's size, else in doubt."""
        value, unit = number_of(data), unit_of(data)
        if value is None:
            return
        try:
            size = value * _METRE if not unit.strip() else millimetres(value, unit, f"The pixel size in '{self.path}'")
        except InputError as error:
            self.doubts["pixel"] = str(error)
            return
        if size is None:
            return
        if not unit.strip():
            if not _PLAUSIBLE_PIXEL[0] <= size <= _PLAUSIBLE_PIXEL[1]:
                self.doubts["pixel"] = (
                    f"The pixel size in '{self.path}' is {value:g} without a unit; give 'pixel' in mm in a geometry file."
                )
                return
            remark += f" The pixel size {value:g} has no unit and is taken as metres; else give 'pixel' in a geometry file."
        self.fields["pixel"] = size / per
        if remark:
            self.remarks["pixel"] = remark.strip()

    def rows_apart(self, wide: Any, high: Any) -> None:
        """The pitch of the rows by a pixel's width and height, of which the ratio is needed: in one unit whatever it is."""
        width, height = number_of(wide), number_of(high)
        if width is not None and height is not None and unit_of(wide).strip() != unit_of(high).strip():
            width, height = self.length(wide, "pixel's width"), self.length(high, "pixel's height")
        if "pixel" in self.fields and width and height and width > 0 and height > 0:
            self.fields["row_pixel"] = float(str(self.fields["pixel"])) * height / width

    def length(self, data: Any, name: str) -> float | None:
        """Another length in mm, metres without a unit."""
        value, unit = number_of(data), unit_of(data)
        if value is None:
            return None
        try:
            return value * _METRE if not unit.strip() else millimetres(value, unit, f"The {name} in '{self.path}'")
        except InputError as error:
            self.doubts["kind"] = str(error)
            return None


def raw_of(name: str, values: NDArray, told: ToldGeometry, flats: NDArray | None, darks: NDArray | None, **others: Any) -> Raw:
    """Counts where there are flats, else transmission; a parallel beam and pixels of 1 mm where nobody says otherwise."""
    kind = "transmission" if flats is None else "counts"
    assumed = {"kind": "parallel"} | ({"pixel": 1.0} if told.fields.get("kind") != "fan" else {})
    return Raw(
        name,
        values,
        kind,
        told.fields,
        flats,
        darks,
        remarks=told.remarks,
        doubts=told.doubts,
        assumed=assumed,
        stated=flats is not None,
        **others,
    )


def with_gaps(raw: Raw, data: h5py.Dataset) -> Raw:
    """The same, with a warning if parts of a dataset were never written."""
    share = parts.unwritten(data)
    if share <= 0:
        return raw
    return raw.warned(f"{share:.0%} of the file's data were never written (an aborted scan?); they read as zeros.")


def first_node(group: Any, names: tuple[str, ...], path: Path) -> Any:
    """What a group has under the first of these names that is there, else None."""
    return next((node for name in names if (node := parts.found(group, name, path)) is not None), None)


def needed_of(group: h5py.Group, names: tuple[str, ...], path: Path) -> Any:
    """The same, which must be there.

    Raises
    ------
    InputError
        If it is not.
    """
    found = first_node(group, names, path)
    if found is None:
        raise InputError(f"'{path}' lacks '{names[0]}', which its format needs.")
    return found


def stack_of(data: Any, path: Path) -> h5py.Dataset:
    """A dataset of three axes whose values are all there.

    Raises
    ------
    InputError
        If it is something else, or parts are missing.
    """
    if not isinstance(data, h5py.Dataset):
        raise InputError(f"'{path}' has a group in place of data; numbers of shape (angle, row, column) are needed.")
    if data.ndim != 3 or 0 in data.shape or data.dtype.kind not in "iuf":
        raise InputError(f"'{path}' has data of shape {data.shape}; numbers of shape (angle, row, column) are needed.")
    return parts.readable(data, path)


def numbers_of(node: Any, what: str, path: Path) -> NDArray:
    """All numbers of a dataset, along one axis.

    Raises
    ------
    InputError
        If it is no dataset or holds something else.
    """
    if not isinstance(node, h5py.Dataset) or node.shape is None or node.dtype.kind not in "biuf":
        raise InputError(f"The {what} of '{path}' are no numbers; give them in a geometry file.")
    require_room(node.shape, node.dtype.itemsize, f"'{node.name}' in '{path}'", "check where the file comes from")
    return np.ravel(parts.readable(node, path)[()])


def number_of(node: Any) -> float | None:
    """The first number of a dataset; None if there is none, or it is not finite."""
    if not isinstance(node, h5py.Dataset) or node.shape is None or not node.size or node.dtype.kind not in "iuf":
        return None
    value = float(node[(0,) * len(node.shape)])
    return value if np.isfinite(value) else None


def flag_of(node: Any) -> bool:
    """Whether a dataset says true: as a number, or in words."""
    if not isinstance(node, h5py.Dataset) or not node.size:
        return False
    first = node[(0,) * len(node.shape)]
    return words_of(first).strip().lower() in ("true", "yes", "1", "half") if isinstance(first, str | bytes) else bool(first)


def text_of(group: h5py.Group, name: str) -> str:
    """The text of a dataset, empty if there is none."""
    node: Any = group.get(name)
    if not isinstance(node, h5py.Dataset):
        return ""
    if (node.size or _LONGEST_TEXT + 1) > _LONGEST_TEXT:
        return ""
    value = np.ravel(node[()])
    return words_of(value[0]) if value.size else ""


def beam_told(group: Any, instrument: str, path: Path) -> dict[str, str]:
    """A scan's facts of its beam, if there is a monochromator with an energy (NXmonochromator; DXchange has it alike).

    ctuq writes one of a beam whose energy it does not know, and says in it that it is monochromatic.
    """
    node = parts.found(group, f"{instrument}/monochromator/energy", path)
    energy = number_of(node)
    if energy is not None and energy > 0:
        return {"beam": MONOCHROMATIC, "energy": f"{energy:.9g} {unit_of(node)}".strip()}
    described = parts.found(group, f"{instrument}/monochromator", path)
    said = text_of(described, "description") if isinstance(described, h5py.Group) else ""
    return {"beam": MONOCHROMATIC} if said.strip().lower() == MONOCHROMATIC else {}


def words_of(value: Any) -> str:
    """Text or bytes as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def unit_of(data: h5py.Dataset) -> str:
    """The unit that a dataset's attribute names, empty if it names none."""
    named = {str(name).lower(): name for name in data.attrs}
    key = named.get("units", named.get("unit"))
    told: Any = "" if key is None else data.attrs[key]
    units = np.ravel("" if isinstance(told, h5py.Empty) else told)
    return words_of(units[0]) if units.size else ""
