"""A U-Net for the Deep Image Prior, in two or three dimensions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class UNetOptions:
    """Layout of the network.

    Parameters
    ----------
    channels : tuple of int
        Feature channels of each scale, from the finest.
    skips : tuple of int
        Channels of the skip connection at each scale but the coarsest; 0 leaves it out.
    groups : int
        Groups of the group normalisation; 0 leaves it out. Without it the fit needs about half the iterations, and one prior
        variance for all weights has a meaning.
    activation : str
        Of the output: "leaky", "softplus", "sigmoid", "relu" or "none". The default is a sharp softplus with a small slope:
        nowhere without a gradient, neither in the object nor where there is nothing, so that a fit can always go on and its
        tangent model is never sure of a plateau.
    dims : int
        2 for images, 3 for volumes.
    """

    channels: tuple[int, ...] = (32, 32, 32)
    skips: tuple[int, ...] = (0, 4)
    groups: int = 0
    activation: str = "leaky"
    dims: int = 2


_SHARP, _LEAK = 6.0, 0.01
# What a coarser scale divides z, y and x by. Slices are never merged: two would be one, and each slice of a volume can go the
# way that the network of images has learnt (`ctuq.recon.educated`). A step takes a sixth more time for it.
_HALVED = {2: (2, 2), 3: (1, 2, 2)}


class _LeakySoftplus(nn.Module):
    """``leak z + (1 - leak) softplus(z)`` of a sharp softplus, 1 at about 1; its slope is between ``leak`` and 1."""

    def forward(self, z: Tensor) -> Tensor:
        return _LEAK * z + (1 - _LEAK) * nn.functional.softplus(z, _SHARP)


_ACTIVATIONS = {
    "leaky": _LeakySoftplus,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "none": nn.Identity,
}


def inverse_activation(name: str, value: float) -> float:
    """What an output activation maps to ``value``, between 0 and 1."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        below = float(_ACTIVATIONS[name]()(torch.tensor(middle, dtype=torch.float64))) < value
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


class UNet(nn.Module):
    """``(batch, 1, *shape) -> (batch, 1, *shape)``; sizes that do not halve evenly are cropped after upsampling.

    Of volumes only y and x are halved.
    """

    def __init__(self, options: UNetOptions, rng: torch.Generator):
        super().__init__()
        widths, skips = options.channels, options.skips
        inputs, one, self._step = (1, *widths), (1,) * options.dims, _HALVED[options.dims]
        self.down = nn.ModuleList(
            _block(inputs[i], widths[i], options, stride=self._step if i else one) for i in range(len(widths))
        )
        self.skip = nn.ModuleDict({str(i): _conv(widths[i], s, 1, options) for i, s in enumerate(skips) if s})
        self.up = nn.ModuleList(_block(widths[i + 1] + skips[i], widths[i], options, one) for i in range(len(widths) - 1))
        self.out = _conv(widths[0], 1, 1, options)
        self.activation = _ACTIVATIONS[options.activation]()
        self._upsample = "bilinear" if options.dims == 2 else "trilinear"
        self._initialise(rng)

    def forward(self, x: Tensor, sparing: bool = False) -> Tensor:
        """The images; ``sparing`` keeps no activations inside of a block for the gradient, which makes them anew."""
        through = _made_anew if sparing else nn.Module.__call__
        features = []
        for block in self.down:
            x = through(block, x)
            features.append(x)
        for i in reversed(range(len(self.up))):
            fine = features[i]
            x = nn.functional.interpolate(x, scale_factor=self._step, mode=self._upsample, align_corners=False)
            x = x[(..., *(slice(n) for n in fine.shape[2:]))]
            if str(i) in self.skip:
                x = torch.cat([x, self.skip[str(i)](fine)], dim=1)
            x = through(self.up[i], x)
        return self.activation(self.out(x))

    def _initialise(self, rng: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, a=0.2, nonlinearity="leaky_relu", generator=rng)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # A small last layer starts the image flat, where no activation saturates.
        with torch.no_grad():
            self.out.weight.mul_(0.1)


def _made_anew(block: nn.Module, x: Tensor) -> Tensor:
    # With the weights as arguments: when the gradient runs the block again, `functional_call` of the network is over.
    weights = dict(block.named_parameters())
    return checkpoint(functional_call, block, weights, (x,), use_reentrant=False, preserve_rng_state=False)


def _conv(
    inputs: int, outputs: int, kernel: int, options: UNetOptions, stride: int | tuple[int, ...] = 1
) -> nn.Conv2d | nn.Conv3d:
    conv = nn.Conv2d if options.dims == 2 else nn.Conv3d
    return conv(inputs, outputs, kernel, stride=stride, padding=kernel // 2)  # pyright: ignore[reportArgumentType]


def _block(inputs: int, outputs: int, options: UNetOptions, stride: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n, step in ((inputs, stride), (outputs, 1)):
        layers.append(_conv(n, outputs, 3, options, step))
        if options.groups:
            layers.append(nn.GroupNorm(options.groups, outputs))
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers)
