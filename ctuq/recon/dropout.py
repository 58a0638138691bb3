"""Monte Carlo dropout of a Deep Image Prior: channels left out at random, in the fit and in the draws after it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ctuq.errors import InputError

__all__ = ["dropped"]


@contextmanager
def dropped(network: nn.Module, rate: float, *, rng: torch.Generator) -> Iterator[None]:
    """Within it, channels after every 3 x 3 convolution of a network are left out at random where a gradient could be taken.

    What runs without gradients, such as the looks at held-out rays, is the network as it is (Srivastava et al. 2014). Masks
    come from ``rng``, where torch's own dropout draws from the one generator of the process.

    Parameters
    ----------
    network : nn.Module
        Of one image at a time.
    rate : float
        Share of the channels that are left out; what stays is multiplied by ``1 / (1 - rate)``.
    rng : torch.Generator

    Raises
    ------
    InputError
        If the network has no such convolution.
    """

    def masked(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        kept = torch.rand(out.shape[:2], generator=rng, device=rng.device).to(out) >= rate
        return out * (kept / (1 - rate)).reshape(*out.shape[:2], *[1] * (out.ndim - 2))

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    if not layers:
        raise InputError("The network has no 3 x 3 convolution to leave channels out of; take other error bars than dropout.")
    hooks = [layer.register_forward_hook(masked) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
