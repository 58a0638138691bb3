"""What is asked, from the command line, a YAML file and ImageJ's regions together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.app.measure.options import Measure
from ctuq.app.measure.texts import Asked, Shape, chance, limit, new_name, pair, regions, segment, shape, wall
from ctuq.errors import InputError
from ctuq.files.yamlfile import read_mapping
from ctuq.guard import reading
from ctuq.quantities import Circle, Polygon
from ctuq.tomo.geometry import VolumeGrid

_LISTS = ("contrast", "probability", "fraction", "porosity", "centre", "profile", "thickness")
_IMAGEJ = (".roi", ".zip")
_WITHOUT_AREA = ("LINE", "FREELINE", "POLYLINE", "ANGLE", "POINT", "NOROI")
"""Kinds of ImageJ's regions; their corners come as those of a polygon do."""


def asked(command: Measure, grid: VolumeGrid) -> Asked:
    """What a command asks for, its file first.

    Raises
    ------
    InputError
        If nothing is asked, or something is no region, limit or line.
    """
    shapes: dict[str, Shape] = {}
    texts: dict[str, list[str]] = {name: [] for name in _LISTS}
    if command.regions is not None and command.regions.suffix.lower() in _IMAGEJ:
        shapes = _of_imagej(command.regions, grid)
    elif command.regions is not None:
        shapes, texts = _of_yaml(command.regions)
    texts = {name: [*gathered, *getattr(command, name)] for name, gathered in texts.items()}
    shapes |= regions(command.region, shapes)
    found = Asked(
        shapes,
        tuple(pair(text, shapes) for text in texts["contrast"]),
        tuple(chance(text) for text in texts["probability"]),
        tuple(limit(text, f"--{name}") for name in ("fraction", "porosity") for text in texts[name]),
        tuple(limit(text, "--centre") for text in texts["centre"]),
        tuple(segment(text, "--profile") for text in texts["profile"]),
        tuple(wall(text) for text in texts["thickness"]),
    )
    if not (found.regions or found.profiles or found.walls):
        raise InputError("Nothing is to be measured: give a --region such as circle:0,0,5, a --thickness or a --profile.")
    if not found.regions and (found.probabilities or found.fractions or found.centres or command.difference):
        raise InputError("Fractions, centres, probabilities and changes are of regions: give a --region such as circle:0,0,5.")
    return found


def _of_yaml(path: Path) -> tuple[dict[str, Shape], dict[str, list[str]]]:
    """Regions by name, and the texts of what is asked of them."""
    entries = read_mapping(path, "file of regions")
    unknown = [str(key) for key in entries if key not in (*_LISTS, "regions")]
    if unknown:
        raise InputError(
            f"The file of regions '{path}' has the unknown key {unknown[0]!r}; known: regions, {', '.join(_LISTS)}."
        )
    shapes = entries.get("regions") or {}
    if not isinstance(shapes, dict):
        raise InputError(f"'regions' in '{path}' has lines 'NAME: circle:x,y,r', not {type(shapes).__name__}.")
    texts = {name: _list(entries.get(name), name, path) for name in _LISTS}
    named: dict[str, Shape] = {}
    for key, text in shapes.items():
        name = new_name(str(key), named)
        named[name] = shape(str(text))
    return named, texts


def _list(entry: Any, name: str, path: Path) -> list[str]:
    if entry is None:
        return []
    parts = entry if isinstance(entry, list) else [entry]
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"'{name}' in '{path}' is a text or a list of texts, as on the command line.")
    return parts


def _of_imagej(path: Path, grid: VolumeGrid) -> dict[str, Shape]:
    """Regions of ImageJ, drawn on mean.tif: pixels from its upper left corner, which mm are made of."""
    try:
        import roifile
    except ImportError as error:
        raise InputError("ImageJ's regions need the package roifile: pip install 'ctuq[readers]'.") from error
    with reading(path, "regions of ImageJ"):
        found = roifile.roiread(path)
        rois = found if isinstance(found, list) else [found]
        flat = [roi.roitype.name in _WITHOUT_AREA for roi in rois]
        parts = [(roi.name, _outlines(roi, roi.roitype == roifile.ROI_TYPE.OVAL)) for roi in rois]
    left, _, _, top = grid.extent
    shapes: dict[str, Shape] = {}
    for index, (name, outlines) in enumerate(parts):
        every = [o for o in outlines if len(o) >= 3 and not flat[index]]
        mm = [np.stack([left + o[:, 0] * grid.voxel, top - o[:, 1] * grid.voxel], axis=1) for o in every]
        if not mm:
            raise InputError(f"Region {index + 1} in '{path}' is a line or points; only regions with an area are measured.")
        shapes[_unique(name or f"region {index + 1}", shapes)] = Polygon(mm[0].tolist(), tuple(o.tolist() for o in mm[1:]))
    return shapes


def _outlines(roi: Any, oval: bool) -> list[NDArray]:
    """Corners in ImageJ's pixels; of an oval as many as of a circle, for roifile gives 32, whose area is 0.6 % too small."""
    given = roi.coordinates(multi=True)
    outlines = given if isinstance(given, list) else [given]
    if not oval:
        return outlines
    low, high = outlines[0].min(axis=0), outlines[0].max(axis=0)
    return [(low + high) / 2 + (high - low) / 2 * Circle(0, 0, 1).outlines[0]]


def _unique(name: str, taken: Mapping[str, Shape]) -> str:
    names = (name, *(f"{name} {n}" for n in range(2, len(taken) + 3)))
    return next(each for each in names if each not in taken)
