"""What EM's answer owes to its start, to its solver's tolerance, and to the step and passes of stochastic gradients.

``python -m experiments.engine.em`` writes ``figures/engine_em.csv``, ``engine_em_steps.csv`` and ``engine_em.png``: the toy
regression, one precision and the noise, the same frozen draws throughout, judged by the exact evidence of where each ascent
ends. Finished ascents are not run again.
"""

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from ctuq import laplace
from ctuq.laplace.evidence.ascent import Ascent, ascend
from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.evidence.sampled import SampledExpectation
from ctuq.laplace.system.cg_sampler import Sampler
from ctuq.laplace.system.descent import SampleLoss, judged
from ctuq.laplace.system.problem import Point, System, plus_identity
from ctuq.laplace.system.sampling import Conditioned, Draws, condition
from ctuq.linops.estimate import largest_eigenvalue
from ctuq.linops.solve import CG, Cholesky
from ctuq.linops.stochastic import sgd, step_limit
from experiments import FIGURES
from experiments.engine import toy
from experiments.engine.rows import Row, Rows

STARTS = (1e-4, 1e-2, 1e2, 1e4)
_BATCH = 24


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    samples: int = 32
    max_steps: int = 15
    seed: int = 0
    quick: bool = False
    out: Path = FIGURES / "engine_em"


def sgd_sampler(draws: Draws, fraction: float, passes: int) -> Sampler:
    """SGD on the sampling loss with a fraction of full gradients' largest step, warm-started, however wrong it ends."""

    def sampler(system: System, with_mode: bool, start: Tensor | None) -> Conditioned:
        rng, loss, n = torch.Generator().manual_seed(1), SampleLoss(system, draws, with_mode=with_mode), system.problem.data
        size = fraction * step_limit(largest_eigenvalue(plus_identity(system.primal_gram()), rng=rng), 0.0, 0.9)
        steps, first = passes * -(-n // _BATCH), loss.start if start is None else start
        z = sgd(loss.gradient, first, n=n, batch=_BATCH, steps=steps, step_size=size, rng=rng)
        return judged(system, draws, z, passes, math.inf)

    return sampler


def samplers(draws: Draws, quick: bool) -> Mapping[str, Sampler]:
    """Exact, CG to several tolerances, SGD of several steps and passes."""

    def by(solver) -> Sampler:
        return lambda system, with_mode, start: condition(system, draws, solver, with_mode=with_mode, start=start)

    found = {"exact": by(Cholesky())} | {f"cg {rtol:g}": by(CG(rtol)) for rtol in (3e-1, 1e-1, 1e-2, 1e-3)}
    settings = [(0.1, 10)] if quick else [(0.003, 50), (0.03, 50), (0.3, 5), (0.3, 50), (0.3, 200)]
    return found | {
        f"sgd step {fraction:g}, {passes} passes": sgd_sampler(draws, fraction, passes) for fraction, passes in settings
    }


def main(options: Options) -> None:
    """Run EM from every start with every sampler; table and figure."""
    model, _, y = toy.problem(toy.Options(quick=options.quick, seed=options.seed))
    fit = laplace.maximise_evidence(model, y, with_sweep=False)
    exact, best = ExactExpectation(fit.problem, fit.prior), fit.point
    draws = Draws.of(fit.problem, options.samples, rng=torch.Generator().manual_seed(options.seed))
    table, steps = Rows(options.out.with_suffix(".csv")), Rows(options.out.with_name(f"{options.out.name}_steps.csv"))
    for name, sampler in samplers(draws, options.quick).items():
        for factor in STARTS[1:3] if options.quick else STARTS:
            if table.where(sampler=name, start=factor):
                continue
            begun = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                start = Point(best.psi - math.log(factor), best.sigma2)
                expectation = SampledExpectation(fit.problem, fit.prior, sampler)
                ended = ascend(expectation, fit.prior, start, learn_noise=True, max_steps=options.max_steps)
            ratios = [float(best.psi[0] - step.point.psi[0]) / math.log(10) for step in ended.trajectory]
            key: Row = {"sampler": name, "start": factor}
            steps.add([key | {"step": i, "log10_precision_ratio": ratio} for i, ratio in enumerate(ratios)])
            row = told(ended, best, fit.log_evidence, exact)
            table.add([key | row | {"cpu_seconds": time.process_time() - begun}])
            print(table.rows[-1], flush=True)
    draw(steps, table).savefig(options.out.with_suffix(".png"), dpi=120)


def told(ended: Ascent, best: Point, highest: float, exact: ExactExpectation) -> Row:
    """Where an ascent ended, beside the exact optimum."""
    point = ended.expectation.point
    value = exact.value_and_slope(point)[0]
    row: Row = {"precision_ratio": float((best.psi - point.psi).exp()[0]), "noise_ratio": float(point.sigma2 / best.sigma2)}
    row |= {"nats_below": highest - value, "gap": ended.expectation.gap, "residual": ended.expectation.residual}
    passes = sum(step.steps for step in ended.trajectory)
    return row | {"em_steps": len(ended.trajectory), "converged": int(ended.converged), "passes": passes}


def draw(steps: Rows, table: Rows) -> Figure:
    """Precision by EM step for each sampler, and nats below the best evidence."""
    names = list(dict.fromkeys(str(row["sampler"]) for row in table.rows))
    figure = Figure(figsize=(15, 6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[3, 1])
    panels = np.ravel(left.subplots(2, -(-len(names) // 2), sharey=True, sharex=True))
    last = right.subplots()
    for place, (axes, name) in enumerate(zip(panels, names, strict=False)):
        for factor in dict.fromkeys(row["start"] for row in steps.where(sampler=name)):
            path = [row["log10_precision_ratio"] for row in steps.where(sampler=name, start=factor)]
            axes.plot(path, marker=".", label=f"start {factor:g}")
        axes.axhline(0, color="#111827", lw=0.8)
        axes.set_title(name, fontsize=9)
        values = [max(1e-3, float(row["nats_below"])) for row in table.where(sampler=name)]
        last.plot(values, [place] * len(values), "o", ms=4)
    left.supylabel("log10 precision / exact optimum")
    left.supxlabel("EM step")
    panels[0].legend(frameon=False, fontsize=8)
    last.set(xscale="log", yticks=range(len(names)), yticklabels=names, xlabel="nats below the best")
    last.axvline(1, color="#111827", lw=0.8)
    last.invert_yaxis()
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
