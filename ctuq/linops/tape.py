"""One run of a network recorded as a list of linearised calls, and products with their chain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ctuq.linops.layers import Concatenation, Convolution, Crop, GroupNorm, Linear, Opaque, Pointwise, Rule, pull_back

_ACTIVATIONS = ["relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid"]
_ELEMENTARY = ["logsigmoid", "tanh", "hardtanh", "exp", "log", "sqrt", "square", "abs", "neg", "sin", "cos", "dropout"]
_ARITHMETIC = ["add", "sub", "mul", "div", "__rsub__", "__rdiv__"]
_POINTWISE = frozenset([*_ACTIVATIONS, *_ELEMENTARY, *_ARITHMETIC])
_PER_IMAGE = frozenset(["interpolate", "avg_pool1d", "avg_pool2d", "avg_pool3d", "pixel_shuffle"])
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_GROUP_NORM = ("input", "num_groups", "weight", "bias", "eps")
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

    def jvp(self, tangents: Sequence[Tensor]) -> Tensor:
        """Tangents ``(k, *leaf)`` of the leaves to those of the output, ``(k, *output)``."""
        env = dict(enumerate(tangents))
        for node, dead in zip(self.nodes, self._last, strict=True):
            env[node.output] = node.rule.jvp([None if slot is None else env[slot] for slot in node.inputs])
            for slot in dead:
                del env[slot]
        return env[self._output]

    def vjp(self, cotangent: Tensor) -> list[Tensor | None]:
        """Cotangents ``(k, *output)`` to those of the leaves; ``None`` where the output does not depend on one."""
        env = {self._output: cotangent}
        for node in reversed(self.nodes):
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
    except (_UnrecordableError, KeyError):
        out = function(*leaves)
    whole = Node(Opaque(function, leaves), tuple(range(len(leaves))), len(leaves))
    return out, Tape([whole], len(leaves), len(leaves)), recorder.widest


class _UnrecordableError(Exception):
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
            raise _UnrecordableError
        if not isinstance(out, Tensor):
            parts = out if isinstance(out, tuple) else (out,)
            if not all(isinstance(part, _HARMLESS) for part in parts):
                raise _UnrecordableError
        elif out.is_complex():
            raise _UnrecordableError
        elif func is Tensor.__getitem__ and id(args[0]) in self.slots and _same(args[0], out):
            self.slots[id(out)] = self.slots[id(args[0])]
            self._alive.append(out)
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
        special = _convolution(args, kwargs)
    elif name == "group_norm":
        special = _group_norm(args, kwargs, active)
    elif name == "cat":
        special = _concatenation(*args, **kwargs)
    elif func is Tensor.__getitem__:
        special = _crop(*args)
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


def _convolution(args, kwargs):
    given = {"bias": None, **dict(zip(_CONVOLUTION, args, strict=False)), **kwargs}
    x, weight = given["input"], given["weight"]
    settings = [given.get("stride", 1), given.get("padding", 0), given.get("dilation", 1)]
    if given.get("groups", 1) != 1 or "same" in settings or "valid" in settings or x.ndim != weight.ndim:
        return None
    steps = [[value] * (x.ndim - 2) if isinstance(value, int) else list(value) for value in settings]
    return Convolution(x, weight, *steps), (x, weight, given["bias"])


def _group_norm(args, kwargs, active):
    given = {"weight": None, "bias": None, "eps": 1e-5, **dict(zip(_GROUP_NORM, args, strict=False)), **kwargs}
    x, weight = given["input"], given["weight"]
    if x.ndim < 3 or any(leaf is weight or leaf is given["bias"] for leaf in active):
        return None
    return GroupNorm(x, given["num_groups"], weight, given["eps"]), (x,)


def _concatenation(tensors, dim=0, **_):
    same = all(x.ndim == tensors[0].ndim >= 2 for x in tensors)
    return (Concatenation(tensors), tuple(tensors)) if same and dim % tensors[0].ndim == 1 else None


def _crop(x, index):
    index = index if isinstance(index, tuple) else (index,)
    basic = all(part is Ellipsis or isinstance(part, slice) for part in index)
    return (Crop(index, x.shape), (x,)) if basic and x.ndim > 2 else None


def _agrees(tape: Tape, function: Callable[..., Tensor], leaves: Sequence[Tensor], out: Tensor) -> bool:
    probe = torch.arange(out.numel(), device=out.device, dtype=out.dtype).mul(0.7).cos().reshape(out.shape)
    truth = pull_back(function, leaves, probe)
    mine = tape.vjp(probe[None])
    gaps = [(t if m is None else t - m[0]).norm() <= 1e-2 * t.norm() for t, m in zip(truth, mine, strict=True)]
    return all(gaps)


def _same(x: Tensor, y: Tensor) -> bool:
    return (x.shape, x.stride(), x.data_ptr()) == (y.shape, y.stride(), y.data_ptr())


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
