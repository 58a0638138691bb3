"""The dear part, once a scan and choice of held-out views: fit, linear model, and what all scales can be tried on later."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import ctuq
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.linops.sparse import SparseRows
from ctuq.pipeline import choose_grid, match_detector
from ctuq.recon.dip import Data, DIPOptions, DIPState, Generator, dip, generator
from ctuq.recon.holdout import split
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.uncertainty.calibration.held_out import of_views
from ctuq.uncertainty.estimate import fit_evidence
from ctuq.uncertainty.model.factor import rank_of
from ctuq.uncertainty.model.left_out import LeftOut
from ctuq.uncertainty.model.linear import ImageModel, image_model
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays
from experiments.calibration.places import PLACES
from experiments.calibration.scans import Subject


@dataclass(frozen=True, eq=False)
class Fitted:
    """What one fit predicts, in a form that takes any two scales (a, b).

    Parameters
    ----------
    residual, signal, noise : array, shape (views, columns)
        Of the held-out rays given the fitted ones: measured less predicted, the image's variance, that of the noise.
    total : array, shape (h, h)
        Covariance of the held-out rays given the fitted ones over their noise, (h = views x columns).
    gain : array of float32, shape (y x, h)
        Covariance of image and held-out rays over the root of their noise, given the fitted rays.
    image, image_variance : array, shape (y, x)
        The network's image, and the variance of each pixel given all rays.
    unseen_residual, unseen_signal, unseen_noise : array, shape (views, columns)
        Of rays that were used for nothing: measured less those of ``image``, variances given all rays.
    unseen_gain : array of float32, shape (views, columns, h)
        ``gain`` as these rays see it.
    truth : array, shape (y, x)
        NaN where it is not known.
    seconds : float
        Of the processor.
    """

    residual: NDArray
    signal: NDArray
    noise: NDArray
    total: NDArray
    gain: NDArray
    image: NDArray
    image_variance: NDArray
    unseen_residual: NDArray
    unseen_signal: NDArray
    unseen_noise: NDArray
    unseen_gain: NDArray
    truth: NDArray
    iterations: float
    seconds: float


def fitted(subject: Subject, views: int, folder: Path, *, place: str = "even") -> Fitted:
    """From the cache, or made."""
    return _kept(folder / f"{subject.name}; {views} {place}.npz", lambda: _made(subject, views, place))


def _kept(path: Path, make: Callable[[], Fitted]) -> Fitted:
    if not path.is_file():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **{f.name: getattr(found, f.name) for f in fields(Fitted)})
        partial.rename(path)
    with np.load(path) as kept:
        return Fitted(**{f.name: kept[f.name] for f in fields(Fitted)})


def is_kept(subject: Subject, name: str, folder: Path) -> bool:
    """Whether a fit was made before."""
    return (folder / f"{subject.name}; {name}.npz").is_file()


def rotated(subject: Subject, views: int, folder: Path, iterations: int) -> tuple[NDArray, NDArray, NDArray]:
    """Held-out rays of a second short fit, from the weights of the first one, with other views held out."""
    path = folder / f"{subject.name}; {views} rotated {iterations}.npz"
    if not path.is_file():
        work = Work.of(subject)
        held = PLACES["even"](work.scan.geometry.angles, views)
        generate, state = _fit(work, held)
        other = PLACES["between"](work.scan.geometry.angles, views)
        generate, state = _fit(work, other, DIPOptions(iterations=iterations), generate, state)
        model, given = _linear(work, other, generate, state)
        np.savez(path, *list(_of_held_out(model, given, work.data.y, other).values())[:3])
    with np.load(path) as kept:
        residual, signal, noise = (kept[name] for name in kept.files)
    return residual, signal, noise


@dataclass(frozen=True, eq=False)
class Work:
    """A scan on its grid, without the views that are used for nothing."""

    scan: ctuq.Scan
    grid: ctuq.VolumeGrid
    data: Data
    rng: torch.Generator

    @classmethod
    def of(cls, subject: Subject) -> "Work":
        """Of a scan of the study."""
        scan = subject.scan.select(subject.used)
        grid = choose_grid(scan, subject.size)
        scan = match_detector(scan, grid)
        return cls(scan, grid, Data(matrix_of(grid, scan), *_tensors(scan)), torch.Generator().manual_seed(0))


def matrix_of(grid: ctuq.VolumeGrid, scan: ctuq.Scan) -> MatrixRayTransform:
    """Its ray transform."""
    A = ctuq.ray_transform(grid, scan.geometry, backend="matrix")
    assert isinstance(A, MatrixRayTransform)
    return A


def _fit(
    work: Work,
    held: NDArray[np.int64],
    options: DIPOptions | None = None,
    generate: Generator | None = None,
    first: DIPState | None = None,
) -> tuple[Generator, DIPState]:
    options = DIPOptions() if options is None else options
    fit, stop = split(work.data, held, rng=work.rng)
    made, start = generator(fit, options, rng=work.rng)
    generate, start = (made, start) if generate is None or first is None else (generate, first.best)
    *_, state = dip(generate, start, fit, stop, options)
    return generate, state


def _linear(
    work: Work, held: NDArray[np.int64], generate: Generator, state: DIPState, factor: float = 1.0
) -> tuple[ImageModel, SolvedRays]:
    """The linear model, and its rays solved where the evidence is largest, but for a factor of the weights' variance."""
    A, y, weights = matrix_of(work.grid, work.scan), work.data.y, work.data.weights
    image = generate(state.best)[0].detach()
    _, jacobian = jacobian_of(*generate.module(state.best))
    rank, scale, rng = rank_of(work.grid.size, y.numel()), float(generate.scale[0]), work.rng
    model = image_model(A, y, weights, image=image, jacobian=jacobian, scale=scale, prior="isotropic", rank=rank, rng=rng)
    seen = ~of_views(model, held)
    point = fit_evidence(model, seen, rng=rng).point
    psi = point.psi.clone()
    psi[: len(model.factor.prior.members)] += math.log(factor)
    return model, SolvedRays.on(model, replace(point, psi=psi))


def of_network(work: Work, held: NDArray[np.int64]) -> tuple[ImageModel, SolvedRays]:
    """The linear model of a network that was fitted without these views, and its rays solved."""
    return _linear(work, held, *_fit(work, held))


def spoilt(subject: Subject, views: int, folder: Path, *, iterations: int | None = None, factor: float = 1.0) -> Fitted:
    """As `fitted`, of a network that was stopped early, or of another variance of its weights than the evidence says."""
    name = f"{iterations} iterations" if iterations is not None else f"variance times {factor:g}"
    return _kept(folder / f"{subject.name}; {name}.npz", lambda: _made(subject, views, "even", iterations, factor))


def _made(subject: Subject, views: int, place: str, iterations: int | None = None, factor: float = 1.0) -> Fitted:
    begun, work = time.process_time(), Work.of(subject)
    held = PLACES[place](work.scan.geometry.angles, views)
    generate, state = _fit(work, held, None if iterations is None else DIPOptions(iterations=iterations))
    model, given = _linear(work, held, generate, state, factor)
    posterior = ImagePosterior(given, rng=work.rng)
    kept = _of_held_out(model, given, work.data.y, held)
    others = match_detector(subject.scan.select(subject.unseen), work.grid)
    kept |= _of_unseen(posterior, others, kept["gain"], work.grid)
    truth = np.full(work.grid.shape, np.nan)
    if subject.true and work.scan.truth is not None and work.scan.grid == work.grid:
        truth = work.scan.truth
    return Fitted(
        **kept,
        image=model.image.numpy(),
        image_variance=posterior.std().square().numpy(),
        truth=truth,
        iterations=state.iteration,
        seconds=time.process_time() - begun,
    )


def _of_held_out(model: ImageModel, given: SolvedRays, y: Tensor, held: NDArray[np.int64]) -> dict[str, NDArray]:
    """As `ctuq.uncertainty.estimate` has them, with the whole gain in place of the correction by two scales."""
    new = of_views(model, held).nonzero()[:, 0]
    left = LeftOut.of(given, new)
    T = left.covariance()
    noise = given.system.point.sigma2[0] / model.precision[new]
    predicted = model.features.matrix.rows(new)(model.image.reshape(1, -1).double())[0] / model.precision[new].sqrt()
    residual = y.reshape(-1)[model.rays[new]].double() - predicted
    signal = (T.diagonal() - 1).clamp(min=0) * noise
    gain = left.images_of(torch.eye(len(new), dtype=torch.float64)).flatten(1).T
    shape = (len(held), -1)
    parts = {"residual": residual, "signal": signal, "noise": noise}
    return {k: v.reshape(shape).numpy() for k, v in parts.items()} | {"total": T.numpy(), "gain": gain.float().numpy()}


def _of_unseen(posterior: ImagePosterior, scan: ctuq.Scan, gain: NDArray, grid: ctuq.VolumeGrid) -> dict[str, NDArray]:
    shape, image = scan.projections.shape, posterior.model.image
    to_rays = matrix_of(grid, scan)
    rows = SparseRows(to_rays.matrix, torch.device("cpu"), image=tuple(image.shape))
    sigma2 = float(posterior.given.system.point.sigma2[0])
    weights = np.ones(shape) if scan.weights is None else np.maximum(scan.weights, 1e-9)
    return {
        "unseen_residual": scan.projections - to_rays(image).numpy(),
        "unseen_signal": posterior.variance_of(rows).reshape(shape).numpy(),
        "unseen_noise": sigma2 / weights,
        "unseen_gain": (to_rays.matrix @ gain).reshape(*shape, -1).astype(np.float32),
    }


def _tensors(scan: ctuq.Scan) -> tuple[Tensor, Tensor]:
    weights = np.ones_like(scan.projections) if scan.weights is None else scan.weights
    return torch.tensor(scan.projections), torch.tensor(weights)
