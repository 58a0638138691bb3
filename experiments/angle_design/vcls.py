"""Angles by mbirjax's view covariance loss beside equidistant and adaptive ones: ``python -m experiments.angle_design.vcls``.

Lin et al. (2025) choose all views at once from a reference object, offline. It is given the truth, which nobody has, or the
reconstruction of the pilot's views, which a scanner has. mbirjax runs in an environment of its own (``python -m venv PEERS``,
``PEERS/bin/pip install mbirjax==0.7.3``, ``--python PEERS/bin/python``). Rows that are in ``figures/angle_design_vcls.csv`` are
not made again; ``--draw`` prints the table from them alone.
"""

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from ctuq.app.trials.subjects import phantom_subject
from ctuq.design.trials.contenders import Adaptive, Placed, TrialPlan
from ctuq.design.trials.imaging import imaging
from ctuq.design.trials.subject import Subject
from ctuq.scores.gaussian import image_scores
from experiments import FIGURES
from experiments.engine.rows import Row, Rows

TABLE = FIGURES / "angle_design_vcls.csv"
_APART = 0.1
_KEYS = ("size", "candidates", "noise", "seed", "angles")


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    python: Path | None = None
    """The interpreter of mbirjax's environment."""
    size: int = 48
    candidates: int = 100
    pilot: int = 5
    counts: tuple[int, ...] = (10, 15, 20)
    noise: float = 0.05
    images: int = 8
    strategies: tuple[str, ...] = ("ese edges", "ese lindip")
    """Criterion and prior of each adaptive one."""
    strength: float = 0.3
    """Of the total variation that judges, and that reconstructs the pilot's views."""
    draw: bool = False
    """Make none."""


def choices(subject: Subject, options: Options, seed: int) -> dict[str, tuple[list[NDArray[np.int64]], float]]:
    """Views of each strategy at each count, and the CPU seconds of all counts."""
    plan, found = TrialPlan(options.pilot, max(options.counts)), {}
    adaptive = [Adaptive(*name.split()) for name in options.strategies]
    for strategy in (Placed("equidistant"), Placed("golden"), *adaptive):
        begun = time.process_time()
        views = strategy.choose(subject, plan).views
        found[strategy.name] = [views[n - plan.pilot] for n in options.counts], time.process_time() - begun
    if options.python is not None:
        pilot = Placed("equidistant").choose(subject, plan).views[0]
        guess = imaging("tv", strength=options.strength)(subject.measured(pilot)).cpu().numpy()
        both, seconds = peer(subject, np.stack([subject.reference, guess]), options, seed)
        found |= {"vcls, truth": (both[0], seconds / 2), "vcls, pilot": (both[1], seconds / 2)}
    return found


def peer(subject: Subject, references: NDArray, options: Options, seed: int) -> tuple[list[list[NDArray[np.int64]]], float]:
    """Views by mbirjax of each reference at each count; the first reference also shows which way its axes run.

    Raises
    ------
    SystemExit
        If its projections of that image are not ours.
    """
    import torch

    sinogram = subject.A(torch.tensor(references[0], dtype=torch.float32)).numpy() / subject.A.grid.voxel
    assert options.python is not None
    given = {"references": references, "sinogram": sinogram, "angles": subject.angles, "counts": np.array(options.counts)}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, seed=seed, **given)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [str(options.python), str(Path(__file__).with_name("vcls_side.py")), str(source), str(target)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        out = dict(np.load(target))
    if out["apart"] > _APART:
        raise SystemExit(f"mbirjax's projections are {out['apart']:.0%} off ours: its geometry is not understood.")
    return [[row[row >= 0] for row in views] for views in out["views"]], float(out["seconds"])


def main(options: Options) -> None:
    """Make the rows that are missing, image by image, and print the table."""
    table, judge = Rows(TABLE), imaging("tv", strength=options.strength)
    for seed in [] if options.draw else range(options.images):
        setting: Row = {"size": options.size, "candidates": options.candidates, "noise": options.noise, "seed": seed}
        names = ["equidistant", "golden", *options.strategies, *(["vcls, truth", "vcls, pilot"] if options.python else [])]
        made = {str(row["strategy"]) for row in table.where(**setting)}
        if made >= set(names):
            continue
        subject = phantom_subject("rectangles", options.size, options.candidates, noise=options.noise, seed=seed)
        for name, (views, seconds) in choices(subject, options, seed).items():
            if name in made:
                continue
            for count, chosen in zip(options.counts, views, strict=True):
                image = judge(subject.measured(chosen)).cpu().numpy()
                row = setting | {"strategy": name, "angles": count, "psnr": image_scores(image, subject.reference)["psnr"]}
                table.add([row | {"seconds": seconds}])
        print(f"image {seed} is done", flush=True)
    print(told(table))


def told(table: Rows) -> str:
    """Markdown: PSNR by angles, and its gain over equidistant ones with the standard error over images."""
    counts = sorted({int(row["angles"]) for row in table.rows})
    head = " | ".join(f"{n} angles (gain)" for n in counts)
    lines = [f"| strategy | images | {head} | CPU s |", "|" + "---|" * (3 + len(counts))]
    for name in dict.fromkeys(str(row["strategy"]) for row in table.rows):
        own = table.where(strategy=name)
        cells = []
        for n in counts:
            pairs = [
                (float(row["psnr"]), float(table.where(strategy="equidistant", **{k: row[k] for k in _KEYS})[0]["psnr"]))
                for row in own
                if row["angles"] == n
            ]
            gains = np.array([a - b for a, b in pairs])
            error = gains.std(ddof=1) / gains.size**0.5 if gains.size > 1 else float("nan")
            cells.append(f"{np.mean([a for a, _ in pairs]):.1f} ({gains.mean():+.1f} ± {error:.1f})")
        seconds = np.mean([float(row["seconds"]) for row in own])
        lines.append(f"| {name} | {len(own) // len(counts)} | {' | '.join(cells)} | {seconds:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
