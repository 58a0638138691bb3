"""A known object of one material: its picture says where, the scan says how much it attenuates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.pictures import load_picture
from ctuq.tomo.geometry import VolumeGrid, default_grid
from ctuq.tomo.rays.matrix import build_matrix
from ctuq.tomo.scan import Scan

_VIEWS, _SIZE, _ROUNDS, _OUTLIER = 12, 256, 5, 3.0
_EXPLAINED = 0.5


def with_truth(scan: Scan, path: Path) -> Scan:
    """The scan with a segmentation as its truth, on the scan's grid (or its field of view if it has none).

    Raises
    ------
    InputError
        If the picture is not square or has not exactly two values, or its projections do not resemble the scan's.
    """
    picture = load_picture(path)
    values = np.unique(picture)
    if picture.ndim != 2 or picture.shape[0] != picture.shape[1] or len(values) != 2:
        raise InputError(
            f"'{path}' must be a square picture of two values, material and air; it is {picture.shape}, {len(values)}."
        )
    mask = (picture == values[1]).astype(np.float32)
    size = len(mask)
    grid = default_grid(scan.geometry, size) if scan.grid is None else scan.grid.resized(size)
    attenuation = _material_attenuation(scan, mask, grid)
    if attenuation is None:
        raise InputError(f"The projections of '{path}' do not resemble the scan; it is another object or turned otherwise.")
    step = f"truth from '{path.name}', attenuation {attenuation:.5g} 1/mm by robust least squares"
    return replace(scan, truth=attenuation * mask, grid=grid, provenance=scan.provenance.then(step))


def _material_attenuation(scan: Scan, mask: NDArray, grid: VolumeGrid) -> float | None:
    """Attenuation in 1/mm that makes a mask's projections fit the scan, by least squares without outliers.

    Rays further than three robust standard deviations from the fit are left out, five times over.

    Returns
    -------
    float or None
        None if the mask explains less than half of the projections' mean square.
    """
    small = scan.select(np.unique(np.linspace(0, scan.n_angles - 1, min(_VIEWS, scan.n_angles)).astype(int)))
    factor = max(1, len(mask) // _SIZE)
    kept = len(mask) // factor * factor
    coarse = mask[:kept, :kept].reshape(kept // factor, factor, kept // factor, factor).mean(axis=(1, 3))
    matrix = build_matrix(VolumeGrid(coarse.shape, grid.voxel * factor, grid.centre), small.geometry)
    lengths, y = (matrix @ coarse.ravel().astype(np.float32)).astype(np.float64), small.projections.ravel().astype(np.float64)
    used, value = lengths > 0, 0.0
    for _ in range(_ROUNDS):
        if not used.any():
            return None
        value = float(lengths[used] @ y[used] / (lengths[used] @ lengths[used]))
        residual = y - value * lengths
        used = (lengths > 0) & (np.abs(residual) <= _OUTLIER * 1.4826 * np.median(np.abs(residual[lengths > 0])) + 1e-12)
    explained = 1 - np.sum((y - value * lengths) ** 2) / np.sum(y**2)
    return value if value > 0 and explained > _EXPLAINED else None
