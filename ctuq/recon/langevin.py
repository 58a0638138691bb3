"""Langevin dynamics of a Deep Image Prior: a walk over its weights whose images are samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ctuq.recon.start import Data, Generator

__all__ = ["langevin"]

_PROBES, _POWER, _STRIDE = 32, 20, 0.5
"""Noise drawn for the scales, power iterations for the step, and the step over what the stiffest direction allows: at 1/2 the
variance of that direction is 14 % too large, at 4 the walk diverges."""

_Weights = Sequence[Tensor]


def langevin(
    generate: Generator,
    start: dict[str, Tensor],
    fit: Data,
    *,
    noise: float,
    steps: int,
    skipped: int,
    every: int,
    rng: torch.Generator,
) -> Tensor:
    """Images (k, y, x) along a walk over the weights, whose energy is the misfit over twice the noise, and the weights' own.

    Welling and Teh 2011, with all rays in every step; Cheng et al. 2019 take such samples for the error bars of a Deep Image
    Prior. Each weight moves by its own scale, one over its Fisher information; the step follows from the stiffest direction.

    Parameters
    ----------
    generate : Generator
        Of one image.
    start : dict of str to Tensor
        Fitted weights, where the walk begins. The prior's variance is, of each layer, their mean square.
    fit : Data
    noise : float
        Variance of a ray of weight 1.
    steps, skipped, every : int
        How long the walk is, how many of its first steps are no samples, and how many steps lie between two samples.
    rng : torch.Generator
    """
    precisions = [1 / value.square().mean().clamp_min(1e-12) for value in start.values()]
    energy = _Energy(generate, tuple(start), fit, noise, precisions)
    weights = [value.clone() for value in start.values()]
    scales = [1 / (told + own) for told, own in zip(energy.information(weights, rng), precisions, strict=True)]
    rate = _STRIDE / energy.stiffest(weights, scales, rng)
    images = []
    for step in range(steps):
        slopes = energy.slopes(weights)
        shaken = [_drawn(value, rng) for value in weights]
        weights = [
            w - 0.5 * rate * s * slope + (rate * s).sqrt() * z
            for w, s, slope, z in zip(weights, scales, slopes, shaken, strict=True)
        ]
        if step >= skipped and (step - skipped) % every == 0:
            with torch.no_grad():
                images.append(energy.image(weights)[0].clone())
    return torch.stack(images)


@dataclass(frozen=True, eq=False)
class _Energy:
    """Of weights: minus their log density given the rays, up to a constant."""

    generate: Generator
    names: tuple[str, ...]
    fit: Data
    noise: float
    precisions: Sequence[Tensor]

    def image(self, weights: _Weights) -> Tensor:
        return self.generate(dict(zip(self.names, weights, strict=True)))

    def __call__(self, weights: _Weights) -> Tensor:
        misfit = (self.fit.weights * (self.fit.A(self.image(weights)) - self.fit.y).square()).sum()
        own = torch.stack([p * w.square().sum() for p, w in zip(self.precisions, weights, strict=True)]).sum()
        return (misfit / self.noise + own) / 2

    def slopes(self, weights: _Weights, *, graph: bool = False) -> tuple[Tensor, ...]:
        asked = list(weights) if graph else [w.detach().requires_grad_(True) for w in weights]
        return torch.autograd.grad(self(asked), asked, create_graph=graph)

    def information(self, weights: _Weights, rng: torch.Generator) -> list[Tensor]:
        """The Fisher information of each weight: the mean square slope under the rays' noise, from draws of it."""
        asked = [w.detach().requires_grad_(True) for w in weights]
        rays = self.fit.A(self.image(asked))
        told = [torch.zeros_like(w) for w in weights]
        for left in reversed(range(_PROBES)):
            shaken = (self.fit.weights / self.noise).sqrt() * _drawn(rays, rng)
            for total, slope in zip(told, torch.autograd.grad(rays, asked, shaken, retain_graph=left > 0), strict=True):
                total.addcmul_(slope, slope, value=1 / _PROBES)
        return told

    def stiffest(self, weights: _Weights, scales: _Weights, rng: torch.Generator) -> float:
        """The largest eigenvalue, in size, of the energy's curvature in units of the scales, by power iterations."""
        asked, roots = [w.detach().requires_grad_(True) for w in weights], [s.sqrt() for s in scales]
        slopes = self.slopes(asked, graph=True)
        along, size = [_drawn(w, rng) for w in weights], 0.0
        curved = partial(torch.autograd.grad, slopes, asked, retain_graph=True)
        for _ in range(_POWER):
            length = torch.stack([v.square().sum() for v in along]).sum().sqrt()
            pushed = curved([root * v / length for root, v in zip(roots, along, strict=True)])
            along = [root * v for root, v in zip(roots, pushed, strict=True)]
            size = float(torch.stack([v.square().sum() for v in along]).sum().sqrt())
        return size


def _drawn(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, device=rng.device).to(like)
