"""Gains of detector columns, taken out of the rays before a network is fitted to them.

A network that is fitted to rays with gains holds their rings, and the linear model at that fit knows no better: its prior is
about no image at all, so that rings and round parts of the object are one to it. Of 32 x 32 pixels its intervals held 34 to
88 % of the true gains. So gains are told by a total-variation image that is smoother than one to look at: it leaves most of
them in the residual, and what it does take is measured, on scans of that image with drawn gains.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.pipeline.bars import asked_errors
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.plan import timed
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.views import SplitViews
from ctuq.recon import tv
from ctuq.recon.dip import Data
from ctuq.recon.tv import ITERATIONS
from ctuq.scores.gaussian import NORMAL_QUARTILE
from ctuq.systematics.block import Block
from ctuq.systematics.build import possible, told_in
from ctuq.systematics.catalogue import STRONG, Wish
from ctuq.systematics.detector import rough
from ctuq.systematics.rings import Gains, Response, offsets, rim_of, scatter_of, told_gains
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.restricted import OF_WEIGHTS
from ctuq.uncertainty.results.contents import Systematic

_STRENGTH, _DRAWS = 2.0, 8
"""Of the total variation: over 8 scans gains of 10 times the noise are told to 0.36 of their size by 2, to 0.37 by 1."""
_BATCH, _FEW = 4, 5
_ROUNDS, _MOVED, _STILL = 20, 0.5, 0.1
"""Images at most that flux is taken from, what of a ray's noise it has to move them by, and by what at most in the end. What
all views have in common an image takes for an object beside it, and gives back slowly, and until then the noise that is seen is
too large: of ellipses whose flux fell to half 0.20 of 0.31 in common was left by three images, 0.02 by thirteen, with which
gains of 2 % are found in 30 of 30 scans in place of 12 (`experiments.systematics.together`)."""
_TAKEN = (
    "All images are of rays without the gains of detector columns (rings): error bars and report have what they were. If the "
    "object has rings about the rotation axis of its own, keep them: --systematics axis,hardening."
)


@dataclass(frozen=True, eq=False)
class Rings:
    """Gains that were found, and what becomes of them.

    Parameters
    ----------
    gains : Gains, optional
        None where nobody asks, or, by default, where there are none.
    less : Tensor, shape (angle, column), optional
        What they have done to the rays, and is taken out of them; None for nothing.
    learned : bool
        Whether the scan tells how large gains are.
    """

    gains: Gains | None = None
    less: Tensor | None = None
    learned: bool = True

    def taken_from(self, data: Data) -> Data:
        """The rays without them."""
        return data if self.less is None else replace(data, y=data.y - self.less)

    def with_others(self, removed: Tensor) -> Tensor:
        """What was taken out of the rays with other errors."""
        return removed if self.less is None else removed + self.less.to(removed)

    @property
    def removed(self) -> NDArray[np.float32] | None:
        """What was taken out of the rays, for a result."""
        return None if self.less is None else self.less.cpu().numpy().astype(np.float32)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the images."""
        return () if self.less is None else (_TAKEN,)

    def blocks(self, shape: torch.Size) -> tuple[Block, ...]:
        """What is left of them in rays (angle, column), to be considered in error bars."""
        return () if self.gains is None else (self.gains.left(shape),)

    def told(self, found: Mapping[str, Systematic]) -> Mapping[str, Systematic]:
        """The whole of the gains in place of what is left of them."""
        if self.gains is None or "gain" not in found:
            return found
        unit, left = told_in("gain"), found["gain"]
        values, std = self.gains.values / unit, self.gains.whole.diagonal().clamp(min=0).sqrt() / unit
        whole = replace(left, values=values.numpy(), std=std.numpy(), width=self.gains.width / unit, learned=self.learned)
        samples = left.samples + values.numpy().astype(np.float32)
        return {**found, "gain": replace(whole, samples=samples, taken=None if self.less is None else values.numpy())}


def rings_of(run: Run[ReconstructOptions], data: Data, views: SplitViews, scan: Scan) -> Rings:
    """Gains as the fitted views tell them.

    Parameters
    ----------
    run : Run
    data : Data
        As measured, of all views.
    views : SplitViews
    scan : Scan
    """
    wish, A = gains_asked(run, scan), data.A
    if wish is None or not isinstance(A, RayTransform):
        return Rings()

    def made() -> dict[str, Any]:
        fitted = torch.as_tensor(views.fitted, device=data.y.device)
        seen = Data(A.subset(views.fitted), data.y[fitted], data.weights[fitted])
        return vars(gains_of(seen, width=None if wish.width is None else told_in("gain") * wish.width))

    with run.clock("gains"):
        run.tell("Gains of columns", 0, 1)
        gains = Gains(**run.stages.once("gains", made))
        run.tell("Gains of columns", 1, 1)
    if gains.log_odds >= STRONG:
        return Rings(gains, gains.rays(data.y.shape).to(data.y), wish.width is None)
    return Rings() if wish.default else Rings(gains, None, wish.width is None)


def gains_asked(run: Run[ReconstructOptions], scan: Scan) -> Wish | None:
    """The wish for gains, where the error bars can hold them and the scan can have them."""
    asked = asked_errors(run.options.systematics, scan) if run.options.bars in OF_WEIGHTS else ()
    return next((w for w in possible(asked, scan.geometry) if w.name == "gain"), None)


def seconds_of_gains(data: Data) -> float:
    """What `gains_of` takes, by a few iterations of some of its images: one alone, of 24 x 24 pixels, told 5 times as much."""
    y = data.y.expand(_BATCH, *data.y.shape)
    few = timed(lambda: tv(data.A, y, weights=data.weights, strength=_STRENGTH, iterations=_FEW))
    return (1 + 2 * _DRAWS) / _BATCH * ITERATIONS / _FEW * few


def gains_of(data: Data, *, width: float | None = None) -> Gains:
    """Gains of the columns of a slice's rays.

    Parameters
    ----------
    data : Data
        The views by which they are told, (angle, column).
    width : float, optional
        Standard deviation of a gain (share), where it is known.
    """
    A, y, weights = data.A, data.y, data.weights
    rng = torch.Generator().manual_seed(0)
    used = (weights > 0).cpu()
    image, y = _level(A, y, weights)
    rays = A(image).double().cpu()
    residual = rays - y.double().cpu()
    if rays[used].square().sum() <= residual[used].square().sum():
        # The rays are of no object, and whoever makes its image says so.
        nothing = torch.zeros(y.shape[1], dtype=torch.float64)
        return Gains(nothing, torch.diag(nothing), -math.inf, width or 0.0)
    # What a dead ray reads must not come into another view's.
    variance, noise = scatter_of(residual, used), torch.where(used, residual - offsets(residual, used), 0.0)
    basis = rough(y.shape[1])
    left = basis @ (basis.T @ offsets(residual, used))
    size = float(torch.maximum(left.square().mean(), variance.median()).sqrt())
    drawn = size * torch.randn(_DRAWS, y.shape[1], generator=rng, dtype=torch.float64) @ basis @ basis.T
    plain = torch.stack([rays + _redrawn(noise, used, rng) for _ in range(_DRAWS)])
    again = torch.cat([plain, plain - drawn[:, None]]).to(y)
    images = tv(A, again, weights=weights, strength=_STRENGTH)
    beside = offsets((A(images) - again).double().cpu(), used.expand(again.shape))
    response = Response.of(drawn, beside[_DRAWS:] - beside[:_DRAWS])
    return told_gains(left - beside[:_DRAWS].mean(0), response, variance, rim_of(rays), width)


def _level(A: RayTransform | VolumeTransform, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The smooth image, and the rays without flux of views that moves them by more than half their noise.

    Flux that drifts by 10 % hid gains of 5 %: a column's views then scatter by it. It is alike in all columns of a view, as
    gains without their smooth part are not.
    """
    flux, used = torch.zeros_like(y[:, :1]), weights > 0
    for round_ in range(_ROUNDS):
        image = tv(A, y + flux, weights=weights, strength=_STRENGTH)
        left = torch.where(used, A(image) - y - flux, math.nan)
        off = left.nanmedian(1, keepdim=True).values.nan_to_num()
        noise = (left - off).abs().nanmedian() / NORMAL_QUARTILE
        if not float(off.square().mean()) > (_STILL if round_ else _MOVED) ** 2 * float(noise) ** 2:
            return image, y + flux
        flux = flux + off
    return tv(A, y + flux, weights=weights, strength=_STRENGTH), y + flux


def _redrawn(noise: Tensor, used: Tensor, rng: torch.Generator) -> Tensor:
    """Residuals of views in another order and of random sign: whole views, as their neighbours' errors hang together."""
    order = torch.randperm(len(noise), generator=rng)
    signs = 2.0 * torch.randint(0, 2, (len(noise), 1), generator=rng, dtype=torch.float64) - 1
    return torch.where(used, signs * noise[order], 0.0)
