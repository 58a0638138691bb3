"""Which kernels torch takes while a network is linearised: those that can be differentiated twice."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def twice_differentiable(module: nn.Module | None = None) -> Iterator[None]:
    """Attention and recurrent layers by plain products, dense gradients of embeddings, activations out of place.

    A Jacobian is pushed forward by the transpose of its pull-back, which the fused kernels of attention (all backends) and of
    recurrent layers (oneDNN, cuDNN) do not have; a record of calls cannot follow values that change in place.

    Parameters
    ----------
    module : nn.Module, optional
        Whose layers are set so meanwhile.
    """
    with ExitStack() as kernels:
        kernels.enter_context(sdpa_kernel(SDPBackend.MATH))
        if module is not None:
            layers = list(module.modules())
            kernels.enter_context(_changed(layers, "inplace"))
            kernels.enter_context(_changed(layers, "sparse"))
            if any(isinstance(layer, nn.MultiheadAttention | nn.TransformerEncoderLayer) for layer in layers):
                kernels.enter_context(_no_fast_path())
            if any(isinstance(layer, nn.RNNBase) for layer in layers):
                kernels.enter_context(_without(torch.backends.mkldnn))
                kernels.enter_context(_without(torch.backends.cudnn))
        yield


def without_fused_kernels(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function by kernels that can be differentiated twice."""

    def run(*args: Any) -> Any:
        with twice_differentiable():
            return function(*args)

    return run


@contextmanager
def _changed(layers: list[nn.Module], switch: str) -> Iterator[None]:
    """A switch of all layers that have it is off meanwhile."""
    changed = [layer for layer in layers if getattr(layer, switch, False) is True]
    for layer in changed:
        setattr(layer, switch, False)
    try:
        yield
    finally:
        for layer in changed:
            setattr(layer, switch, True)


@contextmanager
def _without(backend: Any) -> Iterator[None]:
    before, backend.enabled = backend.enabled, False
    try:
        yield
    finally:
        backend.enabled = before


@contextmanager
def _no_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
