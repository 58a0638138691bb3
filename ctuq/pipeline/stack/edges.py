"""Slices by total variation, with the error bars of a Gaussian edge prior about it: each slice's edges are its own."""

import math
from functools import partial

import torch
from torch import Tensor

from ctuq.pipeline.stack.taught import Given, lesson_of, with_bars
from ctuq.pipeline.stack.work import Lesson, Product, Work
from ctuq.pipeline.subpixel import ray_noise
from ctuq.recon import tv
from ctuq.recon.dip import Data
from ctuq.systematics.build import blocks_of
from ctuq.tomo.rays.transform import RayTransform
from ctuq.uncertainty.calibration.held_out import HeldOut, of_views
from ctuq.uncertainty.gaussian_bars import SOFT, Learned, edges_at, learn_edges, with_image
from ctuq.uncertainty.model.beside import BesideHidden
from ctuq.uncertainty.model.gaussian import PixelRays
from ctuq.uncertainty.model.omitted import asked_of, omit


def learned_by_edges(work: Work) -> Product:
    """A slice's total variation, softness, variance and noise by evidence, and its held-out rays, by itself alone."""
    data = work.data()
    image = _total_variation(work, data)
    return lesson_of(_given(work, data, image, None), {"tv": image.cpu()})


def made_by_edges(work: Work) -> Product:
    """A slice's mean and standard deviation, by the lesson of a few."""
    data, fitted = work.data(), work.item.fitted
    image = _total_variation(work, data) if fitted is None else torch.as_tensor(fitted["tv"]).to(work.device)
    product = with_bars(work, partial(_given, work, data, image))
    return product | {"facts": {"teacher": float(fitted is not None)} | product["facts"]}


def _total_variation(work: Work, data: Data) -> Tensor:
    """Of the views that are fitted."""
    assert isinstance(data.A, RayTransform)
    fitted = torch.as_tensor(work.views.fitted, device=work.device)
    return tv(data.A.subset(work.views.fitted), data.y[fitted], weights=data.weights[fitted], **work.options.steps)


def _given(work: Work, data: Data, image: Tensor, lesson: Lesson | None) -> Given:
    """A slice's posterior by a lesson; without one by its own evidence."""
    way, held = work.setting.way, work.views.held
    assert isinstance(way, str) and isinstance(data.A, RayTransform)
    noise = ray_noise(data, image)
    rays = PixelRays.of(data.A, data.y, noise.weights, image)
    seen = ~of_views(rays, held)
    learned = learn_edges(rays.part(seen.nonzero()[:, 0]), image) if lesson is None else _taught(lesson, image)
    rays = with_image(rays, learned, held, route=way, rng=work.rng)
    posterior, sigma2 = learned.given(rays, way, rng=work.rng), learned.found.noise
    views = None
    if len(held):
        views = HeldOut.of(partial(omit, posterior), rays, data.y, held, sigma2, most=asked_of(posterior).held_out)
    psi = torch.tensor([learned.named[SOFT], learned.found.signal], dtype=torch.float64).log()
    hidden = blocks_of(work.setting.hidden, work.A, rays.image, noise.weights)
    beside = partial(BesideHidden.of, posterior, hidden)
    return Given(rays.image, psi, sigma2, noise.share(sigma2), views, beside, posterior.variance_of)


def _taught(lesson: Lesson, image: Tensor) -> Learned:
    softness, signal = map(math.exp, lesson.psi)
    return edges_at(image, softness, signal=signal, noise=lesson.sigma2)
