"""What the command line does, for a notebook: a simulated scan, a scan in another format, quantities of a result."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ctuq import files
from ctuq.errors import InputError
from ctuq.quantities.quantity import LEVEL, Quantity
from ctuq.tomo.geometry import radians
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.scan import Scan
from ctuq.tomo.simulate import phantom_scan
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import VolumeResult

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


def measure(
    result: Result | VolumeResult | str | os.PathLike,
    regions: Mapping[str, Any],
    *,
    above: float | None = None,
    below: float | None = None,
    contrasts: Iterable[tuple[str, str]] = (),
    level: float = LEVEL,
) -> dict[str, Quantity]:
    """Means of regions, and what is asked of them besides, each with its interval: what ``ctuq measure`` prints.

    Everything else that a result answers is a method of it: `Result.profile`, `Result.thickness`, `Result.centre`,
    `Result.measure` (any function of the image) and others.

    Parameters
    ----------
    result : Result, VolumeResult or path
        Or the results file of an image.
    regions : mapping of str to region
        By name: of an image `ctuq.quantities.Circle`, `Rectangle`, `Polygon` or a mask, of a volume `Sphere`, `Box`,
        `Cylinder` or a mask.
    above, below : float, optional
        1/mm; one of them asks for the share of each region that lies above, or below, it.
    contrasts : pairs of names
        Mean of the first region less that of the second.
    level : float
        Probability that an interval is to hold.

    Returns
    -------
    dict of str to Quantity
        By "mean of NAME", "share of NAME below 0.02" and "A less B".

    Raises
    ------
    InputError
        If a contrast names no region, or the result refuses a question.

    Examples
    --------
    >>> ctuq.measure("run/results.h5", {"grain": ctuq.quantities.Circle(2, 1, 5)}, below=0.02)  # doctest: +SKIP
    """
    asked = Result.load(result) if isinstance(result, str | os.PathLike) else result
    pairs = list(contrasts)
    for name in {name for pair in pairs for name in pair} - set(regions):
        raise InputError(f"A contrast asks for the region {name!r}; there are {', '.join(map(repr, regions)) or 'none'}.")
    limits: dict[str, Any] = {word: limit for word, limit in (("above", above), ("below", below)) if limit is not None}
    words = " and ".join(f"{word} {limit:g}" for word, limit in limits.items())
    found = []
    for name, region in regions.items():
        found.append(asked.region(region, name=f"mean of {name}", level=level))
        if limits:
            found.append(asked.fraction(region, **limits, name=f"share of {name} {words}", level=level))
    found += [asked.contrast(regions[a], regions[b], name=f"{a} less {b}", level=level) for a, b in pairs]
    return {quantity.name: quantity for quantity in found}
