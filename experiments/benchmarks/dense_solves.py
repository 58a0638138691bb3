"""What solves of a dense scan's noise and floors take: with and without a factor over the edges, and by what they are for.

``python -m experiments.benchmarks.dense_solves --scan tooth --size 256``: a short fit of all views, a linear model of 128
directions, its evidence; then 64 right-hand sides of three kinds, each by conjugate gradients as they are and given the edges,
to 1e-6 and to what the noise asks. Steps and seconds of one core go to ``figures/dense_solves.csv``.
"""

import csv
import time
from unittest.mock import patch

import torch
import tyro

from ctuq.laplace.system.problem import System
from ctuq.linops.block_cg import BlockCG
from ctuq.linops.solve import Solution
from ctuq.recon.dip import DIPOptions
from ctuq.stages import Stages
from ctuq.uncertainty.calibration.held_out import of_views
from ctuq.uncertainty.estimate import fit_evidence
from ctuq.uncertainty.model import noise as solving
from ctuq.uncertainty.model.linear import ImageModel, image_model
from experiments import FIGURES
from experiments.benchmarks.accuracy import fit_of
from experiments.unseen_views import load

OUTPUT = FIGURES / "dense_solves.csv"
_ITERATIONS, _DIRECTIONS, _TOGETHER = 150, 128, solving.BATCH


def main(scan: str = "tooth", size: int = 256) -> None:
    """Print and write a line for each kind of right-hand side and way."""
    model, system = fitted(scan, size)
    rows = []
    for edges in (False, True):
        with patch.object(solving, "_EDGES", solving._EDGES if edges else 0):
            begun = time.thread_time()
            noise = solving.NoiseSolve(
                model.features.matrix, system.noise_root(), model.misfit(system.point.psi), "cg", Stages()
            )
            made = time.thread_time() - begun
        for kind, (b, needed) in right_hand_sides(model, system).items():
            for rtol, asked in ((solving.RTOL, "1e-6"), (needed, "the noise")):
                seconds, steps = _timed(noise, b, rtol)
                row = {"scan": scan, "size": size, "rays": b.shape[1], "right_hand_sides": kind, "to": asked}
                row |= {"edges": edges, "steps": steps, "seconds": round(seconds, 1), "factor_seconds": round(made, 1)}
                rows.append(row)
                print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    with OUTPUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def fitted(scan: str, size: int) -> tuple[ImageModel, System]:
    """The linear model of a short fit, at its evidence's maximum."""
    rng = torch.Generator().manual_seed(0)
    _, held, given = fit_of(load(scan), size, DIPOptions(iterations=_ITERATIONS), rng)
    model = image_model(**given, rank=_DIRECTIONS, rng=rng)
    evidence = fit_evidence(model, ~of_views(model, held), rng=rng)
    return model, System(model.problem(), model.prior, evidence.point)


def right_hand_sides(model: ImageModel, system: System) -> dict[str, tuple[torch.Tensor, float | torch.Tensor]]:
    """Rows (64, m), and what residual each asks for: directions of the network, draws of the floors, single rays."""
    root, m = system.noise_root(), len(model.target)
    L = torch.linalg.cholesky(model.prior.mixing(system.point.psi))
    mixed = (model.features.basis / root) @ L
    columns = (mixed @ torch.linalg.eigh(mixed.T @ mixed)[1].flip(1)).T[_DIRECTIONS - _TOGETHER :]
    rng = torch.Generator().manual_seed(1)
    u = model.misfit(system.point.psi).draws(_TOGETHER, rng=rng)
    drawn = model.features.matrix(u) / root + torch.randn(_TOGETHER, m, generator=rng, dtype=torch.float64)
    rays = torch.zeros(_TOGETHER, m, dtype=torch.float64)
    rays[:, m // 2 : m // 2 + _TOGETHER].diagonal().fill_(1)
    return {
        "directions": (columns, solving.to_faint(columns)),
        "draws": (drawn, solving.for_draws(drawn, u.shape[1])),
        "single rays": (rays, solving.UNITS[0]),
    }


def _timed(noise: solving.NoiseSolve, b: torch.Tensor, rtol: float | torch.Tensor) -> tuple[float, int]:
    steps, solve = 0, BlockCG.__call__

    def counted(self: BlockCG, *given: object) -> Solution:
        nonlocal steps
        found = solve(self, *given)  # type: ignore[arg-type]
        steps += found.steps
        return found

    begun = time.thread_time()
    with patch.object(BlockCG, "__call__", counted):
        noise(b, rtol)
    return time.thread_time() - begun, steps


if __name__ == "__main__":
    tyro.cli(main)
