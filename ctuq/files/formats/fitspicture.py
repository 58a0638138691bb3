"""FITS pictures, as cameras of neutron beamlines write them: bare numbers that a geometry file makes a scan of.

The numbers are those that the file means (its zero and scale applied) in the machine's own byte order, and rows are in the
order in which they are stored. Pixels that a file calls blank are NaN. Read by astropy, of the extra "readers".
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import CtuqError, InputError
from ctuq.files.formats.extras import extra
from ctuq.files.formats.sizes import refuse_bomb
from ctuq.memory import require_room
from ctuq.text import listed

MAGIC = b"SIMPLE  ="
SUFFIXES = (".fits", ".fit", ".fts", ".fz")
_BROKEN = r"(?is).*(checksum|datasum)"


def is_fits(start: bytes) -> bool:
    """Whether a file with these first bytes is FITS."""
    return start.startswith(MAGIC)


def load_fits(path: Path) -> NDArray:
    """The numbers of the one picture (row, column) or stack (frame, row, column) of a FITS file.

    Axes of one number in front, as cameras write them, are left out.

    Raises
    ------
    InputError
        If the file is damaged, or holds no picture or several.
    BackendError
        If astropy is not installed.
    ResourceError
        If it does not fit into memory.
    """
    fits: Any = (extra("astropy", "FITS"), extra("astropy.io.fits", "FITS"))[1]
    try:
        # astropy warns of cards that are not quite of the standard, which is no matter of the numbers.
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=_BROKEN)
            return _values(fits, path)
    except (CtuqError, MemoryError):
        raise
    except Exception as error:  # astropy raises many types on damaged files
        raise InputError(f"'{path}' is not a whole FITS file; copy it again.") from error


def _values(fits: Any, path: Path, *, unsigned: bool = True) -> NDArray:
    with fits.open(path, mode="readonly", memmap=False, uint=unsigned, checksum=True, lazy_load_hdus=False) as file:
        part = _only_picture(file, path)
        if not (unsigned and "BLANK" in part.header):
            size = path.stat().st_size
            refuse_bomb(math.prod(part.shape) * abs(int(part.header["BITPIX"])) // 8, size, f"'{path}'")
            require_room(part.shape, 8, f"'{path}'", "save its pictures one by one in a folder", copies=2)
            info = part.fileinfo()
            if info is not None and info["datLoc"] + part.size > size and not _is_packed(part):
                raise EOFError(path)
            return _one_or_stack(np.asarray(part.data), path)
    # As numbers without a sign astropy gives blank ones like others.
    return _values(fits, path, unsigned=False)


def _one_or_stack(values: NDArray, path: Path) -> NDArray:
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "uif":
        raise InputError(f"'{path}' has data of shape {values.shape}; one picture or one stack of pictures is needed.")
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _is_packed(part: Any) -> bool:
    return type(part).__name__ == "CompImageHDU"


def _only_picture(file: Any, path: Path) -> Any:
    """The one part of a file that holds a picture."""
    found = [(number, part) for number, part in enumerate(file) if part.is_image and part.shape and math.prod(part.shape)]
    if not found:
        raise InputError(f"'{path}' is FITS without a picture, or cut short; give a whole file of projections.")
    if len(found) > 1:
        names = listed(f"{' x '.join(map(str, part.shape))} in part {number}" for number, part in found)
        raise InputError(f"'{path}' holds several pictures ({names}); save the one of the projections in a file of its own.")
    return found[0][1]
