"""Why designs crowd at the pixels' axes: information gain near 90 degrees, with rays along pixels' middles or their edges.

``python -m experiments.angle_design.axes`` learns each prior once an image, from the same pilot views, and then scores the same
angles for two detectors that differ by half a cell. Writes ``figures/angle_design_axes.csv`` and ``.png``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ctuq.app.trials.subjects import phantom_subject
from ctuq.design import EIG, GaussianModel, Measurements
from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.rows import ViewRows
from ctuq.design.models.lindip import LinDIPOptions
from ctuq.design.trials.contenders import Adaptive
from ctuq.design.trials.subject import Subject
from ctuq.recon.dip import DIPOptions
from ctuq.tomo import ParallelBeam, radians, ray_transform
from ctuq.tomo.rays.matrix import MatrixRayTransform
from experiments import FIGURES
from experiments.angle_design.output import write

COLUMNS: tuple[str, ...] = ("prior", "rays", "angle", "gain", "lowest", "highest")
Rays = Literal["middles", "edges"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the measurement."""

    size: int = 32
    """Pixels along x and y; even."""
    images: int = 3
    priors: tuple[str, ...] = ("matern", "lindip")
    iterations: int = 1500
    """Of the network's fit."""


def gains(model: GaussianModel, subject: Subject, pilot: NDArray[np.int64], angles: NDArray, rays: Rays) -> NDArray:
    """Information gain of angles after the pilot, over its mean; the pilot is seen by the same detector."""
    even = subject.A.geometry.columns
    every = np.concatenate([angles, subject.A.geometry.angles[pilot]])
    geometry = ParallelBeam(angles=every, columns=even if rays == "middles" else even - 1, pixel=subject.A.grid.voxel)
    A = ray_transform(subject.A.grid, geometry, backend="matrix")
    assert isinstance(A, MatrixRayTransform)
    precision = torch.full(geometry.shape, 1 / model.sigma2, dtype=torch.float64)
    given = GivenViews.start(ViewRows(A.matrix, len(A.geometry.angles)), model.covariance, precision)
    for view in range(len(angles), len(every)):
        given = given.given(view)
    scores = EIG(given)[: len(angles)].numpy()
    return scores / scores.mean()


def measure(options: Options) -> list[dict[str, str]]:
    """One row for each prior, detector and angle: mean, lowest and highest over images."""
    angles, pilot, rows = radians(np.arange(70, 110.5, 0.5)), np.arange(3, 60, 12), []
    found: dict[tuple[str, Rays], list[NDArray]] = {}
    for seed in range(options.images):
        subject = phantom_subject("rectangles", options.size, 60, noise=0.05, seed=seed)
        measured = Measurements(subject.A, pilot, subject.y[pilot], subject.weights[pilot])
        for prior in options.priors:
            dip = LinDIPOptions(dip=DIPOptions(iterations=options.iterations))
            model = Adaptive("eig", prior, dip=dip).learner()(measured)
            for rays in ("middles", "edges"):
                found.setdefault((prior, rays), []).append(gains(model, subject, pilot, angles, rays))
    for (prior, rays), tables in found.items():
        for i, angle in enumerate(np.rad2deg(angles)):
            own = [float(table[i]) for table in tables]
            values = (f"{angle:.1f}", *(f"{x:.4f}" for x in (np.mean(own), min(own), max(own))))
            rows.append(dict(zip(COLUMNS, (prior, rays, *values), strict=True)))
    return rows


def draw(rows: list[dict[str, str]]) -> Figure:
    """One panel for each prior."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    priors = list(dict.fromkeys(row["prior"] for row in rows))
    panels = figure.subplots(1, len(priors), sharey=True, squeeze=False)[0]
    for axes, prior in zip(panels, priors, strict=True):
        for rays in ("middles", "edges"):
            own = [row for row in rows if (row["prior"], row["rays"]) == (prior, rays)]
            angle, gain, low, high = ([float(row[c]) for row in own] for c in COLUMNS[2:])
            axes.plot(angle, gain, label=f"rays along pixels' {rays}")
            axes.fill_between(angle, low, high, alpha=0.25)
        axes.set(title=prior, xlabel="angle (degrees)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("information gain over its mean")
    panels[0].legend(frameon=False)
    return figure


def main(options: Options) -> None:
    torch.set_num_threads(1)
    rows = measure(options)
    write(FIGURES / "angle_design_axes", COLUMNS, rows, draw(rows))
    for row in rows:
        if row["angle"] in ("80.0", "88.5", "90.0", "100.0"):
            print(row)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
