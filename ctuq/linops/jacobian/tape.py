"""One run of a network recorded as a list of linearised calls, and products with their chain."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ctuq.linops.jacobian.calls import Call, replace, rule_of
from ctuq.linops.jacobian.layers import Opaque, Rule, channels_last, pull_back

_HARMLESS = (bool, int, str, torch.dtype, torch.device, torch.layout, type(None))


@dataclass(frozen=True)
class Node:
    """One call: the slots of its operands (``None`` where constant) and of its output."""

    rule: Rule
    inputs: tuple[int | None, ...]
    output: int


class Tape:
    """The chain of linearised calls from ``leaves`` operands (slots 0, 1, ...) to the slot ``output``."""

    def __init__(self, nodes: Sequence[Node], leaves: int, output: int):
        self._leaves, self._output = leaves, output
        self.nodes: list[Node] = []
        self._last: list[list[int]] = []
        needed = {output}
        for node in reversed(nodes):
            if node.output in needed:
                dead = [slot for slot in set(node.inputs) if slot is not None and slot not in needed]
                needed.update(dead)
                self.nodes.insert(0, node)
                self._last.insert(0, dead)

    @classmethod
    def whole(cls, function: Callable[..., Tensor], leaves: Sequence[Tensor]) -> "Tape":
        """The function as one call to torch.func."""
        return cls([Node(Opaque(function, leaves), tuple(range(len(leaves))), len(leaves))], len(leaves), len(leaves))

    def jvp(self, tangents: Sequence[Tensor]) -> Tensor:
        """Tangents ``(k, *leaf)`` of the leaves to those of the output, ``(k, *output)``."""
        env = dict(enumerate(tangents))
        for node, dead in zip(self.nodes, self._last, strict=True):
            env[node.output] = node.rule.jvp([None if slot is None else env[slot] for slot in node.inputs])
            for slot in dead:
                del env[slot]
        return env[self._output]

    def add_vjp(self, cotangent: Tensor, sums: Sequence[Tensor]) -> None:
        """Add the cotangents of the leaves, from those of the output ``(k, *output)``, to ``sums``, ``(k, *leaf)`` each."""
        env = {self._output: cotangent}
        for node in reversed(self.nodes):
            wanted = [slot is not None for slot in node.inputs]
            for slot, part in zip(node.inputs, node.rule.vjp(env.pop(node.output), wanted), strict=True):
                if slot is None or part is None:
                    continue
                if slot < self._leaves:
                    sums[slot].add_(part)
                else:
                    env[slot] = env[slot] + part if slot in env else part
        if self._output < self._leaves:
            sums[self._output].add_(cotangent)

    @property
    def structure(self) -> tuple:
        """What equal programs have in common: rules and their connections, without values."""
        return tuple((type(node.rule), node.inputs, node.output) for node in self.nodes)


def record(
    function: Callable[..., Tensor], leaves: Sequence[Tensor], *, trusted: set[tuple] | None = None
) -> tuple[Tensor, Tape, int]:
    """Run ``function(*leaves)`` once and linearise each torch call that depends on the leaves.

    A function that changes tensors in place, branches on values or splits them becomes one single call to torch.func;
    so does one whose record disagrees with autograd (torch cannot see into its own autograd functions).

    Parameters
    ----------
    function : callable
    leaves : sequence of Tensor
    trusted : set, optional
        Structures of records that agreed with autograd: they are not compared again, and new ones are added.

    Returns
    -------
    output : Tensor
    tape : Tape
    widest : int
        Bytes of the largest intermediate value.
    """
    recorder, trusted = _Recorder(leaves), set() if trusted is None else trusted
    try:
        with recorder:
            out = function(*leaves)
        tape = Tape(recorder.nodes, len(leaves), recorder.slots[id(out)])
        if tape.structure in trusted or _agrees(tape, function, leaves, out):
            trusted.add(tape.structure)
            return out, tape, recorder.widest
    except (_UnrecordableError, KeyError):
        out = function(*leaves)
    return out, Tape.whole(function, leaves), recorder.widest


class _UnrecordableError(Exception):
    pass


class _Recorder(TorchFunctionMode):
    """Values die as soon as the function drops them: what products need of them is kept by the rules."""

    def __init__(self, leaves: Sequence[Tensor]):
        super().__init__()
        self.nodes: list[Node] = []
        self.slots: dict[int, int] = {}
        self._copies: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
        self._count, self.widest = 0, 0
        for leaf in leaves:
            self._new_slot(leaf)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        active = list({id(x): x for x in tensors if id(x) in self.slots}.values())
        if not active:
            return func(*args, **kwargs)
        versions = [x._version for x in tensors]
        out = func(*args, **kwargs)
        if versions != [x._version for x in tensors]:
            raise _UnrecordableError
        if not isinstance(out, Tensor):
            parts = out if isinstance(out, tuple) else (out,)
            if not all(isinstance(part, _HARMLESS) for part in parts):
                raise _UnrecordableError
        elif out.is_complex():
            raise _UnrecordableError
        elif func is Tensor.__getitem__ and id(args[0]) in self.slots and _same(args[0], out):
            self._enter(out, self.slots[id(args[0])])
        elif out.is_floating_point() and id(out) not in self.slots:
            self._append(Call(func, args, kwargs, active, out, self._layout))
        return out

    def _append(self, call: Call) -> None:
        slot = self._new_slot(call.output)
        rule, operands = rule_of(call)
        self.nodes.append(Node(rule, tuple(self.slots.get(id(x)) for x in operands), slot))
        self.widest = max(self.widest, call.output.numel() * call.output.element_size())

    def _new_slot(self, value: Tensor) -> int:
        slot, self._count = self._count, self._count + 1
        self._enter(value, slot)
        return slot

    def _enter(self, value: Tensor, slot: int) -> None:
        self.slots[id(value)] = slot
        # Another value may get the same id as soon as this one is gone.
        weakref.finalize(value, self.slots.pop, id(value), None).atexit = False

    def _layout(self, value: Tensor) -> Tensor:
        slot = self.slots.get(id(value))
        copy = None if slot is None else self._copies.get(slot)
        if copy is None:
            copy = channels_last(value)
            if slot is not None:
                self._copies[slot] = copy
        return copy


def _agrees(tape: Tape, function: Callable[..., Tensor], leaves: Sequence[Tensor], out: Tensor) -> bool:
    probe = torch.arange(out.numel(), device=out.device, dtype=out.dtype).mul(0.7).cos().reshape(out.shape)
    gaps = list(pull_back(function, leaves, probe))
    sizes = [float(gap.norm()) for gap in gaps]
    for place, gap in enumerate(gaps):  # one by one, so that all of them never exist twice
        gaps[place] = -gap
    tape.add_vjp(probe[None], [gap[None] for gap in gaps])
    return all(float(gap.norm()) <= 1e-2 * size for gap, size in zip(gaps, sizes, strict=True))


def _same(x: Tensor, y: Tensor) -> bool:
    return (x.shape, x.stride(), x.data_ptr()) == (y.shape, y.stride(), y.data_ptr())


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    replace(tree, lambda x: found.append(x) or x)
    return found
