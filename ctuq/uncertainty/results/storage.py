"""Results in files: one HDF5 in the manner of NeXus NXtomoproc that reads back equal, and TIFF pictures."""

import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.formats.ownscan import grid_tree, scan_from_tree, scan_tree
from ctuq.guard import reading
from ctuq.text import shortened
from ctuq.tomo.geometry import VolumeGrid
from ctuq.uncertainty.results.contents import Calibration, Contents, Systematic
from ctuq.uncertainty.results.tiff import write_attenuation

_Kind = TypeVar("_Kind", bound=Contents)
_UNSEALED = "The results file was edited after ctuq wrote it, or is of an older ctuq: no checksum guards its figures."
_IMAGES = ("std", "std_raw", "samples", "directions", "truth")
_CLASSES = {
    "entry": "NXentry",
    "entry/instrument": "NXinstrument",
    "entry/instrument/source": "NXsource",
    "entry/sample": "NXsample",
    "entry/reconstruction": "NXprocess",
    "entry/reconstruction/parameters": "NXparameters",
    "entry/data": "NXdata",
    "entry/ctuq": "NXcollection",
}


def save(result: Contents, path: str | os.PathLike) -> None:
    """Write everything in a result to an HDF5 file, whole or not at all.

    ``entry/data`` holds the images (``data`` is the mean) with their axes in mm; ``entry/reconstruction`` says what made them;
    ``entry/ctuq`` has the rest, with the scan.

    Raises
    ------
    InputError, ResourceError
        If the file cannot be written.
    """
    scan, told = result.scan, result.scan.provenance
    images = {name: getattr(result, name) for name in _IMAGES if getattr(result, name) is not None}
    rest = {f.name: getattr(result, f.name) for f in fields(Contents) if f.name not in ("mean", *_IMAGES)}
    calibration = result.calibration
    rest |= {
        "scan": scan_tree(scan),
        "grid": grid_tree(result.grid),
        "calibration": None if calibration is None else {f.name: getattr(calibration, f.name) for f in fields(Calibration)},
        "systematics": {name: asdict(found) for name, found in result.systematics.items()},
    }
    entry = {
        "title": f"{result.method} reconstruction of {told.source}",
        "definition": "NXtomoproc",
        "instrument": {"source": {"name": told.facts.get("instrument", "unknown"), "probe": "x-ray"}},
        "sample": {"name": told.facts.get("sample", "unknown")},
        "reconstruction": {
            "program": "ctuq",
            "version": result.versions.get("ctuq", "unknown"),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": {"raw_file": told.source, "raw_file_sha256": told.sha256, **result.settings},
        },
        "data": {"data": result.mean, **images, **_axes(result.grid)},
        "ctuq": rest,
    }
    records.write(path, {"entry": entry}, kind="result", attributes=_attributes(images))


def load(path: str | os.PathLike, kind: type[_Kind]) -> _Kind:
    """Read what `save` wrote, as a class of results.

    Raises
    ------
    InputError
        If the file is missing, truncated, foreign or of a newer format.
    """
    tree = records.read(path, kind="result")
    with reading(path, "a result of ctuq"):
        try:
            found = _result(tree, kind)
        except (InputError, KeyError) as error:
            why = shortened(error, 300)
            raise InputError(f"'{path}' is a result of ours with parts missing or wrong ({why}); make it again.") from error
    return found if records.is_sealed(path) else replace(found, warnings=(*found.warnings, _UNSEALED))


def _result(tree: Mapping[str, Any], kind: type[_Kind]) -> _Kind:
    entry = _group(tree, "entry")
    rest, data = _group(entry, "ctuq"), _group(entry, "data")
    calibration = rest["calibration"]
    parts = {
        "scan": scan_from_tree(_group(rest, "scan")),
        "grid": records.made(VolumeGrid, rest["grid"]),
        "calibration": None if calibration is None else records.made(Calibration, calibration),
        "systematics": {name: records.made(Systematic, found) for name, found in rest.get("systematics", {}).items()},
    }
    images = {"mean": data["data"], **{name: data.get(name) for name in _IMAGES}}
    result = records.made(kind, {**rest, **parts, **images})
    _refuse_other_shapes(result)
    return result


def _group(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(tree[name], dict):
        raise InputError(f"'{name}' is no group")
    return tree[name]


def _refuse_other_shapes(result: Contents) -> None:
    """Refuse images that are not on the grid."""
    shape = result.grid.shape
    alone = {name: getattr(result, name) for name in ("mean", "std", "std_raw", "truth")} | dict(result.comparisons)
    alone |= {f"effect of {name}": found.effect for name, found in result.systematics.items()}
    for name, image in alone.items():
        if image is not None and image.shape != shape:
            raise InputError(f"'{name}' has shape {image.shape}, the grid {shape}")
    for name in ("samples", "directions"):
        images = getattr(result, name)
        if images is not None and images.shape[1:] != shape:
            raise InputError(f"'{name}' has shape {images.shape}, the grid {shape}")
    found = result.calibration
    if found is not None and found.predictions.shape != (4, len(found.views), result.scan.geometry.columns):
        raise InputError(f"the predictions of held-out views have shape {found.predictions.shape}")


def write_tiff(result: Contents, folder: str | os.PathLike) -> tuple[Path, ...]:
    """Write ``mean.tif`` and, if there is one, ``std.tif``: float32 in 1/mm, with the pixel size in the resolution tags.

    Returns
    -------
    tuple of Path
        What was written.

    Raises
    ------
    InputError, ResourceError
        If the folder cannot be written to.
    """
    images = {"mean": result.mean} | ({} if result.std is None else {"std": result.std})
    return tuple(_write_picture(image, name, result, Path(folder)) for name, image in images.items())


def _write_picture(image: NDArray, name: str, result: Contents, folder: Path) -> Path:
    left, right, bottom, top = result.grid.extent
    about = {
        "what": name,
        "units": "1/mm",
        "pixel_mm": result.grid.voxel,
        "extent_mm": [left, right, bottom, top],
        "method": result.method,
        "source": result.scan.provenance.source,
    }
    return write_attenuation(folder / f"{name}.tif", image, result.grid.voxel, about)


def _axes(grid: VolumeGrid) -> dict[str, NDArray]:
    """Positions of the pixels' centres in mm; y falls with the row."""
    y, x = grid.places()[-2:]
    return {"x": x, "y": y}


def _attributes(images: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    attributes = {node: {"NX_class": name} for node, name in _CLASSES.items()}
    attributes["entry"]["default"] = "data"
    attributes["entry/data"] |= {"signal": "data", "axes": "y:x"}
    attributes |= {f"entry/data/{name}": {"units": "1/mm"} for name in ("data", *images)}
    attributes |= {f"entry/data/{axis}": {"units": "mm"} for axis in "xy"}
    geometry = "entry/ctuq/scan/geometry/"
    return attributes | {geometry + "rotation_angle": {"units": "degrees"}, geometry + "angles": {"units": "rad"}}
