"""``ctuq convert``: a scan, or a part of it, from any format into ctuq's own or NXtomo."""

from dataclasses import replace
from pathlib import Path

from ctuq import files
from ctuq.app.facts import facts_of_scan
from ctuq.app.options import Convert
from ctuq.app.selection import selected
from ctuq.app.terminal import give, say, warn
from ctuq.app.typed import span
from ctuq.errors import InputError
from ctuq.files.formats.ownvolume import KIND as VOLUME
from ctuq.records import kind_of
from ctuq.tomo import Scan

_SUFFIXES = {".h5": "ctuq", ".hdf5": "ctuq", ".nx": "nxtomo", ".nxs": "nxtomo"}


def convert(command: Convert) -> int:
    """Read, select and write."""
    out = command.output
    kind = _format(command.format, out)
    if out.exists():
        raise InputError(f"'{out}' exists already; choose another name, or delete it first.")
    first, last = span(command.rows, "--rows") if command.rows else (None, None)
    if first is not None and last is not None and last - first > 1 and kind == "ctuq":
        raise InputError(f"ctuq's own files hold one detector row, and --rows asks for {last - first}; write NXtomo (.nx).")
    rows = [None] if first is None or last is None else list(range(first, last))
    chosen = [_part(_read(command, row), command) for row in rows]
    if kind == "nxtomo":
        files.write_nxtomo(_of_one_geometry(chosen), out)
    else:
        files.write_scan(chosen[0], out)
    middle = chosen[len(chosen) // 2]
    warn(middle.warnings)
    give(output=out, scan=facts_of_scan(middle), rows=len(chosen))
    many = f" of {len(chosen)} rows" if len(chosen) > 1 else ""
    say(f"Written: {out}, {middle.n_angles} views{many} of {middle.geometry.columns} columns.")
    return 0


def refuse_other_data(out: Path) -> None:
    """Refuse to write a simulation over anything but a scan of ctuq: what a scanner measured cannot be made again.

    Raises
    ------
    InputError
    """
    if not out.is_file():
        return
    try:
        kind = kind_of(out)
    except InputError:
        kind = None
    if kind not in ("scan", VOLUME):
        raise InputError(f"'{out}' exists already and is no scan of ctuq; choose another name, or delete it first.")


def _format(wanted: str, out: Path) -> str:
    kind = _SUFFIXES.get(out.suffix.lower()) if wanted == "auto" else wanted
    if kind is None:
        raise InputError(f"'{out}' does not say its format: end it in {', '.join(_SUFFIXES)}, or give --format.")
    return kind


def _read(command: Convert, row: int | None) -> Scan:
    return files.read(
        command.scan,
        geometry=command.geometry,
        row=row,
        truth=command.truth,
        entry=command.entry,
        follow_links=command.follow_links,
    )


def _part(scan: Scan, command: Convert) -> Scan:
    scan = selected(scan, command.every, command.angles)
    return scan if command.columns is None else scan.cropped(*span(command.columns, "--columns"))


def _of_one_geometry(rows: list[Scan]) -> list[Scan]:
    """The rows with the middle one's geometry: where an axis was searched, it was so in each row."""
    middle = rows[len(rows) // 2]
    return [replace(row, geometry=middle.geometry) for row in rows]
