"""One run of a network recorded as a list of linearised calls, and products with their chain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.utils import _ntuple
from torch.overrides import TorchFunctionMode

from ctuq.linops.layers import Concatenation, Convolution, GroupNorm, Linear, Opaque, Pointwise, Rule

_POINTWISE = frozenset(
    "relu relu6 leaky_relu elu selu celu gelu silu mish softplus sigmoid logsigmoid tanh hardtanh exp log sqrt square "
    "abs neg sin cos dropout add sub mul div __rsub__ __rdiv__".split()
)
_PER_IMAGE = frozenset("interpolate avg_pool1d avg_pool2d avg_pool3d pixel_shuffle".split())
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
        needed, self._nodes = {output}, []
        for node in reversed(nodes):
            if node.output in needed:
                dead = [slot for slot in set(node.inputs) if slot is not None and slot not in needed]
                needed.update(dead)
                self._nodes.insert(0, (node, dead))

    def jvp(self, tangents: Sequence[Tensor]) -> Tensor:
        """Tangents ``(k, *leaf)`` of the leaves to those of the output, ``(k, *output)``."""
        env = dict(enumerate(tangents))
        for node, dead in self._nodes:
            env[node.output] = node.rule.jvp([None if slot is None else env[slot] for slot in node.inputs])
            for slot in dead:
                del env[slot]
        return env[self._output]

    def vjp(self, cotangent: Tensor) -> list[Tensor | None]:
        """Cotangents ``(k, *output)`` to those of the leaves; ``None`` where the output does not depend on one."""
        env = {self._output: cotangent}
        for node, _ in reversed(self._nodes):
            wanted = [slot is not None for slot in node.inputs]
            for slot, part in zip(node.inputs, node.rule.vjp(env.pop(node.output), wanted), strict=True):
                if slot is not None and part is not None:
                    env[slot] = env[slot] + part if slot in env else part
        return [env.get(slot) for slot in range(self._leaves)]


def record(function: Callable[..., Tensor], leaves: Sequence[Tensor]) -> tuple[Tensor, Tape, int]:
    """Run ``function(*leaves)`` once and linearise each torch call that depends on the leaves.

    A function that changes tensors in place, branches on values or splits them becomes one single call to torch.func;
    so does one whose record disagrees with autograd (torch cannot see into its own autograd functions).

    Returns
    -------
    output : Tensor
    tape : Tape
    widest : int
        Bytes of the largest intermediate value.
    """
    recorder = _Recorder(leaves)
    try:
        with recorder:
            out = function(*leaves)
        tape = Tape(recorder.nodes, len(leaves), recorder.slots[id(out)])
        if _agrees(tape, function, leaves, out):
            return out, tape, recorder.widest
    except (_Unrecordable, KeyError):
        out = function(*leaves)
    whole = Node(Opaque(function, leaves), tuple(range(len(leaves))), len(leaves))
    return out, Tape([whole], len(leaves), len(leaves)), recorder.widest


class _Unrecordable(Exception):
    pass


class _Recorder(TorchFunctionMode):
    def __init__(self, leaves: Sequence[Tensor]):
        super().__init__()
        self.nodes: list[Node] = []
        self.slots = {id(leaf): slot for slot, leaf in enumerate(leaves)}
        self._alive: list[Tensor] = list(leaves)  # so that no id is used twice
        self.widest = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        active = [x for x in tensors if id(x) in self.slots]
        if not active:
            return func(*args, **kwargs)
        versions = [x._version for x in tensors]
        out = func(*args, **kwargs)
        if versions != [x._version for x in tensors]:
            raise _Unrecordable
        if not isinstance(out, Tensor):
            parts = out if isinstance(out, tuple) else (out,)
            if not all(isinstance(part, _HARMLESS) for part in parts):
                raise _Unrecordable
        elif out.is_complex():
            raise _Unrecordable
        elif out.is_floating_point() and id(out) not in self.slots:
            self._append(out, *_rule(func, args, kwargs, active, out))
        return out

    def _append(self, out: Tensor, rule: Rule, operands: Sequence[Tensor | None]) -> None:
        inputs = tuple(self.slots.get(id(x)) for x in operands)
        self.slots[id(out)] = len(self._alive)
        self.nodes.append(Node(rule, inputs, len(self._alive)))
        self._alive.append(out)
        self.widest = max(self.widest, out.numel() * out.element_size())


def _rule(func, args, kwargs, active: list[Tensor], out: Tensor) -> tuple[Rule, Sequence[Tensor | None]]:
    name, special = func.__name__, None
    if name in ("conv1d", "conv2d", "conv3d"):
        special = _convolution(*args, **kwargs)
    elif name == "group_norm":
        special = _group_norm(active, *args, **kwargs)
    elif name == "cat":
        special = _concatenation(*args, **kwargs)
    if special is not None:
        return special

    unique = list({id(x): x for x in active}.values())
    places = {id(x): i for i, x in enumerate(unique)}

    def function(*values: Tensor) -> Tensor:
        new = _replace((args, kwargs), lambda x: values[places[id(x)]] if id(x) in places else x)
        return func(*new[0], **new[1])

    if name in _POINTWISE and all(x.shape == out.shape for x in unique):
        return Pointwise(function, unique), unique
    if name in _PER_IMAGE and out.shape[0] == unique[0].shape[0]:
        return Linear(function, unique[0].shape), unique
    return Opaque(function, unique), unique


def _convolution(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):  # noqa: A002
    space = weight.ndim - 2
    if groups != 1 or isinstance(padding, str) or input.ndim != weight.ndim:
        return None
    steps = [list(_ntuple(space)(value)) for value in (stride, padding, dilation)]
    return Convolution(input, weight, *steps), (input, weight, bias)


def _group_norm(active, input, num_groups, weight=None, bias=None, eps=1e-5):  # noqa: A002
    if input.ndim < 3 or any(x is weight or x is bias for x in active):
        return None
    return GroupNorm(input, num_groups, weight, eps), (input,)


def _concatenation(tensors, dim=0):
    same = all(x.ndim == tensors[0].ndim >= 2 for x in tensors)
    return (Concatenation(tensors), tuple(tensors)) if same and dim % tensors[0].ndim == 1 else None


def _agrees(tape: Tape, function: Callable[..., Tensor], leaves: Sequence[Tensor], out: Tensor) -> bool:
    probe = torch.arange(out.numel(), device=out.device, dtype=out.dtype).mul(0.7).cos().reshape(out.shape)
    truth = torch.func.vjp(function, *leaves)[1](probe)
    mine = tape.vjp(probe[None])
    gaps = [(t if m is None else t - m[0]).norm() <= 1e-2 * t.norm() for t, m in zip(truth, mine, strict=True)]
    return all(gaps)


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _replace(tree, lambda x: found.append(x) or x)
    return found


def _replace(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _replace(value, change) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_replace(value, change) for value in tree)
    return tree
