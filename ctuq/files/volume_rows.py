"""Detector rows of a volume's scan: some see nothing but air, as a single slice never does, and some may be dead."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.assemble import Assembled
from ctuq.files.formats.raw import Raw
from ctuq.files.plausible import refuse_negative
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import only_air

_MOST_DEAD = 0.25
_SHADOW = 0.1
"""Of the most that rays read: a row that reads more sees the object, one that reads less than minus that is none of one."""


@dataclass(frozen=True, eq=False)
class ReadRows:
    """Rows of one detector.

    Parameters
    ----------
    live : list of Assembled
        Those that can be used, in their order.
    at : array of bool, shape (row,)
        Which of all these are.
    stored : list of int
        Their numbers in the file.
    """

    live: list[Assembled]
    at: NDArray[np.bool_]
    stored: list[int]

    @property
    def told(self) -> tuple[str, ...]:
        """What the user should know of dead ones."""
        if self.at.all():
            return ()
        first = self.stored[int(np.argmin(self.at))]
        count, total = int((~self.at).sum()), len(self.at)
        hold, their = ("holds", "its") if count == 1 else ("hold", "their")
        return (
            f"{count} of {total} detector rows, first number {first} as stored, {hold} nothing that an object makes: {their} "
            "rays are filled in from the rows beside and count for nothing (weight 0).",
        )

    def whole(self, projections: NDArray, weights: NDArray | None) -> tuple[NDArray, NDArray | None]:
        """Projections and weights (row, angle, column) of all rows from those of the live ones.

        Dead rows are filled in between their neighbours: filtered back-projection takes every ray, whatever its weight.
        """
        if self.at.all():
            return projections, weights
        places, live = np.arange(len(self.at)), np.flatnonzero(self.at)
        after = np.clip(np.searchsorted(live, places), 1, max(len(live) - 1, 1))
        after = np.minimum(after, len(live) - 1)
        before = np.maximum(after - 1, 0)
        gap = np.maximum(live[after] - live[before], 1)
        share = np.clip((places - live[before]) / gap, 0, 1)[:, None, None]
        filled = (1 - share) * projections[before] + share * projections[after]
        filled[self.at] = projections
        kept = np.zeros(filled.shape, np.float32)
        kept[self.at] = 1 if weights is None else weights
        return filled.astype(projections.dtype), kept


def first_row(raw_of: Callable[[int], Raw], rows: int, made: Callable[[Raw], Scan]) -> tuple[Raw, Scan]:
    """The row that tells the geometry and its scan: the middle one, or another where that sees nothing but air or is dead.

    Raises
    ------
    InputError
        What is wrong with the middle row, if none of these can be used.
    """
    found: list[tuple[Raw, Scan]] = []
    wrong: list[InputError] = []
    for row in _from_the_middle(rows):
        raw = replace(raw_of(row), one_of_many=True)
        try:
            scan = made(raw)
        except InputError as error:
            wrong.append(error)
            continue
        found.append((raw, scan))
        if raw.whole is not None or not (only_air(scan.projections) or np.ptp(scan.projections) == 0):
            return found[-1]
    if not found:
        raise wrong[0]
    return found[0]


def _from_the_middle(rows: int) -> Iterator[int]:
    """The middle row, and others farther and farther from it."""
    shares = (0.5, 0.4, 0.6, 0.25, 0.75, 0.1, 0.9)
    yield from dict.fromkeys(min(rows - 1, int(rows * share)) for share in shares)


def read_rows(make: Callable[[int], Assembled], stored: Sequence[int]) -> ReadRows:
    """All of some rows.

    Raises
    ------
    InputError
        What is wrong with the first, if more than a quarter cannot be used.
    """
    rows: list[Assembled | None] = []
    wrong: list[InputError] = []
    for number in stored:
        try:
            rows.append(make(number))
        except InputError as error:
            wrong.append(error)
            rows.append(None)
    live = np.array([row is not None for row in rows])
    if wrong and len(wrong) > _MOST_DEAD * len(rows):
        raise wrong[0]
    live[live] = ~_of_no_object([row.scan for row in rows if row is not None])
    return ReadRows([row for row, used in zip(rows, live, strict=True) if row is not None and used], live, list(stored))


def refuse_implausible(rows: ReadRows, raw: Raw) -> None:
    """Refuse all rows together as a single slice is: each alone may see nothing but air.

    Raises
    ------
    InputError
        If all line integrals are 0 or most below 0.
    """
    values = np.concatenate([_used(row.scan) for row in rows.live])
    if not values.any():
        raise InputError(f"All {values.size} line integrals are 0, so nothing was measured; check which data these are.")
    refuse_negative(values, raw.kind_of_values)


def _of_no_object(scans: Sequence[Scan]) -> NDArray[np.bool_]:
    """Rows far below 0, as a saturated one is, and rows of one value, unless they are air above or below the object."""
    values = [_used(scan) for scan in scans]
    high = np.array([np.percentile(each, 99.5) for each in values])
    flat, top = np.array([bool(np.ptp(each) == 0) for each in values]), high.max()
    shows = np.flatnonzero(~flat & (high > _SHADOW * top))
    if top <= 0 or not len(shows):
        return np.zeros(len(scans), bool)
    places = np.arange(len(scans))
    inside = (places > shows[0]) & (places < shows[-1])
    return (high < -_SHADOW * top) | (flat & (inside | (high > _SHADOW * top)))


def _used(scan: Scan) -> NDArray[np.float32]:
    return scan.projections.reshape(-1) if scan.weights is None else scan.projections[scan.weights > 0]
