"""``ctuq convert``: a scan, or a part of it, from any format into ctuq's own or NXtomo."""

from pathlib import Path
from typing import TypeVar

from ctuq import files
from ctuq.app.facts import facts_of_scan
from ctuq.app.options import Convert
from ctuq.app.selection import selected
from ctuq.app.terminal import give, say, warn
from ctuq.app.typed import span
from ctuq.errors import InputError
from ctuq.files.formats.ownscan import read_scan
from ctuq.files.formats.ownvolume import KIND as VOLUME
from ctuq.files.formats.ownvolume import read_volume_scan
from ctuq.records import kind_of
from ctuq.tomo import Scan
from ctuq.tomo.scan import SIMULATION
from ctuq.tomo.volume_scan import VolumeScan

_Scan = TypeVar("_Scan", Scan, VolumeScan)
_SUFFIXES = {".h5": "ctuq", ".hdf5": "ctuq", ".nx": "nxtomo", ".nxs": "nxtomo"}


def convert(command: Convert) -> int:
    """Read, select and write."""
    out = command.output
    kind = _format(command.format, out)
    if out.exists():
        raise InputError(f"'{out}' exists already; choose another name, or delete it first.")
    rows = span(command.rows, "--rows") if command.rows else None
    whole = rows is not None and rows[1] - rows[0] > 1
    scan = _part(_rows(command, *rows), command) if rows and whole else _part(_row(command, rows and rows[0]), command)
    if kind == "nxtomo":
        files.write_nxtomo(scan, out)
    elif isinstance(scan, VolumeScan):
        files.write_volume_scan(scan, out)
    else:
        files.write_scan(scan, out)
    warn(scan.warnings)
    count = scan.geometry.rows if isinstance(scan, VolumeScan) else 1
    give(output=out, scan=facts_of_scan(scan), rows=count)
    many = f" of {count} rows" if count > 1 else ""
    say(f"Written: {out}, {scan.n_angles} views{many} of {scan.geometry.columns} columns.")
    return 0


def refuse_other_data(out: Path) -> None:
    """Refuse to write a simulation over anything but another: what a scanner measured cannot be made again.

    Raises
    ------
    InputError
    """
    if not out.is_file():
        return
    try:
        there = {"scan": read_scan, VOLUME: read_volume_scan}[kind_of(out) or ""](out)
    except (InputError, KeyError):
        raise InputError(f"'{out}' exists already and is no scan of ctuq; choose another name, or delete it first.") from None
    if there.provenance.source != SIMULATION:
        raise InputError(f"'{out}' exists already and was not simulated; choose another name, or delete it first.")


def _format(wanted: str, out: Path) -> str:
    kind = _SUFFIXES.get(out.suffix.lower()) if wanted == "auto" else wanted
    if kind is None:
        raise InputError(f"'{out}' does not say its format: end it in {', '.join(_SUFFIXES)}, or give --format.")
    return kind


def _row(command: Convert, row: int | None) -> Scan:
    return files.read(
        command.scan,
        geometry=command.geometry,
        row=row,
        truth=command.truth,
        entry=command.entry,
        follow_links=command.follow_links,
    )


def _rows(command: Convert, first: int, last: int) -> VolumeScan:
    """Several rows as one scan: row by row their places, their turns, and which of them is the lowest would be lost."""
    if command.truth is not None:
        raise InputError(
            "--truth is of a slice, and --rows A:B of several: convert one row, or give the truth of a volume to "
            "'ctuq reconstruct --volume'."
        )

    def rows(count: int) -> range:
        if last > count:
            raise InputError(f"--rows {first}:{last} takes rows that are not there: the scan has 0 to {count - 1}.")
        return range(first, last)

    return files.read_volume(
        command.scan,
        geometry=command.geometry,
        entry=command.entry,
        follow_links=command.follow_links,
        rows=rows,
        as_stored=True,
    )


def _part(scan: _Scan, command: Convert) -> _Scan:
    scan = selected(scan, command.every, command.angles)
    return scan if command.columns is None else scan.cropped(*span(command.columns, "--columns"))
