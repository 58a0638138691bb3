"""Gains of detector columns, from what a smooth image leaves of them in the rays: how large, how sure, whether there are any.

A gain of a column draws a ring, and an image can hold rings. What an image leaves of gains g is ``H g + b + u``: H is the part
that it does not take for the object, b what its own smoothness leaves, u what noise and pixels leave. H and b are measured on
simulated scans of that image (`ctuq.pipeline.image.rings`), so that an estimate is neither shrunk by what the image has taken
nor surer than it: the covariance has what no residual shows.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.linops.gaussian import log_evidence
from ctuq.scores.gaussian import NORMAL_QUARTILE
from ctuq.systematics.block import Block
from ctuq.systematics.detector import of_columns, rough, smooth

_TRIM, _EFFICIENCY = 5, 1.15
"""A fifth of the views at each end is left out of a column's mean, whose variance is then 1.15 times as large."""
_WAVES, _PLACES = 4, 5
"""H changes slowly with the frequency along the detector and the place on it: hats of either."""
_RIDGE, _USUAL = 1e-2, 0.7
_SIZES, _MISFITS = 31, 11
"""Of the grids over which the sizes of gains and of misfits are integrated."""
_LEAST, _MOST = 1e-2, 1e2
_SHAPE = 0.5
"""As of all learned sizes of systematic errors (`ctuq.uncertainty.estimate.log_hyperprior`)."""
_FAINT = 1e-4
_LEADING = 128
"""Directions of the gains' covariance that error bars take at most: each is a solve of all rays."""


@dataclass(frozen=True, eq=False)
class Gains:
    """What a scan tells of its gains.

    Parameters
    ----------
    values : Tensor, float64, shape (columns,)
        Shares, on the CPU, without their smooth part: the mean given the rays.
    covariance : Tensor, float64, shape (columns, columns)
    log_odds : float
        Log of how much more probable the rays are with gains than without.
    width : float
        Standard deviation of the gains before their values are known.
    """

    values: Tensor
    covariance: Tensor
    log_odds: float
    width: float

    def rays(self, shape: torch.Size) -> Tensor:
        """What they have done to the rays (views, columns), float64."""
        return -self.values.expand(shape)

    @property
    def whole(self) -> Tensor:
        """Covariance with the smooth part, which is not told, as large as the rest.

        What of it is odd along the detector is in no image, and reads as an axis beside its place: of ellipses with gains of
        5 % and 20 views a right axis was told as 0.37 +- 0.05 mm off, with it +- 0.19.
        """
        broad = smooth(len(self.values))
        return self.covariance + self.width**2 * broad @ broad.T

    def left(self, shape: torch.Size) -> Block:
        """What is left of them once they are taken out, which no ray tells: to be considered in error bars."""
        values, vectors = torch.linalg.eigh((self.whole + self.whole.T) / 2)
        kept = values > _FAINT * values[-1].clamp(min=torch.finfo(values.dtype).tiny)
        root = (vectors[:, kept] * values[kept].sqrt()).flip(1)[:, :_LEADING]
        return Block("gain", of_columns(-torch.ones(shape, dtype=torch.float64), root), 1.0, False, True, root)


def offsets(residual: Tensor, used: Tensor) -> Tensor:
    """Trimmed mean over the views of each column, of rays that are used: (..., columns) of (..., views, columns).

    A plain mean of a column takes the few views along an object's edge, whose pixels are coarse, for its gain.
    """
    count = used.sum(-2, keepdim=True)
    ordered = torch.where(used, residual, math.inf).sort(-2).values
    rank = torch.arange(used.shape[-2], device=used.device)[:, None]
    inner = (rank >= count // _TRIM) & (rank < count - count // _TRIM)
    return torch.where(inner, ordered, 0.0).sum(-2) / inner.sum(-2).clamp(min=1)


def scatter_of(residual: Tensor, used: Tensor) -> Tensor:
    """Variance of each of `offsets`, from the spread of a column's views: half its own, half that of all columns."""
    off = torch.where(used, residual - offsets(residual, used), math.nan)
    deviations = (off - off.nanmedian(-2).values).abs().nanmedian(-2).values / NORMAL_QUARTILE
    variance = deviations.square()
    known = variance.isfinite()
    usual = variance[known].mean() if bool(known.any()) else variance.new_tensor(0.0)
    count = used.sum(-2).clamp(min=1)
    mixed = _EFFICIENCY * 0.5 * (torch.where(known, variance, usual) + usual) / count
    # A column that no view has is not known.
    return torch.where(used.sum(-2) > 0, mixed, 1e6 * residual.square().mean())


def rim_of(rays: Tensor) -> Tensor:
    """Where pixels may leave the same misfit in all views, (columns,), of rms 1: about kinks of the mean projection.

    The rim of a round object stays in its columns as it turns; of a disc in square pixels the rays there are off by as much as
    gains of twice the noise, in every view.
    """
    mean = rays.mean(-2)
    kink = torch.zeros_like(mean)
    kink[1:-1] = mean.diff(n=2).abs()
    wide = torch.nn.functional.max_pool1d(kink[None, None], 3, 1, 1)[0, 0]
    return wide / wide.square().mean().sqrt().clamp(min=torch.finfo(wide.dtype).tiny)


@dataclass(frozen=True, eq=False)
class Response:
    """What an image leaves of gains, over the waves of `rough`.

    Parameters
    ----------
    matrix : Tensor, float64, shape (k, k)
        H.
    rest : Tensor, float64, shape (k,)
        Variance of what is left of each wave beside ``H g``, over that of g.
    """

    matrix: Tensor
    rest: Tensor

    @classmethod
    def of(cls, draws: Tensor, left: Tensor) -> "Response":
        """By least squares from what is left of drawn gains, both (n, columns), float64."""
        columns = draws.shape[1]
        basis = rough(columns)
        k = basis.shape[1]
        waves = _hats(torch.linspace(0, 1, k, dtype=torch.float64), _WAVES)
        places = _hats(torch.linspace(0, 1, columns, dtype=torch.float64), _PLACES).sqrt()
        seen = [basis.T * place for place in places.T]
        terms = torch.stack([(s @ basis * wave) @ basis.T @ s.T for wave in waves.T for s in seen])
        drawn, kept = draws @ basis, left @ basis
        made = torch.einsum("tij,nj->tni", terms, drawn).flatten(1)
        gram = made @ made.T
        ridge = _RIDGE * float(gram.diagonal().mean())
        gram.diagonal().add_(ridge)
        factors = torch.linalg.solve(gram, made @ kept.flatten() + _USUAL * ridge)
        matrix = torch.tensordot(factors, terms, 1)
        free = kept.numel() / max(1, kept.numel() - len(terms))
        off, whole = (kept - drawn @ matrix.T).square().sum(0), drawn.square().sum(0)
        weight = waves / waves.sum(0)
        return cls(matrix, free * waves @ ((weight.T @ off) / (weight.T @ whole)))


def told_gains(left: Tensor, response: Response, variance: Tensor, rim: Tensor, width: float | None = None) -> Gains:
    """Gains given what an image leaves of them, with their size and that of misfits integrated over.

    ``D^T left = H g + u`` over the waves D, ``g ~ N(0, s)``, ``u ~ N(0, D^T diag(variance + t rim^2) D + s diag(rest))``; the
    logarithm of t is uniform over what the residual allows, that of s has the density of a learned size, ``1/2 log s``, which
    keeps it off zero.

    Parameters
    ----------
    left : Tensor, float64, shape (columns,)
        Without what the image leaves where there are no gains.
    response : Response
    variance, rim : Tensor, float64, shape (columns,)
        Of `scatter_of` and `rim_of`.
    width : float, optional
        Standard deviation of a gain, where it is known.
    """
    basis, H = rough(len(left)), response.matrix
    seen = left @ basis
    # Rays without noise leave a misfit of pixels, and empty ones nothing.
    variance = variance.clamp(min=1e-9 * float(left.square().mean()) + 1e-30)
    least = _LEAST * float(variance.median())
    most = _MOST * max(float(seen.square().mean()), least / _LEAST)
    sizes = _grid(least, most, _SIZES) if width is None else [width**2]
    own, rough_rim = basis.T @ (variance[:, None] * basis), basis.T @ (rim.square()[:, None] * basis)
    found, without = [], []
    for t in _grid(least, most, _MISFITS):
        misfit = own + t * rough_rim
        without.append(log_evidence(misfit, seen)[0])
        found += [(log_evidence(_with(misfit, s, response), seen)[0] + _SHAPE * math.log(s), s, misfit) for s in sizes]
    logs = torch.tensor([value for value, _, _ in found], dtype=torch.float64)
    none = torch.tensor(without, dtype=torch.float64)
    before = _SHAPE * torch.tensor(sizes, dtype=torch.float64).log()
    odds = float(logs.logsumexp(0) - none.logsumexp(0) - before.logsumexp(0))
    mean, square = torch.zeros_like(seen), torch.zeros_like(H)
    log_width = 0.0
    for share, (_, s, misfit) in zip((logs - logs.logsumexp(0)).exp().tolist(), found, strict=True):
        log_width += 0.5 * share * math.log(s)
        if share > _FAINT:
            gain = torch.linalg.solve(_with(misfit, s, response), s * H).T
            at = gain @ seen
            mean += share * at
            square += share * (s * (torch.eye(len(at), dtype=torch.float64) - gain @ H) + at[:, None] * at)
    covariance = square - mean[:, None] * mean
    return Gains(basis @ mean, basis @ ((covariance + covariance.T) / 2) @ basis.T, odds, math.exp(log_width))


def _with(misfit: Tensor, s: float, response: Response) -> Tensor:
    return misfit + s * (response.matrix @ response.matrix.T + torch.diag(response.rest))


def _hats(at: Tensor, count: int) -> Tensor:
    """Linear hats (n, count) that sum to 1."""
    return (1 - (at[:, None] * (count - 1) - torch.arange(count, dtype=at.dtype)).abs()).clamp(min=0)


def _grid(least: float, most: float, count: int) -> list[float]:
    return torch.logspace(math.log10(least), math.log10(most), count, dtype=torch.float64).tolist()
