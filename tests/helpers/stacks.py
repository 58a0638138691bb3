"""Stacks whose run is killed, or one of whose workers is."""

import os
import signal

import pytest
from killing import at_call, killed

from ctuq.pipeline import reconstruct_stack
from ctuq.pipeline.stack import slices
from ctuq.pipeline.stack.products import Products


def resumed(scan, options, path, monkeypatch):
    """The result of a run that is killed after its four teachers and two slices, and the slices that are made after that."""

    def run():
        at_call(Products, "__setitem__", 7)
        reconstruct_stack(scan, options=options, checkpoint=path)

    assert killed(run)
    made, before = [], slices._made
    monkeypatch.setattr(slices, "_made", lambda work, previous: made.append(work.item.number) or before(work, previous))
    monkeypatch.setattr(slices, "_learned", lambda work: pytest.fail("taught already"))
    return reconstruct_stack(scan, options=options, checkpoint=path), made


class KillsAWorker:
    """Progress of a stack that kills a worker of a cluster after the first slice; ``left`` are its processes till then."""

    def __init__(self, executor):
        self._executor, self.left = executor, []

    def processes(self):
        return list(self._executor._client.run(os.getpid).values())

    def __call__(self, progress):
        if progress.stage == "Slices" and progress.done == 1 and not self.left:
            self.left = self.processes()
            os.kill(self.left[0], signal.SIGKILL)
