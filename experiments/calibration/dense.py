"""The dear part of `experiments.calibration.edges`: a fit, and the prior of its image as a whole matrix.

Kept in ``runs/edges``: 20 to 45 MB a scan.
"""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import ctuq
from ctuq.pipeline import match_detector
from ctuq.recon import tv
from ctuq.recon.holdout import choose_views
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.uncertainty.calibration.held_out import of_views
from ctuq.uncertainty.gaussian_bars import learn_edges, with_image
from ctuq.uncertainty.model.gaussian import PixelRays
from experiments.calibration.fits import Work, matrix_of, of_network
from experiments.calibration.scans import Subject, real

Draw = Callable[[int, np.random.Generator], NDArray]
_SIZE, _FINER, _FIELD, _ATTENUATION, _UNSEEN = 40, 4, 40.0, 0.05, 30
_FEW = 12
_SEEDS = (0, 1)
_SETTINGS = ((15, 0.05, 180), (36, 0.02, 180), (20, 0.01, 180), (23, 0.02, 90))
"""Views, noise, and degrees over which the views lie, those too that are used for nothing."""
_NETWORK = (
    "walnut, 30 views",
    "tooth, 31 views",
    "ta, 31 views",
    "tb, 31 views",
    "glyph 0, 1%, 20 views",
    "rectangles 0, 1%, 20 views",
    "textured 0, 5%, 15 views",
    "ellipses 0, 5%, 15 views",
)


@dataclass(frozen=True, eq=False)
class Dense:
    """A linear model of a slice; rays are in units of their noise.

    Parameters
    ----------
    prior : array, shape (d, d)
        Covariance of the pixels before any ray is seen.
    image, truth : array, shape (y, x)
        The truth is NaN where it is not known.
    fitted, held, unseen : sparse array, shape (m, d)
        Rays of the views that were fitted, held out, and used for nothing.
    target : array, shape (m,)
        What the fitted rays are of, less the mean of the prior.
    held_off, unseen_off : array, shape (views, columns)
        How far rays are off the image.
    unseen_sd : array, shape (views, columns)
        Their noise.
    """

    prior: NDArray
    image: NDArray
    truth: NDArray
    fitted: sp.csr_array
    held: sp.csr_array
    unseen: sp.csr_array
    target: NDArray
    held_off: NDArray
    unseen_off: NDArray
    unseen_sd: NDArray


def cases(folder: Path, methods: tuple[str, ...], fit: bool = True) -> Iterator[tuple[str, Dense]]:
    """Of each method all scans: made, and kept."""
    for method, name, subject in _jobs(methods):
        path = folder / f"{method}, {name}.pickle"
        if not path.is_file():
            if not fit:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            partly = path.with_suffix(".partial")
            partly.write_bytes(pickle.dumps(_MAKE[method](subject())))
            partly.rename(path)
        yield f"{method}, {name}", pickle.loads(path.read_bytes())


def _jobs(methods: tuple[str, ...]) -> Iterator[tuple[str, str, Callable[[], Subject]]]:
    shipped = {s.name: partial(_same, s) for s in real()}
    every = dict(_simulated()) | shipped
    for method in methods:
        for name in every if method == "tv" else _NETWORK:
            yield method, name, every[name]


def _same(subject: Subject) -> Subject:
    return subject


def _bumps(size: int, rng: np.random.Generator) -> NDArray:
    """Smooth everywhere: a round hill, and smaller ones on it."""
    line = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = line[None], line[:, None]
    image = np.exp(-((x**2 + y**2) / 0.3))
    for _ in range(8):
        a, b, width = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.1, 0.25)
        image += rng.uniform(0.2, 0.8) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / width**2)
    return image / image.max()


def _textured(size: int, rng: np.random.Generator) -> NDArray:
    """A disc of a grain of 3 % of its width, with four holes."""
    line = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = line[None], line[:, None]
    grain = gaussian_filter(rng.standard_normal((size, size)), 0.015 * size)
    image = (0.6 + 0.12 * grain / grain.std()) * (x**2 + y**2 < 0.7)
    for _ in range(4):
        a, b = rng.uniform(-0.5, 0.5, 2)
        image *= (x - a) ** 2 + (y - b) ** 2 > rng.uniform(0.06, 0.15) ** 2
    return image.clip(0, 1)


_OBJECTS: dict[str, Draw] = {**PHANTOMS, "bumps": _bumps, "textured": _textured}


def _simulated() -> Iterator[tuple[str, Callable[[], Subject]]]:
    for seed, (views, noise, arc), (k, phantom) in product(_SEEDS, _SETTINGS, enumerate(_OBJECTS)):
        name = f"{phantom} {seed}, {noise:.0%}, {views} views" + f" of {arc} degrees" * (arc < 180)
        yield name, partial(_seen, name, _OBJECTS[phantom], (views, noise, arc), (seed, k, views))


def _seen(name: str, draw: Draw, setting: tuple[int, float, float], seed: tuple[int, ...]) -> Subject:
    """Views for the reconstruction, and behind them those that are used for nothing."""
    views, noise, arc = setting
    voxel, rng = _FIELD / _SIZE, np.random.default_rng(seed)
    own, others = (np.arange(n) * arc / n for n in (views, _UNSEEN))
    angles = ctuq.radians(np.concatenate([own, others + 0.37 * arc / _UNSEEN]))
    beam = ctuq.ParallelBeam(angles=angles, columns=int(np.ceil(2**0.5 * _SIZE)) + 2, pixel=voxel)
    fine, grid = _ATTENUATION * draw(_SIZE * _FINER, rng), ctuq.VolumeGrid((_SIZE, _SIZE), voxel)
    scan = simulate(fine, beam, grid, RelativeNoise(noise), rng=rng, finer=_FINER)
    return Subject(name, scan, np.arange(views), true=True, size=_SIZE)


def _held(work: Work) -> NDArray[np.int64]:
    return choose_views(work.scan.geometry.angles, 3 if work.scan.n_angles >= _FEW else 2)[1]


def _of_network(subject: Subject) -> Dense:
    work = Work.of(subject)
    held = _held(work)
    model, given = of_network(work, held)
    psi = given.system.point.psi
    F = torch.eye(work.grid.size, dtype=torch.float64) if model.factor.basis is None else model.factor.basis.double()
    C = F @ model.prior.mixing(psi).double() @ F.T + model.misfit(psi).times(torch.eye(work.grid.size, dtype=torch.float64))
    sigma2 = float(given.system.point.sigma2[0])
    return _dense(subject, work, C.numpy(), model.image, model.views, model.matrix.scipy, model.target, held, sigma2)


def _of_edges(subject: Subject) -> Dense:
    work = Work.of(subject)
    held = _held(work)
    seen = np.setdiff1d(np.arange(work.scan.n_angles), held)
    image = tv(work.data.A.subset(seen), work.data.y[seen], weights=work.data.weights[seen])
    rays = PixelRays.of(work.data.A, work.data.y, work.data.weights, image)
    learned = learn_edges(rays.part(of_views(rays, seen).nonzero()[:, 0]), image)
    rays = with_image(rays, learned, held, route="rays", rng=work.rng)
    C = learned.found.signal * learned.field.times(torch.eye(work.grid.size, dtype=torch.float64))
    return _dense(subject, work, C.numpy(), rays.image, rays.views, rays.matrix.scipy, rays.target, held, learned.found.noise)


def _dense(subject, work, prior, image, views, matrix, target, held, sigma2) -> Dense:
    out = np.isin(views.numpy(), held)
    rows, flat = sp.csr_array(matrix) / sigma2**0.5, image.double().numpy().ravel()
    data = work.data
    whole = (data.y.double() * data.weights.double().sqrt()).numpy()[held] / sigma2**0.5
    others = match_detector(subject.scan.select(subject.unseen), work.grid)
    noise = sigma2**0.5 / np.sqrt(np.ones(others.projections.shape) if others.weights is None else others.weights)
    unseen = sp.csr_array(sp.diags_array(1 / noise.ravel()) @ matrix_of(work.grid, others).matrix)
    truth = np.full(work.grid.shape, np.nan)
    if work.scan.truth is not None and work.scan.grid == work.grid:
        truth = work.scan.truth.astype(np.float64)
    return Dense(
        prior=(prior + prior.T) / 2,
        image=image.double().numpy(),
        truth=truth,
        fitted=rows[~out],
        held=rows[out],
        unseen=unseen,
        target=target.numpy()[~out] / sigma2**0.5,
        held_off=whole - (rows[out] @ flat).reshape(whole.shape),
        unseen_off=others.projections / noise - (unseen @ flat).reshape(noise.shape),
        unseen_sd=noise,
    )


_MAKE = {"tv": _of_edges, "dip": _of_network}
