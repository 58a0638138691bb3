"""Run the comparison: ``python -m experiments.uci FOLDER`` with the folder of the sets.

Results land in ``runs/uci/`` one file each, and are not computed again; the table and the figure are made from them.
"""

import json
import math
import time
import warnings
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from tyro.conf import Positional

from ctuq.gp import GaussianProcess, Matern32, maximise_on_subsets
from ctuq.records import write_whole
from experiments import FIGURES, ROOT
from experiments.uci.contestants import Budget, contestants
from experiments.uci.sets import Split, load, names
from experiments.uci.table import write_figure, write_table

FIRST = 2000


@dataclass(frozen=True)
class Options:
    """What to run.

    Parameters
    ----------
    folder : Path
        The sets, ``NAME/data.csv.gz`` each.
    sets : tuple of str
        By default all, the smallest first.
    solvers : tuple of str
    splits : int
        The first so many of each set.
    rows : int
        Most training data.
    learn : int
        Rows of the subset whose evidence gives the hyperparameters; of more than 2,000 the search starts at those of 2,000.
    store : Path
        Where finished runs lie.
    out : Path
        Table (``.csv``) and figure (``.png``) without their endings.
    seed : int
    budget : Budget
    """

    folder: Positional[Path]
    sets: tuple[str, ...] = ()
    solvers: tuple[str, ...] = ("auto", "cholesky", "cg", "blocks", "sdd", "sgd", "inducing", "gpytorch")
    splits: int = 1
    rows: int = 20_000
    learn: int = 2000
    store: Path = ROOT / "runs" / "uci"
    out: Path = FIGURES / "uci"
    seed: int = 0
    budget: Budget = field(default_factory=Budget)


def hyperparameters(data: Split, path: Path, options: Options) -> GaussianProcess:
    """The prior that all solvers share: exact evidence on a subset, kept in a file."""
    if not path.is_file():
        inputs = data.x.shape[1]
        start, rng = Matern32.of(1.0, math.sqrt(inputs), inputs), torch.Generator().manual_seed(options.seed)
        begun = time.perf_counter()
        if options.learn > FIRST:
            start = maximise_on_subsets(start, 0.05, data.x, data.y, rows=FIRST, rng=rng).kernel
        found = maximise_on_subsets(start, 0.05, data.x, data.y, rows=options.learn, rng=rng)
        seconds = time.perf_counter() - begun
        told = {"psi": found.kernel.psi.tolist(), "sigma2": found.sigma2, "seconds": seconds, "converged": found.converged}
        write_whole(path, lambda target: target.write(json.dumps(told, indent=1).encode()))
    told = json.loads(path.read_text())
    psi = torch.tensor(told["psi"], dtype=torch.float64)
    return GaussianProcess(Matern32(psi[0].exp(), psi[1:].exp()), told["sigma2"])


def measure(name: str, data: Split, process: GaussianProcess, options: Options) -> dict[str, np.ndarray]:
    """One solver's predictions, their scores for each test point, and what they took."""
    rng = torch.Generator().manual_seed(zlib.crc32(name.encode()) + options.seed)
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # residuals are recorded
        found = contestants(options.budget)[name](process, data, rng)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    error = data.y_test - found.mean
    some = error[: len(found.std)]
    nll = 0.5 * (some / found.std).square() + found.std.log() + 0.5 * math.log(2 * math.pi)
    numbers = {"seconds": wall, "cpu_seconds": cpu, "residual": found.residual, "n": len(data.x), "inputs": data.x.shape[1]}
    return {"error": error.numpy(), "nll": nll.numpy(), "note": np.array(found.note)} | {
        key: np.array(value) for key, value in numbers.items()
    }


def main(options: Options) -> None:
    """Run what is not there yet, and write the table and the figure after each set."""
    options.store.mkdir(parents=True, exist_ok=True)
    sizes = {name: (options.folder / name / "data.csv.gz").stat().st_size for name in names(options.folder)}
    for name in options.sets or sorted(sizes, key=lambda name: sizes[name]):
        for split in range(options.splits):
            data = load(options.folder, name, split, options.rows, options.seed)
            stem = options.store / f"{name}-{split}"
            process = hyperparameters(data, stem.with_suffix(".json"), options)
            for solver in options.solvers:
                path = stem.parent / f"{stem.name}-{solver}.npz"
                if path.is_file():
                    continue
                found = measure(solver, data, process, options)
                write_whole(path, lambda target, found=found: np.savez(target, **found))
                rmse = math.sqrt(float(np.mean(found["error"] ** 2)))
                told = f"RMSE {rmse:.4f}, NLL {found['nll'].mean():.4f}, {found['seconds']:.1f} s wall"
                print(f"{name} {split} {solver}: {told}, {found['cpu_seconds']:.1f} s CPU", flush=True)
        rows = write_table(options.store, options.out.with_suffix(".csv"))
        write_figure(rows, options.out.with_suffix(".png"))
    print(f"Settings: {asdict(options.budget)}")


if __name__ == "__main__":
    main(tyro.cli(Options))
