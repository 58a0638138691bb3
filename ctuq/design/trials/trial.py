"""One trial: a strategy on a subject, how good the images from its views are, and what it took; kept in a file."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq import records
from ctuq.design.trials.contenders import Strategy, TrialPlan
from ctuq.design.trials.imaging import Imaging
from ctuq.design.trials.subject import Subject
from ctuq.errors import InputError
from ctuq.stages import KeptStages, Stages, name_of
from ctuq.versions import version_of

_RARELY = {"dip": 5}
_NONE = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class Trial:
    """What came of a strategy on a subject.

    Parameters
    ----------
    subject, strategy : str
    seed : int
        Of a random strategy; 0 for others.
    setting : str
        What must be the same for trials to be compared; one line.
    counts : array of int, shape (N,)
        Views taken.
    views : array of int, shape (N, total)
        The candidates taken at each count, -1 after the last.
    angles : array of float64, shape (C,), radians
        Of the candidates.
    qualities : mapping of str to array, shape (N,)
        In dB by "method against": "tv truth", "tv unseen", "dip truth"; NaN where not reconstructed.
    ask, learn : array of float64
        CPU seconds a step, as in `ctuq.design.trials.contenders.Chosen`.
    """

    subject: str
    strategy: str
    seed: int
    setting: str
    counts: NDArray[np.int64]
    views: NDArray[np.int64]
    angles: NDArray[np.float64]
    qualities: Mapping[str, NDArray[np.float64]]
    ask: NDArray[np.float64]
    learn: NDArray[np.float64]

    def taken(self, count: int) -> NDArray[np.float64]:
        """The angles taken when there were so many, radians."""
        views = self.views[np.flatnonzero(self.counts == count)[0]]
        return self.angles[views[views != _NONE]]

    def save(self, path: Path) -> None:
        """Write to a file, whole or not at all."""
        records.write(path, {f: getattr(self, f) for f in self.__dataclass_fields__}, kind="trial")

    @classmethod
    def load(cls, path: Path) -> "Trial":
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged or something else.
        """
        try:
            return cls(**records.read(path, kind="trial"))
        except TypeError as error:
            raise InputError(f"'{path}' is a trial of another version of ctuq; remove it and run the trial again.") from error


def run(
    subject: Subject,
    strategy: Strategy,
    plan: TrialPlan,
    methods: Mapping[str, Imaging],
    *,
    setting: str = "",
    steps: Mapping[str, int] = _RARELY,
    stages: Stages | None = None,
) -> Trial:
    """Let a strategy choose, then reconstruct from its views and judge.

    Parameters
    ----------
    subject : Subject
    strategy : Placed or Adaptive
    plan : TrialPlan
    methods : mapping of str to callable
        Reconstructions by name.
    setting : str
    steps : mapping of str to int
        A method with step k is made at every k-th count from the total down, others at every count.
    stages : Stages, optional
        Keep what took long.
    """
    stages = Stages() if stages is None else stages
    chosen = strategy.choose(subject, plan, stages)
    counts = np.arange(plan.pilot, plan.total + 1)
    views = np.full((len(counts), plan.total), _NONE)
    qualities: dict[str, NDArray[np.float64]] = {}
    for row, taken in enumerate(chosen.views):
        views[row, : len(taken)] = taken
        for name, reconstruct in methods.items():
            if (plan.total - counts[row]) % steps.get(name, 1):
                continue

            def judged(reconstruct: Imaging = reconstruct, taken: NDArray = taken) -> dict[str, float]:
                return subject.judge(reconstruct(subject.measured(subject.candidates[taken])), taken)

            for against, value in stages.once(f"{name} {counts[row]}", judged).items():
                qualities.setdefault(f"{name} {against}", np.full(len(counts), np.nan))[row] = value
    return Trial(
        subject=subject.name,
        strategy=strategy.name,
        seed=getattr(strategy, "seed", 0),
        setting=setting,
        counts=counts,
        views=views,
        angles=subject.angles,
        qualities=qualities,
        ask=chosen.ask,
        learn=chosen.learn,
    )


def kept(
    folder: Path,
    subject: Subject,
    contenders: Iterable[Strategy],
    plan: TrialPlan,
    methods: Mapping[str, Imaging],
    *,
    setting: str,
    steps: Mapping[str, int] = _RARELY,
) -> Iterator[Trial]:
    """Run every strategy that has no file in the folder yet, and write one for each; all trials in order.

    A trial that was killed goes on from the folder ``NAME.stages`` beside its file.

    Raises
    ------
    InputError
        If a file there was made with other settings.
    """
    for strategy in contenders:
        path = folder / file_name(subject.name, strategy)
        if path.is_file():
            trial = Trial.load(path)
            if trial.setting != setting:
                raise InputError(
                    f"'{path}' was made with other settings ({trial.setting}; now {setting}); choose another folder."
                )
        else:
            stages = KeptStages(path.with_suffix(".stages"), _identity(subject, strategy, plan, setting))
            trial = run(subject, strategy, plan, methods, setting=setting, steps=steps, stages=stages)
            folder.mkdir(parents=True, exist_ok=True)
            trial.save(path)
            stages.clear()
        yield trial


def _identity(subject: Subject, strategy: Strategy, plan: TrialPlan, setting: str) -> str:
    """Of all that a trial depends on."""
    rays = name_of(subject.y, subject.weights, torch.tensor(subject.angles), torch.tensor(subject.candidates))
    return f"{version_of('ctuq')} {rays} {subject.A.grid} {strategy} {plan} {setting} {torch.get_num_threads()}"


def file_name(subject: str, strategy: Strategy) -> str:
    """The file of a trial inside its folder."""
    return re.sub(r"[^\w+.-]+", "-", f"{subject}--{strategy.label}") + ".trial.h5"


def load_all(folders: Iterable[Path]) -> list[Trial]:
    """Every trial in some folders.

    Raises
    ------
    InputError
        If there is none, or a file is damaged.
    """
    paths = [path for folder in folders for path in sorted(folder.glob("*.trial.h5"))]
    if not paths:
        raise InputError("There is no trial in these folders; make some with ctuq design simulate.")
    return [Trial.load(path) for path in paths]
