"""Which reader a file needs, found from its content."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import h5py
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.formats import fitspicture
from ctuq.files.formats.arrays import read_npz
from ctuq.files.formats.hdf5 import cil, exchange, nxfile, nxtomo, parts
from ctuq.files.formats.hdf5.layout import read_layout, with_parts
from ctuq.files.formats.hdf5.reach import check_hdf5
from ctuq.files.formats.matlab import MAGIC, is_matlab, read_matlab
from ctuq.files.formats.mrc import is_mrc, read_mrc
from ctuq.files.formats.ownscan import raw_of_scan, read_scan
from ctuq.files.formats.ownvolume import KIND as VOLUME
from ctuq.files.formats.ownvolume import read_own_row
from ctuq.files.formats.pictures import read_pictures, refuse_jpeg
from ctuq.files.formats.raw import Pictures, Raw
from ctuq.files.formats.scanners import nikon, skyscan, walnuts, zeiss
from ctuq.files.formats.scanners.edf import edf_files, is_edf, read_edf
from ctuq.files.formats.sidefile import beside
from ctuq.files.formats.sound import checked
from ctuq.guard import reading
from ctuq.text import listed

Reader = Callable[[Path, int | None], Raw]

_MAGIC: tuple[tuple[bytes, Reader], ...] = (
    (MAGIC, lambda path, row: read_matlab(path)),
    (b"PK\x03\x04", read_npz),
    (b"\x93NUMPY", read_npz),
    (b"II*\x00", read_pictures),
    (b"MM\x00*", read_pictures),
    (b"II+\x00", read_pictures),
    (b"MM\x00+", read_pictures),
    (b"\x89PNG", read_pictures),
    (fitspicture.MAGIC, read_pictures),
    (zeiss.MAGIC, zeiss.read_txrm),
)
_UNSEALED = "The file was edited after ctuq wrote it, or is of an older ctuq: no checksum guards its values."
_NODES = 10_000
_HDF5_NAMES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx")
_DICOM_NAMES = (".dcm", ".ima", ".dicom")
_KNOWN = (
    "HDF5 of ctuq, DXchange, NXtomo and CIL, Nikon .xtekct, Zeiss .txrm, SkyScan .log, the walnut collection's .geom, TIFF, "
    "PNG, FITS, MRC, EDF, HTC and FIPS .mat, .npz"
)


def read_raw(path: Path, row: int | None, pictures: Pictures = Pictures(), *, follow_links: bool = False) -> Raw:  # noqa: B008
    """What a file of any known format tells, checked whatever reader it came from; of pictures, what they are and which.

    Raises
    ------
    InputError
        If there is no such file, it is empty, damaged or of an unknown type, holds no scan, or reaches outside its folder.
    ResourceError
        If it declares more than fits into memory.
    """
    with reading(path, "a scan") as heard:
        linked = ()
        if path.is_file() and h5py.is_hdf5(path):
            parts.refuse_locked(path)
            ours = records.kind_of(path) is not None
            linked = check_hdf5(path, follow_links=follow_links) if not (ours and records.is_sealed(path)) else ()
            linked += (_UNSEALED,) if ours and not records.is_sealed(path) else ()
        reader = _asked(path, pictures) or _reader(path)
        raw = _read_by(reader, path, row, pictures)
        raw = with_parts(raw, path, pictures.layout) if pictures.layout and not pictures.layout.data else raw
        return checked(raw, path).warned(*linked, *heard)


def _read_by(reader: Reader, path: Path, row: int | None, pictures: Pictures) -> Raw:
    if reader is read_pictures:
        return read_pictures(path, row, pictures)
    if reader in (read_npz, read_mrc):
        return (read_npz if reader is read_npz else read_mrc)(path, row, pictures.stack)
    raw = reader(path, row)
    if pictures.stack == "sinograms" and not pictures.layout.data and raw.whole is None:
        raise InputError(
            f"'{path}' ({raw.format}) tells the order of its axes itself; leave out 'stack: sinograms', or name the place of "
            "its numbers as 'data'."
        )
    return raw


def _asked(path: Path, pictures: Pictures) -> Reader | None:
    """The reader of the places or the entry that somebody asks for."""
    if pictures.layout.data:
        if pictures.layout.data.file is None and is_matlab(path):
            return lambda path, row: read_matlab(path, pictures.layout, row, pictures.stack)
        return lambda path, row: read_layout(path, row, pictures.layout, pictures.stack)
    if pictures.entry is None:
        return None
    if path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            if nxtomo.is_nxtomo(file):
                return lambda path, row: nxtomo.read_nxtomo(path, row, pictures.entry)
    raise InputError(f"'{path}' has no entry '{pictures.entry}', as it is no NXtomo file; leave the entry out.")


def is_own_scan(path: Path) -> bool:
    """Whether a file is a scan that ctuq wrote."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    parts.refuse_locked(path)
    return records.kind_of(path) in ("scan", VOLUME) or nxfile.is_own_nxtomo(path)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of the files in a folder, as that of a scanner's side file."""
    path = path.parent if path.suffix.lower() in (nikon.SUFFIX, skyscan.SUFFIX, walnuts.SUFFIX) else path
    total = hashlib.sha256()
    for part in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            total.update(part.name.encode())
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _reader(path: Path) -> Reader:
    if path.is_dir():
        return _folder_reader(path)
    if not path.is_file():
        raise InputError(f"There is no file '{path}'; check the name.")
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        raise InputError(f"'{path}' is empty; copy it again.")
    if h5py.is_hdf5(path):
        return _hdf5_reader(path)
    for magic, reader in _MAGIC:
        if start.startswith(magic):
            return reader
    if path.suffix.lower() in _HDF5_NAMES:
        raise InputError(f"'{path}' is not a whole HDF5 file; copy it again.")
    return _other_reader(path, start)


def _other_reader(path: Path, start: bytes) -> Reader:
    """The reader of a format without magic bytes at its start."""
    refuse_jpeg(path, start)
    if start[128:132] == b"DICM" or path.suffix.lower() in _DICOM_NAMES:
        raise _dicom(path)
    if is_mrc(path):
        return read_mrc
    if is_edf(path):
        return read_edf
    if nikon.is_xtekct(path):
        return nikon.read_nikon
    if skyscan.is_skyscan_log(path):
        return skyscan.read_skyscan
    if walnuts.is_walnut(path):
        return walnuts.read_walnut
    raise InputError(
        f"'{path}' is of no type that ctuq reads ({_KNOWN}); save bare numbers as TIFF or .npy and say the rest in a geometry "
        "file."
    )


def _folder_reader(path: Path) -> Reader:
    """A scanner's side file says more than the pictures beside it."""
    if beside(path, nikon.SUFFIX):
        return nikon.read_nikon
    if skyscan.skyscan_logs(path):
        return skyscan.read_skyscan
    if walnuts.is_walnut(path):
        return walnuts.read_walnut
    if edf_files(path):
        return read_edf
    if any(beside(path, suffix) for suffix in _DICOM_NAMES):
        raise _dicom(path)
    return read_pictures


def _dicom(path: Path) -> InputError:
    return InputError(
        f"'{path}' is DICOM, which ctuq does not read: rebin the projections of DICOM-CT-PD to a fan beam with helix2fan "
        "(github.com/faebstn96/helix2fan) and give its TIFF with a geometry file; images of a scanner hold no projections."
    )


def _hdf5_reader(path: Path) -> Reader:
    parts.refuse_locked(path)
    kind = records.kind_of(path)
    if kind in _OWN:
        return _OWN[kind]
    if nxfile.is_own_nxtomo(path):
        return nxfile.read_own_nxtomo
    if kind not in (None, nxfile.KIND):
        raise InputError(f"'{path}' holds a {kind} of ctuq, not a scan; give the scan that it was made from.")
    with h5py.File(path, "r") as file:
        if any(node is not None and "MATLAB_class" in node.attrs for node in file.values()):
            return lambda path, row: read_matlab(path)
        if cil.is_cil(file):
            return cil.read_cil
        if exchange.is_dxchange(file):
            return exchange.read_dxchange
        if nxtomo.is_nxtomo(file):
            return nxtomo.read_nxtomo
        if lost := parts.broken_links(file):
            raise InputError(f"'{path}' takes its data from '{lost[0]}', which is missing beside it; copy that file too.")
        names, place = listed(file) or "nothing", _largest(file)
    hint = f"; name its projections in a geometry file, such as 'data: {place}'" if place else ""
    raise InputError(f"'{path}' is HDF5 but neither ctuq, DXchange ('exchange/data') nor NXtomo; it holds {names}{hint}.")


def _largest(file: h5py.File) -> str:
    """Path of the largest dataset that could be projections, behind links too; empty if there is none."""
    found, left, seen = {"": 0}, _NODES, set()
    groups: list[tuple[h5py.Group, str]] = [(file, "")]
    while groups and left > 0:
        group, place = groups.pop()
        where = group.file.filename, h5o.get_info(group.id).addr
        if where in seen:  # links may go round in a circle
            continue
        seen.add(where)
        for name, node in list(group.items())[:left]:
            left -= 1
            if isinstance(node, h5py.Group):
                groups.append((node, f"{place}{name}/"))
            elif isinstance(node, h5py.Dataset) and node.dtype.kind in "iuf" and len(node.shape or ()) in (2, 3):
                found[f"{place}{name}"] = math.prod(node.shape)
    return max(found, key=lambda name: found[name])


def _own(path: Path, row: int | None) -> Raw:
    scan = read_scan(path)
    return raw_of_scan(scan if records.is_sealed(path) else scan.warned(_UNSEALED), "ctuq scan")


_OWN: dict[str | None, Reader] = {"scan": _own, VOLUME: read_own_row}
