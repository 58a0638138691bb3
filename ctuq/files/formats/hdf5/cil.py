"""The ``.nxs`` files of the Core Imaging Library (CIL): an AcquisitionData with its whole geometry, of which one row is read.

Names and attributes are those of its ``NEXUSDataWriter``. Its axes are x to the right, y along the beam, z up, and its angles
turn the sample counter-clockwise: by its own conversion to ASTRA source and detector turn clockwise, so ctuq's angle is minus
CIL's, with the same x and y. Rows and columns begin at the panel's origin (bottom-left unless said).
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.cone import fan_row, tilted
from ctuq.files.formats.hdf5 import parts
from ctuq.files.formats.hdf5.told import numbers_of
from ctuq.files.formats.raw import Raw, middle_row
from ctuq.memory import require_room

_ENTRY = "entry1/tomo_entry"
_DATA = _ENTRY + "/data/data"
_AXES = ("angle", "vertical", "horizontal")
_TILTED = 0.1


def is_cil(file: h5py.File) -> bool:
    """Whether an HDF5 file was written by CIL's NEXUSDataWriter."""
    data = file.get(_DATA)
    return isinstance(data, h5py.Dataset) and "data_type" in data.attrs and "dim0" in data.attrs


def read_cil(path: Path, row: int | None) -> Raw:
    """Read an AcquisitionData; the angles, the panel and the positions become a parallel or fan beam.

    Of one row in several channels (energies, or frames of a process) the row's number is that of the channel.

    Raises
    ------
    InputError
        If the file holds an image, several channels of several rows, or a geometry that no circular scan has.
    """
    with parts.opened_hdf5(path) as file:
        data: Any = parts.readable(parts.found(file, _DATA, path), path)
        if (kind := _word(data.attrs["data_type"])) != "AcquisitionData":
            raise InputError(f"'{path}' holds {kind} of CIL, no projections; write the AcquisitionData.")
        config: Any = file.get(_ENTRY + "/config")
        if not isinstance(config, h5py.Group) or "angles" not in config:
            stack = "', 'stack: sinograms" if _word(data.attrs["dim0"]) == "vertical" else ""
            raise InputError(
                f"'{path}' has no geometry ('config'): write the AcquisitionData again with CIL 21 or later, or say it in a "
                f"geometry file, with 'data: {_DATA}{stack}' and 'angles: {_ENTRY}/data/rotation_angle'."
            )
        beam = _Beam(config, data, path)
        axes = [_word(data.attrs.get(f"dim{i}", "nothing")) for i in range(len(data.shape or ()))]
        if data.dtype.kind not in "iuf" or len(set(axes)) < len(axes):
            raise InputError(f"'{path}' has data of {data.dtype} with the axes {', '.join(axes)}; write the file again.")
        several = "channel" in axes and "vertical" in axes
        if "angle" not in axes or "horizontal" not in axes or not set(axes) <= {*_AXES, "channel"} or several:
            raise InputError(
                f"'{path}' has the axes {', '.join(axes)}; {', '.join(_AXES)} are read, or one channel of {_AXES[0]} and "
                f"{_AXES[2]}: write one channel of the AcquisitionData."
            )
        channel, of_channel = _channel(data.shape[axes.index("channel")], row, path) if "channel" in axes else (None, ())
        row = row if channel is None else None
        rows = data.shape[axes.index("vertical")] if "vertical" in axes else 1
        slope = 0.0 if beam.length == np.inf else beam.pitch / beam.length
        row, warnings = fan_row(rows, row, beam.plane(rows), slope, str(path)) if rows > 1 else (None, ())
        views, columns = (data.shape[axes.index(axis)] for axis in ("angle", "horizontal"))
        require_room((views, columns), 8, f"'{path}'", "check where the file comes from", copies=4)
        place = tuple({"vertical": row or 0, "channel": channel or 0}.get(axis, slice(None)) for axis in axes)
        values = np.asarray(data[place])
        if axes.index("angle") > axes.index("horizontal"):
            values = values.T
        if "scale" in data.attrs:
            offset, scale = (_number(data.attrs, name, path) for name in ("offset", "scale"))
            values = (values.astype(np.float64) - offset) / scale
        values = values[:, ::-1] if beam.is_reversed else values
        fields = beam.fields() | ({"middle_row": beam.plane(rows), **beam.stacking()} if rows > 1 else {})
        raw = Raw("CIL AcquisitionData", values, "log", fields, row=row, rows=rows)
        return raw.warned(*of_channel, *warnings, *beam.warnings, *_looks_like_transmission(values))


def _channel(count: int, asked: int | None, path: Path) -> tuple[int, tuple[str, ...]]:
    """Which energy channel or frame of a fan to read, by the number that is else the row's, and what is to be told of it."""
    channel = middle_row((0, count), asked, str(path))
    if count == 1 or asked is not None:
        return channel, ()
    told = f"Of {count} channels (energies or frames) only the middle one, {channel}, is read; give 'row' in a geometry file."
    return channel, (told,)


class _Beam:
    """CIL's positions in the plane of rotation, in terms of the detector's own direction."""

    def __init__(self, config: Any, data: Any, path: Path):
        self._config, self._data, self._path = config, data, path
        kind = _word(data.attrs.get("geometry", "parallel"))
        if kind not in ("cone", "parallel"):
            raise InputError(f"'{path}' has CIL's geometry '{kind}', which is no circular scan; cone and parallel are read.")
        self.is_cone = kind == "cone"
        across = self._vector("detector/direction_x")
        across = across / np.hypot(*across[:2])
        source = self._vector("source/position") if self.is_cone else None
        detector, axis = self._vector("detector/position"), self._vector("rotation_axis/position")
        along = self._vector("ray/direction") if source is None else detector - source
        # Columns run to the right as seen from the source; where CIL's run to the left the array is turned over.
        mirrored = across[0] * along[1] - across[1] * along[0] < 0
        self.across = -across[:2] if mirrored else across[:2]
        self.is_reversed = mirrored != ("right" in _word(data.attrs.get("panel_origin", "bottom-left")))
        self.normal = np.array([-self.across[1], self.across[0]])
        self.source, self.detector, self.axis = source, detector, axis
        self.length = np.inf if source is None else float((detector - source)[:2] @ self.normal)
        if "pixel_size_h" not in data.attrs:
            raise InputError(f"'{path}' does not say its pixel size; write the AcquisitionData again.")
        self.upwards = self._vector("rotation_axis/direction") if "rotation_axis/direction" in config else np.array([0, 0, 1.0])
        self.pitch = self._attribute("pixel_size_v" if "pixel_size_v" in data.attrs else "pixel_size_h")

    def fields(self) -> dict[str, object]:
        angles: Any = self._config["angles"]
        unit = _word(angles.attrs.get("angle_unit", "degree"))
        first = _number(angles.attrs, "initial_angle", self._path) if "initial_angle" in angles.attrs else 0.0
        turned = numbers_of(angles, "angles", self._path).astype(np.float64) + first
        turned = turned if unit.startswith("rad") else np.deg2rad(turned)
        fields: dict[str, object] = {
            "kind": "fan" if self.is_cone else "parallel",
            "angles": np.arctan2(self.across[1], self.across[0]) - np.sign(self.upwards[2]) * turned,
            "pixel": self._attribute("pixel_size_h"),
        }
        if self.source is None:
            # Only the distance between the detector's centre and the axis' shadow counts.
            return fields | {"detector_offset": float((self.detector - self.axis)[:2] @ self.across), "axis_offset": 0.0}
        return fields | {
            "source_to_axis": float((self.axis - self.source)[:2] @ self.normal),
            "source_to_detector": self.length,
            "detector_offset": float((self.detector - self.source)[:2] @ self.across),
            "axis_offset": float((self.axis - self.source)[:2] @ self.across),
        }

    def plane(self, rows: int) -> float:
        """The row in the plane through the source, or the middle one."""
        middle = (rows - 1) / 2
        if self.source is None or len(self.detector) < 3:
            return middle
        above = (self.source[2] - self.detector[2]) / self.pitch
        return middle + (-above if "top" in _word(self._data.attrs.get("panel_origin", "bottom-left")) else above)

    def stacking(self) -> dict[str, object]:
        """The rows' pitch, and whether they are stored from below."""
        return {
            "row_pixel": self.pitch,
            "rows_upwards": "top" not in _word(self._data.attrs.get("panel_origin", "bottom-left")),
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        tilt = np.rad2deg(np.arctan2(np.hypot(*self.upwards[:2]), abs(self.upwards[2])))
        return (tilted(tilt),) if tilt > _TILTED else ()

    def _vector(self, name: str) -> NDArray[np.float64]:
        found = np.zeros(0) if name not in self._config else numbers_of(self._config[name], name, self._path).astype(np.float64)
        if found.size not in (2, 3) or not np.isfinite(found).all():
            raise InputError(f"'{self._path}' has no '{name}' (x, y, z) in its geometry; write the AcquisitionData again.")
        return found

    def _attribute(self, name: str) -> float:
        return _number(self._data.attrs, name, self._path)


def _number(attributes: Any, name: str, path: Path) -> float:
    found = np.ravel(attributes.get(name, ()))
    if found.size != 1 or found.dtype.kind not in "iuf" or not np.isfinite(found[0]):
        raise InputError(f"'{path}' has no number for its '{name}'; write the AcquisitionData again.")
    return float(found[0])


def _looks_like_transmission(values: NDArray) -> tuple[str, ...]:
    """A warning where the detector's edges, which see air, are near 1: line integrals are near 0 there."""
    edges = float(np.median(values[:, [0, -1]]))
    if not (0.8 < edges < 1.2 and float(values.min()) > 0 and float(np.median(values)) <= edges):
        return ()
    return (f"The detector's edges read {edges:.2f}, as transmission does in air: say 'values: transmission' if that is so.",)


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
