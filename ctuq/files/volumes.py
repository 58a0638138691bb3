"""Read scans of volumes: all detector rows of a file, each as `ctuq.read` reads one."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.assemble import in_one_unit, of_mean_one
from ctuq.files.axis import wants_search
from ctuq.files.formats.detect import file_hash
from ctuq.files.formats.hdf5.nxfile import is_own_nxtomo, read_nxtomo_volume
from ctuq.files.formats.ownvolume import KIND, read_volume_scan
from ctuq.files.formats.raw import Raw
from ctuq.files.formats.scanners.series import lines_in_blocks
from ctuq.files.frozen import frozen_views
from ctuq.files.noise import law_of
from ctuq.files.reading import PathLike, opened, resolve, row_of, scan_of
from ctuq.files.volume_rows import first_row, read_rows, refuse_implausible
from ctuq.files.volume_space import assumed, free_beam, in_space, seen_by
from ctuq.files.volume_truth import with_volume_truth
from ctuq.guard import reading
from ctuq.memory import require_room
from ctuq.tomo.axis import UNCLEAR
from ctuq.tomo.axis import axis_column as column_of_axis
from ctuq.tomo.geometry import ParallelBeam
from ctuq.tomo.odd_views import ODD, odd_views
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import only_air
from ctuq.tomo.slices import chosen_rows, of_rows
from ctuq.tomo.sums import lies_on_its_side
from ctuq.tomo.volume_scan import VolumeScan

# Sentences of a row that do not hold for all of them.
_OF_ONE_ROW = ("--volume", " is read as a fan", " bad rays of ")
_AIR = "only air"
_MOST_TOLD = 3
_NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?")
_LOOKED_AT, _TRIED = 17, 3
"""Rows that are looked at where the middle one does not tell the axis, and of these so many searched."""
_UNSEALED = "The file was edited after ctuq wrote it, or is of an older ctuq: no checksum guards its values."


@dataclass(frozen=True)
class _Rows:
    """Which rows to read: counted from the lowest as slices are, or as they are stored."""

    wanted: Callable[[int], range]
    as_stored: bool

    def from_the_lowest(self, count: int, upwards: bool) -> range:
        some = self.wanted(count)
        return some if upwards or not self.as_stored else range(count - 1 - some[-1], count - some[0], some.step)

    def of(self, scan: VolumeScan, upwards: bool) -> VolumeScan:
        some = self.from_the_lowest(scan.geometry.rows, upwards)
        return scan.rows(some) if self.as_stored else chosen_rows(scan, some)


@np.errstate(under="ignore")  # whatever a notebook makes of it
def read_volume(
    path: PathLike | Sequence[PathLike],
    *,
    geometry: PathLike | None = None,
    axis_column: float | None = None,
    follow_links: bool = False,
    entry: str | None = None,
    truth: PathLike | None = None,
    rows: Callable[[int], range] | None = None,
    as_stored: bool = False,
) -> VolumeScan:
    """Read all detector rows of a scan.

    Every row is read and corrected as `ctuq.files.read` does it, one after the other, so a file is opened as often as it has
    rows. The rotation axis is that of the middle row, or of another one where this shows only air or does not tell it. Rows are
    stored from above, as pictures are, and come out upwards, as z runs; only ctuq's own files of volumes and CIL's are upwards
    already.

    Parameters
    ----------
    path : path
        Of any format in ``docs/formats.md`` that has rows; one file, or one folder of pictures.
    geometry : path, optional
        A geometry file, where kind ``fan`` is a cone; ``middle_row``, ``row_pixel``, ``roll``, ``tilt``, ``yaw`` and
        ``axis_tilt`` are of volumes.
    axis_column : float, optional
        Detector column of the rotation axis (0-based), instead of what the file says or a search finds.
    follow_links : bool
    entry : str, optional
        Name of the entry of an NXtomo file that holds several.
    truth : path, optional
        A known volume, see `ctuq.files.volume_truth.with_volume_truth`.
    rows : callable, optional
        Given how many rows there are, those to read, counted from the lowest; by default all. Others are not read, but for the
        middle one, which tells the geometry.
    as_stored : bool
        Whether ``rows`` are counted as the file stores them, which for pictures is from above, and are no slices: what is known
        of the volume stays whole.

    Raises
    ------
    InputError
        If the file has one row only, or as `ctuq.files.read`.
    ResourceError
        If the rows do not fit into memory.
    """
    paths = resolve(path)
    if len(paths) != 1:
        raise InputError(
            f"A volume's scan is one file or one folder of pictures, and {len(paths)} were given; join them first."
        )
    chosen = None if rows is None else _Rows(rows, as_stored)
    scan = _read(paths[0], geometry, axis_column, entry=entry, follow_links=follow_links, rows=chosen)
    if truth is None:
        return scan
    with reading(truth, "a volume"):
        return with_volume_truth(scan, Path(truth))


def _read(
    file: Path,
    geometry: PathLike | None,
    axis_column: float | None,
    *,
    entry: str | None,
    follow_links: bool,
    rows: _Rows | None,
) -> VolumeScan:
    if geometry is None and (own := _own(file, entry)) is not None:
        return own[0] if rows is None else rows.of(*own)

    def raw_of(row: int | None) -> Raw:
        return opened(file, geometry=geometry, row=row, entry=entry, follow_links=follow_links)[0][1]

    return volume_of(raw_of, file, axis_column, rows)


def volume_of(
    raw_of: Callable[[int | None], Raw],
    file: Path,
    axis_column: float | None = None,
    rows: _Rows | None = None,
) -> VolumeScan:
    """The scan of all rows of a file, of which ``raw_of`` tells one by its number, or one that it chooses itself by None.

    Raises
    ------
    InputError, ResourceError
        As `read_volume`.
    """
    with reading(file, "a scan"), lines_in_blocks():
        return _stacked(raw_of, file, axis_column, rows)


def is_own_volume(path: Path) -> bool:
    """Whether a file is a volume's scan that ctuq wrote."""
    return path.is_file() and h5py.is_hdf5(path) and records.kind_of(path) == KIND


def _own(file: Path, entry: str | None) -> tuple[VolumeScan, bool] | None:
    """A volume's scan that ctuq wrote, and whether the file has its rows from below."""
    with reading(file, "a scan"):
        if is_own_volume(file):
            scan = read_volume_scan(file)
            return scan if records.is_sealed(file) else scan.warned(_UNSEALED), True
        if entry is None and file.is_file() and h5py.is_hdf5(file) and is_own_nxtomo(file):
            scan = read_nxtomo_volume(file)
            return None if scan is None else (scan, False)
    return None


def _stacked(raw_of: Any, path: Path, wanted: float | None, chosen: _Rows | None) -> VolumeScan:
    """Rows of one file, in the geometry of the middle one, or of one that tells more."""
    first = raw_of(None)
    if first.rows < 2:
        raise InputError(
            f"'{path}' has one detector row, which is a slice: leave --volume, --stack or --rows A:B out; its angles are "
            "designed by 'ctuq design start'."
        )
    middle_raw, middle = _telling(raw_of, path, first.rows, wanted)
    column = column_of_axis(middle.geometry)
    views, columns = middle.geometry.shape
    upwards = bool(middle_raw.fields.get("rows_upwards", False))
    some = range(first.rows) if chosen is None else chosen.from_the_lowest(first.rows, upwards)
    if middle_raw.vectors is not None and len(some) < first.rows:
        raise InputError(f"The vectors of '{path}' are free, so its rows are no slices: take all of them.")
    stored = [row if upwards else first.rows - 1 - row for row in some]
    require_room((len(some), views, columns), 8, f"The rows of '{path}'", "save fewer views or bin the detector", copies=3)
    sha = middle.provenance.sha256 or file_hash(path)
    whole = middle_raw.whole is not None
    # One detector has one law: that of the middle row, which its scan tells, weights all of them alike.
    noise = law_of(middle_raw)[0]
    how = {"noise": noise, "one_of_many": True}
    found = read_rows(lambda row: row_of(replace(raw_of(row), **how), path, sha, None if whole else column), stored)
    rows, scans = found.live, [row.scan for row in found.live]
    if not whole:
        refuse_implausible(found, middle_raw)
    kept = _kept_views(scans, path)
    lost = int((~kept).sum())
    odd = None if whole else odd_views(_mean_row(scans))
    if odd is not None and odd.wrong:
        kept &= ~odd.views
    kept &= ~frozen_views(middle_raw, scans[0].geometry.angles)  # told by the row itself
    beam = replace(middle.geometry, angles=scans[0].geometry.angles[kept])
    told = middle.provenance.then(f"{_count(some, first.rows)} detector rows read").warned(
        *assumed(middle_raw, first.rows, upwards),
        *_of_other_rows(scans, middle, [number for number, live in zip(stored, found.at, strict=True) if live]),
        *found.told,
        *((f"{lost} of {len(kept)} views hold no ray that counts and are left out.",) if lost else ()),
        *((odd.told,) if odd is not None else ()),
        *((side,) if (side := _on_its_side(scans, middle_raw)) else ()),
    )
    # What the middle row says of itself as one of many is not so here.
    apart = tuple(
        text
        for text in told.warnings
        if not any(words in text for words in _OF_ONE_ROW) and (text not in middle.warnings or ODD not in text)
    )
    told = replace(told, warnings=apart)
    alike = in_one_unit(rows)
    weights = None if alike is None else of_mean_one(np.stack(alike)[:, kept])
    projections, weights = found.whole(np.stack([scan.projections for scan in scans])[:, kept], weights)
    if middle_raw.vectors is not None:
        free = free_beam(middle_raw, scans[0].geometry.angles, kept, upwards)
        grid = seen_by(in_space(beam, middle_raw, first.rows, upwards), float(free.table[:, 2].mean()))
        return VolumeScan(projections, free, weights, grid=grid, provenance=told)
    geometry = in_space(beam, middle_raw, first.rows, upwards)
    if chosen is not None:
        geometry = of_rows(geometry, some)
        told = told if chosen.as_stored else told.of_slices(some, first.rows)
    return VolumeScan(projections, geometry, weights, provenance=told)


def _telling(raw_of: Callable[[int | None], Raw], path: Path, count: int, wanted: float | None) -> tuple[Raw, Scan]:
    """The middle row; where it shows only air or no axis, of some others that with most shadow which tells more.

    An object that stands in the upper third of the detector left the axis at the detector's middle, 5 columns off. Of a real
    synchrotron scan of 135 rows the middle one told nothing, and row 92 column 85.81 ± 0.11, 6.3 from the detector's middle.
    """
    middle, first, why = count // 2, None, "cannot be used"

    def made(raw: Raw) -> Scan:
        return scan_of([(path, raw)], wanted)

    with suppress(InputError):  # a dead row; if no other can be used, that is told
        raw = replace(raw_of(middle), one_of_many=True)
        first = raw, made(raw)
        why = _does_not_tell(first[1])
        if raw.whole is not None or not why:
            return first
    others = []
    for row in sorted({int(at) for at in np.linspace(0, count - 1, _LOOKED_AT)} - {middle}):
        with suppress(InputError):  # a row without any value; whoever asks for it is told
            other = replace(raw_of(row), one_of_many=True)
            others.append((float(np.square(row_of(other, path, "", None).scan.projections).sum()), row, other))
    for _, row, other in sorted(others, key=lambda each: -each[0])[:_TRIED]:
        found = made(other)
        if not _does_not_tell(found):
            asked = wanted is None and wants_search(other)
            return other, found.warned(
                *([f"Row {row} tells the rotation axis: the middle one, {middle}, {why}."] if asked else [])
            )
    return first_row(raw_of, count, made) if first is None else first


def _does_not_tell(scan: Scan) -> str:
    """Why a row tells too little to stand for all of them; empty if it tells enough."""
    rays = scan.projections if scan.weights is None else scan.projections[scan.weights > 0]
    if not rays.size or only_air(rays) or np.ptp(rays) == 0:
        return "shows only air"
    return "does not tell where it is" if any(UNCLEAR in text for text in scan.warnings) else ""


def _count(rows: range, of: int) -> str:
    if len(rows) == of:
        return str(of)
    step = f" in steps of {rows.step}" if rows.step > 1 else ""
    return f"{len(rows)} of {of} (from the lowest, 0: {rows[0]} to {rows[-1]}{step})"


def _of_other_rows(scans: Sequence[Scan], middle: Scan, stored: Sequence[int]) -> tuple[str, ...]:
    """What rows (as stored) warn of that the middle one does not, a few of these sentences, and all rays that do not count."""
    told, total = [], sum(scan.projections.size for scan in scans)
    lost = sum(int((scan.weights == 0).sum()) for scan in scans if scan.weights is not None)
    if lost:
        told.append(f"{lost} of {total} rays in all rows are missing or were repaired and count for nothing (weight 0).")
    known, others = {_NUMBER.sub("#", text) for text in middle.warnings}, dict[str, tuple[str, set[int]]]()
    for row, scan in sorted(zip(stored, scans, strict=True), key=lambda pair: pair[0]):
        for text in scan.warnings:
            # What differs by its numbers alone is told once: of 135 rows of a real scan each told what it took off its air.
            alike = _NUMBER.sub("#", text)
            if alike not in known and not any(words in text for words in (*_OF_ONE_ROW, _AIR)):
                others.setdefault(alike, (f"In row {row}{{}}: {text}", set()))[1].add(row)
    for text, rows in list(others.values())[:_MOST_TOLD]:
        told.append(text.replace("{}", f" (and, with other numbers, {len(rows) - 1} more)" if len(rows) > 1 else "", 1))
    if len(others) > _MOST_TOLD:
        told.append(f"Rows warn of {len(others) - _MOST_TOLD} things more; each tells its own ('row' in a geometry file).")
    return tuple(told)


def _on_its_side(scans: Sequence[Scan], raw: Raw) -> str | None:
    """Of parallel rays alone something is known of single rows of pictures."""
    parallel = raw.vectors is None and raw.whole is None and isinstance(scans[0].geometry, ParallelBeam)
    return lies_on_its_side([scan.projections for scan in scans]) if parallel else None


def _mean_row(scans: Sequence[Scan]) -> Scan:
    """All rows' rays by their mean over those that count."""
    counts = np.stack([np.ones_like(scan.projections) if scan.weights is None else scan.weights > 0 for scan in scans])
    rays = np.stack([scan.projections for scan in scans])
    total = counts.sum(axis=0)
    return replace(scans[0], projections=(rays * counts).sum(axis=0) / np.maximum(total, 1), weights=np.float32(total > 0))


def _kept_views(scans: Sequence[Scan], path: Path) -> NDArray[np.bool_]:
    """Views that have a ray that counts in some row."""
    shapes = {scan.projections.shape for scan in scans}
    if len(shapes) > 1:
        raise InputError(
            f"'{path}' has rows of different shapes, {' and '.join(map(str, sorted(shapes)[:2]))}; check the file."
        )
    seen = [np.ones(scan.n_angles, bool) if scan.weights is None else scan.weights.max(axis=1) > 0 for scan in scans]
    return np.any(seen, axis=0)
