"""Where a Deep Image Prior starts: the scale and the input from the scan, the weights at random or trained beforehand."""

import logging
import math
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ctuq.errors import InputError
from ctuq.linops.operator import Space
from ctuq.recon.educated import educated_weights
from ctuq.recon.fbp import fbp
from ctuq.recon.fdk import fdk, is_circle
from ctuq.recon.iterative import sirt
from ctuq.recon.own import OwnNetwork, own_network, own_weights
from ctuq.recon.unet import UNet, UNetOptions, inverse_activation
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform

_HEADROOM, _STEPS = 1.5, 15
# Where there is no filtered back-projection to begin with (free vectors, an axis that leans).
_FROM_NOTHING = 60
_USUAL = 550
_EDUCATED, _RANDOM = (1500, 8e-3), (1500, 1e-2)
# Measured at 24^3: a rate of 1e-2 kills the network of a volume.
_VOLUME = (1500, 4e-3)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DIPOptions:
    """How to fit.

    Parameters
    ----------
    network : UNetOptions
    start : str
        "educated" takes the default network's shipped weights, trained on simulated scans; "random" draws them. Another
        network, or noise for an input, always starts at random.
    iterations : int, optional
        Adam iterations; the learning rate falls to 1 % of its peak over them along a cosine. By default 1500 from a random
        start; from an educated one the rate stays up until 100 iterations have improved the held-out misfit by less than a
        twentieth, falls over the next 150, and the fit ends: after 300 iterations at the earliest and 1500 at the latest.
    learning_rate : float, optional
        Peak; halved at each restart after a divergence. By default 0.008 from an educated start and 0.01 from a random one;
        0.004 of volumes.
    total_variation : float
        Weight of the mean absolute difference of neighbouring pixels, in units of the image's scale, against the logarithm of
        the misfit, for as many rays as pixels; with fewer rays in proportion more. The misfit itself thus stands for the noise
        (its profile likelihood), and one weight serves clean and noisy scans.
    by_noise : bool, optional
        Whether that is so for a misfit up to the noise that the projections show, or only up to a small limit. By default a
        noisy scan is fitted both ways, and held-out rays choose; a fit of another start, or of a given number of iterations,
        is made the second way.
    average : float
        Decay of the running average of the weights; the average is what is kept.
    check_every : int
        Iterations between looks at the held-out rays.
    patience : float
        Share of the iterations without a better held-out misfit after which the fit stops.
    module : nn.Module, optional
        A network of one's own in place of ``network``, see `ctuq.recon.own`: of slices only. Its fit begins at its own weights.
    """

    network: UNetOptions = field(default_factory=UNetOptions)
    start: Literal["educated", "random"] = "educated"
    iterations: int | None = None
    learning_rate: float | None = None
    total_variation: float = 5.0
    by_noise: bool | None = None
    average: float = 0.99
    check_every: int = 25
    patience: float = 0.35
    module: nn.Module | None = None

    def __post_init__(self):
        if self.start not in ("educated", "random"):
            raise InputError(f"There is no start {self.start!r}; choose 'educated' or 'random'.")
        for name in ("iterations", "check_every"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, Integral) or number < 1):
                raise InputError(f"The fit's {name} must be a whole number of 1 or more, got {number}.")
        for name, fits in (
            ("learning_rate", self.learning_rate is None or 0 < self.learning_rate < math.inf),
            ("total_variation", 0 <= self.total_variation < math.inf),
            ("average", 0 <= self.average < 1),
            ("patience", self.patience > 0),
        ):
            if not fits:
                raise InputError(f"The fit's {name} cannot be {getattr(self, name)}; leave it out for the default.")

    @property
    def educated(self) -> bool:
        """Whether the fit starts from the shipped weights."""
        return self.module is None and self.start == "educated" and self.network == UNetOptions(dims=self.network.dims)

    @property
    def length(self) -> int:
        """Most iterations."""
        return self._default[0] if self.iterations is None else self.iterations

    @property
    def expected(self) -> int:
        """Iterations that a plan counts with: 475 to 575 were measured on the shipped scans where the fit decides itself."""
        return _USUAL if self.patient else self.length

    @property
    def rate(self) -> float:
        """Peak learning rate."""
        return self._default[1] if self.learning_rate is None else self.learning_rate

    @property
    def patient(self) -> bool:
        """Whether the rate stays up for as long as it helps."""
        return self.educated and self.iterations is None

    @property
    def _default(self) -> tuple[int, float]:
        if self.network.dims == 3:
            return _VOLUME
        return _EDUCATED if self.educated else _RANDOM


@dataclass(frozen=True, eq=False)
class Data:
    """Views for the fit or for stopping it.

    Parameters
    ----------
    A : RayTransform or VolumeTransform
    y, weights : Tensor, shape (batch, angle, column) or (batch, row, angle, column)
        Line integrals, and relative precisions of the rays.
    own : tuple of Tensor, shape (angle, column)
        What errors that are each view's own do to its rays: as much of them as is there counts for no misfit.
    beside : float
        Misfit of these rays by an image of another method, to which a fit should come near before it slows down.
    """

    A: RayTransform | VolumeTransform
    y: Tensor
    weights: Tensor
    own: tuple[Tensor, ...] = ()
    beside: float = math.inf

    def misfit(self, x: Tensor) -> Tensor:
        """Weighted mean squared residual of images ``(batch, y, x)`` or ``(batch, z, y, x)``, one for each."""
        return (self.weights * self.residual(x).square()).mean(_axes(self.A.range)) / self.weights.mean()

    def residual(self, x: Tensor) -> Tensor:
        """Rays of images less those measured, without what each view's own errors can make of it."""
        residual = self.A(x) - self.y
        for effect in self.own:
            size = (self.weights * effect.square()).sum(-1, keepdim=True).clamp(min=torch.finfo(effect.dtype).tiny)
            residual = residual - effect * (self.weights * effect * residual).sum(-1, keepdim=True) / size
        return residual

    @property
    def size(self) -> Tensor:
        """The misfit of an empty image, one for each."""
        return (self.weights * self.y.square()).mean(_axes(self.A.range)) / self.weights.mean()


@dataclass(frozen=True, eq=False)
class Generator:
    """The function from weights to image: ``scale * network(input)``.

    Parameters
    ----------
    network : UNet or OwnNetwork
        Layout only; weights are passed in.
    inputs : Tensor, shape (batch, 1, 1, y, x) or (batch, 1, 1, z, y, x)
    scale : Tensor, shape (batch,)
        Attenuation of output 1, in 1/mm.
    sparing : bool
        Whether a single image's activations are made twice rather than kept: less memory, more time, the same numbers.
    """

    network: UNet | OwnNetwork
    inputs: Tensor
    scale: Tensor
    sparing: bool = False

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        """Images ``(batch, y, x)`` or ``(batch, z, y, x)`` of stacked weights."""
        if len(self.scale) == 1:
            single = {name: value[0] for name, value in parameters.items()}
            return self.scale[0] * functional_call(self.network, single, (self.inputs[0], self.sparing))[0]
        images = vmap(lambda p, z: functional_call(self.network, p, (z,))[0, 0])(parameters, self.inputs)
        return _spread(self.scale, images) * images

    def module(self, parameters: dict[str, Tensor]) -> tuple[UNet | OwnNetwork, Tensor]:
        """The network of the first image with these weights, and its input, ready to be linearised (without ``scale``)."""
        self.network.load_state_dict({name: value[0] for name, value in parameters.items()})
        return self.network, self.inputs[0]


def generator(fit: Data, options: DIPOptions, *, rng: torch.Generator) -> tuple[Generator, dict[str, Tensor]]:
    """The generator for these data, and its starting weights.

    Raises
    ------
    InputError
        If the projections show nothing inside the image.
    """
    inputs, scale = first_image(fit.A, fit.y, fit.weights)
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise InputError(
            "The projections show no object inside the image: nothing of them is positive there; check units and geometry."
        )
    inputs = inputs[:, None, None]
    if options.module is not None:
        own = own_network(options.module, inputs[0])
        return Generator(own, inputs, scale), own_weights(own, len(scale))
    generate = Generator(UNet(options.network, rng).to(fit.y.device), inputs, scale)
    if options.educated:
        weights = educated_weights(options.network.dims)
        if weights is not None:
            device = fit.y.device
            return generate, {k: v.to(device).expand(len(scale), *v.shape).contiguous() for k, v in weights.items()}
    elif options.start == "educated":
        _log.info("The fit starts at random: the educated start has weights for the default network and input only.")
    return generate, random_weights(generate, fit, options.network, rng=rng)


def random_weights(
    generate: Generator, fit: Data, options: UNetOptions, *, rng: torch.Generator, level: float = 1.0
) -> dict[str, Tensor]:
    """Weights ``(batch, ...)`` drawn at random, whose image is nearly flat: ``level`` times the flat image that fits best."""
    if isinstance(generate.network, OwnNetwork):
        return own_weights(generate.network, len(generate.scale), rng=rng)
    levels = level * _mean_attenuation(fit) / generate.scale
    networks = [UNet(options, rng).to(fit.y.device) for _ in levels]
    for network, value in zip(networks, levels, strict=True):
        if network.out.bias is not None:
            nn.init.constant_(network.out.bias, inverse_activation(options.activation, float(value.clamp(0.02, 0.9))))
    parameters, _ = stack_module_state(networks)
    return {name: value.detach().clone() for name, value in parameters.items()}


@torch.no_grad()
def _mean_attenuation(fit: Data) -> Tensor:
    """The flat image that fits best, one value for each image."""
    flat = fit.A(torch.ones(fit.A.domain.shape, device=fit.y.device))
    axes = _axes(fit.A.range)
    return (fit.weights * flat * fit.y).sum(axes) / (fit.weights * flat.square()).sum(axes).clamp(min=1e-30)


@torch.no_grad()
def first_image(A: RayTransform | VolumeTransform, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The network's input, about 1 in the object, and what its 1 stands for in 1/mm, ``(batch,)``.

    The image, ``(batch, y, x)`` or ``(batch, z, y, x)``, is a smooth filtered back-projection (FDK of volumes), multiplied by
    what lets it fit the projections best and improved by a few non-negative steps of SIRT: a missing wedge halves a filtered
    back-projection (a quarter is left of an arc of 30 degrees), and takes a third of this image at most. Where a volume has
    none, more steps of SIRT make it. The scale is 1.5 times the mean of its pixels weighted by themselves, so that neither
    empty surroundings nor a small dense part decide it; it is 0 where the projections show nothing.
    """
    rays, pixels = _axes(A.range), _axes(A.domain)
    image = _filtered(A, y)
    steps = _FROM_NOTHING if image is None else _STEPS
    if image is not None:
        shown = A(image)
        size = (weights * shown.square()).sum(rays)
        gain = (weights * shown * y).sum(rays).clamp(min=0) / torch.where(size > 0, size, 1)
        image = _spread(gain, image) * image
    image = sirt(A, y, weights=weights, iterations=steps, start=image)
    largest = image.amax(pixels, keepdim=True)
    image = image / torch.where(largest > 0, largest, 1)
    total = image.sum(pixels)
    unit = _HEADROOM * image.square().sum(pixels) / torch.where(total > 0, total, 1)
    return image / _spread(torch.where(unit > 0, unit, 1), image), unit * largest.flatten()


def _filtered(A: RayTransform | VolumeTransform, y: Tensor) -> Tensor | None:
    """A smooth filtered back-projection without negative values; None where the geometry has none."""
    if len(A.domain.shape) == 2:
        return fbp(A, y, window="hann").clamp(min=0)  # pyright: ignore[reportArgumentType]
    return fdk(A, y, window="hann").clamp(min=0) if is_circle(A.geometry) else None  # pyright: ignore[reportArgumentType]


def _axes(space: Space) -> tuple[int, ...]:
    """The axes of one image, or of one image's rays, counted from the last."""
    return tuple(range(-len(space.shape), 0))


def _spread(numbers: Tensor, images: Tensor) -> Tensor:
    """Numbers ``(batch,)`` with the axes of images ``(batch, ...)``."""
    return numbers.reshape(-1, *[1] * (images.ndim - 1))
