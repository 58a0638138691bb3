"""Which rule each torch call is linearised by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ctuq.linops.jacobian.convolution import Convolution
from ctuq.linops.jacobian.layers import (
    Affine,
    BatchNorm,
    Concatenation,
    Crop,
    GroupNorm,
    Linear,
    Opaque,
    Pointwise,
    Rectifier,
    Reshape,
    Rule,
)

_ACTIVATIONS = ["relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid"]
_ELEMENTARY = ["logsigmoid", "tanh", "hardtanh", "exp", "log", "sqrt", "square", "abs", "neg", "sin", "cos", "dropout"]
_ARITHMETIC = ["add", "sub", "mul", "div", "__rsub__", "__rdiv__"]
_POINTWISE = frozenset([*_ACTIVATIONS, *_ELEMENTARY, *_ARITHMETIC])
_POOLING = [f"{kind}avg_pool{dims}d" for kind in ("", "adaptive_") for dims in (1, 2, 3)]
_PER_IMAGE = frozenset(["interpolate", "pixel_shuffle", *_POOLING])
_RESHAPING = frozenset(["flatten", "unflatten", "reshape", "view", "squeeze", "unsqueeze"])
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_GROUP_NORM = ("input", "num_groups", "weight", "bias", "eps")
_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
Found = tuple[Rule, Sequence[Tensor | None]] | None


@dataclass(frozen=True, eq=False)
class Call:
    """One torch call on values that depend on the leaves.

    Parameters
    ----------
    function : callable
    args, kwargs
        As it was called.
    active : list of Tensor
        Operands that depend on the leaves, each once.
    output : Tensor
    layout : callable
        ``layout(value)``: a channels-last copy, the same for all rules that keep one of the same value.
    """

    function: Callable[..., Tensor]
    args: tuple
    kwargs: dict
    active: list[Tensor]
    output: Tensor
    layout: Callable[[Tensor], Tensor]

    def named(self, names: Sequence[str], **defaults: Any) -> dict[str, Any]:
        """The arguments by name."""
        return {**defaults, **dict(zip(names, self.args, strict=False)), **self.kwargs}

    def depends(self, value: object) -> bool:
        """Whether ``value`` is one of the active operands."""
        return any(value is x for x in self.active)


def rule_of(call: Call) -> tuple[Rule, Sequence[Tensor | None]]:
    """The rule of a call and the operands that it is linearised in."""
    name = call.function.__name__
    found = _SPECIAL[name](call) if name in _SPECIAL else None
    if found is not None:
        return found
    function, only = _of_operands(call), call.active[0]
    if len(call.active) == 1 and name in _RESHAPING and call.output.numel() == only.numel():
        return Reshape(only.shape, call.output.shape), call.active
    if name in _POINTWISE and all(x.shape == call.output.shape for x in call.active):
        return Pointwise(function, call.active), call.active
    if name in _PER_IMAGE and call.output.shape[0] == only.shape[0] and call.output.ndim == only.ndim > 2:
        return Linear(function, only.shape), call.active
    return Opaque(function, call.active), call.active


def _convolution(call: Call) -> Found:
    given = call.named(_CONVOLUTION, bias=None, stride=1, padding=0, dilation=1, groups=1)
    x, weight = given["input"], given["weight"]
    settings = {name: given[name] for name in ("stride", "padding", "dilation")}
    if given["groups"] != 1 or isinstance(settings["padding"], str) or x.ndim != weight.ndim:
        return None
    steps = {name: [value] * (x.ndim - 2) if isinstance(value, int) else list(value) for name, value in settings.items()}
    primal = call.layout(x) if call.depends(weight) else x.new_empty(()).expand(x.shape)
    return Convolution(primal, weight, call.output.shape, **steps), (x, weight, given["bias"])


def _group_norm(call: Call) -> Found:
    given = call.named(_GROUP_NORM, weight=None, bias=None, eps=1e-5)
    x, weight = given["input"], given["weight"]
    if x.ndim < 3 or call.depends(weight) or call.depends(given["bias"]):
        return None
    return GroupNorm(x, given["num_groups"], weight, given["eps"]), (x,)


def _batch_norm(call: Call) -> Found:
    given = call.named(_BATCH_NORM, weight=None, bias=None, training=False, eps=1e-5)
    x, weight, mean = given["input"], given["weight"], given["running_mean"]
    if call.function is not torch.nn.functional.batch_norm or given["training"] or mean is None:
        return None
    rate = (given["running_var"] + given["eps"]).rsqrt()
    spread = (-1, *[1] * (x.ndim - 2))
    normal = call.layout((x - mean.reshape(spread)) * rate.reshape(spread)) if call.depends(weight) else None
    return BatchNorm(normal, rate if weight is None else rate * weight, x.shape), (x, weight, given["bias"])


def _rectifier(call: Call) -> Found:
    given = call.named(("input", "negative_slope"), negative_slope=0.0 if call.function.__name__ == "relu" else 0.01)
    slope = given["negative_slope"]
    if isinstance(slope, bool) or slope < 0 or call.output.ndim < 2:
        return None
    return Rectifier(call.layout(call.output), slope), call.active


def _affine(call: Call) -> Found:
    given = call.named(("input", "weight", "bias"), bias=None)
    x, weight = given["input"], given["weight"]
    return None if weight.ndim != 2 or x.ndim < 2 else (Affine(x, weight), (x, weight, given["bias"]))


def _concatenation(call: Call) -> Found:
    given = call.named(("tensors", "dim"), dim=0)
    tensors, dim = given["tensors"], given["dim"]
    same = all(x.ndim == tensors[0].ndim >= 2 for x in tensors)
    return (Concatenation(tensors), tuple(tensors)) if same and dim % tensors[0].ndim == 1 else None


def _crop(call: Call) -> Found:
    x, index = call.args
    index = index if isinstance(index, tuple) else (index,)
    basic = all(part is Ellipsis or isinstance(part, slice) for part in index)
    return (Crop(index, x.shape), (x,)) if basic and x.ndim > 2 else None


_SPECIAL: dict[str, Callable[[Call], Found]] = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    "relu": _rectifier,
    "leaky_relu": _rectifier,
    "linear": _affine,
    "cat": _concatenation,
    "__getitem__": _crop,
}


@dataclass(frozen=True)
class _Hole:
    """Where an active operand stood; rules must not keep what they do not need."""

    place: int


def _of_operands(call: Call) -> Callable[..., Tensor]:
    """The call as a function of its active operands."""
    places = {id(x): _Hole(i) for i, x in enumerate(call.active)}
    function, (args, kwargs) = call.function, replace((call.args, call.kwargs), lambda x: places.get(id(x), x))

    def of_operands(*values: Tensor) -> Tensor:
        new_args, new_kwargs = replace((args, kwargs), lambda x: values[x.place] if isinstance(x, _Hole) else x)
        return function(*new_args, **new_kwargs)

    return of_operands


def replace(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of nested lists, tuples and dicts with each tensor x in them as ``change(x)``."""
    if isinstance(tree, Tensor | _Hole):
        return change(tree)
    if isinstance(tree, dict):
        return {key: replace(value, change) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(replace(value, change) for value in tree)
    return tree
