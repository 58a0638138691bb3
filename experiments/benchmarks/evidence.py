"""The evidence of one small scan: dense and by samples, in one run.

``python -m experiments.benchmarks.evidence FILE.npz`` with the side-by-side layout (glyph28_a20 has published times).
Prints the wall time of the dense evidence from a trained network, over variances and lengthscales of all blocks; how many nats
below the dense optimum the sample-based EM ends with 16 samples; and the steps of preconditioned CG on the evidence's matrix.
"""

import time
from dataclasses import replace
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from tyro.conf import Positional

import ctuq
from ctuq import laplace
from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.system.cg_sampler import CGSampler
from ctuq.laplace.system.problem import System, plus_identity
from ctuq.laplace.system.sampling import Draws
from ctuq.laplace.system.solver_choice import assembled
from ctuq.linops.operator import LinearOperator
from ctuq.linops.solve import CG
from ctuq.recon.dip import Data, DIPOptions, dip, generator

_SAMPLES = 16
_PEER = 9000


def trained(problem: Path) -> tuple[nn.Module, Tensor, LinearOperator, Tensor]:
    """A network fitted to all rays of the scan, its input, what observes its output, and the projections."""
    scan = ctuq.read(problem)
    assert scan.grid is not None
    A = ctuq.ray_transform(scan.grid, scan.geometry, backend="matrix")
    y = torch.tensor(scan.projections)
    data = Data(A, y[None], torch.ones_like(y)[None])
    options = replace(DIPOptions(), patience=1.0)
    generate, start = generator(data, options, rng=torch.Generator().manual_seed(0))
    *_, state = dip(generate, start, data, data, options)
    network, inputs = generate.module(state.average)
    return network, inputs, float(generate.scale[0]) * A, y


class Watch:
    """Seconds since it was made; on a shared machine CPU seconds say more."""

    def __init__(self):
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        return f"{time.perf_counter() - self._wall:.1f} s wall, {time.process_time() - self._cpu:.1f} s CPU"


def told(what: str, value: str) -> None:
    print(f"{what:>60}: {value}")


def by_samples(model: laplace.LinearModel, y: Tensor, name: str, prior: laplace.DiagonalPrior, seed: int) -> None:
    """EM against the dense optimum of the same prior."""
    watch = Watch()
    dense = laplace.maximise_evidence(model, y, prior, method="dense", with_sweep=False)
    told(f"{name}: dense log evidence", f"{dense.log_evidence:.3f} in {watch}")
    watch = Watch()
    rng = torch.Generator().manual_seed(seed)
    fit = laplace.maximise_evidence(model, y, prior, method="em", samples=_SAMPLES, with_sweep=False, rng=rng)
    spent = str(watch)
    exact = ExactExpectation(assembled(fit.problem), prior)(fit.point).log_evidence
    assert exact is not None
    told(f"{name}: EM with {_SAMPLES} samples ends below it by", f"{dense.log_evidence - exact:.3f} nats")
    steps = [step.steps for step in fit.trajectory]
    told(f"{name}: EM's steps and their CG steps", f"{len(steps)} {steps}, converged {fit.converged}, {spent}")
    told(f"{name}: its own estimate of the log evidence", f"{fit.log_evidence:.2f} +- {fit.log_evidence_error:.2f}")
    total, true = fit.total_dimension, dense.total_dimension.value
    told(f"{name}: effective dimension", f"{total.value:.1f} +- {total.error:.1f}, dense {true:.1f}")


def solves(fit: laplace.Fit) -> None:
    """CG on the evidence's matrix at a fit, with and without the preconditioner."""
    problem = assembled(fit.problem)
    system = System(problem, fit.prior, fit.point)
    rng = torch.Generator().manual_seed(1)
    sketcher = CGSampler(Draws.of(problem, 1, rng=rng), rng=rng)
    preconditioner = sketcher.preconditioner(system)
    K = plus_identity(system.gram())
    draws = Draws.of(problem, _SAMPLES, rng=rng)
    assert draws.noise is not None
    b = torch.cat([system.target[None], draws.noise.double() - system.push(system.root(draws.prior.double()))])
    found = CG(1e-3, preconditioner=preconditioner)(K, b)
    told("CG steps to 1e-3, 17 right-hand sides, Nystrom", f"{found.steps}, residual {float(found.residual.max()):.1e}")
    plain = CG(1e-3, max_steps=2000)(K, b[:1])
    told("CG steps to 1e-3 without preconditioner", f"{plain.steps}, residual {float(plain.residual.max()):.1e}")


def main(problem: Positional[Path], seed: int = 1) -> None:
    """Print the figures of one scan."""
    network, inputs, observe, y = trained(problem)
    watch = Watch()
    model = laplace.linearise(network, inputs, observe=observe, offset="taylor")
    fit = laplace.maximise_evidence(model, y, laplace.FilterProcess(model), method="dense", with_sweep=False)
    told("dense evidence, filter process, from a trained network", f"{watch} (reference {_PEER} s CPU, to reach 30 s wall)")
    told("its log evidence", f"{fit.log_evidence:.2f} after {len(fit.trajectory)} evaluations, converged {fit.converged}")
    for name, prior in (("isotropic", laplace.isotropic(model)), ("g", laplace.g_prior(model, rng=torch.Generator()))):
        by_samples(model, y, name, prior, seed)
    solves(laplace.maximise_evidence(model, y, laplace.isotropic(model), method="dense", with_sweep=False))


if __name__ == "__main__":
    tyro.cli(main)
