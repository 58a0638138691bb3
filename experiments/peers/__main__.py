"""Error bars of other programs beside ctuq's: ``python -m experiments.peers --python PEERS/bin/python``.

CUQIpy asks for numpy up to 2.2.0. An environment of its own leaves ctuq the newest (``python -m venv PEERS`` and
``PEERS/bin/pip install cuqipy==1.5.1``). Without ``--python`` its rows are left out. What is done is kept in
``figures/peers.csv``; run again, it goes on; ``--draw`` draws the figure from the table alone.
"""

import csv
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import ctuq
from ctuq.recon.noise import noise_std
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo import ray_transform
from ctuq.uncertainty.results.unseen_views import predict_views
from experiments import FIGURES
from experiments.peers.drawing import draw as drawn
from experiments.peers.drawing import table_of
from experiments.peers.kinds import OURS
from experiments.peers.problems import NAMES, STEPS, Problem, problem_of

TABLE = FIGURES / "peers.csv"
PEERS = {"CUQIpy, LMRF": "cuqipy", "svmbir, bootstrap": "svmbir"}
SAMPLES = 256
NOISES = (0.25, 0.5, 1.0)
"""Of CUQIpy, over the noise read from the projections: the held-out views choose. Larger ones were worse on the walnut."""


def main(
    python: Path | None = None,
    only: str | None = None,
    problems: str = ";".join(NAMES),
    seeds: int = 3,
    draw: bool = False,
) -> None:
    """Make the rows that are missing, seed by seed, and draw the figure.

    Parameters
    ----------
    python : path, optional
        The interpreter of the other programs' environment.
    only : str, optional
        Names of methods with semicolons between them; by default all.
    problems : str
        Of them likewise.
    seeds : int
        Of each problem: another object and noise, or other views of the real scans, of which there are as many as their steps.
    draw : bool
        Make none: draw the figure from the table alone.
    """
    done = _rows()
    methods = [*OURS, *(PEERS if python else ())] if only is None else only.split(";")
    wanted = [(seed, name, method) for seed in range(seeds) for name in problems.split(";") for method in methods]
    for seed, name, method in [] if draw else wanted:
        if (name, method, str(seed)) in done or seed >= STEPS.get(name, seeds):
            continue
        row = _measured(problem_of(name, seed), method, seed, python)
        _add({"problem": name, "method": method, "seed": seed, **row})
        print(name, seed, method, f"{row['seconds']:.1f} s, unseen {row['log_likelihood']:.3f}", flush=True)
    drawn(TABLE)
    print(table_of(TABLE))


def _measured(problem: Problem, method: str, seed: int, python: Path | None) -> dict[str, float]:
    if method in OURS:
        name, kind = OURS[method]
        begin = time.process_time()
        result = ctuq.reconstruct(
            problem.scan, name, size=problem.size, uncertainty=kind, samples=SAMPLES, seed=seed, calibrate=True, threads=1
        )
        seconds = time.process_time() - begin
    else:
        assert python is not None
        factors = NOISES if PEERS[method] == "cuqipy" else (1.0,)
        tried = [_other(problem, PEERS[method], seed, python, noise=factor) for factor in factors]
        result, _ = max(tried, key=lambda one: one[0].scores["held_out"]["log_likelihood"])
        seconds = sum(one[1] for one in tried)
    return {"seconds": seconds} | _scored(problem, result)


def _other(problem: Problem, method: str, seed: int, python: Path, *, noise: float) -> tuple[ctuq.Result, float]:
    """The samples of another program from the views that are not held out, by our matrix, calibrated on those that are."""
    scan, _ = problem.split()
    held = problem.held
    fitted = np.setdiff1d(np.arange(scan.n_angles), held)
    part = scan.select(fitted)
    A = ray_transform(problem.grid, part.geometry, backend="matrix")
    weights = np.ones(part.projections.shape) if part.weights is None else part.weights
    used = weights.ravel() > 0
    root = np.sqrt(weights.ravel()[used])
    matrix = A.matrix[used].multiply(root[:, None]).tocsr()
    y = part.projections.ravel()[used] * root
    unit = float(np.percentile(ctuq.recon.fbp(A, _tensor(part.projections)).numpy(), 99))
    given: dict[str, Any] = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape}
    beam, fan = part.geometry, isinstance(part.geometry, ctuq.FanBeam)
    given |= {
        "sino": part.projections,
        "weights": weights,
        "angles": beam.angles,
        "pixel": beam.pixel,
        "voxel": problem.grid.voxel,
    }
    given |= {
        "source_to_detector": beam.source_to_detector if fan else 0.0,
        "source_to_axis": beam.source_to_axis if fan else 0.0,
    }
    given |= {"offset": -beam.detector_offset / beam.pixel}
    given |= {"sigma2": (noise * float(noise_std(_tensor(part.projections), _tensor(weights)))) ** 2}
    given |= {"y": y, "image": problem.grid.shape, "unit": unit, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, **given)
        script = Path(__file__).with_name("other_side.py")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [str(python), str(script), method, str(source), str(target)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = np.load(target)
    samples = found["samples"]
    image, samples = (samples[0], samples[1:]) if method == "svmbir" else (samples.mean(0), samples)
    return ctuq.calibrate(image, samples, scan, held, grid=problem.grid, method=method), float(found["seconds"])


def _scored(problem: Problem, result: ctuq.Result) -> dict[str, float]:
    """Of unseen rays, raw and calibrated; of the object's pixels where they are known.

    What hides in the image, as hardening, is in an image's error bars and not in those of rays.
    """
    _, unseen = problem.split()
    A = ray_transform(result.grid, unseen.geometry, backend="matrix")
    result = result if result.samples is not None else replace(result, samples=result.draw(SAMPLES))
    mean, variance = predict_views(replace(result, sigma2=0.0), A)
    weights = np.ones(unseen.projections.shape) if unseen.weights is None else unseen.weights
    used = weights > 0
    c = result.calibration
    assert c is not None
    image, noise = variance[used], result.sigma2 / weights[used]
    residual = (unseen.projections - mean)[used]
    row = gaussian_scores(residual, image + noise)
    raw = gaussian_scores(residual, image / c.image_scale + noise / c.noise_scale)
    row |= {f"raw_{name}": value for name, value in raw.items()}
    row |= {"image_scale": c.image_scale, "noise_scale": c.noise_scale}
    truth, before = result.scores.get("truth", {}), result.scores.get("truth_raw", {})
    names = ("psnr", "log_likelihood_object", "crps_object", "cover_68_object", "cover_95_object")
    row |= {f"truth_{name}": truth.get(name, float("nan")) for name in names}
    return row | {"truth_raw_log_likelihood_object": before.get("log_likelihood_object", float("nan"))}


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _rows() -> set[tuple[str, str, str]]:
    if not TABLE.is_file():
        return set()
    with TABLE.open(newline="") as file:
        return {(row["problem"], row["method"], row["seed"]) for row in csv.DictReader(file)}


def _add(row: dict[str, Any]) -> None:
    new = not TABLE.is_file()
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    tyro.cli(main)
