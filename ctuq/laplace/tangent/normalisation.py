"""Weights before a normalisation layer: their scale means nothing, so no prior precision may be shared with others.

``f(k theta_0, theta_1) = f(theta_0, theta_1)`` for weights theta_0 that a normalisation follows, while their features shrink by
k: one precision shared with theta_1 regularises theta_0 by an arbitrary amount.
"""

import warnings
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from ctuq.errors import InputError
from ctuq.laplace.priors.blocks import HasBlocks
from ctuq.laplace.priors.diagonal import DiagonalPrior, Prior
from ctuq.linops.jacobian.network import Frozen

_LAYERS = frozenset(["linear", "matmul", "__matmul__", "mm", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))])
_NORMS = frozenset(["batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm"])
# Functions with g(k x) = k g(x) for k > 0: a normalisation after them still undoes the scale.
_ACTIVATIONS = ["relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "dropout", "neg", "contiguous", "pad", "clone"]
_SHAPES = ["reshape", "view", "flatten", "unflatten", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "__getitem__"]
_POOLS = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)]
_HOMOGENEOUS = frozenset([*_ACTIVATIONS, *_SHAPES, *_POOLS, "interpolate"])


class HasScaleFree(HasBlocks, Protocol):
    """A linear model that knows which of its weights stand before a normalisation."""

    @property
    def scale_free(self) -> tuple[str, ...]:
        """Names of their parameters."""
        ...


def before_normalisation(network: Frozen, datum: Tensor) -> tuple[str, ...]:
    """Names of the chosen weights that are normalised themselves, or whose output goes into a normalisation.

    Functions that keep a common factor, such as ReLU, pooling and reshaping, may stand between. The network runs once, and the
    calls are followed by the identity of their tensors, so that it does not matter how the layers are written.

    Parameters
    ----------
    network : Frozen
    datum : Tensor, shape (1, *input)

    Returns
    -------
    tuple of str
    """
    leaves = network.leaves()
    names = {id(leaf): block.name for leaf, block in zip(leaves, network.blocks, strict=True)}
    trace = _Trace(names)
    with torch.no_grad(), trace:
        network(datum, *leaves)
    return tuple(b.name for b in network.blocks if b.name in trace.found or _is_normalised(network.module, b.name))


def _is_normalised(module: nn.Module, name: str) -> bool:
    """Whether a parameter is what weight or spectral normalisation divides by its own size."""
    owner, last = module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
    if isinstance(owner, parametrize.ParametrizationList):
        kinds = [type(part).__name__ for part in owner]
        return "_SpectralNorm" in kinds or ("_WeightNorm" in kinds and last == "original1")
    return (last.endswith("_v") and hasattr(owner, f"{last[:-2]}_g")) or (
        last.endswith("_orig") and hasattr(owner, f"{last[:-5]}_u")
    )


def check_prior(model: HasScaleFree, prior: Prior) -> None:
    """That a prior covers the model's weights; a warning where a precision is shared with weights before a normalisation.

    Raises
    ------
    InputError
        If the prior is over another number of weights.
    """
    end, weights = max(s.stop for slices in prior.members for s in slices), model.blocks[-1].slice.stop
    if end != weights:
        names = [block.name for block in model.blocks if block.slice.stop > end]
        raise InputError(
            f"The prior is over {end} weights, but the model has {weights}"
            + (f": it misses {', '.join(names)}." if names else ": build it from this model.")
        )
    if isinstance(prior, DiagonalPrior) and prior.diagonal is not None:
        return
    shared = _shared_scale_free(model, prior)
    if shared:
        group, names = next(iter(shared.items()))
        some = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        warnings.warn(
            f"{group!r} is shared by {some}, which stand before a normalisation layer: "
            "their scale is arbitrary, and with it this prior; use g_prior, or a group of their own for each.",
            stacklevel=3,
        )


def _shared_scale_free(model: HasScaleFree, prior: Prior) -> Mapping[str, tuple[str, ...]]:
    """For each variance that governs weights before a normalisation together with others, the names of the former."""
    shared = {}
    for name, slices in zip(prior.names, prior.members, strict=False):
        inside = [b.name for b in model.blocks if any(s.start <= b.slice.start and b.slice.stop <= s.stop for s in slices)]
        free = tuple(n for n in inside if n in model.scale_free)
        if free and len(inside) > 1:
            shared[name] = free
    return shared


class _Trace(TorchFunctionMode):
    """Follows outputs of linear layers through homogeneous functions into normalisations."""

    def __init__(self, names: dict[int, str]):
        super().__init__()
        self._names, self.found = names, set[str]()
        self._origin: dict[int, frozenset[str]] = {}
        self._alive: list[Tensor] = []  # so that no id is used twice

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given, name = [*args, *kwargs.values()], func.__name__
        x = kwargs.get("input", args[0] if args else None)
        if name in _NORMS:
            self.found |= self._origin.get(id(x), frozenset())
        elif isinstance(out, Tensor):
            source = frozenset(self._names[id(a)] for a in given if isinstance(a, Tensor) and id(a) in self._names)
            origin = source if name in _LAYERS and source else self._origin.get(id(x)) if name in _HOMOGENEOUS else None
            if origin:
                self._origin[id(out)] = origin
                self._alive.append(out)
        return out
