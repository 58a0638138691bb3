"""Attenuation as TIFF pictures that any program opens, each written whole."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from ctuq import records

_BIG = 2**32 - 2**25


def write_attenuation(path: Path, values: NDArray, pitch: float, about: Mapping[str, object]) -> Path:
    """Write float32 in 1/mm, one page a slice, with the pixel size in the resolution tags.

    Parameters
    ----------
    path : Path
        Of the file, which is returned.
    values : array, shape (y, x) or (z, y, x)
    pitch : float
        Side of a pixel, mm.
    about : mapping
        What the picture shows, as JSON in its description.

    Raises
    ------
    InputError, ResourceError
        If it cannot be written.
    """
    per_cm = 10 / pitch
    records.write_whole(
        path,
        lambda target: tifffile.imwrite(
            target,
            np.asarray(values, dtype=np.float32),
            bigtiff=4 * values.size > _BIG,
            photometric="minisblack",
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            description=json.dumps(about),
            software="ctuq",
            metadata=None,
        ),
    )
    return path
