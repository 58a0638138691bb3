"""What pixels cannot draw, as a variance of each ray.

An object has edges inside of pixels. Its rays are not those of the pixels' means, by a part that no image of these pixels makes
and that no noise is: of the Shepp-Logan head at 64 x 64 pixels it is 7 times a noise of 0.5 %. To a model that knows noise
alone every bit of it is fact. The image then rings about its edges to explain it, held-out rays, which have it too, are
foretold well, and the intervals of the pixels miss the truth.

It is large where a ray runs along an edge, and small where it crosses one. With H the second differences of the image, n the
direction across ray r, and A its lengths in the pixels,

    S_r = c sum_i A_ri^2 (n^T H_i n)^2.

c was measured with objects drawn eight times finer than their pixels: 0.03 to 0.09 for bars, discs, polygons, the phantoms of
`ctuq.tomo.phantoms` and the same blurred by half a pixel to two, of 32 and 64 pixels, by parallel beams; 0.15 of rectangles
by a fan. Unseen rays of walnut, ta, tb and tooth are foretold best with 0.04 (of 0.02, 0.04, 0.08), within 0.03 nats a ray.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import Beam, FanBeam

if TYPE_CHECKING:  # SciPy takes a while, and results are read without.
    import scipy.sparse as sp

SHARE = 0.04
"""c."""
SHARE_IN_SPACE = {True: 0.02, False: 0.01}
"""Of volumes, by diverging rays or parallel ones, of all second differences of a voxel: of balls, shells and a box on 16^3
voxels, drawn four times finer, 0.015 to 0.07 where a pixel is as wide as a voxel or wider, and 0.007 to 0.011."""
_FINEST, _STEPS, _WIDTH = 1e-4, 400, 20.0
"""Of the largest S what the noise is at least: beyond, weights span more than float32 has digits for."""
_ALIKE, _FAINTEST = 0.01, 30.0
"""Rays whose structure, over their noise, differs by less than this in the logarithm count as one; so far below the most it is
none. Of 200,000 rays 400 noises are then tried in 0.01 s in place of 0.9, and the noise that is found is the same."""


def subpixel_variance(image: NDArray, matrix: "sp.csr_array", geometry: Beam) -> NDArray[np.float64]:
    """S of each ray.

    Parameters
    ----------
    image : array, shape (y, x)
        In 1/mm; without much noise of its own, whose second differences would be taken for edges.
    matrix : sparse array, shape (angles * columns, pixels)
        Lengths in mm.
    geometry : ParallelBeam or FanBeam

    Returns
    -------
    array, shape (angle, column)
        Variances of line integrals.
    """
    bent = np.stack(_second_differences(np.asarray(image, np.float64)))
    peak = float(np.abs(bent).max(initial=0.0))
    if peak == 0:
        return np.zeros(geometry.shape)
    # In single precision, as the lengths are: else SciPy makes a copy of these.
    xx, yy, xy = (bent / peak).astype(np.float32)
    nx, ny = np.moveaxis(_across(geometry), -1, 0)
    # Copies the lengths, and shares where they stand.
    squares = type(matrix)((np.square(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)
    terms = (
        (nx**4, xx * xx),
        (ny**4, yy * yy),
        (4 * nx**2 * ny**2, xy * xy),
        (2 * nx**2 * ny**2, xx * yy),
        (4 * nx**3 * ny, xx * xy),
        (4 * nx * ny**3, yy * xy),
    )
    total = sum(factor * (squares @ pixels.ravel()).reshape(geometry.shape) for factor, pixels in terms)
    return np.maximum(SHARE * peak**2 * np.asarray(total, np.float64), 0.0)


def curvature(volume: NDArray) -> NDArray[np.float64]:
    """Squares of a volume's second differences along its axes, summed, per voxel squared, (z, y, x)."""
    padded = np.pad(np.asarray(volume, np.float64), 1, mode="edge")
    inside = [slice(1, -1)] * 3
    total = np.zeros(volume.shape)
    for axis in range(3):
        above, below = (tuple(side if i == axis else s for i, s in enumerate(inside)) for side in (slice(2, None), slice(-2)))
        total += (padded[above] - 2 * volume + padded[below]) ** 2
    return total


def noise_beside(residual: NDArray, weights: NDArray, subpixel: NDArray) -> float:
    """Noise variance of a ray of weight 1, by maximum likelihood of ``residual ~ N(0, noise / weight + subpixel)``.

    By total variation's residuals: the noise that the fourth differences of projections show is that of the object, too, where
    it is small: of bars of four pixels it was 600 times the true variance, and by this 0.94 of it.

    Parameters
    ----------
    residual, weights, subpixel : array of one shape
        Rays of weight 0 say nothing.
    """
    used = np.asarray(weights).ravel() > 0
    squares, given, beside = (np.asarray(v, np.float64).ravel()[used] for v in (np.square(residual), weights, subpixel))
    squares *= given
    most = float(np.mean(squares)) if used.any() else 0.0
    least = _FINEST * float(beside.max(initial=0.0))
    if most <= least:
        return least
    logs = np.log(most) - np.linspace(0, _WIDTH, _STEPS)
    counts, squares, beside = _alike(squares, given * beside)
    losses = [np.sum(counts * np.log(v) + squares / v) for v in (np.exp(s) + beside for s in logs)]
    return max(float(np.exp(logs[int(np.argmin(losses))])), least)


def _alike(squares: NDArray[np.float64], beside: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
    """How many rays have about the same structure, their squares' sum, and their mean structure."""
    top = max(float(beside.max()), np.finfo(float).tiny)
    below = np.minimum(-np.log(np.maximum(beside / top, np.exp(-_FAINTEST))) / _ALIKE, _FAINTEST / _ALIKE).astype(np.int64)
    counts, *sums = (np.bincount(below, weights=v) for v in (None, squares, beside))
    met = counts > 0
    return counts[met], sums[0][met], sums[1][met] / counts[met]


def _second_differences(image: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
    """Along x, along y, and of both, per pixel squared; y goes up, and rows down."""
    p = np.pad(image, 1, mode="edge")
    xx = p[1:-1, 2:] - 2 * image + p[1:-1, :-2]
    yy = p[2:, 1:-1] - 2 * image + p[:-2, 1:-1]
    xy = (p[2:, :-2] + p[:-2, 2:] - p[2:, 2:] - p[:-2, :-2]) / 4
    return xx, yy, xy


def _across(geometry: Beam) -> NDArray[np.float64]:
    """Unit vectors in the plane at right angles to each ray, (angle, column, 2)."""
    vectors = geometry.vectors()
    along = np.broadcast_to(vectors[:, None, :2], (*geometry.shape, 2))
    if isinstance(geometry, FanBeam):
        columns = np.arange(geometry.columns) - (geometry.columns - 1) / 2
        along = vectors[:, None, 3:5] + columns[None, :, None] * vectors[:, None, 6:8] - along
    along = along / np.linalg.norm(along, axis=-1, keepdims=True)
    return np.stack([-along[..., 1], along[..., 0]], -1)
