"""Masks of regions: pictures, stacks and arrays of true and false, or of each pixel's share."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.anyarray import read_array
from ctuq.files.formats.pictures import ColouredError


def read_mask(text: str | Path) -> NDArray[np.float64]:
    """A mask (y, x) or (z, y, x): shares from 0 to 1, or two values of which the larger counts.

    Raises
    ------
    InputError
        As `read_array`, or if it holds other values.
    """
    try:
        values = read_array(text, "a mask", "mask").astype(np.float64)
    except ColouredError as error:
        raise InputError(
            f"'{text}': a mask has no palette, colours or transparency; save it in grey, with two values or shares from 0 to 1."
        ) from error
    if values.ndim not in (2, 3):
        raise InputError(f"'{text}': a mask has 2 or 3 axes, and this one has the shape {values.shape}.")
    if not np.isfinite(values).all():
        raise InputError(f"'{text}': a mask holds no NaN or infinite values; this one does.")
    if values.min() >= 0 and values.max() <= 1:
        return values
    known = np.unique(values)
    if len(known) != 2:
        raise InputError(
            f"'{text}': a mask has two values, or shares from 0 to 1; this one has {len(known)}, from {known[0]:g} to "
            f"{known[-1]:g}."
        )
    return (values == known[1]).astype(np.float64)
