"""One slice of a stack: the ordinary job of an image, with what other slices have taught.

A slice starts from its neighbour's weights. Measured on a synchrotron scan at 64 x 64 (four neighbours): 100 such iterations
reach the held-out misfit of 375 to 600 from the educated start to 5 %, in a fifth of the time; over eleven slices they do not,
and the fit then goes on by the ordinary rule. Hyperparameters of one slice left the next one's std within 5 % of that by its
own (rms of the logarithm 0.055), and saved two thirds of its time. The network's directions are each slice's own: those of the
neighbour saved a quarter of their products, and made the std 1.4 times too large.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from ctuq.errors import BackendError, CtuqError, ResourceError
from ctuq.laplace.system.problem import Point
from ctuq.pipeline.bars import linear_model
from ctuq.pipeline.enough import told_of_rays
from ctuq.pipeline.running.devices import device_of
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.views import rays_inside, split_views, tensors
from ctuq.recon import CLASSICAL
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.holdout import split
from ctuq.recon.noise import noise_std
from ctuq.scale import seed_of
from ctuq.scores.gaussian import gaussian_scores
from ctuq.stages import Stages
from ctuq.systematics.build import blocks_of
from ctuq.systematics.catalogue import Wish
from ctuq.tomo import ray_transform
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.rays.rows import ray_rows
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.calibration.held_out import HeldOut
from ctuq.uncertainty.calibration.scales import Scales, learn_scales
from ctuq.uncertainty.calibration.unseen import UnseenDirections, WidenedPosterior
from ctuq.uncertainty.estimate import fit_evidence
from ctuq.uncertainty.model.left_out import LeftOut
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.route import Route
from ctuq.uncertainty.model.solved import SolvedRays

_FEW, _GENTLE = 100, 0.5
"""Iterations from a neighbour's weights, and their rate over the usual one's."""
_AS_GOOD = 1.25
"""A warm start's misfit in units of the noise, over that of the chain's first fit: beyond, the fit goes on."""
HOLDS = 1.5
"""Held-out rays' rms z within this factor of 1: the hyperparameters of others hold. A few views leave it open by a tenth."""

Product = dict[str, Any]
"""What a slice gives: tensors and numbers by name, or why it failed under "failed"."""


@dataclass(frozen=True)
class Lesson:
    """What a few slices have taught: hyperparameters, the noise of a ray, and the scales of both."""

    psi: tuple[float, ...]
    sigma2: float
    image_scale: float
    noise_scale: float

    @property
    def point(self) -> Point:
        """As the engine takes it."""
        return Point(torch.tensor(self.psi, dtype=torch.float64), torch.tensor([self.sigma2], dtype=torch.float64))

    @property
    def scales(self) -> Scales:
        """Of the error bars."""
        return Scales(self.image_scale, self.noise_scale, float("nan"), float("nan"))


@dataclass(frozen=True, eq=False)
class Setting:
    """What all slices of a stack share: options, the plane and its rays, the route of the error bars, the lesson, other views
    that judge, and systematic errors that no ray tells.
    """

    options: ReconstructOptions
    plane: VolumeGrid
    geometry: Geometry
    route: Route | None = None
    lesson: Lesson | None = None
    judging: Geometry | None = None
    hidden: tuple[Wish, ...] = ()


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice's number and its rays; the weights of a fit that was made before; its rays in other views, and their weights."""

    number: int
    projections: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    fitted: Mapping[str, Any] | None = None
    judge: tuple[NDArray[np.float32], NDArray[np.float32] | None] | None = None


def learn_slice(setting: Setting, item: Slice, before: Product | None) -> Product:
    """A slice's fit, hyperparameters and held-out rays, by itself alone."""
    del before
    with _alone():
        return _guarded(lambda: _learned(_Work(setting, item)))


def make_slice(setting: Setting, item: Slice, before: Product | None) -> Product:
    """A slice's mean and standard deviation, by the weights of the slice before it and the lesson of a few."""
    with _alone():
        return _guarded(lambda: _made(_Work(setting, item), before))


@contextmanager
def _alone() -> Iterator[None]:
    """One thread: sums that are split among threads have other last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _guarded(make: Any) -> Product:
    """What a slice gives, or why it failed: one of a thousand slices must not lose the others."""
    try:
        product = make()
    except (ResourceError, BackendError):
        raise
    except (CtuqError, LinAlgError) as error:
        return {"failed": " ".join(str(error).split())}
    images = [product[name] for name in ("mean", "std") if name in product]
    if not all(bool(torch.isfinite(image).all()) for image in images):
        return {"failed": "The image or its error bars came out as no numbers."}
    return product


class _Work:
    """One slice's scan on the shared rays."""

    def __init__(self, setting: Setting, item: Slice):
        self.options, self.item, self.setting = setting.options, item, setting
        self.scan = Scan(item.projections, setting.geometry, item.weights)
        told_of_rays(self.scan)
        self.rng = torch.Generator().manual_seed(seed_of(self.options.seed, "slice", item.number))
        self.device = device_of(self.options.device)
        self.views = split_views(self.options, self.scan)
        bars = self.options.method == "dip" and self.options.uncertainty
        self.A = _rays(_Rays(setting.plane, setting.geometry), str(self.device), "matrix" if bars else "auto")

    def data(self) -> Data:
        """The rays as what lies inside makes them."""
        return rays_inside(self.A, self.scan, self.views.held, device=self.device, stages=Stages())


class _Rays:
    """Plane and geometry as a key: a worker builds their ray transform once."""

    def __init__(self, plane: VolumeGrid, geometry: Geometry):
        self.plane, self.geometry = plane, geometry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rays) and (self.plane, self.geometry) == (other.plane, other.geometry)

    def __hash__(self) -> int:
        return hash((self.plane.shape, self.plane.voxel, self.geometry.shape))


@lru_cache(maxsize=2)
def _rays(key: _Rays, device: str, backend: str) -> RayTransform:
    return ray_transform(key.plane, key.geometry, device=device, backend=backend)


def _made(work: _Work, before: Product | None) -> Product:
    options = work.options
    if options.method != "dip":
        y, weights = tensors(work.scan, work.device) if options.method == "fbp" else _inside(work)
        image = CLASSICAL[options.method](work.A, y, weights=weights)
        return {"mean": image.float().cpu(), "facts": {}}
    data = work.data()
    fit = _Fit(work, data, before)
    product: Product = {"weights": fit.weights, "noise_units": fit.first, "facts": fit.facts}
    if not options.uncertainty:
        return product | {"mean": fit.image.float().cpu()}
    setting = work.setting
    assert setting.route is not None
    model = fit.model(setting.route.rank)
    bars = _Bars(work, data, model, setting.lesson)
    product["facts"] |= bars.facts
    mean = (model.image.double() + bars.correction).float().cpu()
    if work.item.judge is not None:
        product["facts"] |= bars.judged(mean)
    return product | {"mean": mean, "std": bars.std.float().cpu()}


def _inside(work: _Work) -> tuple[Tensor, Tensor]:
    data = work.data()
    return data.y, data.weights


def _learned(work: _Work) -> Product:
    route = work.setting.route
    assert route is not None
    data = work.data()
    fit = _Fit(work, data, None)
    model = fit.model(route.rank)
    point = _learned_point(work, model)
    product = {"weights": fit.weights, "noise_units": fit.first, "psi": point.psi, "sigma2": float(point.sigma2[0])}
    if len(work.views.held):
        given = SolvedRays.on(model, point, noise_by=route.noise_by)
        residual, signal, noise, turns = _held_out(work, data, model, given).facts()
        product |= {"residual": residual, "signal": signal, "noise": noise}
        if turns is not None:
            product |= {"turn_residual": turns.residual, "turn_variance": turns.variance}
    return product


class _Fit:
    """A slice's network: from the weights it has, from its neighbour's, or from the start."""

    def __init__(self, work: _Work, data: Data, before: Product | None):
        self._work, self._data = work, data
        self._fit, self._stop = split(data, work.views.held, rng=work.rng)
        self._generate, start = generator(self._fit, work.options.dip, rng=work.rng)
        done, earlier = work.item.fitted, before if before is not None and "weights" in before else None
        self._iterations, self.warm = 0, done is None and earlier is not None
        if done is not None:
            best, self.first = _on(done["weights"], work.device), done["noise_units"]
            misfit = float(self._stop.misfit(self._generate(best))[0])
        elif earlier is None:
            best, misfit = self._run(start, work.options.dip)
            self.first = self._in_noise(misfit)
        else:
            best, misfit = self._warmly(_on(earlier["weights"], work.device), earlier["noise_units"])
        self._best = best
        self.image = self._generate(best)[0].detach()
        self.weights = {name: value.cpu() for name, value in best.items()}
        self.facts = {
            "iterations": float(self._iterations),
            "teacher": float(done is not None),
            "warm": float(self.warm),
            "held_out_misfit": misfit,
        }

    def _warmly(self, weights: dict[str, Tensor], first: float) -> tuple[dict[str, Tensor], float]:
        """A few gentle iterations; where they do not reach what the chain's first fit did, the ordinary fit from there."""
        options, self.first = self._work.options.dip, first
        best, misfit = self._run(weights, _few(options))
        if self._in_noise(misfit) <= _AS_GOOD * first:
            return best, misfit
        further, lower = self._run(best, options)
        best, misfit = (further, lower) if lower < misfit else (best, misfit)
        self.first, self.warm = self._in_noise(misfit), False
        return best, misfit

    def _run(self, start: dict[str, Tensor], options: DIPOptions) -> tuple[dict[str, Tensor], float]:
        state = deque(dip(self._generate, start, self._fit, self._stop, options), maxlen=1).pop()
        self._iterations += state.iteration
        return state.best, float(state.best_misfit[0])

    def _in_noise(self, misfit: float) -> float:
        """A held-out misfit over the noise's variance, which differs from slice to slice; of no noise, over a little."""
        noise = float(noise_std(self._fit.y, self._fit.weights).square()[0])
        return misfit / max(noise, 1e-6 * float(self._stop.size[0]), 1e-300)

    def model(self, rank: int) -> ImageModel:
        """The linear model at the fitted weights."""
        options, rng = self._work.options, self._work.rng
        return linear_model(self._data, self._generate, self._best, prior=options.prior, rank=rank, rng=rng)


class _Bars:
    """A slice's error bars by the lesson, or by its own hyperparameters where its held-out views say that it does not hold."""

    def __init__(self, work: _Work, data: Data, model: ImageModel, lesson: Lesson | None):
        route = work.setting.route
        assert route is not None
        point = _learned_point(work, model) if lesson is None else lesson.point
        scales = None if lesson is None else lesson.scales
        given = SolvedRays.on(model, point, noise_by=route.noise_by)
        self.facts: dict[str, float] = {"learned_anew": 0.0}
        self.correction = torch.zeros_like(model.mean)
        if len(work.views.held):
            held = _held_out(work, data, model, given)
            used = learn_scales(*held.facts()) if scales is None else scales
            z = held.calibration(used).calibrated["rms_z"]
            self.facts["held_out_rms_z"] = z
            if scales is not None and not 1 / HOLDS <= z <= HOLDS:
                point = _learned_point(work, model)
                given = SolvedRays.on(model, point, noise_by=route.noise_by)
                held = _held_out(work, data, model, given)
                used = learn_scales(*held.facts())
                self.facts |= {"learned_anew": 1.0, "rms_z_anew": held.calibration(used).calibrated["rms_z"]}
            scales, self.correction = used, held.correction(used)
        scales = Scales(1, 1, float("nan"), float("nan")) if scales is None else scales
        hidden = blocks_of(work.setting.hidden, work.A, model.image, data.weights)
        whole = ImagePosterior(
            replace(given, model=replace(given.model, hidden=hidden)), rng=work.rng, hidden_over=scales.image
        )
        y, x = model.image.shape
        unseen = UnseenDirections.of(work.setting.geometry, (y, x), model.image.device)
        posterior = whole if unseen is None else WidenedPosterior(whole, unseen, rng=work.rng)
        # Rays are foretold without the hidden errors: what these put into the image they take from the rays.
        self._work, self._posterior = work, ImagePosterior(given, rng=work.rng)
        self._scales, self._sigma2 = scales, float(point.sigma2[0])
        self.std = scales.image**0.5 * posterior.std()
        self.facts |= {
            "image_scale": scales.image,
            "noise_variance": scales.noise * float(point.sigma2[0]),
            "std_error": posterior.error,
        }

    def judged(self, mean: Tensor) -> dict[str, float]:
        """How the mean and its error bars predict views that were used for nothing."""
        work = self._work
        geometry, judge = work.setting.judging, work.item.judge
        assert geometry is not None and judge is not None
        A = _rays(_Rays(work.setting.plane, geometry), str(work.device), "matrix")
        weights = torch.ones(judge[0].shape) if judge[1] is None else torch.from_numpy(judge[1])
        kept = (weights.reshape(-1) > 0).nonzero()[:, 0]
        rows = ray_rows(A, kept, torch.ones(len(kept), dtype=torch.float64), free=False)
        image = self._scales.image * self._posterior.variance_of(rows).cpu()  # pyright: ignore[reportArgumentType]
        variance = image + self._scales.noise * self._sigma2 / weights.reshape(-1)[kept].double()
        expected = rows(mean.double().reshape(1, -1).to(work.device))[0].cpu()
        scores = gaussian_scores(torch.from_numpy(judge[0]).reshape(-1)[kept].double() - expected, variance)
        return {f"judged_{name}": scores[name] for name in ("rms_z", "cover_68", "cover_95", "rmse")}


def _learned_point(work: _Work, model: ImageModel) -> Point:
    route = work.setting.route
    assert route is not None
    unseen = torch.isin(model.views, torch.as_tensor(work.views.held, device=model.views.device))
    method = "dense" if route.exact_evidence else "em"
    found = fit_evidence(model, ~unseen, variation=work.options.variation, rng=work.rng, method=method)
    return Point(found.psi, torch.tensor([found.sigma2], dtype=torch.float64))


def _held_out(work: _Work, data: Data, model: ImageModel, given: SolvedRays) -> HeldOut:
    route, sigma2 = work.setting.route, float(given.system.point.sigma2[0])
    assert route is not None
    return HeldOut.of(lambda rows: LeftOut.of(given, rows), model, data.y, work.views.held, sigma2, most=route.held_out)


def _few(options: DIPOptions) -> DIPOptions:
    """How to fit from a neighbour's weights."""
    return replace(
        options, iterations=max(options.check_every, min(_FEW, options.length // 4)), learning_rate=_GENTLE * options.rate
    )


def _on(weights: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value).to(device) for name, value in weights.items()}
