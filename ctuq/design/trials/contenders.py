"""The strategies of a trial: what each chooses of a subject's candidates, and what it took.

Strategies that look at no data place their views by the rank of a candidate, so that gaps in the candidates (an arc that was
never measured) do not draw views to their edges; for evenly spaced candidates that is the same as by angle.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.design import strategies
from ctuq.design.algebra.criteria import CRITERIA
from ctuq.design.constraints import Exposure
from ctuq.design.designer import Designer
from ctuq.design.models.learners import learner
from ctuq.design.models.lindip import LinDIPOptions
from ctuq.design.models.model import Learn
from ctuq.design.problem import DesignProblem
from ctuq.design.trials.subject import Subject
from ctuq.errors import InputError
from ctuq.stages import Stages

Views = NDArray[np.int64]


@dataclass(frozen=True)
class TrialPlan:
    """How many views are taken.

    Parameters
    ----------
    pilot : int
        Equidistant views that every grown strategy starts from.
    total : int
        Pilot included.
    start : int
        The candidate where equidistant and pilot views begin.

    Raises
    ------
    InputError
        Unless ``1 <= pilot < total``.
    """

    pilot: int = 5
    total: int = 40
    start: int = 0

    def __post_init__(self):
        if not 1 <= self.pilot < self.total:
            raise InputError(f"There must be at least 1 pilot view and more in total; got {self.pilot} of {self.total}.")


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a strategy chose.

    Parameters
    ----------
    views : tuple of arrays of int
        Candidates for each count from the pilot's to the total; of grown strategies each begins with the one before.
    ask, learn : array of float64, shape (steps,)
        CPU seconds of each step's choice, and of taking in its projections (learning included); empty without a designer. The
        first of ``learn`` is the pilot's.
    """

    views: tuple[Views, ...]
    ask: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    learn: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Placed:
    """Views that depend on no data.

    Parameters
    ----------
    kind : str
        "equidistant": placed anew for every count, which must be known in advance; "half turn": the same over the first half of
        the candidates (a full turn of a fan sees most rays twice); "nested": from the pilot, each farthest from all others;
        "golden": steps of the golden ratio from the first candidate on, without a pilot; "random": after the pilot.
    seed : int
        Of "random".
    """

    kind: Literal["equidistant", "half turn", "nested", "golden", "random"]
    seed: int = 0

    @property
    def name(self) -> str:
        """As in tables; seeds of "random" share it."""
        return self.kind

    @property
    def label(self) -> str:
        """The name, and the seed where there is one."""
        return f"random {self.seed}" if self.kind == "random" else self.kind

    def choose(self, subject: Subject, plan: TrialPlan, stages: Stages | None = None) -> Chosen:
        """The candidates for every count; at once, so that nothing need be kept."""
        del stages
        C = len(subject.candidates)
        ranks = np.arange(C) / C
        counts = range(plan.pilot, plan.total + 1)

        def shifted(views: Views) -> Views:
            return (views + plan.start) % C

        if self.kind == "equidistant":
            return Chosen(tuple(shifted(strategies.equidistant(ranks, n, period=1.0)) for n in counts))
        if self.kind == "half turn":
            half = np.arange(C // 2) / (C // 2)
            return Chosen(tuple(shifted(strategies.equidistant(half, n, period=1.0)) for n in counts))
        if self.kind == "golden":
            return _grown(shifted(strategies.golden(ranks, plan.total, period=1.0)), plan)
        pilot, more = strategies.equidistant(ranks, plan.pilot, period=1.0), plan.total - plan.pilot
        if self.kind == "nested":
            rest = strategies.nested(ranks, more, period=1.0, taken=pilot)
        else:
            rest = strategies.random(ranks, more, rng=np.random.default_rng(self.seed), taken=pilot)
        return _grown(shifted(np.concatenate([pilot, rest])), plan)


@dataclass(frozen=True)
class Adaptive:
    """A designer that is asked and told.

    Parameters
    ----------
    criterion, prior : str
        Names in `ctuq.design.CRITERIA` and `ctuq.design.PRIORS`.
    every : int
        Learn again after so many further views; 0 never.
    batch : int
        Angles asked for at once.
    dip : LinDIPOptions
    learn : callable, optional
        Makes the learner of a trial, in place of the one that ``prior`` names.
    """

    criterion: str = "eig"
    prior: str = "lindip"
    every: int = 0
    batch: int = 1
    dip: LinDIPOptions = field(default_factory=LinDIPOptions)
    learn: Callable[[], Learn] | None = None

    def __post_init__(self):
        if self.criterion not in CRITERIA:
            raise InputError(f"There is no criterion {self.criterion!r}; choose one of {', '.join(CRITERIA)}.")
        if self.every < 0 or self.batch < 1:
            raise InputError(
                f"A batch has 1 or more angles, re-training comes every 0 or more; got {self.batch}, {self.every}."
            )
        self.learner()

    @property
    def name(self) -> str:
        """As in tables."""
        more = f", every {self.every}" if self.every else ""
        return f"{self.criterion} {self.prior}{more}" + (f", batch {self.batch}" if self.batch > 1 else "")

    @property
    def label(self) -> str:
        """The name."""
        return self.name

    def learner(self, folder: Path | None = None) -> Learn:
        """How its model is learned, from nothing; a network's fit is kept in a folder while it is made."""
        return learner(self.prior, every=self.every, dip=self.dip, folder=folder) if self.learn is None else self.learn()

    def choose(self, subject: Subject, plan: TrialPlan, stages: Stages | None = None) -> Chosen:
        """The candidates for every count, one after another; ``stages`` keep what took long."""
        stages = Stages() if stages is None else stages
        offered = subject.offered()
        # Weights that differ are photon counts: those of views to come follow from the present image.
        counts = bool((offered.weights > 0).any()) and float(offered.weights[offered.weights > 0].std(correction=0)) > 0
        problem = DesignProblem(A=offered.A, criterion=CRITERIA[self.criterion], exposure=Exposure(counts=counts))
        designer, learn, ask = Designer(problem, self.learner(stages.folder)), [], []

        def tell(views: Views) -> None:
            rows = torch.from_numpy(views)
            began = time.process_time()
            designer.tell(problem.angles[views], offered.y[rows].cpu().numpy(), offered.weights[rows].cpu().numpy())
            learn.append(time.process_time() - began)

        tell(Placed("equidistant").choose(subject, TrialPlan(plan.pilot, plan.total, plan.start)).views[0])

        def asked() -> tuple[Views, float]:
            began = time.process_time()
            views = designer.ask(min(self.batch, plan.total - len(designer.state.views))).views
            return views, time.process_time() - began

        while len(designer.state.views) < plan.total:
            views, seconds = stages.once(f"views after {len(designer.state.views)}", asked)
            ask.append(seconds)
            tell(views)
        return _grown(designer.state.views, plan, np.array(ask), np.array(learn))


Strategy = Placed | Adaptive


def baselines(*, randoms: int = 5, half_turn: bool = False) -> tuple[Placed, ...]:
    """What an adaptive design has to beat: equidistant (also over half a turn), nested, golden ratio, and random by seeds."""
    half = (Placed("half turn"),) if half_turn else ()
    return (Placed("equidistant"), *half, Placed("nested"), Placed("golden"), *(Placed("random", i) for i in range(randoms)))


def _grown(views: Views, plan: TrialPlan, ask: NDArray | None = None, learn: NDArray | None = None) -> Chosen:
    parts = tuple(views[:n] for n in range(plan.pilot, plan.total + 1))
    return Chosen(parts, *(np.zeros(0) if seconds is None else seconds for seconds in (ask, learn)))
