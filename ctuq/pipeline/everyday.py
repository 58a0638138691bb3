"""Two things that the command line does, for a notebook: a simulated scan, and a scan in another format."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ctuq import files
from ctuq.errors import InputError
from ctuq.tomo.geometry import radians
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.scan import Scan
from ctuq.tomo.simulate import phantom_scan

OWN, NXTOMO = (".h5", ".hdf5"), (".nx", ".nxs")


def simulate(
    phantom: str = "rectangles",
    *,
    size: int = 128,
    angles: int | ArrayLike = 20,
    noise: float = 0.05,
    seed: int = 0,
) -> Scan:
    """A simulated scan of a slice by parallel rays, with its truth: what ``ctuq simulate`` writes.

    Parameters
    ----------
    phantom : {"rectangles", "ellipses", "shepp-logan", "glyph"}
    size : int
        Pixels along x and y of the truth, which is 40 mm wide.
    angles : int or array
        How many views over half a turn; or their angles in radians.
    noise : float
        Standard deviation over the mean projection.
    seed : int
        Of the phantom and the noise.

    Raises
    ------
    InputError
        If there is no such phantom, or a number is out of range.

    Examples
    --------
    >>> ctuq.simulate("shepp-logan", size=64, angles=30).projections.shape  # doctest: +SKIP
    (30, 93)
    """
    if phantom not in PHANTOMS:
        raise InputError(f"There is no phantom {phantom!r} of a slice; choose one of {', '.join(PHANTOMS)}.")
    if not 0 <= noise < np.inf:
        raise InputError(f"The noise is 0 or a positive share of the mean projection, such as 0.05, not {noise}.")
    count = isinstance(angles, int | np.integer)
    if count and not 1 <= int(angles) <= 100_000:  # pyright: ignore[reportArgumentType]
        raise InputError(f"A simulation takes 1 to 100000 angles, got {angles}.")
    views = radians(np.arange(angles) * 180.0 / angles) if count else np.asarray(angles, np.float64).reshape(-1)  # pyright: ignore
    if not views.size or not np.isfinite(views).all():
        raise InputError("The angles must be a number of views, or finite numbers of radians.")
    return phantom_scan(phantom, size, views, noise=noise, seed=seed)


def convert(source: str | os.PathLike, target: str | os.PathLike, *, every: int = 1, **reading) -> Scan:
    """Write a scan of any format as ctuq's own HDF5 (``.h5``) or as NXtomo for other programs (``.nx``); the scan is returned.

    Parameters
    ----------
    source : path
    target : path
        A file that does not exist.
    every : int
        Take every so-manieth view.
    **reading
        Of `ctuq.read`, for example ``geometry``.

    Raises
    ------
    InputError
        If the target exists or does not say its format by its ending, or the source cannot be read.
    """
    out = Path(target)
    if out.suffix.lower() not in OWN + NXTOMO:
        raise InputError(f"'{out}' does not say its format: end it in {', '.join(OWN + NXTOMO)}.")
    if out.exists():
        raise InputError(f"'{out}' exists already; choose another name, or delete it first.")
    scan = files.read(source, **reading).every(every)
    if out.suffix.lower() in OWN:
        files.write_scan(scan, out)
    else:
        files.write_nxtomo([scan], out)
    return scan
