"""A volume's reconstruction, and its files: one HDF5 in the manner of NXtomoproc that reads back equal, and a TIFF stack."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.formats.ownscan import grid_tree
from ctuq.files.formats.ownvolume import space_from_tree, space_tree
from ctuq.guard import reading
from ctuq.text import shortened
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Provenance
from ctuq.tomo.space import VolumeGeometry
from ctuq.uncertainty.tiff import write_attenuation

KIND = "volume result"


@dataclass(frozen=True, eq=False)
class VolumeResult:
    """A reconstructed volume, without error bars.

    Parameters
    ----------
    mean : array of float32, shape (z, y, x)
        Attenuation in 1/mm; slice 0 is the lowest, row 0 at the largest y.
    grid : VolumeGrid
    geometry : ConeBeam, Parallel3D or FreeBeam
        Of the views that were used.
    method : str
    provenance : Provenance
        Of the scan.
    truth : array of float32, same shape, optional
    scores : mapping of str to float
        Against the truth.
    timings : mapping of str to float
        Wall seconds of each stage.
    settings, versions : mapping
    warnings : tuple of str
        What the user should know before trusting the figures, beginning with those of the scan.
    """

    mean: NDArray[np.float32]
    grid: VolumeGrid
    geometry: VolumeGeometry
    method: str
    provenance: Provenance = field(default_factory=Provenance)
    truth: NDArray[np.float32] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str | float | int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one HDF5 file, whole or not at all; the volume is chunked, so that slices can be read alone.

        Raises
        ------
        InputError, ResourceError
            If the file cannot be written.
        """
        images = {"data": self.mean} | ({} if self.truth is None else {"truth": self.truth})
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("mean", "truth")}
        rest |= {
            "grid": grid_tree(self.grid),
            "geometry": space_tree(self.geometry),
            "provenance": {f.name: getattr(self.provenance, f.name) for f in fields(Provenance)},
        }
        entry = {
            "title": f"{self.method} reconstruction of {self.provenance.source}",
            "definition": "NXtomoproc",
            "reconstruction": {
                "program": "ctuq",
                "version": self.versions.get("ctuq", "unknown"),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "parameters": {"raw_file": self.provenance.source, "raw_file_sha256": self.provenance.sha256, **self.settings},
            },
            "data": {**images, **_axes(self.grid)},
            "ctuq": rest,
        }
        records.write(path, {"entry": entry}, kind=KIND, attributes=_attributes(images))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "VolumeResult":
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, truncated or foreign.
        """
        tree = records.read(path, kind=KIND)
        with reading(path, "a volume of ctuq"):
            try:
                return _volume(tree)
            except (InputError, KeyError, TypeError) as error:
                why = shortened(error, 300)
                raise InputError(f"'{path}' is a volume of ours with parts missing or wrong ({why}); make it again.") from error


def _volume(tree: Mapping[str, Any]) -> VolumeResult:
    rest, data = tree["entry"]["ctuq"], tree["entry"]["data"]
    parts = {
        "grid": records.made(VolumeGrid, rest["grid"]),
        "geometry": space_from_tree(rest["geometry"]),
        "provenance": records.made(Provenance, rest["provenance"]),
    }
    found = records.made(VolumeResult, {**rest, **parts, "mean": data["data"], "truth": data.get("truth")})
    for name in ("mean", "truth"):
        volume = getattr(found, name)
        if volume is not None and volume.shape != found.grid.shape:
            raise InputError(f"'{name}' has shape {volume.shape}, the grid {found.grid.shape}")
    return found


def write_stack(result: VolumeResult, folder: str | os.PathLike) -> Path:
    """Write ``mean.tif``: a page a slice, the lowest first, float32 in 1/mm, with the voxel size in the resolution tags.

    Raises
    ------
    InputError, ResourceError
        If the folder cannot be written to.
    """
    about = {
        "what": "mean",
        "units": "1/mm",
        "voxel_mm": result.grid.voxel,
        "centre_mm": list(result.grid.centre),
        "axes": "z (upwards), y (downwards), x",
        "method": result.method,
        "source": result.provenance.source,
    }
    return write_attenuation(Path(folder) / "mean.tif", result.mean, result.grid.voxel, about)


def _axes(grid: VolumeGrid) -> dict[str, NDArray]:
    """Positions of the voxels' centres in mm; y falls with the row."""
    places = {
        name: centre + (np.arange(n) - (n - 1) / 2) * grid.voxel
        for name, n, centre in zip("zyx", grid.shape, grid.centre[::-1], strict=True)
    }
    return places | {"y": 2 * grid.centre[1] - places["y"]}


def _attributes(images: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    classes = {
        "entry": "NXentry",
        "entry/reconstruction": "NXprocess",
        "entry/reconstruction/parameters": "NXparameters",
        "entry/data": "NXdata",
        "entry/ctuq": "NXcollection",
    }
    attributes = {node: {"NX_class": name} for node, name in classes.items()}
    attributes["entry"]["default"] = "data"
    attributes["entry/data"] |= {"signal": "data", "axes": "z:y:x"}
    attributes |= {f"entry/data/{name}": {"units": "1/mm"} for name in images}
    return attributes | {f"entry/data/{axis}": {"units": "mm"} for axis in "zyx"}
