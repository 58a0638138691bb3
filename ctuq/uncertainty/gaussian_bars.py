"""Calibrated error bars of Gaussian image priors: hyperparameters by evidence, the image, held-out views, the posterior."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.baselines.markov import edge_field, smooth_field
from ctuq.baselines.pixels import KernelField, PixelMatern
from ctuq.baselines.variances import Variances, learn_variance
from ctuq.errors import InputError
from ctuq.stages import Stages
from ctuq.uncertainty.calibration.edges import EdgeScale, Facts, WidenedRays, edge_map, has_both, learn_ratio
from ctuq.uncertainty.calibration.held_out import HeldOut, Without, calibrate_by_views, leave_one_out, of_views, spread
from ctuq.uncertainty.calibration.scales import UNSCALED
from ctuq.uncertainty.estimate import ErrorBars, Evidence
from ctuq.uncertainty.model.gaussian import ROUTES, GaussianPosterior, PixelField, PixelRays
from ctuq.uncertainty.model.omitted import OmittedRays, PartedRays, asked_of, omit
from ctuq.uncertainty.model.route import some_of
from ctuq.uncertainty.results.contents import Calibration

OF_PIXELS = {
    "edges": "a Gaussian edge prior about the total-variation image",
    "gmrf": "a Gaussian Markov field",
    "matern": "a Matern process",
}
"""Kinds of error bars by a Gaussian prior over the pixels, and what it is."""
_EVIDENCE_RAYS = 1024
"""A few hyperparameters are learned from so many fitted rays at most, spread evenly: an eigendecomposition of a second."""
SOFTNESS = (0.001, 0.003, 0.01, 0.03)
"""Candidates for e over the image's largest value. Larger ones were worse on each of four scans: of the walnut, e of 0.003,
0.03 and 0.1 leave unseen rays an rms error of 0.031, 0.033 and 0.041."""
SOFT = "softness (1/mm)"
_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_DENSE_PIXELS = 8192
_RATIO_RAYS = 768
"""Held-out rays, on a lattice of more, that teach how much more edges vary: seven eigendecompositions of a second each."""


@dataclass(frozen=True, eq=False)
class Learned:
    """A field, its variance s, the noise of a ray of weight 1, the evidence, and hyperparameters by name."""

    field: PixelField
    found: Variances
    named: Mapping[str, float]

    def given(self, rays: PixelRays, route: str, *, rng: torch.Generator, stages: Stages | None = None) -> GaussianPosterior:
        """The posterior given rays, by one of `ROUTES`."""
        return ROUTES[route](rays, self.field, signal=self.found.signal, sigma2=self.found.noise, rng=rng, stages=stages)


def learn_edges(rays: PixelRays, image: Tensor) -> Learned:
    """The edge prior about an image (total variation's, of the same rays), its softness, variance and noise by evidence."""
    largest = max(float(image.max()), 1e-12)
    made = ((share * largest, edge_field(image, share * largest)) for share in SOFTNESS)
    return best_of(rays, (({SOFT: e}, field) for e, field in made))


def edges_at(image: Tensor, softness: float, *, signal: float, noise: float) -> Learned:
    """The edge prior about an image at hyperparameters that were learned elsewhere; its evidence is not known.

    Parameters
    ----------
    image : Tensor, shape (y, x)
    softness : float
        1/mm.
    signal, noise : float
        Variance, and that of a ray of weight 1.
    """
    named = {"variance": signal, SOFT: softness}
    return Learned(edge_field(image, softness), Variances(signal, noise, math.nan), named)


def learn_smooth(rays: PixelRays) -> Learned:
    """A Gaussian Markov field, its lengthscale, variance and noise by evidence."""
    shape = _plane(rays)
    fields = ((length, smooth_field(shape, length, rays.target.device)) for length in _lengths(shape))
    return best_of(rays, (({"lengthscale (pixels)": length}, field) for length, field in fields))


def learn_matern(rays: PixelRays) -> Learned:
    """A Matern-1/2 process, its lengthscale, variance and noise by evidence.

    Raises
    ------
    InputError
        If the image has more pixels than a dense matrix holds.
    """
    shape = _plane(rays)
    if shape[0] * shape[1] > _DENSE_PIXELS:
        most = math.isqrt(_DENSE_PIXELS)
        raise InputError(f"A Matern process takes up to {most} x {most} pixels, got {shape[1]} x {shape[0]}; take gmrf.")
    fields = ((length, KernelField(PixelMatern(shape, length), rays.target.device)) for length in _lengths(shape))
    return best_of(rays, (({"lengthscale (pixels)": length}, field) for length, field in fields))


def _plane(rays: PixelRays) -> tuple[int, int]:
    height, width = rays.image.shape
    return height, width


def _lengths(shape: tuple[int, int]) -> list[float]:
    return [length for length in _LENGTHS if length <= 2 * max(shape)]


def best_of(rays: PixelRays, fields: Iterable[tuple[Mapping[str, float], PixelField]]) -> Learned:
    """The field of the largest evidence, each at its best variance and noise.

    Parameters
    ----------
    rays : PixelRays
        That were fitted; of more than 1,024 some that are spread evenly.
    fields : iterable of (mapping, PixelField)
        Each with its hyperparameters by name.
    """
    part = _thinned(rays)
    dense, one = part.matrix.dense(0, len(part.target)), torch.ones_like(part.target)
    tried = []
    for values, field in fields:
        K = part.matrix(field.times(dense))
        found = learn_variance((K + K.T) / 2, part.target, one)
        tried.append(Learned(field, found, {"variance": found.signal, **values}))
    return max(tried, key=lambda learned: learned.found.value)


def gaussian_bars(
    rays: PixelRays,
    learned: Learned,
    y: Tensor,
    held_out: NDArray[np.int64],
    *,
    route: str,
    rng: torch.Generator,
    by_region: bool = False,
    stages: Stages | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> tuple[ErrorBars, PixelRays]:
    """The image by the learned field given the rays that are not held out; scales from those that are; the posterior given all.

    Parameters
    ----------
    rays : PixelRays
        All used ones.
    learned : Learned
        From those that are not held out.
    y : Tensor
        All projections.
    held_out : array of int
        Views; empty for no calibration.
    route : str
        One of `ROUTES`.
    rng, stages
        As of `GaussianPosterior`.
    by_region : bool
        Whether held-out views teach how much more the image varies at its edges than in its flat parts.
    tell : callable, optional
        Is told what is done next.

    Returns
    -------
    ErrorBars
    PixelRays
        With that image.
    """
    stages = stages or Stages()
    tell("image")
    rays = with_image(rays, learned, held_out, route=route, rng=rng, stages=stages)
    posterior = learned.given(rays, route, rng=rng, stages=stages)
    sigma2, without, asked = learned.found.noise, partial(omit, posterior), asked_of(posterior)
    scales, calibration, correction = UNSCALED, None, torch.zeros_like(rays.image)
    tell("held-out views")
    edges: EdgeScale | None = None
    if len(held_out):
        split = by_region and has_both(edge_map(rays.image))
        taught = _by_region(without, rays, y, held_out, sigma2, most=asked.held_out) if split else None
        edges, given, before = taught or (None, without, None)
        scales, calibration, correction = calibrate_by_views(given, rays, y, held_out, sigma2, most=asked.held_out)
        calibration = calibration if edges is None or before is None else _told(calibration, before, edges)
    tell("views left out")

    def scored() -> dict[str, float]:
        return leave_one_out(without, rays, sigma2, rays=asked.left_out, each=asked.each)

    single = stages.once("leave one out", scored)
    values = torch.tensor(list(learned.named.values()), dtype=torch.float64)
    evidence = Evidence(values.log(), sigma2, learned.found.value, 0.0, True, "dense")
    return ErrorBars(evidence, posterior, scales, calibration, correction, single, edges), rays


def _by_region(
    without: Callable[[Tensor], OmittedRays | PartedRays],
    rays: PixelRays,
    y: Tensor,
    held_out: NDArray[np.int64],
    sigma2: float,
    *,
    most: int,
) -> tuple[EdgeScale, Without, Calibration]:
    """How much more the image varies at its edges, by the held-out views; what leaves rays out by that; the rays before it."""
    held = of_views(rays, held_out).nonzero()[:, 0]
    left, edges, some = without(held), edge_map(rays.image), spread(rays, held, most)
    own, across, marked = left.apart(edges, some)

    def leave(log_ratio: float) -> Without:
        T = EdgeScale(edges, log_ratio)
        covariance = T.flat**2 * own + T.flat * T.more * (across + across.T) + T.more**2 * marked
        covariance.diagonal().add_(1)
        return lambda rows: WidenedRays(left, covariance, some)

    def facts_at(log_ratio: float) -> Facts:
        return HeldOut.of(leave(log_ratio), rays, y, held_out, sigma2, most=min(most, _RATIO_RAYS)).facts()

    found = EdgeScale(edges, learn_ratio(facts_at))
    plain = HeldOut.of(leave(0.0), rays, y, held_out, sigma2, most=most)
    return found, leave(found.log_ratio), plain.calibration(UNSCALED)


def _told(calibration: Calibration, before: Calibration, edges: EdgeScale) -> Calibration:
    """The record with the ratio, and with what the rays were before it."""
    measured, predicted, _, calibrated = calibration.predictions
    predictions = np.stack([measured, predicted, before.predictions[2], calibrated])
    return replace(calibration, raw=before.raw, predictions=predictions, edge_ratio=math.exp(edges.log_ratio))


def with_image(
    rays: PixelRays,
    learned: Learned,
    held_out: NDArray[np.int64],
    *,
    route: str,
    rng: torch.Generator,
    stages: Stages | None = None,
) -> PixelRays:
    """The rays with the mean by the learned field given those that are not held out; parameters as of `gaussian_bars`."""
    fitted = ~of_views(rays, held_out)

    def imaged() -> Tensor:
        part = rays if len(held_out) == 0 else rays.part(fitted.nonzero()[:, 0])
        # One right-hand side: a factor of the fitted rays would serve for nothing else, but where products are dense anyway.
        by = route if isinstance(learned.field, KernelField) else "cg"
        return learned.given(part, by, rng=rng).mean.reshape(rays.image.shape)

    image = (stages or Stages()).once("gaussian image", imaged, rng=rng).to(rays.image.device)
    return replace(rays, image=image.float())


def _thinned(rays: PixelRays) -> PixelRays:
    count = len(rays.target)
    return rays if count <= _EVIDENCE_RAYS else rays.part(some_of(count, _EVIDENCE_RAYS).to(rays.target.device))
