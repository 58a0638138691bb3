"""Volumes as OME-Zarr (OME-NGFF 0.4, Zarr 2): mean and standard deviation as channels, coarser copies beside them.

napari, Fiji, ParaView and many browsers open it, with the voxel size in mm; the layout is that of ngff.openmicroscopy.org/0.4.
It is written slab by slab, so that a volume may be larger than memory.
"""

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ctuq.errors import InputError, ResourceError
from ctuq.uncertainty.results.volume import VolumeResult

_SLAB, _CHUNK, _COARSEST = 16, 256, 64
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_COLOURS = {"mean": "FFFFFF", "std": "FF8800"}


def write_ome_zarr(result: VolumeResult, path: Path) -> Path:
    """Write mean and, where there is one, standard deviation; the folder appears under its name only when it is complete.

    Axes are (channel, z, y, x); y runs downwards as in the results, so its positions are those of ``-y``. Coarser levels halve
    each axis that is longer than 64: means of blocks, of the standard deviation the root of its mean square.

    Parameters
    ----------
    result : VolumeResult
        Whose volumes may be those of an open file.
    path : Path
        A folder that does not exist.

    Raises
    ------
    InputError
        If it exists, cannot be written, or zarr is not installed.
    ResourceError
        If the disk is full.
    """
    try:
        import zarr
    except ImportError as error:
        raise InputError("OME-Zarr takes the package zarr; install it: pip install 'ctuq[zarr]'.") from error
    if path.exists():
        raise InputError(f"'{path}' exists already; choose another name, or delete it first.")
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _fill(zarr.open_group(str(partial), mode="w", zarr_format=2), result, path.name)
        partial.rename(path)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise ResourceError(f"The disk has no room for '{path}'; free some space or choose another folder.") from error
        raise InputError(f"Cannot write '{path}' ({error.strerror or error}); choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def _fill(group: Any, result: VolumeResult, name: str) -> None:
    images = {key: volume for key, volume in result.images.items() if key in _COLOURS}
    shape: tuple[int, ...] = (len(images), *result.grid.shape)
    finest = _level(group, 0, shape)
    ranges = {}
    for channel, (key, volume) in enumerate(images.items()):
        low, high = np.inf, -np.inf
        for start in range(0, shape[1], _SLAB):
            slab = np.asarray(volume[start : start + _SLAB], np.float32)
            finest[channel, start : start + _SLAB] = slab
            known = slab[np.isfinite(slab)]
            if known.size:
                low, high = min(low, float(known.min())), max(high, float(known.max()))
        ranges[key] = (low, high) if low < high else (0.0, 1.0)
    steps: list[tuple[int, ...]] = [(1, 1, 1)]
    while max(shape[1:]) > _COARSEST:
        halved = tuple(2 if n > _COARSEST else 1 for n in shape[1:])
        finer, shape = group[str(len(steps) - 1)], (shape[0], *(-(-n // h) for n, h in zip(shape[1:], halved, strict=True)))
        _halve(finer, _level(group, len(steps), shape), halved, [key == "std" for key in images])
        steps.append(tuple(s * h for s, h in zip(steps[-1], halved, strict=True)))
    group.attrs.update(_attributes(result, name, steps, ranges))


def _level(group: Any, number: int, shape: tuple[int, ...]) -> Any:
    chunks = (1, min(_SLAB, shape[1]), min(_CHUNK, shape[2]), min(_CHUNK, shape[3]))
    separator = {"name": "v2", "separator": "/"}
    return group.create_array(str(number), shape=shape, chunks=chunks, dtype="float32", chunk_key_encoding=separator)


def _halve(finer: Any, coarser: Any, halved: tuple[int, ...], squares: list[bool]) -> None:
    """Means over blocks of one or two voxels along each axis, the last one repeated where it stands alone."""
    for channel, square in enumerate(squares):
        for start in range(0, coarser.shape[1], _SLAB):
            slab = np.asarray(finer[channel, start * halved[0] : (start + _SLAB) * halved[0]], np.float64)
            slab = np.pad(slab, [(0, -n % h) for n, h in zip(slab.shape, halved, strict=True)], mode="edge")
            parts = slab.reshape([size for n, h in zip(slab.shape, halved, strict=True) for size in (n // h, h)])
            mean = (parts**2 if square else parts).mean(axis=(1, 3, 5))
            coarser[channel, start : start + len(mean)] = (np.sqrt(mean) if square else mean).astype(np.float32)


def _attributes(
    result: VolumeResult, name: str, steps: list[tuple[int, ...]], ranges: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    x, y, z = result.grid.centre
    pitches, sizes = result.pitches, result.grid.shape
    corner = [middle - n * pitch / 2 for middle, n, pitch in zip((z, -y, x), sizes, pitches, strict=True)]
    levels = []
    for number, step in enumerate(steps):
        scale = [pitch * s for pitch, s in zip(pitches, step, strict=True)]
        first = [edge + size / 2 for edge, size in zip(corner, scale, strict=True)]
        moves = [{"type": "scale", "scale": [1.0, *scale]}, {"type": "translation", "translation": [0.0, *first]}]
        levels.append({"path": str(number), "coordinateTransformations": moves})
    space = [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"]
    channels = [
        {
            "label": f"{key} (1/mm)",
            "color": _COLOURS[key],
            "active": key == "mean",
            "window": {"min": low, "max": high, "start": low, "end": high},
        }
        for key, (low, high) in ranges.items()
    ]
    about = {"method": result.method, "source": result.provenance.source, "warnings": list(result.warnings)}
    return {
        "multiscales": [
            {"version": "0.4", "name": name, "axes": [{"name": "c", "type": "channel"}, *space], "datasets": levels}
        ],
        "omero": {"version": "0.4", "name": name, "channels": channels},
        "ctuq": {"units": "1/mm", "y": "downwards", **about},
    }
