"""Bare numbers of any kind of picture or stack, such as the flats that a geometry file names."""

from pathlib import Path

from numpy.typing import NDArray

from ctuq.files.formats.mrc import is_mrc, load_mrc
from ctuq.files.formats.pictures import load_pictures
from ctuq.files.formats.scanners.edf import is_edf, load_edf


def load_stack(path: Path) -> NDArray:
    """The numbers of a picture (2 axes), a stack or a folder of pictures in natural order (3 axes: frame, row, column).

    Raises
    ------
    InputError
        If it is damaged, coloured or missing, or the pictures are of several sizes.
    """
    if path.is_file() and is_mrc(path):
        return load_mrc(path)
    if path.is_file() and is_edf(path):
        return load_edf(path)
    return load_pictures(path)
