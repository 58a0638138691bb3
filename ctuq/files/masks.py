"""Masks of regions: pictures, stacks and arrays of true and false, or of each pixel's share."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.pictures import load_picture
from ctuq.guard import reading

_SUFFIXES = (".npy", ".tif", ".tiff", ".png")


def read_mask(path: Path) -> NDArray[np.float64]:
    """A mask (y, x) or (z, y, x) of a ``.npy``, TIFF or PNG: shares from 0 to 1, or two values of which the larger counts.

    Raises
    ------
    InputError
        If the file is damaged or holds other values.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"A mask is a file of {', '.join(_SUFFIXES)}, not '{path}'.")
    if not path.is_file():
        raise InputError(f"There is no mask '{path}'; check the name.")
    with reading(path, "a mask"):
        values = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else load_picture(path)
        values = np.asarray(values)
        if values.dtype.kind not in "biuf" or values.ndim not in (2, 3) or not values.size:
            raise InputError(f"a mask has 2 or 3 axes of real numbers, got {values.dtype} of shape {values.shape}")
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError("a mask holds no NaN or infinite values; this one does")
        if values.min() >= 0 and values.max() <= 1:
            return values
        known = np.unique(values)
        if len(known) != 2:
            raise InputError(
                f"a mask has two values, or shares from 0 to 1; this one has {len(known)} from {known[0]:g} to {known[-1]:g}"
            )
        return (values == known[1]).astype(np.float64)
