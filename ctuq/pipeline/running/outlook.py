"""How far a run is with all of its stages, and how many seconds are left."""

import math
import time
from collections.abc import Callable, Mapping

STAGES = {"Deep Image Prior": "dip", "Jacobian": "jacobian", "Evidence": "evidence", "Samples": "samples"}
"""Stages as they are told, by their names in a plan."""


class Outlook:
    """Share done and seconds left of a planned run.

    A stage's rest is what it has taken so far for each of its steps, and at its beginning, when that says little, what was
    planned: ``(1 - s) (taken + (1 - s) planned)`` with the share s of its steps that are done.

    Parameters
    ----------
    seconds : mapping of str to float
        Planned, by stage.
    clock : callable
        Seconds.
    """

    def __init__(self, seconds: Mapping[str, float], clock: Callable[[], float] = time.perf_counter):
        self._planned, self._clock = dict(seconds), clock
        self._began = clock()
        self._stage, self._since, self._from = "", self._began, 0.0

    def __call__(self, stage: str, share: float) -> tuple[float, float]:
        """Share of the whole run that is done, and seconds left; NaN for a stage that was not planned.

        Parameters
        ----------
        stage : str
        share : float
            Of this stage's steps that are done.
        """
        name = STAGES.get(stage, stage)
        if name not in self._planned:
            return math.nan, math.nan
        now = self._clock()
        if name != self._stage:
            # A stage that is gone on with after a kill begins with what was done before.
            self._stage, self._since, self._from = name, now, share
        names = list(self._planned)
        later = sum(self._planned[other] for other in names[names.index(name) + 1 :])
        rest = 1 - min(max(share, 0.0), 1.0)
        new = (share - self._from) / max(1 - self._from, 1e-9)
        # A run that was gone on with has done only the new steps in the time that it has taken.
        rate = (now - self._since) / max(share - self._from, 1e-9) if share > self._from else self._planned[name]
        left = rest * (new * rate + (1 - new) * self._planned[name]) + later
        spent = now - self._began
        return spent / max(spent + left, 1e-9), left
