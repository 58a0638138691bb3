"""Filtered back-projection for parallel and fan beams with a flat detector, in batches, on the device of the data."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import InputError
from ctuq.recon.redundancy import ray_weights
from ctuq.tomo.coverage import detector_columns
from ctuq.tomo.geometry import FanBeam, Geometry, VolumeGrid, full_turn
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.shadow import CUT, air_below, edge_columns, goes_on

_WINDOWS = {
    "ram-lak": np.ones_like,
    "shepp-logan": lambda f: np.sinc(f / 2),
    "cosine": lambda f: np.cos(np.pi / 2 * f),
    "hamming": lambda f: 0.54 + 0.46 * np.cos(np.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(np.pi * f),
}


def fbp(A: RayTransform, y: Tensor, *, weights: Tensor | None = None, window: str = "hann") -> Tensor:
    """Filtered back-projection on ``A.grid``, for any list of angles, short scans and shifted detectors.

    Parameters
    ----------
    A : RayTransform
        Gives grid and geometry; its product is not used.
    y : Tensor, shape (..., angle, column)
        Line integrals.
    weights : Tensor, optional
        Taken for the common signature, and not used: the filter treats every ray alike.
    window : {"hann", "ram-lak", "shepp-logan", "cosine", "hamming"}
        Apodisation of the ramp, which ends at the detector's or the image's Nyquist frequency, whichever is lower.

    Returns
    -------
    Tensor, shape (..., y, x)
        Attenuation in 1/mm.

    Raises
    ------
    InputError
        If the window is unknown or the sinogram's shape is not the geometry's.

    Notes
    -----
    Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, sections 3.3 and 3.4; redundant rays as in
    `ctuq.recon.redundancy`.
    """
    require_window(window)
    if tuple(y.shape[-2:]) != A.geometry.shape:
        raise InputError(f"The sinogram has shape {tuple(y.shape)}, but the geometry says (..., {A.geometry.shape}).")
    grid, geometry = A.grid, A.geometry
    places = detector_columns(geometry, pixel_centres(grid))
    margin = int(np.ceil(max(0.0, -places.min(), places.max() - geometry.columns + 1))) + 1
    scale = torch.from_numpy(ray_factors(geometry)).to(y)
    rays = y.reshape(-1, *geometry.shape)
    rays, beyond = continued(rays * scale, cut_ends(rays) & open_ends(geometry))
    filtered = filtered_rays(rays, ramp(grid, geometry, margin, beyond, window), margin, beyond)
    image = _back_project(filtered, grid, geometry, places + margin)
    return image.reshape(*y.shape[:-2], *grid.shape)


def require_window(window: str) -> None:
    """Refuse a window that there is not.

    Raises
    ------
    InputError
        With those that there are.
    """
    if window not in _WINDOWS:
        raise InputError(f"There is no filter window {window!r}; choose one of {', '.join(_WINDOWS)}.")


def pixel_centres(grid: VolumeGrid) -> NDArray:
    """Centres (x, y) of the pixels in mm, row by row."""
    y, x = grid.places()
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)


def ray_factors(geometry: Geometry) -> NDArray:
    """Quadrature and redundancy, times the fan's change of variables from (angle, distance) of a line to (view, column).

    That is cos(gamma) (1 + a s / D^2) with s the column's position at the axis' distance D and a the axis' offset (Gullberg
    et al. 1986).
    """
    weights = ray_weights(geometry)
    if not isinstance(geometry, FanBeam):
        return weights
    slope = geometry.positions() / geometry.source_to_detector
    return weights * (1 + geometry.axis_offset / geometry.source_to_axis * slope) / np.hypot(1, slope)


def open_ends(geometry: Geometry) -> NDArray[np.bool_]:
    """Whether nobody else measures what lies beyond the first and the last column: in a full turn the longer side does."""
    left, right = np.abs(geometry.axis_distances(np.array([-0.5, geometry.columns - 0.5])))
    shorter = np.array([left, right]) < max(left, right) - geometry.pixel_at_axis / 2
    return ~shorter | (not full_turn(geometry.angles))


def cut_ends(y: Tensor) -> NDArray[np.bool_]:
    """Whether each view of sinograms (k, angle, column) is cut off at its first and its last columns, (k, angle, 2)."""
    values, n = y.cpu().numpy(), edge_columns(y.shape[-1])
    if values.shape[-1] < 2 * n:
        return np.zeros((*values.shape[:-1], 2), bool)
    both = values[..., : 2 * n], values[..., ::-1][..., : 2 * n]
    edge, inner = (np.stack([each[..., part].mean(-1) for each in both], axis=-1) for part in (slice(n), slice(n, None)))
    return goes_on(edge, inner, n, np.array([air_below(each, n, CUT) for each in values])[:, None, None])


def continued(y: Tensor, cut: NDArray[np.bool_]) -> tuple[Tensor, int]:
    """Sinograms (k, angle, column) with so many columns more on either side, if any view is ``cut`` (k, angle, 2) there.

    A ramp takes the step at a cut for an edge of the object, bright all over the image. So each view goes on with its value at
    the edge, that falls to nothing smoothly.
    """
    if not cut.any():
        return y, 0
    columns, n = y.shape[-1], edge_columns(y.shape[-1])
    levels = torch.stack([y[..., :n].mean(-1), y[..., columns - n :].mean(-1)], dim=-1)
    levels = torch.where(torch.from_numpy(cut).to(y.device), levels, 0)
    beyond = columns // 2 + 1
    fall = torch.cos(torch.linspace(0, np.pi / 2, beyond + 2, dtype=y.dtype, device=y.device)[1:-1]).square()
    left, right = levels[..., :1] * fall.flip(0), levels[..., 1:] * fall
    return torch.cat([left, y, right], dim=-1), beyond


def ramp(grid: VolumeGrid, geometry: Geometry, margin: int, beyond: int, window: str) -> NDArray:
    """Windowed ramp in 1/mm at the frequencies of a real transform, from the band-limited kernel's samples."""
    pitch = geometry.pixel_at_axis
    length = 2 ** int(np.ceil(np.log2(2 * (geometry.columns + 2 * margin + 2 * beyond))))
    lag = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.where(lag % 2 == 1, -1 / (np.pi * np.maximum(lag, 1)) ** 2, 0.0)
    kernel[0] = 0.25
    frequency = np.arange(length // 2 + 1) / (length // 2) / min(1.0, pitch / grid.voxel)
    return np.fft.rfft(kernel).real / pitch * np.where(frequency <= 1, _WINDOWS[window](np.minimum(frequency, 1)), 0)


def filtered_rays(y: Tensor, ramp: NDArray, margin: int, beyond: int) -> Tensor:
    """Filter along columns; keep ``margin`` more than the detector's on each side, where the ramp's tails are."""
    columns, length = y.shape[-1], 2 * (len(ramp) - 1)
    padded = torch.nn.functional.pad(y, (margin, length - columns - margin))
    spectrum = torch.fft.rfft(padded) * torch.from_numpy(ramp).to(y)
    return torch.fft.irfft(spectrum, n=length)[..., beyond : columns - beyond + 2 * margin]


def _back_project(q: Tensor, grid: VolumeGrid, geometry: Geometry, places: NDArray) -> Tensor:
    """Sum over views of ``q`` (k, angle, column), interpolated where pixels fall, over a fan's squared magnification."""
    image = q.new_zeros(len(q), grid.size)
    pixels = pixel_centres(grid)
    for view, place in enumerate(places):
        first = np.minimum(place.astype(np.int64), q.shape[-1] - 2)
        part, left = torch.from_numpy(place - first).to(q), torch.from_numpy(first).to(q.device)
        value = torch.lerp(q[:, view, left], q[:, view, left + 1], part)
        if isinstance(geometry, FanBeam):
            value = value / torch.from_numpy(_distance(geometry, view, pixels) ** 2).to(q)
        image += value
    return image


def _distance(geometry: FanBeam, view: int, pixels: NDArray) -> NDArray:
    """From the source to the pixels along the central ray, over that to the axis."""
    angle = geometry.angles[view]
    along = np.array([-np.sin(angle), np.cos(angle)])
    return 1 + pixels @ along / geometry.source_to_axis
