"""Error bars of a slice by what others taught, or by what it learns itself where its held-out views refuse that.

That is the same whatever model the error bars come from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.linops.sparse import SparseRows
from ctuq.pipeline.stack.work import Lesson, Product, Work
from ctuq.pipeline.views import lies_outside, rays_inside
from ctuq.scores.gaussian import gaussian_scores
from ctuq.stages import Stages
from ctuq.tomo.count_noise import variance_of
from ctuq.tomo.geometry import Geometry
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.rays.rows import ray_rows
from ctuq.tomo.scan import Scan
from ctuq.tomo.subpixel import subpixel_variance
from ctuq.uncertainty.calibration.held_out import HeldOut
from ctuq.uncertainty.calibration.scales import Scales, learn_scales
from ctuq.uncertainty.calibration.unseen import of_all_directions
from ctuq.uncertainty.model.covariance import ImageCovariance
from ctuq.uncertainty.results.kept_covariance import waves_of

HOLDS = 1.5
"""Held-out rays' rms z within this factor of 1: the hyperparameters of others hold. A few views leave it open by a tenth."""


@dataclass(frozen=True, eq=False)
class Given:
    """A slice's image and its posterior at some hyperparameters.

    Parameters
    ----------
    image : Tensor, shape (y, x)
    psi : Tensor, float64
        Logarithms of the hyperparameters.
    sigma2 : float
        Noise variance of a ray of weight 1.
    subpixel : float
        Beside it a ray has this times `subpixel_variance` of the image.
    held : HeldOut, optional
        None where no view is held out.
    posterior : callable
        Of the image, before its scale, which it is given.
    variance_of : callable
        Of linear functionals of the image, before its scale, (k,): rays are foretold without hidden errors, as what these put
        into the image they take from the rays.
    """

    image: Tensor
    psi: Tensor
    sigma2: float
    subpixel: float
    held: HeldOut | None
    posterior: Callable[[float], ImageCovariance]
    variance_of: Callable[[SparseRows], Tensor]


def lesson_of(given: Given, fit: Mapping[str, Any]) -> Product:
    """What a slice teaches, and the fit that it taught by."""
    product: Product = {"fit": dict(fit), "psi": given.psi, "sigma2": given.sigma2}
    if given.held is not None:
        residual, signal, noise, turns = given.held.facts()
        product |= {"residual": residual, "signal": signal, "noise": noise}
        if turns is not None:
            product |= {"turn_residual": turns.residual, "turn_variance": turns.variance}
    return product


def with_bars(work: Work, given_by: Callable[[Lesson | None], Given]) -> Product:
    """A slice's mean, standard deviation and facts; ``given_by`` gives its posterior by a lesson, or by its own for None."""
    given, scales, facts = _scaled(given_by, work.setting.lesson)
    correction = torch.zeros_like(given.image) if given.held is None else given.held.correction(scales)
    mean = (given.image.double() + correction).float().cpu()
    plain = given.posterior(scales.image)
    noise = scales.noise * given.sigma2
    posterior, _ = of_all_directions(plain, work.setting.geometry, given.image, scales.image, noise, rng=work.rng)
    scale = scales.image**0.5
    std = (scale * posterior.std()).float().cpu()
    facts |= {
        "image_scale": scales.image,
        "noise_variance": scales.noise * given.sigma2,
        "std_error": posterior.error,
    }
    product = {"mean": mean, "std": std, "facts": facts | _judged(work, given, scales, mean)}
    return product | _covariance(work, plain, posterior, scale) | _held(work, given, scales)


def _covariance(work: Work, plain: ImageCovariance, posterior: ImageCovariance, scale: float) -> Product:
    """The covariance in as many images as slices keep, and what hidden errors do to the image."""
    if not work.setting.kept:
        return {}
    waves = waves_of(work.setting.kept, posterior.shape)
    found = scale * posterior.directions(work.setting.kept, waves=waves, rng=work.rng)
    missing = work.setting.kept - len(found)
    directions = torch.cat([found, found.new_zeros(missing, *found.shape[1:])])
    product: Product = {"directions": directions.float().cpu()}
    if work.setting.hidden:
        # An error that changes no ray of this slice has no image there.
        names = [block.name for block in plain.hidden]
        images = dict(zip(names, scale * posterior.hidden_images(), strict=True))
        none = torch.zeros(posterior.shape, dtype=torch.float64, device=posterior.device)
        product["effects"] = torch.stack([images.get(wish.name, none) for wish in work.setting.hidden]).float().cpu()
    return product


def _held(work: Work, given: Given, scales: Scales) -> Product:
    """How far held-out rays are off, and the variances of that, for what slices have in common."""
    if given.held is None:
        return {}
    residual, signal, noise, _ = given.held.facts()
    told = {"residual": residual, "signal": scales.image * signal, "noise": scales.noise * noise}
    return {"held": {name: values.reshape(-1) for name, values in told.items()} | {"views": work.views.held}}


def _scaled(given_by: Callable[[Lesson | None], Given], lesson: Lesson | None) -> tuple[Given, Scales, dict[str, float]]:
    given, scales = given_by(lesson), Scales(1, 1, float("nan"), float("nan")) if lesson is None else lesson.scales
    facts = {"learned_anew": 0.0}
    if given.held is None:
        return given, scales, facts
    if lesson is None:
        scales = learn_scales(*given.held.facts())
    facts["held_out_rms_z"] = z = given.held.calibration(scales).calibrated["rms_z"]
    if lesson is None or 1 / HOLDS <= z <= HOLDS:
        return given, scales, facts
    given = given_by(None)
    assert given.held is not None
    scales = learn_scales(*given.held.facts())
    return given, scales, facts | {"learned_anew": 1.0, "rms_z_anew": given.held.calibration(scales).calibrated["rms_z"]}


def _judged(work: Work, given: Given, scales: Scales, mean: Tensor) -> dict[str, float]:
    """How the mean and its error bars predict views that were used for nothing."""
    geometry, judge = work.setting.judging, work.item.judge
    if geometry is None or judge is None:
        return {}
    A = work.rays(geometry, "matrix")
    weights = torch.ones(judge[0].shape) if judge[1] is None else torch.from_numpy(judge[1])
    kept = (weights.reshape(-1) > 0).nonzero()[:, 0]
    rows = ray_rows(A, kept, torch.ones(len(kept), dtype=torch.float64), free=False)
    assert isinstance(rows, SparseRows) and isinstance(A, MatrixRayTransform)
    beside = torch.from_numpy(subpixel_variance(mean.numpy(), A.matrix, geometry)).reshape(-1)[kept]
    expected = rows(mean.double().reshape(1, -1).to(work.device))[0].cpu()
    grown = torch.from_numpy(variance_of(expected.numpy(), work.setting.growth))
    noise = given.sigma2 * grown / weights.reshape(-1)[kept].double() + given.subpixel * beside
    variance = scales.image * given.variance_of(rows).cpu() + scales.noise * noise
    scores = gaussian_scores(_inside(work, geometry, judge[0], weights).reshape(-1)[kept].double() - expected, variance)
    return {f"judged_{name}": scores[name] for name in ("rms_z", "cover_68", "cover_95", "rmse")}


def _inside(work: Work, geometry: Geometry, projections: NDArray[np.float32], weights: Tensor) -> Tensor:
    """Rays of other views as what lies inside makes them; what lies outside is told by the slice's own rays.

    Without it balls in a cylinder that is cut at both sides were judged to miss by ten times their error bars.
    """
    scan = work.scan
    if not lies_outside(scan, work.setting.plane, flux=False):
        return torch.from_numpy(projections.copy())
    own = np.ones_like(scan.projections) if scan.weights is None else scan.weights
    whole = Scan(
        np.concatenate([scan.projections, projections]),
        replace(geometry, angles=np.concatenate([scan.geometry.angles, geometry.angles])),
        np.concatenate([own, weights.numpy()]),
    )
    others = np.arange(scan.n_angles, whole.n_angles)
    A = work.rays(whole.geometry, "matrix")
    return rays_inside(A, whole, others, device=work.device, stages=Stages()).y[scan.n_angles :].cpu()
