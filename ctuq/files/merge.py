"""Several scans of one object, taken in one geometry, as one."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ctuq.errors import InputError
from ctuq.tomo.scan import Scan

_SAME_ANGLE = 1e-6
_ALIKE = 0.1


def merged(scans: Sequence[Scan]) -> Scan:
    """The views of all scans in the order of their angles; of several views at one angle the first is kept.

    The truth and the grid are those of the first scan.

    Raises
    ------
    InputError
        If the scans differ in anything of their geometry but the angles.
    """
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
    weighted = any(scan.weights is not None for scan in scans)
    ones = [np.ones(scan.geometry.shape, np.float32) if scan.weights is None else scan.weights for scan in scans]
    repeated = len(angles) - len(kept)
    told = replace(
        first.provenance,
        source=", ".join(scan.provenance.source for scan in scans),
        sha256=hashlib.sha256("".join(scan.provenance.sha256 for scan in scans).encode()).hexdigest(),
    ).warned(*(text for scan in scans for text in scan.warnings))
    told = told.then(f"{len(scans)} files merged: {len(kept)} views, {repeated} at repeated angles left out")
    told = told.warned(*_differences(scans))
    if repeated:
        told = told.warned(f"{repeated} of {len(angles)} views are at angles that an earlier file has, and were left out.")
    return Scan(
        np.concatenate([scan.projections for scan in scans])[kept],
        replace(first.geometry, angles=angles[kept]),
        np.concatenate(ones)[kept] if weighted else None,
        first.truth,
        first.grid,
        told,
    )


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
