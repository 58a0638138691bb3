"""Whole jobs of the shipped scans at several sizes: seconds, memory, the plan against what came, and unseen views.

``python -m experiments.benchmarks.jobs`` runs them all, each in its own process; ``--only walnut-64`` one of them. A row each
is added to ``figures/jobs.csv``, with the number of threads and the load of the machine when it began.
"""

import csv
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import torch
import tyro

import ctuq
from ctuq.linops.memory import keep_freed_memory
from ctuq.pipeline import match_detector
from ctuq.recon import CLASSICAL
from ctuq.scores.gaussian import gaussian_scores
from ctuq.uncertainty.results.unseen_views import predict_views
from experiments import FIGURES
from experiments.unseen_views import load

OUTPUT = FIGURES / "jobs.csv"
# Scan, pixels, every so many views; and what was asked for, if anything: minutes, GiB.
JOBS = {
    "walnut-24": ("walnut", 24, 4, float("nan"), float("nan")),
    "walnut-64": ("walnut", 64, 4, 1.0, 1.0),
    "walnut-96": ("walnut", 96, 4, 2.0, 3.0),
    "walnut-128": ("walnut", 128, 4, 5.0, 3.0),
    "ta-128": ("ta", 128, 8, 5.0, 3.0),
    "tb-128": ("tb", 128, 12, 5.0, 3.0),
    "walnut-128-all": ("walnut", 128, 1, 8.0, 6.0),
    "ta-128-all": ("ta", 128, 1, 12.0, 6.0),
    "tooth-64-all": ("tooth", 64, 1, float("nan"), float("nan")),
    "tooth-128-all": ("tooth", 128, 1, float("nan"), float("nan")),
    "tooth-256-all": ("tooth", 256, 1, float("nan"), float("nan")),
    "tooth-512-all": ("tooth", 512, 1, float("nan"), float("nan")),
    "walnut-256": ("walnut", 256, 4, 15.0, 5.0),
    "walnut-512": ("walnut", 512, 4, float("nan"), float("nan")),
    "ta-512": ("ta", 512, 8, 60.0, 8.0),
    "ta-256-all": ("ta", 256, 1, float("nan"), float("nan")),
    "walnut-256-all": ("walnut", 256, 1, float("nan"), float("nan")),
    "walnut-512-all": ("walnut", 512, 1, float("nan"), float("nan")),
    "ta-512-all": ("ta", 512, 1, float("nan"), float("nan")),
}


def measure(name: str) -> dict[str, float | str]:
    """One job in this process."""
    keep_freed_memory()
    scan_name, size, step, minutes, memory = JOBS[name]
    scan = load(scan_name)
    used = np.arange(0, scan.n_angles, step)
    wall, cpu = time.perf_counter(), time.process_time()
    result = ctuq.reconstruct(scan.select(used), size=size)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row: dict[str, float | str] = {"job": name, "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    row |= {"seconds": wall, "cpu_seconds": cpu, "minutes_asked": minutes, "gib": peak, "gib_asked": memory}
    row |= {f"{stage}_seconds": value for stage, value in result.timings.items()}
    row |= {"planned_seconds": float(result.plan["seconds"]), "planned_gib": float(result.plan["bytes"]) / 2**30}
    # Of each further fit, where an axis is taken out of the rays: ta and tb are fitted twice.
    row["planned_again_seconds"] = float(result.plan.get("seconds again", float("nan")))
    row |= {"products": int(result.plan["jvps"]) + int(result.plan["vjps"]), "std_error": result.std_error}
    begun = time.perf_counter()
    _tv(result)
    row["tv_seconds"] = time.perf_counter() - begun
    unused = np.setdiff1d(np.arange(scan.n_angles), used)
    if len(unused):
        others = match_detector(scan.select(unused), result.grid)
        A = ctuq.ray_transform(result.grid, others.geometry, backend="matrix")
        mean, variance = predict_views(result, A)
        row |= {f"unseen_{k}": v for k, v in gaussian_scores(others.projections - mean, variance).items()}
    elif result.calibration is not None:
        row |= {f"held_out_{k}": v for k, v in result.scores["held_out"].items()}
    return row


def _tv(result: ctuq.Result) -> None:
    A = ctuq.ray_transform(result.grid, result.scan.geometry)
    y = torch.tensor(result.scan.projections)
    weights = torch.ones_like(y) if result.scan.weights is None else torch.tensor(result.scan.weights)
    CLASSICAL["tv"](A, y, weights=weights)


def main(only: str | None = None, inside: bool = False) -> None:
    """Run the jobs and print a line each."""
    if inside:
        assert only is not None
        print(json.dumps(measure(only)))
        return
    for name in JOBS if only is None else only.split(","):
        command = [sys.executable, "-m", "experiments.benchmarks.jobs", "--only", name, "--inside"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode:
            print(
                f"{name}: ended by {told.returncode}: {(told.stderr.strip().splitlines() or ['without a word'])[-1]}",
                flush=True,
            )
            continue
        row = json.loads(told.stdout.strip().splitlines()[-1])
        _record(row)
        unseen = "".join(f", {k} {row[k]:.3f}" for k in row if k.endswith(("rms_z", "log_likelihood")))
        print(
            f"{name}: {row['seconds']:.0f} s wall ({row['minutes_asked']:.0f} min asked), {row['cpu_seconds']:.0f} s CPU, "
            f"{row['gib']:.2f} GiB ({row['gib_asked']:.0f} asked); planned {row['planned_seconds']:.0f} s "
            f"and {row['planned_again_seconds']:.0f} s for a further fit, {row['planned_gib']:.1f} GiB; "
            f"TV alone {row['tv_seconds']:.1f} s{unseen}",
            flush=True,
        )


def _record(row: dict[str, float | str]) -> None:
    rows = []
    if OUTPUT.is_file():
        with OUTPUT.open(newline="") as file:
            rows = [old for old in csv.DictReader(file) if old["job"] != row["job"]]
    rows.append({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    names = list(dict.fromkeys(name for entry in rows for name in entry))
    with OUTPUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    tyro.cli(main)
