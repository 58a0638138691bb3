"""How the parts of a job grow, beside what counting operations expects: ``python -m experiments.benchmarks.scaling``.

Each part is timed (CPU seconds of one thread, the least of three rounds) while one number grows and the others stay; the slope
of the last half of its points, in logarithms, is its exponent. ``figures/scaling.csv`` has every point,
``figures/scaling.png`` a panel a part; ``--draw-only`` redraws them.
"""

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

import ctuq
from ctuq.design.designer import Designer
from ctuq.design.models.classical import Matern
from ctuq.design.problem import DesignProblem
from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.system.problem import Point
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.linops.memory import keep_freed_memory
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.uncertainty.model.linear import ImageModel, image_model
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays
from experiments import FIGURES

STEM = FIGURES / "scaling"
_ROUNDS, _RANK, _BASE, _VIEWS = 3, 128, 48, 24

Work = Callable[[], object]


@dataclass(frozen=True)
class Part:
    """What grows with what.

    Parameters
    ----------
    name, variable : str
    expected : float
        Exponent by counting operations.
    why : str
    make : callable
        From the variable's value to its exact size and the work.
    values : tuple of int
    """

    name: str
    variable: str
    expected: float
    why: str
    make: Callable[[int], tuple[float, Work]]
    values: tuple[int, ...]


def scan_of(size: int, views: int) -> tuple[ctuq.VolumeGrid, ctuq.ParallelBeam]:
    """A square of so many pixels a side, and its views over half a turn."""
    angles = np.arange(views) * np.pi / views
    return ctuq.VolumeGrid((size, size), 1.0), ctuq.ParallelBeam(angles=angles, columns=int(1.42 * size) + 1, pixel=1.0)


def model_of(size: int, views: int, rank: int = _RANK) -> ImageModel:
    """The linear model of an untrained network: its sizes are those of a trained one."""
    grid, beam = scan_of(size, views)
    A = ctuq.ray_transform(grid, beam, backend="matrix")
    rng = torch.Generator().manual_seed(0)
    network, inputs = UNet(UNetOptions(), rng), torch.randn(1, 1, size, size, generator=rng)
    image, jacobian = jacobian_of(network, inputs)
    image = image.reshape(size, size)
    y = A(image)
    y = y + 0.01 * y.std() * torch.randn(y.shape, generator=rng)
    given = {"image": image, "jacobian": jacobian, "scale": 1.0, "prior": "isotropic", "rank": rank, "rng": rng}
    return image_model(A, y, torch.ones_like(y), **given)


def point_of(model: ImageModel) -> Point:
    """Hyperparameters of no interest."""
    return Point(model.prior.start(), torch.tensor([1e-4 * float(model.target.square().mean())], dtype=torch.float64))


def ray_products(size: int) -> tuple[float, Work]:
    grid, beam = scan_of(size, _VIEWS)
    A, x = ctuq.ray_transform(grid, beam, backend="matrix"), torch.ones(8, size, size)
    return size**2, partial(A, x)


def rows_by_pixels(size: int) -> tuple[float, Work]:
    return size**2, _rows(size, 32)[1]


def rows_by_weights(channels: int) -> tuple[float, Work]:
    return _rows(_BASE, channels)


def _rows(size: int, channels: int) -> tuple[float, Work]:
    """Number of weights of a network of so many channels, and rows of its Jacobian."""
    rng = torch.Generator().manual_seed(0)
    network = UNet(UNetOptions(channels=(channels,) * 3), rng)
    _, jacobian = jacobian_of(network, torch.randn(1, 1, size, size, generator=rng))
    rows = torch.randn(8, 1, size, size, generator=rng)
    return sum(p.numel() for p in network.parameters()), partial(jacobian.T, rows)


def evidence(views: int) -> tuple[float, Work]:
    model = model_of(_BASE, views)
    expectation = ExactExpectation(model.problem(), model.prior, components=model.components())
    return len(model.target), partial(expectation, point_of(model))


def draws(count: int) -> tuple[float, Work]:
    model = model_of(_BASE, _VIEWS)
    given = SolvedRays.on(model, point_of(model))
    return count, partial(given.draws, count, rng=torch.Generator().manual_seed(0))


def deviations(size: int) -> tuple[float, Work]:
    model = model_of(size, _VIEWS)
    given = SolvedRays.on(model, point_of(model))
    return size**2, lambda: ImagePosterior(given, rng=torch.Generator().manual_seed(0)).std()


def candidates(count: int) -> tuple[float, Work]:
    A = ctuq.ray_transform(*scan_of(24, count), backend="matrix")
    problem = DesignProblem(A=A)
    designer = Designer(problem, Matern())
    few = np.arange(0, count, count // 5)[:5]
    image = torch.from_numpy(np.pad(np.ones((12, 12), np.float32), 6))
    designer.tell(problem.angles[few], A(image).numpy()[few])
    return count, partial(problem.criterion, designer.conditioned)


PARTS = (
    Part("rays of 8 images", "pixels", 1.0, "columns x pixels along a ray", ray_products, (32, 64, 128, 256)),
    Part("8 rows of the Jacobian", "pixels", 1.0, "convolutions", rows_by_pixels, (32, 64, 128, 256)),
    Part("8 rows of the Jacobian, channels", "weights", 1.0, "convolutions", rows_by_weights, (8, 16, 32, 64)),
    Part("exact evidence and slope", "rays", 3.0, "Cholesky factor and inverse", evidence, (8, 16, 32, 48)),
    Part("posterior draws", "samples", 1.0, "two products with the factor each", draws, (16, 64, 256, 1024)),
    Part("standard deviation", "pixels", 2.0, "a triangular solve a pixel; rays grow with the side", deviations, (24, 48, 96)),
    Part("score of all candidates", "candidates", 1.0, "rows against one covariance", candidates, (30, 60, 120, 240)),
)


def measured(part: Part) -> Iterator[dict[str, str | float]]:
    """A row a point."""
    for value in part.values:
        size, work = part.make(value)
        work()
        least = np.inf
        for _ in range(_ROUNDS):
            began, rounds = time.process_time(), 0
            while time.process_time() - began < 0.02:
                work()
                rounds += 1
            least = min(least, (time.process_time() - began) / rounds)
        yield {"part": part.name, "variable": part.variable, "value": size, "seconds": least, "expected": part.expected}


def exponent(rows: list[dict]) -> float:
    """Slope of the last half of the points, in logarithms."""
    x, y = (np.log([float(row[key]) for row in rows]) for key in ("value", "seconds"))
    half = len(x) // 2 if len(x) > 3 else 0
    return float(np.polyfit(x[half:], y[half:], 1)[0])


def draw(rows: list[dict]) -> Figure:
    """A panel a part: what was measured, and the expected slope through the last point."""
    figure = Figure(figsize=(13.0, 6.0), layout="constrained")
    panels = list(figure.subplots(2, 4).flat)
    for axes, part in zip(panels, PARTS, strict=False):
        own = [row for row in rows if row["part"] == part.name]
        x, y = (np.array([float(row[key]) for row in own]) for key in ("value", "seconds"))
        axes.loglog(x, y, "o-", color="#0b5fa5", label=f"measured, {exponent(own):.2f}")
        axes.loglog(x, y[-1] * (x / x[-1]) ** part.expected, "--", color="0.5", label=f"expected, {part.expected:g}")
        axes.set(title=part.name, xlabel=part.variable, ylabel="CPU seconds", xticks=x, xticklabels=[f"{v:,.0f}" for v in x])
        axes.tick_params(axis="x", labelsize=8)
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
    for axes in panels[len(PARTS) :]:
        axes.set_axis_off()
    return figure


def main(draw_only: bool = False, quick: bool = False) -> None:
    """Measure, tell and draw.

    Parameters
    ----------
    draw_only
        From the table that is there.
    quick
        The smallest two sizes of each part.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    path = STEM.with_suffix(".csv")
    if draw_only:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        parts = [Part(**{**vars(part), "values": part.values[:2]}) for part in PARTS] if quick else PARTS
        rows = [row for part in parts for row in measured(part)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    for part in PARTS:
        own = [row for row in rows if row["part"] == part.name]
        ends = f"{float(own[0]['seconds']):.2g} to {float(own[-1]['seconds']):.2g} s"
        slope = f"exponent {exponent(own):.2f}, expected {part.expected:g} ({part.why})"
        print(f"{part.name:36} {part.variable:11} {slope}; {ends}")
    figure = draw(rows)
    for suffix in (".png", ".pdf"):
        figure.savefig(STEM.with_suffix(suffix), dpi=150)


if __name__ == "__main__":
    tyro.cli(main)
