"""A search by samples that was killed goes the same way again, and computes nothing of it twice.

Of every point what the ascent asks for is kept, a few numbers; of the last one also what the next solve starts from: solution,
mode, preconditioner and the state of the random numbers. So a resumed search comes to the same bits.
"""

from dataclasses import fields, replace
from typing import Any

import torch

from ctuq.errors import CtuqError
from ctuq.laplace.evidence.memory import Memory
from ctuq.laplace.evidence.sampled import Expectation, SampledExpectation
from ctuq.laplace.system.cg_sampler import CGSampler
from ctuq.laplace.system.mode import Mode
from ctuq.laplace.system.problem import Point

Tree = dict[str, Any]
_LONG = ("weights", "pull")
"""Of a mode: as long as all weights."""


class Resumed:
    """Expectations of one search; those of points that it came to before it was killed are as they were, without their samples.

    Parameters
    ----------
    expectation : SampledExpectation
        As new, of ``sampler``.
    sampler : CGSampler
    rng : torch.Generator
        That the sampler draws from.
    memory : Memory
    name : str
        Of this search in the whole work.
    """

    def __init__(self, expectation: SampledExpectation, sampler: CGSampler, *, rng: torch.Generator, memory: Memory, name: str):
        self._expectation, self._sampler, self._rng = expectation, sampler, rng
        self._memory, self._name, self._calls = memory, name, 0
        known = memory.latest(name)
        self._past: list[Tree] = [] if known is None else list(known["past"])
        self._state: Tree = {} if known is None else known["state"]

    def __call__(self, point: Point) -> Expectation:
        """The expectation at a point.

        Raises
        ------
        CtuqError
            Where the arithmetic cannot solve for it, or could not.
        """
        self._calls += 1
        if self._calls < len(self._past):
            return _of_tree(point, self._past[self._calls - 1], None)
        if self._calls == len(self._past):
            self._restore(self._state)
            return _of_tree(point, self._past[-1], self._expectation.mode)
        try:
            found = self._expectation(point)
        except CtuqError as error:
            self._keep({"failed": str(error)})
            raise
        self._keep(_to_tree(found))
        return found

    def _keep(self, entry: Tree) -> None:
        self._past.append(entry)
        self._memory.renew(self._name, lambda: {"past": tuple(self._past), "state": self._now()})

    def _now(self) -> Tree:
        mode = self._expectation.mode
        return {
            "solution": self._expectation.solution,
            "mode": None if mode is None else {f.name: getattr(mode, f.name) for f in fields(Mode)},
            "sampler": self._sampler.state(),
            "rng": self._rng.get_state(),
        }

    def _restore(self, state: Tree) -> None:
        device, solution, mode = self._expectation.device, state["solution"], state["mode"]
        self._expectation.solution = None if solution is None else solution.to(device)
        if mode is not None:
            self._expectation.mode = Mode(**(mode | {name: mode[name].to(device) for name in _LONG}))
        self._sampler.restore(state["sampler"], device)
        self._rng.set_state(state["rng"])


def _to_tree(found: Expectation) -> Tree:
    tree = {f.name: getattr(found, f.name) for f in fields(Expectation) if f.name not in ("point", "mode", "samples")}
    return tree | {"mode": {f.name: getattr(found.mode, f.name) for f in fields(Mode) if f.name not in _LONG}}


def _of_tree(point: Point, tree: Tree, whole: Mode | None) -> Expectation:
    if "failed" in tree:
        raise CtuqError(tree["failed"])
    nothing = torch.empty(0, dtype=torch.float64)
    mode = Mode(weights=nothing, pull=nothing, **tree["mode"])
    if whole is not None:
        mode = replace(mode, weights=whole.weights, pull=whole.pull)
    rest = {name: value for name, value in tree.items() if name != "mode"}
    return Expectation(point, mode, **rest)
