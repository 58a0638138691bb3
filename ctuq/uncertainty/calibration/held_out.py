"""Rays that a model is judged by: held-out views that scale its error bars, and each view predicted from all others.

Of an image all rays of such views are predicted together. A volume's view has as many rays as an image has pixels, and each
takes a solve: of these a lattice on the detector is predicted, and the views that are left out one by one are few.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.scores.gaussian import gaussian_scores
from ctuq.systematics.pose import complement
from ctuq.tomo.rays.rows import RayRows
from ctuq.uncertainty.calibration.scales import Scales, learn_scales
from ctuq.uncertainty.calibration.turns import Turns, in_turn
from ctuq.uncertainty.model.route import views_among
from ctuq.uncertainty.results.contents import Calibration

_SEVERAL, _FEW = 2, 4
"""Views that are predicted in turn; rays of a view to each of its own errors, of which these can be told."""


class Unseen(Protocol):
    """Left-out rays given all others, in units of their noise."""

    def variances(self, index: Tensor) -> Tensor:
        """Of some of the left-out rays, noise included, (k,), float64."""
        ...

    def innovations(self, index: Tensor) -> Tensor:
        """What some of the left-out rays measured, less what the linear model expects of them, (k,), float64."""
        ...

    def joint(self, index: Tensor) -> Tensor:
        """Covariance of some of the left-out rays, noise included, (k, k), float64."""
        ...

    def systematic(self) -> tuple[Tensor, Tensor] | None:
        """What the image holds of systematic errors, (d,), and these errors' rays, whitened (k,), by all others; None without.

        Both float64. Rays are then predicted by an image without it, and with these. Of errors that were taken out of the rays
        before the fit both are of what is left.
        """
        ...

    def own(self) -> Tensor:
        """What a standard deviation of each systematic error that no other ray has does to them, (k, q), float64.

        Flux, angle and shift of a held-out view: they are no errors of the image, and say nothing of its scale.
        """
        ...

    def correction(self, residual: Tensor, image_scale: float, noise_scale: float) -> Tensor:
        """Conditional mean of the image's error, float64, given how far all left-out rays are off the image."""
        ...


class MeasuredRays(Protocol):
    """An image and the used rays of its scan, as `ctuq.uncertainty.model.linear.ImageModel` has them."""

    @property
    def image(self) -> Tensor:
        """Attenuation, 1/mm."""
        ...

    @property
    def matrix(self) -> RayRows:
        """Rays, whitened by the roots of their weights, (m, d)."""
        ...

    @property
    def precision(self) -> Tensor:
        """Weight of each used ray."""
        ...

    @property
    def rays(self) -> Tensor:
        """Flat index of each used ray among all."""
        ...

    @property
    def views(self) -> Tensor:
        """View of each used ray."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rays."""
        ...


Without = Callable[[Tensor], Unseen]
"""Leaves some of the used rays out."""


def of_views(model: MeasuredRays, views: NDArray[np.int64]) -> Tensor:
    """Which of the used rays are of these views, bool (m,)."""
    return torch.isin(model.views, torch.as_tensor(views, device=model.views.device))


def calibrate_by_views(
    without: Without,
    model: MeasuredRays,
    y: Tensor,
    held_out: NDArray[np.int64],
    sigma2: float,
    *,
    most: int,
    correct: bool = True,
) -> tuple[Scales, Calibration, Tensor]:
    """Scales from the held-out rays, the record of it, and what these rays add to the image.

    Parameters
    ----------
    without : callable
    model : MeasuredRays
        Of all views.
    y : Tensor
        All projections.
    held_out : array of int
        Views.
    sigma2 : float
    most : int
        Rays to learn from; of more, a lattice.
    correct : bool
        Whether to work out what they add, which takes solves; else it is zero.
    """
    held = HeldOut.of(without, model, y, held_out, sigma2, most=most)
    scales = learn_scales(*held.facts())
    correction = held.correction(scales) if correct else torch.zeros_like(model.image, dtype=torch.float64)
    return scales, held.calibration(scales), correction


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rays of held-out views given all others, by the linear model alone.

    Parameters
    ----------
    left : Unseen
        All of them.
    off : Tensor, float64, shape (all,)
        How far each is off the image, in units of its noise.
    measured, predicted, signal, noise : Tensor, float64, shape (k,)
        Of those to learn from: projections, those of the image, and the variances that are the image's and the noise's.
    on_detector : callable
        Their values as (view, column) or (view, row, column).
    views : array of int
    turns : Turns, optional
        Each view given the others, where there are several.
    own : Tensor, float64, shape (k,)
        Of ``signal``, what is of these views' own systematic errors.
    told : tuple of Tensor, float64, shape (k,)
        Residual, the image's variance and the noise's, beside what such errors can make of a residual.
    absorbed : Tensor, float64, shape (d,), optional
        What the fitted image holds of systematic errors, by all other rays; predictions are those of an image without it.
    """

    left: Unseen
    off: Tensor
    measured: Tensor
    predicted: Tensor
    signal: Tensor
    noise: Tensor
    on_detector: "_OnDetector"
    views: NDArray[np.int64]
    own: Tensor
    told: tuple[Tensor, Tensor, Tensor]
    turns: Turns | None = None
    absorbed: Tensor | None = None

    @classmethod
    def of(
        cls, without: Without, model: MeasuredRays, y: Tensor, views: NDArray[np.int64], sigma2: float, *, most: int
    ) -> "HeldOut":
        """Leave the rays of these views out; arguments as of `calibrate_by_views`."""
        new = of_views(model, views).nonzero()[:, 0]
        left, some = without(new), spread(model, new, most)
        measured = y.reshape(-1)[model.rays[new]].double()
        absorbed, errors = left.systematic() or (None, 0.0)
        image = model.image.flatten().double() - (0.0 if absorbed is None else absorbed)
        predicted = (model.matrix.rows(new)(image[None])[0] + errors) / model.precision[new].sqrt()
        noise = sigma2 / model.precision[new]
        joint = left.joint(some)
        signal = (joint.diagonal() - 1).clamp(min=0) * noise[some]
        place, off = _OnDetector(model, new[some], views), (measured - predicted) / noise.sqrt()
        own, of = left.own()[some], model.views[new[some]]
        free, noise, told = _beside(own, of), noise[some], (measured[some] - predicted[some], signal, noise[some])
        if free is not None:
            share = free.square().sum(1)
            image = (((free @ (free.T @ joint @ free)) * free).sum(1) - share).clamp(min=0)
            told = (free @ (free.T @ off[some]) * noise.sqrt(), image * noise, share * noise)
        turns, own = _turns((joint, off[some], noise), of, place, free), own.square().sum(1) * noise
        return cls(left, off, measured[some], predicted[some], signal, noise, place, views, own, told, turns, absorbed)

    def facts(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], Turns | None]:
        """Residual, the image's variance and the noise's, on the detector, and the views in turn: what `learn_scales` takes."""
        residual, signal, noise = map(self.on_detector, self.told)
        return residual, signal, noise, self.turns

    def correction(self, scales: Scales) -> Tensor:
        """What these rays add to the image by these scales, less what it holds of systematic errors."""
        added = self.left.correction(self.off, scales.image, scales.noise)
        return added if self.absorbed is None else added - self.absorbed.reshape(added.shape)

    def calibration(self, scales: Scales) -> Calibration:
        """The record of what these scales make of the rays."""
        rays = tuple(v.cpu().numpy() for v in (self.measured, self.predicted, self.signal, self.noise, self.own))
        return record_of(rays, self.views, scales, on_detector=lambda v: self.on_detector(torch.from_numpy(v)))


def record_of(
    rays: tuple[NDArray[np.float64], ...],
    views: NDArray[np.int64],
    scales: Scales,
    *,
    on_detector: Callable[[NDArray], NDArray],
) -> Calibration:
    """What these scales make of held-out rays: scores before and after, and every prediction.

    Parameters
    ----------
    rays : tuple of array, shape (k,)
        Measured, predicted, variance that is the image's, variance that is the noise's, and, where there is any, of the image's
        that of errors of single views, which is not scaled.
    views : array of int
    scales : Scales
    on_detector : callable
        Puts values (k,) in their places, (views, columns) or (views, rows, columns).
    """
    measured, predicted, signal, noise, *own = rays
    raw, calibrated = signal + noise, scales.image * signal + scales.noise * noise + (1 - scales.image) * sum(own)
    return Calibration(
        views=tuple(int(v) for v in views),
        image_scale=scales.image,
        noise_scale=scales.noise,
        log_image_scale_sd=scales.log_image_sd,
        log_noise_scale_sd=scales.log_noise_sd,
        raw=gaussian_scores(measured - predicted, raw),
        calibrated=gaussian_scores(measured - predicted, calibrated),
        predictions=np.stack([on_detector(v) for v in (measured, predicted, np.sqrt(raw), np.sqrt(calibrated))]).astype(
            np.float32
        ),
        cover_68=scales.cover_68,
        cover_95=scales.cover_95,
    )


def _beside(own: Tensor, views: Tensor) -> Tensor | None:
    """Orthonormal columns (k, n), each of one view, beside what errors of its own do to it; all of a view of few rays.

    None where there are no such errors.
    """
    if not own.shape[1]:
        return None
    parts = []
    for view in views.unique():
        rows = (views == view).nonzero()[:, 0]
        mine = own[rows][:, (own[rows] != 0).any(0)]
        kept = complement(mine if len(mine) >= _FEW * mine.shape[1] else mine[:, :0])
        part = own.new_zeros(len(own), kept.shape[1])
        part[rows] = kept
        parts.append(part)
    return torch.cat(parts, 1)


def _turns(
    rays: tuple[Tensor, Tensor, Tensor], views: Tensor, place: "_OnDetector", free: Tensor | None = None
) -> Turns | None:
    """Of the covariance of some rays, how far they are off, and their noise."""
    if len(views.unique()) < _SEVERAL:
        return None
    joint, off, noise = rays
    residual, variance = in_turn(joint, off, views, free)
    return Turns(*(np.stack([place(row) for row in rows]) for rows in (residual * noise.sqrt(), variance * noise)))


def leave_one_out(
    without: Without, model: MeasuredRays, sigma2: float, *, rays: int, each: int | None = None
) -> dict[str, float]:
    """Each view predicted from all others; of more than so many rays, views spread over the scan.

    Parameters
    ----------
    without, model, sigma2
        As of `calibrate_by_views`.
    rays : int
        To predict at most, but for one view's.
    each : int, optional
        Of a view; by default all.
    """
    views, residuals, variances = model.views.unique(), [], []
    most = views_among(rays, len(model.views) / max(len(views), 1), each)
    if len(views) > most:
        views = views[torch.linspace(0, len(views) - 1, most).round().long().unique()]
    for view in views:
        rows = (model.views == view).nonzero()[:, 0]
        some = spread(model, rows, len(rows) if each is None else each)
        left = without(rows)
        scale = (sigma2 / model.precision[rows[some]]).sqrt()
        residuals.append(scale * left.innovations(some))
        variances.append(scale.square() * left.variances(some))
    return gaussian_scores(torch.cat(residuals).cpu(), torch.cat(variances).cpu())


def spread(model: MeasuredRays, rows: Tensor, most: int) -> Tensor:
    """Which of these used rays to predict, (k,): all, or those on a lattice of the detector, the same in each view."""
    if len(rows) <= most:
        return torch.arange(len(rows), device=rows.device)
    _, row, column = _places(model, rows)
    sizes, views = (int(row.max()) + 1, model.shape[-1]), len(model.views[rows].unique())
    stride = 1
    while views * (-(-sizes[0] // stride)) * (-(-sizes[1] // stride)) > most and stride < max(sizes):
        stride += 1
    kept = torch.ones_like(row, dtype=torch.bool)
    for place, size in ((row, sizes[0]), (column, sizes[1])):
        kept &= place % stride == min((stride - 1) // 2, size - 1)
    # A lattice that meets no ray of any weight says nothing: every so many rays, then.
    found = kept.nonzero()[:, 0]
    return found if len(found) else torch.arange(0, len(rows), -(-len(rows) // most), device=rows.device)


def _places(model: MeasuredRays, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """View, row (0 of an image's detector) and column of used rays."""
    rays, (views, columns) = model.rays[rows], model.shape[-2:]
    return rays // columns % views, rays // (columns * views), rays % columns


class _OnDetector:
    """Values of some used rays as (view, column) or (view, row, column); rays that are left out repeat their neighbours."""

    def __init__(self, model: MeasuredRays, rows: Tensor, views: NDArray[np.int64]):
        view, row, column = (values.cpu().numpy() for values in _places(model, rows))
        order = {int(v): i for i, v in enumerate(views)}
        lines = np.arange(model.shape[-1]) if len(model.shape) == 2 else np.unique(column)
        heights, row = np.unique(row, return_inverse=True)
        self._place = np.array([order[int(v)] for v in view], dtype=int), row, np.searchsorted(lines, column)
        self._grid = len(views), len(heights), len(lines)
        self._shape = self._grid[::2] if len(model.shape) == 2 else self._grid

    def __call__(self, values: Tensor) -> NDArray[np.float64]:
        out = np.full(self._grid, np.nan)
        out[self._place] = values.cpu().numpy()
        fill_gaps(out.reshape(-1, self._grid[-1]))
        return out.reshape(self._shape)


def fill_gaps(lines: NDArray[np.float64]) -> None:
    """Give what is NaN in lines of a detector, (k, columns), what is between its neighbours; a line of NaN the nearest line."""
    for line in lines:
        known = np.isfinite(line)
        if known.any():
            line[~known] = np.interp(np.flatnonzero(~known), np.flatnonzero(known), line[known])
    seen = np.flatnonzero(np.isfinite(lines[:, 0]))
    for empty in np.flatnonzero(~np.isfinite(lines[:, 0])):
        lines[empty] = lines[seen[np.abs(seen - empty).argmin()]]
