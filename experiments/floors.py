"""What keeps the floors off zero, and what it is worth: coverage of the truth and of unseen views for several hyperpriors.

``python -m experiments.floors``: eighteen problems with one set of defaults; ``figures/floors.csv`` has a row for each and each
shape of the floors' hyperprior (0 is the plain evidence), and the means over the problems are printed.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import tyro

import ctuq
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.pipeline import choose_grid, match_detector
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.holdout import choose_views, default_views, split
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo.phantoms import ellipses, rectangles
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.uncertainty.calibration.held_out import of_views
from ctuq.uncertainty.estimate import estimate, fit_evidence
from ctuq.uncertainty.model.factor import rank_of
from ctuq.uncertainty.model.linear import image_model
from experiments import FIGURES
from experiments.unseen_views import STEPS, load

OUTPUT = FIGURES / "floors.csv"
SHAPES = (0.0, 0.25, 0.5, 1.0, 2.0)
SIZE = 40
PHANTOMS = {"rectangles": rectangles, "ellipses": ellipses}


@dataclass(frozen=True)
class Subject:
    """A scan, the views to reconstruct from, and those that are used for nothing."""

    name: str
    scan: ctuq.Scan
    used: np.ndarray


def subjects() -> Iterator[Subject]:
    """Simulations over objects, noise and numbers of views, with their truth; real scans."""
    for seed, (name, phantom) in enumerate(PHANTOMS.items()):
        for noise in (0.01, 0.05, 0.1):
            for views in (10, 30):
                rng = np.random.default_rng(seed)
                geometry = ctuq.ParallelBeam(angles=ctuq.radians(np.arange(0, 180, 180 / 60)), columns=60, pixel=1.0)
                grid = ctuq.VolumeGrid((SIZE, SIZE), voxel=1.0)
                scan = simulate(
                    lambda s, p=phantom, r=rng: p(s, r), geometry, grid, RelativeNoise(noise), rng=rng, attenuation=0.05
                )
                yield Subject(f"{name} {noise:.0%} {views}", scan, np.arange(0, 60, 60 // views))
    for name, step in STEPS.items():
        scan = load(name)
        for more in (1, 2):
            yield Subject(f"{name} {-(-scan.n_angles // (step * more))}", scan, np.arange(0, scan.n_angles, step * more))


def measure(subject: Subject) -> Iterator[dict[str, float | str]]:
    """A row for each shape, from one fit."""
    scan = subject.scan.select(subject.used)
    grid = choose_grid(scan, SIZE)
    scan = match_detector(scan, grid)
    A = ctuq.ray_transform(grid, scan.geometry, backend="matrix")
    y = torch.tensor(scan.projections)
    weights = torch.ones_like(y) if scan.weights is None else torch.tensor(scan.weights)
    data, rng = Data(A, y, weights), torch.Generator().manual_seed(0)
    held = choose_views(scan.geometry.angles, default_views(scan.n_angles))[1]
    fit, stop = split(data, held, rng=rng)
    generate, start = generator(fit, DIPOptions(), rng=rng)
    *_, state = dip(generate, start, fit, stop, DIPOptions())
    image = generate(state.best)[0].detach()
    _, jacobian = jacobian_of(*generate.module(state.best))
    rank = rank_of(grid.size, y.numel())
    scale = float(generate.scale[0])
    model = image_model(A, y, weights, image=image, jacobian=jacobian, scale=scale, prior="isotropic", rank=rank, rng=rng)
    others = match_detector(subject.scan.select(np.setdiff1d(np.arange(subject.scan.n_angles), subject.used)), grid)
    unseen = ctuq.ray_transform(grid, others.geometry, backend="matrix")
    for shape in SHAPES:
        learned = fit_evidence(model, ~of_views(model, held), rng=torch.Generator().manual_seed(0), floor_shape=shape)
        found = estimate(model, y, held, evidence=learned)
        row: dict[str, float | str] = {"problem": subject.name, "shape": shape, "log_evidence": found.evidence.value}
        row |= dict(zip(("floor", "displacement"), model.prior.floors(found.evidence.psi).tolist(), strict=True))
        row |= {"image_scale": found.scales.image}
        mean = image.double() + found.correction
        std = found.posterior.std()
        if scan.truth is not None and scan.truth.shape == grid.shape:
            inside = scan.truth > 0.05 * scan.truth.max()
            for label, scale2 in (("raw", 1.0), ("truth", found.scales.image)):
                told = gaussian_scores((scan.truth - mean.numpy())[inside], (scale2 * std.square()).numpy()[inside])
                row |= {f"{label} {k}": told[k] for k in ("log_likelihood", "rms_z", "cover_68", "cover_95")}
        draws = found.posterior.deviations(256, rng=torch.Generator().manual_seed(1))
        signal = unseen(draws).double().square().mean(0).numpy()
        noise = 1.0 if others.weights is None else 1 / np.maximum(others.weights, 1e-9)
        variance = found.scales.image * signal + found.scales.noise * found.evidence.sigma2 * noise
        told = gaussian_scores(others.projections - unseen(mean.float()).numpy(), variance)
        row |= {f"unseen {k}": told[k] for k in ("log_likelihood", "rms_z", "cover_68", "cover_95")}
        yield row


def main() -> None:
    """Measure, record and print the means."""
    rows = []
    for subject in subjects():
        rows += list(measure(subject))
        print(subject.name, *(f"{r['shape']}: {r['unseen log_likelihood']:.3f}" for r in rows[-len(SHAPES) :]), flush=True)
        names = list(dict.fromkeys(name for row in rows for name in row))
        with OUTPUT.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    for shape in SHAPES:
        chosen = [row for row in rows if row["shape"] == shape]
        means = {n: np.mean([float(r[n]) for r in chosen if n in r]) for n in names if n not in ("problem", "shape")}
        print(shape, " ".join(f"{k} {v:.3g}" for k, v in means.items()))


if __name__ == "__main__":
    tyro.cli(main)
