"""Error bars of a simulated volume: minutes, memory, residuals of the solves, and the standard deviations against the truth.

``python -m experiments.benchmarks.volume_bars --size 24 --samples 512`` scans a nut of shells by a cone beam in 30 views with
5 % of noise, reconstructs it as ``ctuq reconstruct --volume`` does, and adds a row to ``figures/volumes.csv``. Of 512 samples
the standard deviations of the first 32, and those that are told, are compared with those of all. ``--ranks 128,512`` makes the
error bars by so many directions of the network at one fit, and tells how far they are from those by the most.
"""

import csv
import os
import resource
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from ctuq.linops.memory import keep_freed_memory
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.job import reconstruct_volume
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo.solids import solid_scan
from ctuq.uncertainty.model import route as routes
from ctuq.uncertainty.results.volume import VolumeResult
from experiments import FIGURES

OUTPUT = FIGURES / "volumes.csv"
_FEW = 32


@dataclass(frozen=True)
class Options:
    """What is scanned and how it is reconstructed."""

    size: int = 24
    views: int = 30
    noise: float = 0.05
    samples: int = _FEW
    iterations: int | None = None
    ranks: tuple[int, ...] = ()
    seed: int = 0
    threads: int | None = None
    output: Path = OUTPUT


def main(options: Options) -> None:
    """Print and keep a row of each run; of several ranks the fit is kept and made once."""
    keep_freed_memory()
    found: list[tuple[dict[str, float | str], VolumeResult]] = []
    usual = routes.rank_of
    with tempfile.TemporaryDirectory() as folder:
        for rank in sorted(options.ranks, reverse=True) or (None,):
            routes.rank_of = usual if rank is None else lambda *_, rank=rank: rank
            row, result = measure(options, Path(folder) / f"{rank}.ckpt")
            if found:
                row |= {f"std_off_{k}": v for k, v in _apart(_std(result), _std(found[0][1])).items()}
            found.append((row, result))
            for name, value in row.items():
                print(f"{name:>28}  {value if isinstance(value, str) else f'{value:.4g}'}", flush=True)
            _keep(row, options.output)


def measure(options: Options, checkpoint: Path) -> tuple[dict[str, float | str], VolumeResult]:
    """One reconstruction."""
    angles = np.arange(options.views) * 2 * np.pi / options.views
    scan = solid_scan("shells", options.size, angles, noise=options.noise, seed=options.seed, distances=(120.0, 240.0))
    usual = VolumeOptions(method="dip", size=options.size, samples=options.samples, threads=options.threads, seed=options.seed)
    chosen = replace(usual, dip=replace(usual.dip, iterations=options.iterations))
    load, wall, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        result = reconstruct_volume(scan, options=chosen, checkpoint=checkpoint)
    row: dict[str, float | str] = {"size": options.size, "views": options.views, "noise": options.noise}
    row |= {"samples": options.samples, "threads": torch.get_num_threads(), "load": load}
    row |= {"minutes": (time.perf_counter() - wall) / 60, "cpu_minutes": (time.process_time() - cpu) / 60}
    row |= {"gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    row |= {f"{stage}_minutes": seconds / 60 for stage, seconds in result.timings.items()}
    row |= {"planned_minutes": float(result.plan["seconds"]) / 60, "planned_gib": float(result.plan["bytes"]) / 2**30}
    missed = [str(w.message) for w in met if "residual" in str(w.message)]
    row |= {"rank": int(result.plan["rank"]), "std_error": result.std_error, "missed_residuals": len(missed)}
    return row | _scores(result), result


def _scores(result: VolumeResult) -> dict[str, float]:
    assert result.truth is not None and result.samples is not None and result.calibration is not None
    std, error = _std(result), result.mean.astype(np.float64) - result.truth
    body = result.truth > 0.1 * result.truth.max()
    told = {"psnr": result.scores["psnr"], "image_scale": result.calibration.image_scale}
    for name, where in (("all", np.ones_like(body)), ("object", body)):
        scores = gaussian_scores(error[where], std[where] ** 2)
        told |= {f"{name}_{key}": scores[key] for key in ("cover_68", "cover_95", "rms_z")}
    told |= {f"{name}_rms_z": found["rms_z"] for name, found in result.trust.items() if name != "truth"}
    told["held_out_rays"] = result.calibration.predictions[0].size
    drawn = result.samples - result.mean
    every = np.sqrt(np.mean(drawn.astype(np.float64) ** 2, axis=0))
    told |= {f"told_off_samples_{key}": value for key, value in _apart(std, every).items()}
    if len(drawn) > _FEW:
        few = np.sqrt(np.mean(drawn[:_FEW].astype(np.float64) ** 2, axis=0))
        told |= {f"{_FEW}_off_samples_{key}": value for key, value in _apart(few, every).items()}
    return told


def _std(result: VolumeResult) -> NDArray[np.float64]:
    assert result.std is not None
    return result.std.astype(np.float64)


def _apart(std: NDArray, reference: NDArray) -> dict[str, float]:
    """How far standard deviations are from others: their median ratio, and the median and the 95th percentile of the miss."""
    ratio = std / reference
    miss = np.abs(ratio - 1)
    return {"ratio": float(np.median(ratio)), "median": float(np.median(miss)), "p95": float(np.percentile(miss, 95))}


def _keep(row: dict[str, float | str], path: Path) -> None:
    """Add a row; a row of other columns has them added at the end."""
    kept = list(csv.DictReader(path.open())) if path.is_file() else []
    names = list(dict.fromkeys([name for each in (*kept, row) for name in each]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, row])


if __name__ == "__main__":
    main(tyro.cli(Options))
