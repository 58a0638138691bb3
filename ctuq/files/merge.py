"""Several scans of one object, taken in one geometry, as one."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.assemble import Assembled, in_one_unit, of_mean_one
from ctuq.tomo.scan import Scan

_SAME_ANGLE = 1e-6
_ALIKE = 0.1
_WORTH = {"exposure": "nothing", "weight": "weights of the file", "counts": "counts"}


def merged(parts: Sequence[Assembled]) -> Scan:
    """The views of all parts in the order of their angles; of several views at one angle the first is kept.

    The truth and the grid are those of the first scan. Weights are in one unit: of parts of 200 and of 20,000 counts a ray in
    units of their own, the image had three times the error.

    Raises
    ------
    InputError
        If the scans differ in anything of their geometry but the angles.
    """
    scans = [part.scan for part in parts]
    first = scans[0]
    for other in scans[1:]:
        if (
            type(other.geometry) is not type(first.geometry)
            or replace(other.geometry, angles=first.geometry.angles) != first.geometry
        ):
            raise InputError(
                f"'{other.provenance.source}' has another detector or other distances than '{first.provenance.source}'; "
                "only views of one geometry can be merged."
            )
    angles = np.concatenate([scan.geometry.angles for scan in scans])
    turn = np.round(np.mod(angles, 2 * np.pi) / _SAME_ANGLE) % round(2 * np.pi / _SAME_ANGLE)
    kept = np.unique(turn, return_index=True)[1]
    weights, unlike = _weights(parts)
    repeated = len(angles) - len(kept)
    told = replace(
        first.provenance,
        source=", ".join(scan.provenance.source for scan in scans),
        sha256=hashlib.sha256("".join(scan.provenance.sha256 for scan in scans).encode()).hexdigest(),
    ).warned(*(text for scan in scans for text in scan.warnings))
    told = told.then(f"{len(scans)} files merged: {len(kept)} views, {repeated} at repeated angles left out")
    told = told.warned(*_differences(scans), *unlike)
    if repeated:
        told = told.warned(f"{repeated} of {len(angles)} views are at angles that an earlier file has, and were left out.")
    return Scan(
        np.concatenate([scan.projections for scan in scans])[kept],
        replace(first.geometry, angles=angles[kept]),
        None if weights is None else weights[kept],
        first.truth,
        first.grid,
        told,
    )


def _weights(parts: Sequence[Assembled]) -> tuple[NDArray[np.float32] | None, tuple[str, ...]]:
    """Weights of all views, mean 1 over the rays that count, and a warning where the parts' are of different kinds."""
    kinds = sorted({part.worth for part in parts})
    alike = in_one_unit(parts if len(kinds) == 1 else [replace(part, unit=1.0) for part in parts])
    if alike is None:
        return None, ()
    weights = np.concatenate(alike)
    if len(kinds) == 1:
        return of_mean_one(weights), ()
    words = " and ".join(_WORTH[kind] for kind in kinds)
    return weights, (f"The parts' rays are weighed by different things ({words}): every part is taken to be worth the same.",)


def _differences(scans: Sequence[Scan]) -> tuple[str, ...]:
    """Signs that the parts are of several objects: their names, and how much they attenuate in the mean.

    Of an object that stays within the field of view the mean of a parallel view is the same from all sides, of a fan nearly so.
    """
    told = []
    names = sorted({name for scan in scans if (name := scan.provenance.facts.get("sample"))})
    if len(names) > 1:
        told.append(f"The parts are of samples of different names, {' and '.join(repr(name) for name in names[:3])}.")
    means = [float(np.median(scan.projections.mean(axis=1))) for scan in scans]
    if max(means) - min(means) > _ALIKE * max(abs(value) for value in means):
        told.append(
            f"The parts attenuate differently (mean line integral {min(means):.3g} to {max(means):.3g}): are they of one "
            "object in one beam?"
        )
    return tuple(told)
