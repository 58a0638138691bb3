"""A network of one's own for the deep image prior, called as ours is."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from ctuq.errors import InputError

_JITTER = 0.1


class OwnNetwork(nn.Module):
    """A copy of a module ``(1, 1, y, x) -> (1, 1, y, x)``, in evaluation mode; its weights at the start are those it came with.

    Parameters
    ----------
    module : nn.Module
        Without random or batch-dependent layers.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = deepcopy(module).eval().requires_grad_(True)

    def forward(self, x: Tensor, sparing: bool = False) -> Tensor:
        """The image; ``sparing`` is of no use here."""
        return self.module(x)


def own_network(module: nn.Module, inputs: Tensor) -> OwnNetwork:
    """The module on the device of its inputs (1, 1, y, x), tried once.

    Raises
    ------
    InputError
        If it has no weights, or its output is no image of the same size.
    """
    network = OwnNetwork(module).to(inputs.device)
    if not any(True for _ in network.parameters()):
        raise InputError("The network has no weights to fit; give a module with parameters.")
    try:
        with torch.no_grad():
            shape = tuple(network(inputs).shape)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"The network cannot take an input of shape {tuple(inputs.shape)} ({error}).") from error
    if shape != tuple(inputs.shape):
        raise InputError(
            f"The network makes {shape} of an input {tuple(inputs.shape)}; it must make an image of the same size."
        )
    return network


def own_weights(network: OwnNetwork, count: int, *, rng: torch.Generator | None = None) -> dict[str, Tensor]:
    """Its weights ``(count, ...)``, where a fit begins; with random numbers each off by a tenth of the weights' own size."""
    weights = {}
    for name, value in network.named_parameters():
        stacked = value.detach().expand(count, *value.shape).clone()
        if rng is not None:
            size = value.detach().square().mean().sqrt()
            stacked += _JITTER * size * torch.randn(stacked.shape, generator=rng).to(stacked)
        weights[name] = stacked
    return weights
