"""A known volume: its reconstruction is scored against it, and never made from it."""

from dataclasses import replace
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
    volume, grid = _known(path)
    told = []
    if grid is None:
        grid = _supposed(scan, volume.shape, path)
        width = grid.voxel * grid.shape[-1]
        told.append(
            f"The truth '{path.name}' says nothing of its grid: it is taken to be {width:.4g} mm wide, as what rays see."
        )
    if not np.isfinite(volume).all():
        raise InputError(f"The truth '{path}' holds numbers that are NaN or infinite; give a whole volume.")
    gain, explained = _explained(scan, volume, grid)
    if not (gain > 0 and explained > _EXPLAINED):
        raise InputError(
            f"The projections of '{path}' do not resemble the scan; it is another object, or of another grid or unit."
        )
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
    return replace(scan, truth=volume, grid=grid, provenance=scan.provenance.then(f"truth from '{path.name}'")).warned(*told)


def _known(path: Path) -> tuple[NDArray[np.float32], VolumeGrid | None]:
    """The volume of a file, and its grid where the file tells it."""
    if path.is_file() and h5py.is_hdf5(path):
        kind = records.kind_of(path)
        if kind == KIND:
            scan = read_volume_scan(path)
            if scan.truth is None or scan.grid is None:
                raise InputError(f"'{path}' is a scan without a truth; give one that knows it, or a result.")
            return scan.truth, scan.grid
        if kind == RESULT:
            entry = records.read(path, kind=RESULT)["entry"]
            return np.asarray(entry["data"]["data"], np.float32), records.made(VolumeGrid, entry["ctuq"]["grid"])
        raise InputError(f"'{path}' holds no volume; give a results.h5 of --volume, a stack in TIFF or a .npy.")
    values = _array(path) if path.suffix == ".npy" else load_picture(path)
    if values.ndim != 3:
        raise InputError(f"'{path}' has the shape {values.shape}, and a known volume has three axes (z, y, x).")
    return values.astype(np.float32), None


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
    some = np.unique(np.linspace(0, scan.n_angles - 1, min(_VIEWS, scan.n_angles)).astype(int))
    part = scan.select(some)
    mask = (volume - volume.min()) if len(np.unique(volume)) == 2 else volume
    shown = volume_transform(grid, part.geometry)(torch.tensor(mask, dtype=torch.float32)).numpy().astype(np.float64)
    used = np.ones(shown.shape, bool) if part.weights is None else part.weights > 0
    y, shown = part.projections[used].astype(np.float64), shown[used]
    size = shown @ shown
    gain = float(shown @ y / size) if size > 0 else 0.0
    return gain, float(1 - np.sum((y - gain * shown) ** 2) / max(np.sum(y**2), np.finfo(float).tiny))
