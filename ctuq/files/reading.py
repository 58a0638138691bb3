"""Read scans: one call for every file format, for several files of one object, and for a known truth."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ctuq.errors import InputError
from ctuq.files.assemble import Assembled, assemble
from ctuq.files.axis import placed_axis, unsaid_axis, wants_search
from ctuq.files.formats.detect import file_hash, is_own_scan, read_raw
from ctuq.files.formats.raw import OTHER, START, Raw
from ctuq.files.formats.sound import checked
from ctuq.files.frozen import without_frozen_views
from ctuq.files.merge import merged
from ctuq.files.override import overridden
from ctuq.files.plausible import doubts_of_angles
from ctuq.files.sidecar import Sidecar, read_sidecar
from ctuq.files.truth import with_truth
from ctuq.guard import reading
from ctuq.tomo.axis import centred, with_axis_column
from ctuq.tomo.axis_doubt import contradicting_axis, doubt_of_axis
from ctuq.tomo.odd_views import odd_views
from ctuq.tomo.scan import Scan
from ctuq.tomo.sums import doubt_of_sums
from ctuq.tomo.unexplained import doubt_of_misfit

PathLike = str | os.PathLike[str]
_BESIDE = 0.75


@np.errstate(under="ignore")  # whatever a notebook makes of it
def read(
    path: PathLike | Sequence[PathLike],
    *,
    geometry: PathLike | None = None,
    row: int | None = None,
    axis_column: float | None = None,
    truth: PathLike | None = None,
    follow_links: bool = False,
    entry: str | None = None,
) -> Scan:
    """Read a scan from a file of any known format.

    Parameters
    ----------
    path : path, glob pattern or sequence of paths
        Of any format in ``docs/formats.md``. Several files are views of one object in one geometry; of views at the same angle
        the first is kept.
    geometry : path, optional
        A geometry file (see `ctuq.files.sidecar`); else ``NAME.yaml`` beside the file, or ``geometry.yaml`` in the folder.
    row : int, optional
        Detector row of a stack; the middle one by default.
    axis_column : float, optional
        Detector column of the rotation axis (0-based), instead of what the file says or a search finds.
    truth : path, optional
        A picture of two values (material or air) on the scan's grid; the material's attenuation follows from the data.
    follow_links : bool
        Whether an HDF5 file may take data from outside its folder, or from files that are not HDF5.
    entry : str, optional
        Name of the entry of an NXtomo file that holds several; the first one by default.

    Raises
    ------
    InputError
        If a file is missing, damaged, of an unknown type, lacks parts of its geometry, or takes data from outside its folder.
    ResourceError
        If a file declares more than fits into memory.
    """
    found = opened(path, geometry=geometry, row=row, entry=entry, follow_links=follow_links)
    scan = scan_of(found, axis_column)
    if truth is None:
        return scan
    with reading(truth, "a picture"):
        return with_truth(scan, Path(truth))


def opened(
    path: PathLike | Sequence[PathLike],
    *,
    geometry: PathLike | None = None,
    row: int | None = None,
    follow_links: bool = False,
    entry: str | None = None,
) -> list[tuple[Path, Raw]]:
    """What each file tells, together with its geometry file.

    Parameters
    ----------
    path, geometry, row, follow_links, entry
        As for `read`.

    Returns
    -------
    list of (Path, Raw)
        Each file with what it tells.

    Raises
    ------
    InputError
        As `read`, except that parts of the geometry may be missing.
    """
    asked = Sidecar(entry=entry)
    return [(each, load_raw(each, geometry, row, asked, follow_links=follow_links).settled()) for each in resolve(path)]


@np.errstate(under="ignore")  # whatever a notebook makes of it
def scan_of(found: Sequence[tuple[Path, Raw]], axis_column: float | None = None) -> Scan:
    """The scan of what was `opened`.

    Parameters
    ----------
    found : sequence of (Path, Raw)
    axis_column : float, optional
        Detector column of the rotation axis (0-based), instead of what the files say or a search finds.

    Raises
    ------
    InputError
        If parts of a geometry are missing, or the files do not belong together.
    """
    raws, scan = [raw for _, raw in found], _together(found, axis_column)
    how = () if axis_column is not None else unsaid_axis(raws)
    searched = axis_column is None and any(wants_search(raw) for raw in raws)
    if searched:
        # In all parts at once, and corrected again then: where the axis is tells a wire on it from a defect.
        column, said = placed_axis(raws, scan)
        scan, how = _together(found, column), (said,)
    # A column counted from 1 is one beside its place.
    other = None if searched else contradicting_axis(scan, columns=_BESIDE)
    # About a wrong axis no turn explains the rays, and by wrong angles no axis is found.
    turning = scan if other is None else replace(scan, geometry=with_axis_column(scan.geometry, other.column))
    unsealed = any(raw.whole is None for raw in raws)
    doubts = doubts_of_angles(turning) if unsealed else ()
    misfit = doubt_of_misfit(turning) if unsealed and not doubts else None
    if other is not None and not doubts:
        doubts = (doubt_of_axis(scan, other),)
    sums = doubt_of_sums(scan) if unsealed else None
    doubts += tuple(text for text in (sums, misfit) if text)
    return scan.warned(*doubts, *how)


def _together(found: Sequence[tuple[Path, Raw]], axis_column: float | None) -> Scan:
    parts = []
    for path, raw in found:
        with reading(path, "a scan"):
            part = row_of(raw, path, file_hash(path), axis_column)
            scan = _without_lost_views(without_frozen_views(part.scan, raw))
            parts.append(replace(part, scan=scan if raw.whole is not None else _without_odd_views(scan)))
    return parts[0].scan if len(parts) == 1 else merged(parts)


def _without_lost_views(scan: Scan) -> Scan:
    """The scan of the views that have a ray that counts."""
    if scan.weights is None or (seen := scan.weights.max(axis=1) > 0).all():
        return scan
    lost = np.rad2deg(scan.geometry.angles[~seen])
    told = scan.select(np.flatnonzero(seen))
    return told.warned(
        f"{lost.size} of {scan.n_angles} views, first that at {lost[0]:.4g} degrees, hold no ray that counts and are left out."
    )


def _without_odd_views(scan: Scan) -> Scan:
    """The scan without views that no object can make, and what to know of those that differ from the others."""
    odd = odd_views(scan)
    if odd is None:
        return scan
    return (scan.select(np.flatnonzero(~odd.views)) if odd.wrong else odd.corrected(scan)).warned(odd.told)


def resolve(path: PathLike | Sequence[PathLike]) -> list[Path]:
    """The files that a name, a glob pattern or a sequence of these stands for.

    Raises
    ------
    InputError
        If it stands for none.
    """
    if not isinstance(path, str | os.PathLike):
        found = [part for each in path for part in resolve(each)]
        if not found:
            raise InputError("No file was given; give at least one.")
        return found
    name = Path(path)
    if not any(c in str(path) for c in "*?[") or name.exists():
        return [name]
    found = sorted(Path(name.anchor or ".").glob(str(name.relative_to(name.anchor))))
    if not found:
        raise InputError(f"No file matches '{path}'; check the pattern.")
    return found


def load_raw(
    path: Path,
    geometry: PathLike | None,
    row: int | None = None,
    base: Sidecar | None = None,
    *,
    follow_links: bool = False,
) -> Raw:
    """What a file and its geometry file tell together.

    Parameters
    ----------
    path : Path
    geometry : path, optional
        A scan of ours is left as it is without one: a geometry file beside it may be of other files.
    row : int, optional
    base : Sidecar, optional
        What holds where the geometry file says nothing, and of the values where the file does not say what they are.
    follow_links : bool

    Raises
    ------
    InputError
        As `read`, except that parts of the geometry may be missing.
    """
    with reading(path, "a scan"):
        return _loaded(path, geometry, row, base or Sidecar(), follow_links)


def _loaded(path: Path, geometry: PathLike | None, row: int | None, base: Sidecar, follow_links: bool) -> Raw:
    if geometry is None and is_own_scan(path):
        return read_raw(path, row, follow_links=follow_links)
    beside = _beside(path) if geometry is None else Path(geometry)

    def told(base: Sidecar) -> Sidecar:
        return base if beside is None else read_sidecar(beside, base)

    asked = told(base).row if row is None else row
    raw = read_raw(path, asked, told(base).pictures, follow_links=follow_links)
    if raw.rows > 1 and asked is None:
        kind = told(base).fields.get("kind", raw.fields.get("kind"))
        apart = ", or each as a slice by --stack" if kind == "parallel" else ""
        raw = raw.warned(
            f"Of {raw.rows} detector rows only the middle one, {raw.row}, is read; give 'row' in a geometry file, or take all "
            f"of them by --volume{apart}."
        )
    if raw.stated:
        base = replace(base, values=None, scale=1.0, flat=None, dark=None)
    return checked(overridden(raw, told(base)), path)


def row_of(raw: Raw, path: Path, sha256: str, axis_column: float | None) -> Assembled:
    """The scan of one row, with the rotation axis at this column if it is given."""
    if axis_column is None:
        return assemble(raw, str(path), sha256)
    if raw.whole is not None:
        moved = centred(raw.whole, axis_column, f"rotation axis set to column {axis_column:g}")
        return replace(assemble(raw, str(path), sha256), scan=moved)
    fields = {key: value for key, value in raw.fields.items() if key not in (START, OTHER, "axis_offset", "detector_offset")}
    return assemble(replace(raw, fields={**fields, "axis_column": float(axis_column)}), str(path), sha256)


def _beside(path: Path) -> Path | None:
    """The geometry file in a folder or beside a file, ending in .yaml or .yml in any case.

    Raises
    ------
    InputError
        If there are two.
    """
    places = [(path.parent, path.stem), (path.parent, path.name)]
    for folder, stem in ([(path, "geometry")] if path.is_dir() else []) + places:
        names = {f"{stem}{end}".lower() for end in (".yaml", ".yml")}
        found = sorted(p for p in folder.iterdir() if p.name.lower() in names and p.is_file()) if folder.is_dir() else []
        exact = [p for p in found if p.stem == stem] or found
        if len(exact) > 1:
            raise InputError(f"'{exact[0]}' and '{exact[1].name}' both tell the geometry of '{path}'; leave one of them.")
        if exact and exact[0] != path:
            return exact[0]
    return None
