"""What EM's answer owes to its start, to its solver's tolerance, and to the step and passes of stochastic gradients.

``python -m experiments.engine.em`` writes ``figures/engine_em.{csv,png}``: the toy regression, one precision and the noise, the
same frozen draws throughout, judged by the exact evidence of where each ascent ends.
"""

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
from ctuq.laplace.dense import ExactExpectation
from ctuq.laplace.descent import SampleLoss
from ctuq.laplace.em import Ascent, ascend
from ctuq.laplace.expectation import SampledExpectation, Sampler
from ctuq.laplace.problem import Point, System, plus_identity
from ctuq.laplace.sampling import Conditioned, Draws, condition, conditioned_by
from ctuq.linops.estimate import largest_eigenvalue
from ctuq.linops.solve import CG, Cholesky, Solution, relative
from ctuq.linops.stochastic import sgd, step_limit
from experiments.engine import toy
from experiments.engine.rows import FIGURES, Row, Rows

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
        b = torch.cat([loss.centre, system.pulled_target()]) if with_mode else loss.centre
        return conditioned_by(system, draws, Solution(z, relative(b - z - system.normal(z), b), passes, True), loss.centre)

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
    table, paths = Rows(options.out.with_suffix(".csv")), {}
    table.rows.clear()
    for name, sampler in samplers(draws, options.quick).items():
        for factor in STARTS[1:3] if options.quick else STARTS:
            begun = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                start = Point(best.psi - np.log(factor), best.sigma2)
                expectation = SampledExpectation(fit.problem, fit.prior, sampler)
                ended = ascend(expectation, fit.prior, start, learn_noise=True, max_steps=options.max_steps)
            paths[name, factor] = np.array([float(best.psi[0] - step.point.psi[0]) for step in ended.trajectory]) / np.log(10)
            row = told(ended, best, fit.log_evidence, exact)
            table.add([{"sampler": name, "start": factor} | row | {"cpu_seconds": time.process_time() - begun}])
            print(table.rows[-1], flush=True)
    draw(paths, table).savefig(options.out.with_suffix(".png"), dpi=120)


def told(ended: Ascent, best: Point, highest: float, exact: ExactExpectation) -> Row:
    """Where an ascent ended, beside the exact optimum."""
    point = ended.expectation.point
    value = exact.value_and_slope(point)[0]
    row: Row = {"precision_ratio": float((best.psi - point.psi).exp()[0]), "noise_ratio": float(point.sigma2 / best.sigma2)}
    row |= {"nats_below": highest - value, "gap": ended.expectation.gap, "residual": ended.expectation.residual}
    passes = sum(step.steps for step in ended.trajectory)
    return row | {"em_steps": len(ended.trajectory), "converged": int(ended.converged), "passes": passes}


def draw(paths: Mapping[tuple[str, float], np.ndarray], table: Rows) -> Figure:
    """Precision by EM step for each sampler, and nats below the best evidence."""
    names = list(dict.fromkeys(name for name, _ in paths))
    figure = Figure(figsize=(13, 6), layout="constrained")
    panels = np.ravel(figure.subplots(2, -(-(len(names) + 1) // 2)))
    for axes, name in zip(panels, names, strict=False):
        for (who, factor), path in paths.items():
            if who == name:
                axes.plot(path, marker=".", label=f"start {factor:g}")
        axes.axhline(0, color="#111827", lw=0.8)
        axes.set(title=name, ylim=(-5, 5), xlabel="EM step")
        axes.title.set_fontsize(10)
    panels[0].set_ylabel("log10 precision / exact optimum")
    panels[0].legend(frameon=False, fontsize=8)
    last = panels[len(names)]
    for place, name in enumerate(names):
        values = [max(1e-3, float(row["nats_below"])) for row in table.where(sampler=name)]
        last.plot(values, [place] * len(values), "o", ms=4)
    last.set(xscale="log", yticks=range(len(names)), yticklabels=names, title="nats below the best evidence", xlim=(5e-4, None))
    last.title.set_fontsize(10)
    for axes in panels[len(names) + 1 :]:
        axes.set_visible(False)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
