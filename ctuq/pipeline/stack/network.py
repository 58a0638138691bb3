"""Slices by a Deep Image Prior, with the error bars of its linearised Laplace.

A slice starts from its neighbour's weights. Measured on a synchrotron scan at 64 x 64 (four neighbours): 100 such iterations
reach the held-out misfit of 375 to 600 from the educated start to 5 %, in a fifth of the time; over eleven slices they do not,
and the fit then goes on by the ordinary rule. Hyperparameters of one slice left the next one's std within 5 % of that by its
own (rms of the logarithm 0.055), and saved two thirds of its time. The network's directions are each slice's own: those of the
neighbour saved a quarter of their products, and made the std 1.4 times too large.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ctuq.laplace.system.problem import Point
from ctuq.pipeline.bars import linear_model
from ctuq.pipeline.stack.taught import Given, lesson_of, with_bars
from ctuq.pipeline.stack.work import Lesson, Product, Work
from ctuq.pipeline.subpixel import RayNoise, ray_noise
from ctuq.recon import tv
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.holdout import split
from ctuq.recon.noise import noise_std
from ctuq.stages import Stages
from ctuq.systematics.build import blocks_of
from ctuq.uncertainty.calibration.held_out import HeldOut, of_views
from ctuq.uncertainty.estimate import kept_evidence
from ctuq.uncertainty.model.left_out import LeftOut
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.route import Route
from ctuq.uncertainty.model.solved import SolvedRays

_FEW, _GENTLE = 100, 0.5
"""Iterations from a neighbour's weights, and their rate over the usual one's."""
_AS_GOOD = 1.25
"""A warm start's misfit in units of the noise, over that of the chain's first fit: beyond, the fit goes on."""


def learned_by_network(work: Work) -> Product:
    """A slice's fit, hyperparameters and held-out rays, by itself alone."""
    data = work.data()
    fit = _Fit(work, data, None)
    noise = _noise(data)
    return lesson_of(_given(work, data, fit.model(noise), noise, None), fit.kept)


def made_by_network(work: Work, before: Product | None) -> Product:
    """A slice's mean and standard deviation, by the weights of the slice before it and the lesson of a few."""
    data = work.data()
    fit = _Fit(work, data, before)
    if not work.options.uncertainty:
        return {"fit": fit.kept, "mean": fit.image.float().cpu(), "facts": fit.facts}
    noise = _noise(data)
    product = with_bars(work, partial(_given, work, data, fit.model(noise), noise))
    return product | {"fit": fit.kept, "facts": fit.facts | product["facts"]}


class _Fit:
    """A slice's network: from the weights it has, from its neighbour's, or from the start."""

    def __init__(self, work: Work, data: Data, before: Product | None):
        self._work, self._data = work, data
        self._fit, self._stop = split(data, work.views.held, rng=work.rng)
        self._generate, start = generator(self._fit, work.options.dip, rng=work.rng)
        done, earlier = work.item.fitted, None if before is None else before.get("fit")
        self._iterations, self.warm = 0, done is None and earlier is not None
        if done is not None:
            best, self.first = _on(done["weights"], work.device), done["noise_units"]
            self._by_noise = done["by_noise"]
            misfit = float(self._stop.misfit(self._generate(best))[0])
        elif earlier is None:
            best, misfit = self._run(start, work.options.dip)
            self.first = self._in_noise(misfit)
        else:
            best, misfit = self._warmly(_on(earlier["weights"], work.device), earlier)
        self._best = best
        self.image = self._generate(best)[0].detach()
        self.kept = {
            "weights": {name: value.cpu() for name, value in best.items()},
            "noise_units": self.first,
            "by_noise": self._by_noise,
        }
        self.facts = {
            "iterations": float(self._iterations),
            "teacher": float(done is not None),
            "warm": float(self.warm),
            "held_out_misfit": misfit,
        }

    def _warmly(self, weights: dict[str, Tensor], earlier: Mapping[str, Any]) -> tuple[dict[str, Tensor], float]:
        """A few gentle iterations; where they do not reach what the chain's first fit did, the ordinary fit from there."""
        first, self._by_noise = earlier["noise_units"], earlier["by_noise"]
        options, self.first = replace(self._work.options.dip, by_noise=self._by_noise), first
        best, misfit = self._run(weights, _few(options))
        if self._in_noise(misfit) <= _AS_GOOD * first:
            return best, misfit
        further, lower = self._run(best, options)
        best, misfit = (further, lower) if lower < misfit else (best, misfit)
        self.first, self.warm = self._in_noise(misfit), False
        return best, misfit

    def _run(self, start: dict[str, Tensor], options: DIPOptions) -> tuple[dict[str, Tensor], float]:
        state = deque(dip(self._generate, start, self._fit, self._stop, options), maxlen=1).pop()
        self._by_noise = state.best_by_noise
        self._iterations += state.iteration
        return state.best, float(state.best_misfit[0])

    def _in_noise(self, misfit: float) -> float:
        """A held-out misfit over the noise's variance, which differs from slice to slice; of no noise, over a little."""
        noise = float(noise_std(self._fit.y, self._fit.weights).square()[0])
        return misfit / max(noise, 1e-6 * float(self._stop.size[0]), 1e-300)

    def model(self, noise: RayNoise) -> ImageModel:
        """The linear model at the fitted weights."""
        options, rng = self._work.options, self._work.rng
        rank = _route(self._work).rank
        data = replace(self._data, weights=noise.weights)
        return linear_model(data, self._generate, self._best, prior=options.prior, rank=rank, rng=rng)


def _noise(data: Data) -> RayNoise:
    return ray_noise(data, tv(data.A, data.y, weights=data.weights))


def _given(work: Work, data: Data, model: ImageModel, noise: RayNoise, lesson: Lesson | None) -> Given:
    """A slice's posterior by a lesson; without one by the hyperparameters of its own evidence."""
    point, route = _learned_point(work, model) if lesson is None else lesson.point, _route(work)
    given, sigma2 = SolvedRays.on(model, point, noise_by=route.noise_by), float(point.sigma2[0])

    def without(rows: Tensor) -> LeftOut:
        return LeftOut.of(given, rows)

    def posterior(image_scale: float) -> ImagePosterior:
        hidden = blocks_of(work.setting.hidden, work.A, model.image, noise.weights)
        return ImagePosterior(replace(given, model=replace(model, hidden=hidden)), rng=work.rng, scale=image_scale)

    views = work.views.held
    held = HeldOut.of(without, model, data.y, views, sigma2, most=route.held_out) if len(views) else None
    variance_of, share = ImagePosterior(given, rng=work.rng).variance_of, noise.share(sigma2)
    return Given(model.image, point.psi, sigma2, share, held, posterior, variance_of)


def _learned_point(work: Work, model: ImageModel) -> Point:
    unseen = of_views(model, work.views.held)
    given = {"way": _route(work), "variation": work.options.variation}
    return kept_evidence(model, ~unseen, rng=work.rng, stages=Stages(), **given).point


def _route(work: Work) -> Route:
    route = work.setting.way
    assert isinstance(route, Route)
    return route


def _few(options: DIPOptions) -> DIPOptions:
    """How to fit from a neighbour's weights."""
    return replace(
        options, iterations=max(options.check_every, min(_FEW, options.length // 4)), learning_rate=_GENTLE * options.rate
    )


def _on(weights: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value).to(device) for name, value in weights.items()}
