"""Real scans replayed: which of their views to take, judged by the truth or all views, and by views never taken.

``python -m experiments.angle_design.replay walnut --size 48 --minutes 60`` (or ``ta``, ``tb``: HTC 2022 with truth). Each
run starts its pilot at another view: intervals are over these starts, of one object. Writes
``figures/angle_design_{walnut,ta,tb}*``.
"""

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import tyro
from tyro.conf import Positional

from ctuq.app.trials.commands import write_comparison
from ctuq.app.trials.subjects import scan_subject
from ctuq.design.trials.contenders import TrialPlan
from ctuq.design.trials.imaging import imaging
from ctuq.design.trials.subject import goes_round
from ctuq.design.trials.trial import Trial, kept
from experiments import FIGURES, ROOT
from experiments.angle_design.rectangles import contenders
from experiments.unseen_views import load

EVERY = {"walnut": 1, "ta": 3, "tb": 3}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the replay."""

    name: Positional[Literal["walnut", "ta", "tb"]]
    size: int = 64
    """Pixels along x and y."""
    pilot: int = 5
    total: int = 30
    starts: int = 4
    """How many first views the pilot has, evenly over the step between its views."""
    minutes: float = 60.0
    """No start is begun after so long."""
    randoms: int = 2
    judge_every: int = 1
    """Reconstruct at every k-th number of angles, from the total down."""
    strength: float = 0.5
    """Of the TV reconstruction that judges."""
    strategies: tuple[str, ...] = ("eig matern", "a edges", "eig lindip", "ese lindip")
    """Criterion and prior of each, with "every 5" after it for re-training."""
    iterations: int = 1500
    """Of the network's first fit."""


def run_starts(options: Options) -> list[Trial]:
    """Every trial of the starts that are done within the time, and of those that were."""
    scan = load(options.name)
    subject = scan_subject(options.name, scan, options.size, every=EVERY[options.name], strength=options.strength)
    candidates, methods = len(subject.candidates), {"tv": imaging("tv", strength=options.strength)}
    half = goes_round(scan.geometry) and 2 * options.total <= candidates
    folder = ROOT / "runs" / "angle_design" / f"{options.name}_{options.size}"
    setting = (
        f"{options.size} pixels, {options.pilot} to {options.total}, TV {options.strength:g} at every {options.judge_every}"
    )
    began, trials = time.monotonic(), []
    for k in range(options.starts):
        if time.monotonic() - began > 60 * options.minutes:
            break
        plan = TrialPlan(options.pilot, options.total, start=k * candidates // options.pilot // options.starts)
        started = replace(subject, name=f"{options.name}-{plan.start}")
        entrants = contenders(options.strategies, options.randoms, options.iterations, half_turn=half)
        trials += kept(folder, started, entrants, plan, methods, setting=setting, steps={"tv": options.judge_every})
        print(f"start {plan.start} of {candidates} done after {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return trials


def main(options: Options) -> None:
    torch.set_num_threads(1)
    trials = run_starts(options)
    stem = f"angle_design_{options.name}_{options.size}"
    for sentence in write_comparison(trials, FIGURES, stem, rng=np.random.default_rng(0)):
        print(sentence)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
