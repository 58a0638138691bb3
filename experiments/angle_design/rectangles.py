"""Angles needed for the same error: rectangles of one preferred direction, adaptive designs against fixed ones.

``python -m experiments.angle_design.rectangles --size 128 --candidates 200 --total 40 --images 30 --minutes 120`` goes on where
it stopped: every trial is a file in ``runs/``. All strategies meet the same noise; the pilot's rays are kept; nothing but the
score sees the truth. Writes ``figures/angle_design_rectangles_*`` from the images that every strategy has done.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from ctuq.app.trials.commands import write_comparison
from ctuq.app.trials.subjects import phantom_subject
from ctuq.design.models.edges import Edges
from ctuq.design.models.learners import Sum
from ctuq.design.models.lindip import LinDIPOptions, LinearisedDIP
from ctuq.design.models.model import Every, GaussianModel, Learn, Measurements
from ctuq.design.trials.contenders import Adaptive, Strategy, TrialPlan, baselines
from ctuq.design.trials.imaging import imaging
from ctuq.design.trials.trial import Trial, kept
from ctuq.recon.dip import DIPOptions
from experiments import FIGURES, ROOT

NETWORK_FREE = ("eig matern", "a isotropic", "eig edges", "a edges")
WITH_NETWORK = ("eig lindip", "ese lindip", "a lindip", "a lindip+edges")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the experiment."""

    size: int = 128
    """Pixels along x and y."""
    candidates: int = 200
    """Angles over half a turn."""
    shift: float = 0.5
    """Of all candidates, in steps: half a one leaves out 0 and 90 degrees, where rays run along the pixels."""
    pilot: int = 5
    total: int = 40
    noise: float = 0.05
    """Over the mean projection."""
    images: int = 30
    first: int = 0
    """Seed of the first image."""
    minutes: float = 120.0
    """No image is begun after so long."""
    randoms: int = 3
    judge_every: int = 1
    """Reconstruct at every k-th number of angles, from the total down."""
    strength: float = 0.3
    """Of the TV reconstruction that judges; chosen on other images, see docs."""
    dip: bool = False
    """Judge by the Deep Image Prior as well, at every fifth count."""
    strategies: tuple[str, ...] = (*NETWORK_FREE, *WITH_NETWORK)
    """Criterion and prior of each, with "every 5" after it for re-training."""
    iterations: int = 1500
    """Of the network's first fit."""

    @property
    def label(self) -> str:
        """Of folder and figures."""
        shifted = f"_shift{self.shift:g}" if self.shift else ""
        return f"rectangles_{self.size}_{round(100 * self.noise)}pc{shifted}"


class Remembered:
    """A learner that learns from the same views once, for all strategies that share it."""

    def __init__(self, learn: Learn):
        self._learn = learn
        self._known: dict[bytes, GaussianModel] = {}

    def __call__(self, measured: Measurements) -> GaussianModel:
        key = measured.views.tobytes() + measured.y.numpy().tobytes()
        if key not in self._known:
            self._known = {key: self._learn(measured)}
        return self._known[key]


def contenders(names: tuple[str, ...], randoms: int, iterations: int, *, half_turn: bool = False) -> list[Strategy]:
    """All baselines, and the adaptive strategies by their names: "eig lindip", "eig lindip every 5"."""
    dip = LinDIPOptions(dip=DIPOptions(iterations=iterations), warm_iterations=max(1, iterations // 3))
    network = Remembered(LinearisedDIP(dip))
    shared: dict[str, Callable[[], Learn]] = {
        "lindip": lambda: Every(network, 0),
        "lindip+edges": lambda: Sum((Every(network, 0), Edges())),
    }
    found: list[Strategy] = [*baselines(randoms=randoms, half_turn=half_turn)]
    for text in names:
        criterion, prior, *more = text.split()
        every = int(more[1]) if more else 0
        found.append(Adaptive(criterion, prior, every=every, dip=dip, learn=None if every else shared.get(prior)))
    return found


def run_images(options: Options) -> list[Trial]:
    """Every trial of the images that are done within the time, and of those that were."""
    methods = {"tv": imaging("tv", strength=options.strength)}
    if options.dip:
        methods["dip"] = imaging("dip", dip_options=DIPOptions(iterations=options.iterations))
    plan, began, trials = TrialPlan(options.pilot, options.total), time.monotonic(), []
    folder = ROOT / "runs" / "angle_design" / options.label
    steps = {"tv": options.judge_every, "dip": 5}
    setting = (
        f"{options.label}, {options.candidates} candidates, {plan}, TV {options.strength:g} at every {options.judge_every}"
    )
    done_before = sorted({path.name.split("--")[0] for path in folder.glob("*.trial.h5")})
    print(f"Trials are kept in {folder}; there are some of {', '.join(done_before) or 'no image yet'}.")
    for seed in range(options.first, options.first + options.images):
        if time.monotonic() - began > 60 * options.minutes:
            break
        scan = phantom_subject(
            "rectangles", options.size, options.candidates, noise=options.noise, seed=seed, shift=options.shift
        )
        entrants = contenders(options.strategies, options.randoms, options.iterations)
        done = list(kept(folder, scan, entrants, plan, methods, setting=setting, steps=steps))
        trials += done
        print(f"image {seed} done after {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return trials


def main(options: Options) -> None:
    torch.set_num_threads(1)
    trials = run_images(options)
    for sentence in write_comparison(trials, FIGURES, f"angle_design_{options.label}", rng=np.random.default_rng(0)):
        print(sentence)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
