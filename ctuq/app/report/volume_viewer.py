"""The volume that a report's sliders go through: averaged over blocks, one byte a voxel, read slab by slab."""

import base64
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from ctuq.uncertainty.results.volume import VolumeResult

MOST_ACROSS = 96
"""Voxels along an axis: a page with mean and std then takes 2.4 MB."""
_CODES = 254


def volume_data(result: VolumeResult) -> dict[str, Any]:
    """Everything that the script of a volume's page needs, ready for JSON.

    Returns
    -------
    dict
        "shape" (z, y, x) and "block" (voxels averaged, the same order), "first" and "step" (mm of voxel 0 and to the next, by
        axis; y falls), "window" (1/mm), "layers" by name as {"data", "low", "step"}: base64 of bytes, of which 0 is no number
        and code c stands for ``low + step (c - 1)``; and "colours".
    """
    block = tuple(-(-n // MOST_ACROSS) for n in result.grid.shape)
    layers = {"mean": _coarse(result.mean, block)}
    if result.std is not None:
        layers["std"] = np.sqrt(_coarse(result.std, block, square=True))
    mean = layers["mean"][np.isfinite(layers["mean"])]
    low, high = np.percentile(mean, [0.5, 99.5]) if mean.size else (0.0, 1.0)
    first, step = _places(result, block)
    return {
        "shape": list(layers["mean"].shape),
        "block": list(block),
        "first": first,
        "step": step,
        "window": [float(low), float(high) if high > low else float(low) + 1],
        "layers": {name: _packed(volume) for name, volume in layers.items()},
        "colours": _encoded(np.round(255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)),
    }


def _coarse(volume: Any, block: tuple[int, ...], *, square: bool = False) -> NDArray[np.float32]:
    """Means over blocks; slices at the end that fill no block are averaged as one. A block with no numbers in it has none."""
    slabs = []
    for start in range(0, volume.shape[0], block[0]):
        slab = np.asarray(volume[start : start + block[0]], np.float64)
        slab = np.where(np.isfinite(slab), slab, np.nan)
        slab = (slab**2 if square else slab).mean(axis=0)
        pad = [(0, -n % b) for n, b in zip(slab.shape, block[1:], strict=True)]
        padded = np.pad(slab, pad, mode="edge")
        rows, columns = (n // b for n, b in zip(padded.shape, block[1:], strict=True))
        slabs.append(padded.reshape(rows, block[1], columns, block[2]).mean(axis=(1, 3)))
    return np.stack(slabs).astype(np.float32)


def _places(result: VolumeResult, block: tuple[int, ...]) -> tuple[dict[str, float], dict[str, float]]:
    """Position of the first coarse voxel's centre, and the step to the next, along each axis, mm."""
    first, step = {}, {}
    parts = zip("zyx", result.grid.shape, result.pitches, result.grid.centre[::-1], block, strict=True)
    for axis, n, pitch, centre, size in parts:
        sign = -1.0 if axis == "y" else 1.0
        first[axis] = float(centre - sign * (n - size) / 2 * pitch)
        step[axis] = float(sign * size * pitch)
    return first, step


def _packed(volume: NDArray) -> dict[str, Any]:
    known = volume[np.isfinite(volume)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    step = (high - low) / (_CODES - 1) or 1.0
    codes = np.where(np.isfinite(volume), 1 + np.round((np.nan_to_num(volume) - low) / step), 0)
    return {"data": _encoded(codes.astype(np.uint8)), "low": low, "step": step}


def _encoded(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
