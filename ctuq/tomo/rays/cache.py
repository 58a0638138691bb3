"""Ray transform matrices kept on disk between runs, by a hash of everything they depend on."""

import hashlib
import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy.sparse as sp

from ctuq.tomo.geometry import Geometry, VolumeGrid, bytes_of
from ctuq.tomo.space import VolumeGeometry

_Geometry = TypeVar("_Geometry", bound=Geometry | VolumeGeometry)
_log = logging.getLogger(__name__)
# Raised whenever build_matrix gives other numbers for the same geometry.
_BUILDER = 2
_KEEP_BYTES = 4 * 2**30
_LEFT = 3600.0
"""Seconds after which nobody is writing a file any more."""


def default_directory() -> Path:
    """``ctuq`` in the user's cache directory (XDG); where the user has no home, as in some containers, nothing can be kept."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ctuq"
    except RuntimeError:
        return Path(os.devnull) / "ctuq"


def cached_matrix(
    grid: VolumeGrid, geometry: _Geometry, build: Callable[[VolumeGrid, _Geometry], sp.csr_array], directory: Path
) -> sp.csr_array:
    """The matrix from the directory if it is there and whole, else built and stored.

    A damaged file is built anew; a directory that cannot be written is not an error.
    """
    path = directory / f"ray-{_key(grid, geometry)}.npz"
    shape = (int(np.prod(geometry.shape)), grid.size)
    matrix = _read(path, shape)
    if matrix is None:
        matrix = build(grid, geometry)
        _write(path, matrix)
    return matrix


def _key(grid: VolumeGrid, geometry: Geometry | VolumeGeometry) -> str:
    import astra

    return hashlib.sha256(f"{_BUILDER} {astra.__version__} {grid!r} ".encode() + bytes_of(geometry)).hexdigest()[:32]


def _read(path: Path, shape: tuple[int, int]) -> sp.csr_array | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            matrix = sp.csr_array((file["data"], file["indices"], file["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("The cached ray transform %s cannot be read (%s); it is built anew.", path.name, error)
        return None
    with suppress(OSError):  # what others own can be read all the same
        path.touch()
    return matrix


def _write(path: Path, matrix: sp.csr_array) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix="part-", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, data=matrix.data, indices=matrix.indices, indptr=matrix.indptr)
        temporary.replace(path)
        _forget_oldest(path.parent)
    except OSError as error:
        _log.info("The ray transform is not cached: %s.", error)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _forget_oldest(directory: Path) -> None:
    """Remove the files used longest ago until the rest fits, and what processes that were killed left half-written."""
    for left in directory.glob("part-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT:
                left.unlink()
    files = sorted(directory.glob("ray-*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = np.cumsum([file.stat().st_size for file in files])
    for file, size in list(zip(files, total, strict=True))[1:]:
        if size > _KEEP_BYTES:
            file.unlink(missing_ok=True)
