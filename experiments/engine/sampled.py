"""Exact against sampled posterior, on two networks that have both: a small LeNet on digits and a small U-Net on a scan.

``python -m experiments.engine.sampled`` writes ``figures/engine_sampled_em.csv`` (the evidence that sample-based EM ends at, by
number of samples and by start, beside the exact optimum), ``engine_sampled.csv`` (standard deviations, predictive and joint log
likelihood by number of samples) and ``engine_sampled.png``. The prior is the g-prior with one precision. Finished rows are not
run again; ``--draw`` draws the tables.
"""

import math
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from ctuq import laplace
from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.fit import Fit, maximise
from ctuq.laplace.predictive import log_likelihoods, monte_carlo
from ctuq.scores.classes import joint_score, log_likelihood
from experiments import FIGURES
from experiments.engine.deep import QUICK, SMALL, Deep, exact_fit, priors
from experiments.engine.methods import CLASSES
from experiments.engine.rows import Row, Rows

COUNTS, STARTS = (2, 4, 8, 16, 32, 64), (1e-4, 1e-2, 1e2, 1e4)
USUAL, MANY, TOGETHER = 16, 2048, 5
KEPT = {"U-Net": "small U-Net", "LeNet": "LeNet"}
COLOURS = {"LeNet": "#1d4ed8", "U-Net": "#c2410c"}


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    only: tuple[str, ...] = tuple(SMALL)
    """Networks."""
    counts: tuple[int, ...] = COUNTS
    seeds: int = 3
    quick: bool = False
    draw: bool = False
    out: Path = FIGURES / "engine_sampled"


def main(options: Options) -> None:
    """Run what is not in the tables yet, and draw them."""
    em, table = Rows(options.out.with_name(f"{options.out.name}_em.csv")), Rows(options.out.with_suffix(".csv"))
    networks = QUICK if options.quick else {name: SMALL[name] for name in options.only}
    for name, make in ({} if options.draw else networks).items():
        deep = make(0)
        model = deep.linearise(deep.network)
        fit = exact_fit(model, deep.y, priors(deep, model)["g"], "" if options.quick else f"{KEPT[name]}-g-0")
        searches(fit, name, em, options)
        predictions(fit, deep, table, em, options)
    draw(em, table).savefig(options.out.with_suffix(".png"), dpi=120)


def searches(fit: Fit, name: str, table: Rows, options: Options) -> None:
    """EM with each number of samples from where it starts by itself, and from precisions that are far off."""
    exact = ExactExpectation(fit.problem, fit.prior)
    runs = [(count, 0.0, seed) for count in options.counts for seed in range(options.seeds)]
    for count, factor, seed in (runs + [(USUAL, factor, 0) for factor in STARTS])[:: 7 if options.quick else 1]:
        if table.where(network=name, samples=count, start=factor, seed=seed):
            continue
        start = laplace.Point(fit.psi - math.log(factor), fit.sigma2) if factor else None
        begun = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rng = torch.Generator().manual_seed(seed)
            found = maximise(
                fit.problem, fit.prior, model=fit.model, method="em", samples=count, start=start, max_steps=20, rng=rng
            )
            seconds = time.process_time() - begun
            value = exact(found.point).log_evidence
        assert value is not None
        row: Row = {"network": name, "samples": count, "start": factor, "seed": seed, "cpu_seconds": seconds}
        row |= {"log_precision_ratio": float(fit.psi[0] - found.psi[0]), "log_noise_ratio": _log_noise(found, fit)}
        row |= {"nats_below": fit.log_evidence - value, "told_minus_exact": found.log_evidence - value}
        row |= {"told_error": found.log_evidence_error, "em_steps": len(found.trajectory), "converged": int(found.converged)}
        row |= {"dimension": found.total_dimension.value, "exact_dimension": fit.total_dimension.value}
        table.add([row])
        print(row, flush=True)


def _log_noise(found: Fit, fit: Fit) -> float:
    return float((found.sigma2 / fit.sigma2).log()[0])


def predictions(fit: Fit, deep: Deep, table: Rows, em: Rows, options: Options) -> None:
    """Standard deviations and scores by few draws at the exact hyperparameters, and by many at those of EM."""
    inputs = None if deep.split is None else deep.split.test[0]
    many, counts = (64, options.counts[:2]) if options.quick else (MANY, options.counts)
    exact, rows = ExactExpectation(fit.problem, fit.prior), matrix_of(fit, inputs)
    std = exact_std(exact, fit, rows)
    cases = [("exact", many, 0)] + [("draws", count, seed) for count in counts for seed in range(options.seeds)]
    cases += [("em", int(row["samples"]), int(row["seed"])) for row in em.where(network=deep.name, start=0.0)]
    for kind, count, seed in cases:
        if table.where(network=deep.name, kind=kind, samples=count, seed=seed):
            continue
        moved = fit
        if kind == "em":
            (searched,) = em.where(network=deep.name, start=0.0, samples=count, seed=seed)
            sigma2 = fit.sigma2 * math.exp(float(searched["log_noise_ratio"]))
            moved = replace(fit, psi=fit.psi - float(searched["log_precision_ratio"]), sigma2=sigma2)
        begun = time.process_time()
        post = laplace.posterior(moved, solver="cg" if kind == "draws" else "cholesky")
        draws = post.weights(count if kind == "draws" else many, rng=torch.Generator().manual_seed(1000 + seed))
        seconds, deviations = time.process_time() - begun, draws @ rows.T
        found = deviations.square().mean(0).sqrt() if kind == "draws" else exact_std(exact, moved, rows)
        seen = std > 1e-3 * std.max()
        error = float((found[seen] / std[seen] - 1).square().mean().sqrt())
        row: Row = {"network": deep.name, "kind": kind, "samples": count, "seed": seed, "cpu_seconds": seconds}
        row |= {"std_error": error, "std_bias": float((found[seen] / std[seen]).mean() - 1)}
        table.add([row | _scores(moved, deep, deviations)])
        print(table.rows[-1], flush=True)


def matrix_of(fit: Fit, inputs: Tensor | None) -> Tensor:
    """The Jacobian of the outputs at these inputs, (outputs, P), float64, through whichever of its sides is smaller."""
    assert fit.model is not None
    _, jacobian = fit.model.at(inputs)
    few = jacobian.domain.size < jacobian.range.size
    side = jacobian.domain if few else jacobian.range
    eye = torch.eye(side.size, dtype=side.dtype).reshape(side.size, *side.shape)
    return (jacobian(eye).flatten(1).T if few else jacobian.T(eye)).double()


def exact_std(exact: ExactExpectation, fit: Fit, rows: Tensor) -> Tensor:
    """Standard deviations of the outputs at the hyperparameters of a fit, (outputs,)."""
    return exact.output_covariance(fit.point, rows[:, None]).flatten().clamp(min=0).sqrt()


def _scores(fit: Fit, deep: Deep, deviations: Tensor) -> Row:
    """Of test digits, and of five of them together for each weight of the sum; none of a scan."""
    if deep.split is None:
        return {"log_likelihood": math.nan, "joint_5": math.nan, "network_log_likelihood": math.nan}
    x, y = deep.split.test
    assert fit.model is not None
    outputs, _ = fit.model.at(x)
    logits = outputs.double() + deviations.reshape(-1, *outputs.shape)
    joint = joint_score(log_likelihoods(CLASSES, logits, y), TOGETHER, rng=torch.Generator().manual_seed(0))
    alone = log_likelihood(monte_carlo(CLASSES, outputs.double()[None]).clamp(min=1e-12), y)
    mean = log_likelihood(monte_carlo(CLASSES, logits).clamp(min=1e-12), y)
    return {"log_likelihood": mean, "joint_5": joint.value / joint.tau, "network_log_likelihood": alone}


def draw(em: Rows, table: Rows) -> Figure:
    """Evidence by samples and start, standard deviations by samples, scores by samples."""
    figure = Figure(figsize=(14, 7), layout="constrained")
    (evidence, start, told), (std, marginal, joint) = figure.subplots(2, 3)
    for name, colour in COLOURS.items():
        own, look = em.where(network=name), {"color": colour, "label": name}
        usual, far = [row for row in own if row["start"] == 0], [row for row in own if row["start"] != 0]
        evidence.loglog([r["samples"] for r in usual], [max(float(r["nats_below"]), 1e-5) for r in usual], "o", **look)
        start.loglog([r["start"] for r in far], [max(float(r["nats_below"]), 1e-5) for r in far], "o-", **look)
        errors = [2 * float(r["told_error"]) for r in usual]
        told.errorbar(
            [r["samples"] for r in usual], [r["told_minus_exact"] for r in usual], yerr=errors, fmt="o", capsize=2, **look
        )
        for kind, marker in (("draws", "o"), ("em", "x")):
            rows = table.where(network=name, kind=kind)
            std.loglog(
                [r["samples"] for r in rows], [r["std_error"] for r in rows], marker, color=colour, label=f"{name}, {kind}"
            )
    counts = torch.tensor(COUNTS).double()
    std.plot(counts, (2 * counts) ** -0.5, color="#9ca3af", label="1 / sqrt(2 k)")
    for axes, key in ((marginal, "log_likelihood"), (joint, "joint_5")):
        for kind, marker in (("draws", "o"), ("em", "x")):
            rows = table.where(network="LeNet", kind=kind)
            axes.semilogx([r["samples"] for r in rows], [r[key] for r in rows], marker, color=COLOURS["LeNet"], label=kind)
        for row in table.where(network="LeNet", kind="exact"):
            axes.axhline(float(row[key]), color="#111827", lw=0.8, label=f"{row['samples']} exact draws")
            if axes is marginal:
                axes.axhline(float(row["network_log_likelihood"]), color="#9ca3af", ls="--", lw=0.8, label="network alone")
    evidence.set(title="EM: nats below the exact optimum (floor 1e-5)", xlabel="samples of each step")
    start.set(title=f"the same with {USUAL} samples", xlabel="precision it starts at / optimum")
    told.set(title="evidence it tells - exact there (2 std. errors)", xlabel="samples", xscale="log")
    told.axhline(0, color="#111827", lw=0.8)
    std.set(title="std of outputs: rms relative error", xlabel="samples")
    marginal.set(title="LeNet: log likelihood of a test digit", xlabel="samples")
    joint.set(title="LeNet: joint log likelihood / weight, 5 digits", xlabel="samples")
    for axes in (evidence, start, told, std, marginal, joint):
        axes.grid(alpha=0.3)
    for axes in (evidence, told, std, marginal, joint):
        axes.set_xscale("log", base=2)
        axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    for axes in (evidence, std, marginal):
        axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
