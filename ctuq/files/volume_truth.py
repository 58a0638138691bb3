"""A known volume: its reconstruction is scored against it, and never made from it."""

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from ctuq import records
from ctuq.errors import GeometryError, InputError
from ctuq.files.formats.ownvolume import KIND, RESULT, read_volume_scan
from ctuq.files.formats.pictures import load_picture
from ctuq.memory import require_room
from ctuq.tomo.footprint import volume_grid
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.volume_scan import VolumeScan

_VIEWS = 6
_EXPLAINED, _WELL, _OFF = 0.5, 0.9, 0.1


def with_volume_truth(scan: VolumeScan, path: Path) -> VolumeScan:
    """The scan with a known volume and its grid, which is what is reconstructed then.

    Parameters
    ----------
    scan : VolumeScan
    path : Path
        A scan of ctuq's own with its truth, the ``results.h5`` of another volume (say, of all views), a stack in TIFF or a
        ``.npy`` of attenuation in 1/mm, (z, y, x) with slice 0 the lowest. The last two say nothing of their grid, which is
        taken to be the scan's, or the volume that its rays see. A mask of two values is given the attenuation that fits best.

    Raises
    ------
    InputError
        If the file holds no volume, its shape fits no grid, or its projections do not resemble the scan's.
    ResourceError
        If it does not fit into memory.
    """
    known = known_volume(path)
    volume, grid = known.values, known.grid
    told = []
    if grid is None:
        grid = _supposed(scan, volume.shape, path)
        told.append(f"The truth '{path.name}' says nothing of its grid: {told_width(grid)}, as what rays see.")
    if not np.isfinite(volume).all():
        raise InputError(f"The truth '{path}' holds numbers that are NaN or infinite; give a whole volume.")
    volume, doubts = judged_volume(volume, *_explained(scan, volume, grid), path)
    return replace(scan, truth=volume, grid=grid, provenance=scan.provenance.then(f"truth from '{path.name}'")).warned(
        *told, *doubts
    )


def judged_volume(volume: NDArray, gain: float, explained: float, path: Path) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The volume, a mask with the attenuation that fits best, and what is doubtful about it."""
    if not (gain > 0 and explained > _EXPLAINED):
        raise InputError(
            f"The projections of '{path}' do not resemble the scan; it is another object, or of another grid or unit."
        )
    told = []
    if len(np.unique(volume)) == 2:
        volume = (gain * (volume == volume.max()) * (volume.max() - volume.min())).astype(np.float32)
    elif abs(gain - 1) > _OFF:
        told.append(
            f"The scan attenuates {gain:.3g} times as much as the truth '{path.name}' says: one of them is in another unit."
        )
    if explained < _WELL:
        told.append(
            f"The truth '{path.name}' explains {100 * explained:.1f} % of the projections' mean square: it may be of another "
            "field or turned, so scores against it are in doubt."
        )
    return volume, tuple(told)


@dataclass(frozen=True, eq=False)
class KnownVolume:
    """The volume of a file, (z, y, x); its grid and the distance of its slices in mm, where the file tells them."""

    values: NDArray[np.float32]
    grid: VolumeGrid | None = None
    pitch: float | None = None


def known_volume(path: Path) -> KnownVolume:
    """Read a known volume."""
    if path.is_file() and h5py.is_hdf5(path):
        kind = records.kind_of(path)
        if kind == KIND:
            scan = read_volume_scan(path)
            if scan.truth is None or scan.grid is None:
                raise InputError(f"'{path}' is a scan without a truth; give one that knows it, or a result.")
            return KnownVolume(scan.truth, scan.grid, scan.grid.voxel)
        if kind == RESULT:
            entry = records.read(path, kind=RESULT)["entry"]
            grid = records.made(VolumeGrid, entry["ctuq"]["grid"])
            pitch = entry["ctuq"].get("slice_pitch") or grid.voxel
            return KnownVolume(np.asarray(entry["data"]["data"], np.float32), grid, float(pitch))
        raise InputError(f"'{path}' holds no volume; give a results.h5 of --volume, a stack in TIFF or a .npy.")
    values = _array(path) if path.suffix == ".npy" else load_picture(path)
    if values.ndim != 3:
        raise InputError(f"'{path}' has the shape {values.shape}, and a known volume has three axes (z, y, x).")
    return KnownVolume(values.astype(np.float32))


def _array(path: Path) -> NDArray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"'{path}' is no whole .npy of numbers; save it again.") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise InputError(f"'{path}' holds no real numbers; save attenuation in 1/mm.")
    require_room(values.shape, 4, f"'{path}'", "give a smaller one")
    return values


def _supposed(scan: VolumeScan, shape: tuple[int, ...], path: Path) -> VolumeGrid:
    """The grid that a volume of this shape is taken to have."""
    try:
        grid = volume_grid(scan.geometry, shape[-1]) if scan.grid is None else scan.grid.resized(shape[-1])
    except GeometryError as error:
        raise InputError(f"'{path}' says nothing of its grid, and the scan has none; give a results.h5 of --volume.") from error
    if grid.shape != shape:
        raise InputError(
            f"'{path}' has the shape {shape} and says nothing of its grid, and the volume that the rays see would have "
            f"{grid.shape}; give a results.h5 of --volume."
        )
    return grid


def _explained(scan: VolumeScan, volume: NDArray, grid: VolumeGrid) -> tuple[float, float]:
    """By what a volume's projections must be multiplied to fit the scan, and the share of its mean square they explain then."""
    part = few_views(scan)
    shown = volume_transform(grid, part.geometry)(torch.tensor(lifted_mask(volume), dtype=torch.float32)).numpy()
    return fitted_gain(part, shown)


def few_views(scan: VolumeScan) -> VolumeScan:
    """Some views, spread over all: enough to tell whether a volume is the scan's."""
    return scan.select(np.unique(np.linspace(0, scan.n_angles - 1, min(_VIEWS, scan.n_angles)).astype(int)))


def lifted_mask(volume: NDArray) -> NDArray[np.float32]:
    """A mask from 0 up, whatever its two values are."""
    mask = len(np.unique(volume)) == 2
    return np.asarray(volume - volume.min() if mask else volume, np.float32)


def fitted_gain(part: VolumeScan, shown: NDArray) -> tuple[float, float]:
    """By what projections must be multiplied to fit those of a scan, and the share of their mean square they explain then."""
    used = np.ones(shown.shape, bool) if part.weights is None else part.weights > 0
    y, shown = part.projections[used].astype(np.float64), shown[used].astype(np.float64)
    size = shown @ shown
    gain = float(shown @ y / size) if size > 0 else 0.0
    return gain, float(1 - np.sum((y - gain * shown) ** 2) / max(np.sum(y**2), np.finfo(float).tiny))


def told_width(grid: VolumeGrid) -> str:
    """How wide a truth is taken to be."""
    return f"it is taken to be {grid.voxel * grid.shape[-1]:.4g} mm wide"
