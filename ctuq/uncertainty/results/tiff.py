"""Attenuation as TIFF pictures that any program opens, each written whole."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ctuq import records
from ctuq.uncertainty.results.volume import VolumeResult

_BIG = 2**32 - 2**25


def write_attenuation(path: Path, values: NDArray, pitch: float, about: Mapping[str, object]) -> Path:
    """Write float32 in 1/mm, one page a slice, with the pixel size in the resolution tags.

    Parameters
    ----------
    path : Path
        Of the file, which is returned.
    values : array, shape (y, x)
    pitch : float
        Side of a pixel, mm.
    about : mapping
        What the picture shows, as JSON in its description.

    Raises
    ------
    InputError, ResourceError
        If it cannot be written.
    """
    values = np.asarray(values, dtype=np.float32)
    tags = {**_tags(pitch), "description": json.dumps(about), "metadata": None}
    records.write_whole(path, lambda target: tifffile.imwrite(target, values, bigtiff=4 * values.size > _BIG, **tags))
    return path


def write_volume_tiff(path: Path, result: VolumeResult, name: str) -> Path:
    """Write one of a volume's images as a stack: a page a slice, the lowest first, never more than one of them in memory.

    The resolution tags tell the size of a pixel, and the description, as ImageJ reads it, the step from slice to slice. Both
    are in cm: ImageJ takes the description's unit for that of the tags, which have no mm, and made pixels a tenth of their
    size.

    Raises
    ------
    InputError, ResourceError
        If it cannot be written.
    """
    volume, (step, pitch, _) = result.images[name], result.pitches
    about = {
        "what": name,
        "units": "1/mm",
        "voxel_mm": [pitch, pitch, step],
        "centre_mm": list(result.grid.centre),
        "axes": "z (upwards), y (downwards), x",
        "method": result.method,
        "source": result.provenance.source,
    }
    depth = volume.shape[0]
    told = f"ImageJ=1.11a\nimages={depth}\nslices={depth}\nunit=cm\nspacing={step / 10:.9g}\nloop=false\n"
    told += f"about={json.dumps(about)}\n"

    def fill(target: io.BufferedRandom) -> None:
        with tifffile.TiffWriter(target, bigtiff=4 * int(np.prod(volume.shape)) > _BIG) as tiff:
            for z in range(depth):
                first: dict[str, Any] = {"description": told} if z == 0 else {}
                tiff.write(np.asarray(volume[z], np.float32), metadata=None, **_tags(pitch), **first)

    records.write_whole(path, fill)
    return path


def _tags(pitch: float) -> dict[str, Any]:
    per_cm = 10 / pitch
    return {
        "photometric": "minisblack",
        "resolution": (per_cm, per_cm),
        "resolutionunit": "CENTIMETER",
        "software": "ctuq",
    }
