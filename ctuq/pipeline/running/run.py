"""What the stages of one reconstruction share."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ctuq.pipeline.running.checkpoint import Checkpoint
from ctuq.pipeline.running.devices import device_of
from ctuq.pipeline.running.options import Progress, ReconstructOptions
from ctuq.pipeline.running.outlook import Outlook
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.recon.dip import Data, DIPState, Generator
from ctuq.recon.schedule import expected_end
from ctuq.stages import Stages
from ctuq.systematics.hardened import Hardened

_Options = TypeVar("_Options", ReconstructOptions, VolumeOptions)


class Run(Generic[_Options]):
    """Options, device, random numbers, clock, what was done before, and who is told of progress."""

    def __init__(self, options: _Options, progress: Callable[[Progress], None] | None):
        self.options = options
        self.device = device_of(options.device)
        self.rng = torch.Generator().manual_seed(options.seed)
        self.timings: dict[str, float] = {}
        self.checkpoint = Checkpoint(None, "")
        self.outlook = Outlook({})
        self.hardened: Hardened | None = None
        self._tell = progress

    @property
    def stages(self) -> Stages:
        """Products of this run that need not be made again."""
        return self.checkpoint.stages

    def tell(self, stage: str, done: int, total: int, message: str = "") -> None:
        """Pass on how far a stage is, see `Progress`."""
        if self._tell is not None:
            self._tell(Progress(stage, done, total, message, *self.outlook(stage, done / max(total, 1))))

    def fit(self, generate: Generator, start: dict[str, Tensor], data: tuple[Data, Data]) -> DIPState:
        """Fit a network to the first of the data, stopped by the second; a checkpoint's fit goes on."""
        options = self.options.dip

        def tell(state: DIPState) -> None:
            text = f"held-out misfit {float(state.history[-1, 2]):.3g}" if len(state.history) else ""
            self.tell("Deep Image Prior", state.iteration, expected_end(state, options), text)

        state = self.checkpoint.fit(generate, start, data, options, tell=tell)
        self.tell("Deep Image Prior", state.iteration, state.iteration)
        return state

    def products(self, done: int, total: int) -> None:
        """Pass on how many products with the network's Jacobian are made."""
        self.tell("Jacobian", done, total)

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Count what is done inside towards a stage's seconds, with those that an earlier run took for what it left."""
        start, spared = time.perf_counter(), self.stages.spared
        yield
        spent = time.perf_counter() - start + self.stages.spared - spared
        self.timings[stage] = self.timings.get(stage, 0.0) + spent
