"""Parallel Thompson sampling by every solver against the exact one: the regret of what was found, seed by seed.

``python -m experiments.engine.thompson`` writes ``figures/engine_thompson.{csv,png}``. Each seed has a function drawn from the
prior in four dimensions and 300 first data; each round draws 32 functions from the posterior and evaluates at their maxima. The
regret is the function's maximum, found by a search that may evaluate it, minus the best value so far. Finished campaigns are
not run again; ``--draw`` draws the table.
"""

import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from ctuq.gp import (
    BlockProjections,
    ConjugateGradients,
    Direct,
    Domain,
    DualDescent,
    GaussianProcess,
    Matern32,
    PrimalDescent,
    SamplePaths,
    Search,
    condition_inducing,
    thompson,
)
from ctuq.gp.paths import PriorPaths, prior_paths
from ctuq.gp.thompson import maximise_paths
from experiments import FIGURES
from experiments.engine.rows import Row, Rows

SOLVERS = {
    "exact": Direct(),
    "cg": ConjugateGradients(),
    "blocks": BlockProjections(),
    "sdd": DualDescent(steps=1000),
    "sgd": PrimalDescent(steps=1000),
}
COLOURS = {
    "exact": "#111827",
    "cg": "#1d4ed8",
    "blocks": "#0891b2",
    "sdd": "#047857",
    "sgd": "#c2410c",
    "inducing": "#a16207",
    "uniform": "#9ca3af",
}
_NOISE, _SCALE, _FEATURES = 1e-3, 0.6, 500


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    seeds: int = 5
    first: int = 300
    inputs: int = 4
    rounds: int = 5
    parallel: int = 32
    inducing: int = 128
    features: int = 5000
    """Of the function that is to be maximised."""
    search: Search = field(default_factory=lambda: Search(1000, 3, 20))
    draw: bool = False
    out: Path = FIGURES / "engine_thompson"


@dataclass(frozen=True, eq=False)
class Problem:
    """A function to maximise, its maximum, and what is known at first."""

    process: GaussianProcess
    truth: PriorPaths
    domain: Domain
    x: Tensor
    maximum: float

    def objective(self, x: Tensor) -> Tensor:
        """Values (n,), without noise."""
        return self.truth(x)[0]


def problem(seed: int, options: Options) -> Problem:
    """Of a seed."""
    rng, d = torch.Generator().manual_seed(seed), options.inputs
    process = GaussianProcess(Matern32.of(1.0, _SCALE, d), _NOISE)
    truth = prior_paths(process.kernel, d, 1, rng=rng, features=options.features)
    domain = Domain(torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64))
    x, none = domain.uniform(options.first, rng=rng), torch.zeros(1, 1, dtype=torch.float64)
    itself = SamplePaths(truth, process.kernel, x[:1], none, 0.0, none[0])
    near = x[truth(x)[0].topk(min(20, len(x))).indices]
    _, top = maximise_paths(
        itself, domain, near, search=Search(20 * options.search.candidates, 40, 5 * options.search.steps), rng=rng
    )
    return Problem(process, truth, domain, x, float(top))


def campaign(name: str, given: Problem, seed: int, options: Options) -> list[Row]:
    """Best value and regret before the first round and after each."""
    rng, process = torch.Generator().manual_seed(1000 + seed), given.process

    def draw(x: Tensor, y: Tensor) -> SamplePaths:
        if name == "inducing":
            post = condition_inducing(process, x, y, min(options.inducing, len(x) // 2), rng=rng)
        else:
            post = process.condition(x, y, solver=SOLVERS[name], rng=rng)
        return post.samples(options.parallel, rng=rng, features=_FEATURES)

    x, y, rows, spent, residual = given.x, given.objective(given.x), [], 0.0, 0.0
    for step in range(options.rounds + 1):
        if step:
            begun = time.process_time()
            if name == "uniform":
                new = given.domain.uniform(options.parallel, rng=rng)
                x, y = torch.cat([x, new]), torch.cat([y, given.objective(new)])
            else:
                found = thompson(given.objective, draw, x, y, given.domain, rounds=1, search=options.search, rng=rng)
                x, y, residual = found.x, found.y, found.residual[-1]
            spent += time.process_time() - begun
        best = float(y.max())
        row: Row = {"solver": name, "seed": seed, "round": step, "evaluations": len(x), "best": best}
        rows.append(row | {"regret": given.maximum - best, "residual": residual, "cpu_seconds": spent})
    return rows


def main(options: Options) -> None:
    """Run what is not in the table yet, seed by seed, and draw it."""
    warnings.simplefilter("ignore")  # residuals are recorded
    table = Rows(options.out.with_suffix(".csv"))
    for seed in range(0 if options.draw else options.seeds):
        missing = [name for name in COLOURS if not table.where(solver=name, seed=seed)]
        given = problem(seed, options) if missing else None
        for name in missing:
            assert given is not None
            table.add(campaign(name, given, seed, options))
            print(table.rows[-1], flush=True)
    for name, (mean, error, gap, gap_error, seconds) in summary(table).items():
        told = f"regret {mean:.4f} +- {error:.4f}, over exact {gap:+.4f} +- {gap_error:.4f}, {seconds:.1f} s CPU"
        print(f"{name:>10}: {told}")
    draw(table).savefig(options.out.with_suffix(".png"), dpi=120)


def summary(table: Rows) -> dict[str, tuple[float, float, float, float, float]]:
    """Of each solver: last regret and its excess over the exact one of the same seed, with standard errors; CPU seconds."""
    last = max(int(row["round"]) for row in table.rows)
    exact = {row["seed"]: float(row["regret"]) for row in table.where(solver="exact", round=last)}
    found = {}
    for name in COLOURS:
        rows = table.where(solver=name, round=last)
        regret = np.array([float(row["regret"]) for row in rows])
        excess = regret - np.array([exact[row["seed"]] for row in rows])
        errors = [each.std(ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else 0.0 for each in (regret, excess)]
        seconds = np.mean([float(row["cpu_seconds"]) for row in rows])
        found[name] = (float(regret.mean()), float(errors[0]), float(excess.mean()), float(errors[1]), float(seconds))
    return found


def draw(table: Rows) -> Figure:
    """Mean regret against evaluations and CPU seconds, and each seed's last regret beside the exact solver's."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    by_count, by_time, pairs = figure.subplots(1, 3)
    rounds = sorted({int(row["round"]) for row in table.rows})
    exact = {row["seed"]: float(row["regret"]) for row in table.where(solver="exact", round=rounds[-1])}
    for name, colour in COLOURS.items():
        rows = [table.where(solver=name, round=step) for step in rounds]
        mean, count, seconds = (
            [np.mean([float(row[key]) for row in step]) for step in rows] for key in ("regret", "evaluations", "cpu_seconds")
        )
        by_count.semilogy(count, mean, ".-", color=colour, label=name)
        if name != "uniform":
            by_time.semilogy(seconds[1:], mean[1:], ".-", color=colour)
        if name != "exact":
            pairs.plot([exact[row["seed"]] for row in rows[-1]], [row["regret"] for row in rows[-1]], "o", color=colour)
    by_count.set(xlabel="evaluations", ylabel="regret, mean over seeds")
    by_time.set(xlabel="CPU seconds of choosing", xscale="log")
    limits = [1e-4, 3.0]
    pairs.plot(limits, limits, color="#9ca3af", lw=0.8)
    pairs.set(xlabel="last regret, exact", ylabel="last regret, each seed", xscale="log", yscale="log")
    for axes in (by_count, by_time, pairs):
        axes.grid(alpha=0.3)
    figure.legend(*by_count.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
