"""Pictures (TIFF, PNG): bare numbers that a geometry file makes a scan of."""

import re
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.io import imread

from ctuq.errors import InputError
from ctuq.files.formats.raw import Raw, as_sinogram

PICTURES = (".tif", ".tiff", ".png")


def read_pictures(path: Path, row: int | None) -> Raw:
    """Read one sinogram, a multi-page stack of projections, or a folder of projections.

    Raises
    ------
    InputError
        If a picture is damaged, coloured or of another size than the others, or the folder has none.
    """
    values, row, rows = as_sinogram(load_pictures(path), row, str(path))
    return Raw("folder of pictures" if path.is_dir() else "picture", values, "log", {}, row=row, rows=rows)


def load_pictures(path: Path) -> NDArray:
    """The numbers of a picture (2 axes), a stack or a folder of pictures in natural order (3 axes: angle, row, column).

    Raises
    ------
    InputError
        As `read_pictures`.
    """
    if path.is_dir():
        return _folder(path)
    values = load_picture(path)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InputError(f"'{path}' has shape {values.shape}; one picture or one stack of pictures is needed.")
    return values


def load_picture(path: Path) -> NDArray:
    """The grey values of a picture or of a multi-page TIFF.

    Raises
    ------
    InputError
        If it is damaged, coloured or missing.
    """
    tiff = path.suffix.lower() in (".tif", ".tiff")
    try:
        values = np.asarray(tifffile.imread(path) if tiff else imread(path))
    except Exception as error:  # each decoder raises its own types on damaged files
        raise InputError(f"'{path}' is not a whole {'TIFF' if tiff else 'PNG'} picture; copy it again.") from error
    if values.ndim == 3 and not tiff:
        raise InputError(f"'{path}' is a colour picture; grey values are needed.")
    return values


def _folder(path: Path) -> NDArray:
    names = sorted((p for p in path.iterdir() if p.suffix.lower() in PICTURES), key=_natural)
    if not names:
        raise InputError(f"The folder '{path}' holds no TIFF or PNG picture.")
    pictures = [load_picture(name) for name in names]
    odd = next((n for n, p in zip(names, pictures, strict=True) if p.ndim != 2 or p.shape != pictures[0].shape), None)
    if odd is not None:
        raise InputError(f"'{odd}' has another size than '{names[0].name}'; all projections must have one.")
    return np.stack(pictures)


def _natural(path: Path) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
