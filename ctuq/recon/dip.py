"""The Deep Image Prior: a U-Net with a fixed input, fitted to one scan, stopped by rays that it never sees."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ctuq.errors import CtuqError, InputError
from ctuq.recon.fbp import fbp
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo.rays.transform import RayTransform

_HEADROOM = 1.4
# Measured: from 1e-2 on, the first images of a fine grid, whose misfit is no noise yet, are kept flat for good.
_MOST_VARIATION = 5e-3
_JUDGED_FROM = 100
_ATTEMPTS, _LEAP, _STEADY = 6, 10.0, 2.0


@dataclass(frozen=True)
class DIPOptions:
    """How to fit.

    Parameters
    ----------
    network : UNetOptions
    iterations : int
        Most Adam iterations; the learning rate falls to 1 % of its peak over them along a cosine.
    learning_rate : float
        Peak; halved at each restart after a divergence.
    total_variation : float
        Weight of the mean absolute difference of neighbouring pixels, in units of the image's scale, against the logarithm of
        the misfit, for as many rays as pixels; with fewer rays in proportion more. The misfit itself thus stands for the noise
        (its profile likelihood), and one weight serves clean and noisy scans.
    average : float
        Decay of the running average of the weights; the average is what is kept.
    check_every : int
        Iterations between looks at the held-out rays.
    patience : float
        Share of the iterations without a better held-out misfit after which the fit stops.
    noise_input : bool
        Random input in place of the filtered back-projection.
    """

    network: UNetOptions = field(default_factory=UNetOptions)
    iterations: int = 1500
    learning_rate: float = 1e-2
    total_variation: float = 5.0
    average: float = 0.99
    check_every: int = 25
    patience: float = 0.35
    noise_input: bool = False


@dataclass(frozen=True, eq=False)
class Data:
    """Views for the fit or for stopping it: the ray transform, sinograms ``(batch, angle, column)`` and ray weights."""

    A: RayTransform
    y: Tensor
    weights: Tensor

    def misfit(self, x: Tensor) -> Tensor:
        """Weighted mean squared residual of images ``(batch, y, x)``, one for each."""
        residual = self.weights * (self.A(x) - self.y).square()
        return residual.mean((-2, -1)) / self.weights.mean()


@dataclass(frozen=True, eq=False)
class DIPState:
    """Where a fit stands; tensors only, so that it can be written to a checkpoint and taken up again.

    Parameters
    ----------
    iteration : int
    parameters, average, best, first, second : dict of str to Tensor
        Stacked weights ``(batch, ...)``: of the iterate, its running average, the best average so far, Adam's moments.
    best_misfit, best_iteration : Tensor, shape (batch,)
        Held-out misfit of ``best``, and when it was found.
    history : Tensor, shape (checks, 1 + 2 * batch)
        Iteration, fit misfit and held-out misfit of the average at each check.
    """

    iteration: int
    parameters: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    best_misfit: Tensor
    best_iteration: Tensor
    history: Tensor


@dataclass(frozen=True, eq=False)
class Generator:
    """The function from weights to image: ``scale * network(input)``.

    Parameters
    ----------
    network : UNet
        Layout only; weights are passed in.
    inputs : Tensor, shape (batch, 1, 1, y, x)
    scale : Tensor, shape (batch,)
        Attenuation of output 1, in 1/mm.
    """

    network: UNet
    inputs: Tensor
    scale: Tensor

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        """Images ``(batch, y, x)`` of stacked weights."""
        if len(self.scale) == 1:
            single = {name: value[0] for name, value in parameters.items()}
            return self.scale[0] * functional_call(self.network, single, (self.inputs[0],))[0]
        images = vmap(lambda p, z: functional_call(self.network, p, (z,))[0, 0])(parameters, self.inputs)
        return self.scale[:, None, None] * images

    def module(self, parameters: dict[str, Tensor], which: int = 0) -> tuple[UNet, Tensor]:
        """The network of one image with these weights, and its input, ready to be linearised (without ``scale``)."""
        self.network.load_state_dict({name: value[which] for name, value in parameters.items()})
        return self.network, self.inputs[which]


def generator(fit: Data, options: DIPOptions, *, rng: torch.Generator) -> tuple[Generator, dict[str, Tensor]]:
    """The generator for these data, and its starting weights.

    The scale is 1.4 times the attenuation that 99.5 % of the pixels of a smooth filtered back-projection stay below: nearer
    to 1 a sigmoid saturates inside the object, and its tangent model is sure of a plateau that is wrong. The output starts
    flat at the image's mean.
    """
    with torch.no_grad():
        image = fbp(fit.A, fit.y, window="hann").clamp(min=0)
    flat = image.flatten(1)
    scale = _HEADROOM * torch.quantile(flat, 0.995, dim=1)
    if not bool((scale > 0).all()):
        raise InputError(
            "The filtered back-projection is zero: the projections show no object inside the image; check units and geometry."
        )
    inputs = (image / scale[:, None, None])[:, None, None]
    if options.noise_input:
        inputs = torch.randn(inputs.shape, generator=rng, device=rng.device).to(inputs)
    networks = [UNet(options.network, rng).to(fit.y.device) for _ in scale]
    for network, value in zip(networks, flat.mean(1) / scale, strict=True):
        if options.network.activation == "sigmoid" and network.out.bias is not None:
            nn.init.constant_(network.out.bias, float(torch.logit(value.clamp(0.02, 0.9))))
    parameters, _ = stack_module_state(networks)
    return Generator(networks[0], inputs, scale), {name: value.detach().clone() for name, value in parameters.items()}


def dip(
    generate: Generator,
    start: dict[str, Tensor],
    fit: Data,
    held_out: Data,
    options: DIPOptions,
    *,
    resume: DIPState | None = None,
) -> Iterator[DIPState]:
    """Fit the network; yields the state at every look at the held-out rays, the last one when it stops.

    The rule: keep the averaged weights whose misfit on the held-out rays is smallest, and stop when it has not improved for
    ``patience * iterations``. Held-out rays see over-fitting directly; a ground truth is never used. A fit that is no better
    than a quarter of nothing after 100 iterations (a dead network), or whose misfit leaps to ten times its smallest, goes back
    to its last steady state, or to the start, with half the learning rate.

    Parameters
    ----------
    generate, start
        From `generator`.
    fit, held_out : Data
        Rays that are fitted, and rays that only stop the fit.
    options : DIPOptions
    resume : DIPState, optional
        Continue from here.

    Yields
    ------
    DIPState

    Raises
    ------
    CtuqError
        If the fit diverges six times.
    """
    rate, good = options.learning_rate, resume
    for _ in range(_ATTEMPTS):
        diverged = False
        for state in _descend(generate, start, fit, held_out, options=options, rate=rate, resume=good):
            diverged = _diverged(state, fit)
            if diverged:
                break
            if state.iteration >= _JUDGED_FROM and _leap(state, fit) < _STEADY:
                good = state
            yield state
        if not diverged:
            return
        rate /= 2
    raise CtuqError(
        f"The network's fit diverged {_ATTEMPTS} times; give a smaller learning rate, and check the projections for outliers."
    )


def _diverged(state: DIPState, fit: Data) -> bool:
    latest = state.history[-1, 1 : 1 + len(fit.y)]
    nothing = (fit.weights * fit.y.square()).mean((-2, -1)) / fit.weights.mean()
    dead = not bool((latest < 0.25 * nothing).all())
    return state.iteration >= _JUDGED_FROM and (dead or _leap(state, fit) > _LEAP)


def _leap(state: DIPState, fit: Data) -> float:
    """The latest misfit over the smallest one so far, the worst over the images."""
    misfits = state.history[:, 1 : 1 + len(fit.y)]
    return float((misfits[-1] / misfits.amin(0).clamp(min=1e-30)).max())


def _descend(
    generate: Generator,
    start: dict[str, Tensor],
    fit: Data,
    held_out: Data,
    *,
    options: DIPOptions,
    rate: float,
    resume: DIPState | None,
) -> Iterator[DIPState]:
    state = resume or _fresh(start, fit)
    parameters = {name: value.clone().requires_grad_(True) for name, value in state.parameters.items()}
    average = {name: value.clone() for name, value in state.average.items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=rate, betas=(0.9, 0.99))
    _restore(optimiser, parameters, state)
    size = (fit.weights * fit.y.square()).mean((-2, -1)) / fit.weights.mean()
    weight = options.total_variation * fit.A.domain.size / fit.A.range.size
    for iteration in range(state.iteration + 1, options.iterations + 1):
        optimiser.param_groups[0]["lr"] = rate * _schedule(iteration, options.iterations)
        optimiser.zero_grad()
        x = generate(parameters)
        misfit = fit.misfit(x) / size
        strength = (weight * misfit.detach()).clamp(max=_MOST_VARIATION)
        loss = misfit + strength * _variation(x) / generate.scale
        loss.sum().backward()
        optimiser.step()
        decay = min(options.average, iteration / (iteration + 10))
        with torch.no_grad():
            for name, value in parameters.items():
                average[name].lerp_(value, 1 - decay)
        if iteration % options.check_every == 0 or iteration == options.iterations:
            with torch.no_grad():
                x = generate(average)
                misfits = fit.misfit(x), held_out.misfit(x)
            moments = [optimiser.state[value] for value in parameters.values()]
            state = _look(iteration, state, parameters, average, moments=moments, misfits=misfits)
            yield state
            if iteration - int(state.best_iteration.max()) > options.patience * options.iterations:
                return


def _look(
    iteration: int,
    state: DIPState,
    parameters: dict[str, Tensor],
    average: dict[str, Tensor],
    *,
    moments: list[dict[str, Tensor]],
    misfits: tuple[Tensor, Tensor],
) -> DIPState:
    fitted, unseen = misfits
    better = unseen < state.best_misfit
    best = {}
    for name, value in average.items():
        pick = better.reshape(-1, *[1] * (value.ndim - 1))
        best[name] = torch.where(pick, value, state.best[name])
    row = torch.cat([torch.tensor([float(iteration)], device=fitted.device), fitted, unseen]).cpu()
    return DIPState(
        iteration=iteration,
        parameters={name: value.detach().clone() for name, value in parameters.items()},
        average={name: value.clone() for name, value in average.items()},
        best=best,
        first={name: m["exp_avg"].clone() for name, m in zip(parameters, moments, strict=True)},
        second={name: m["exp_avg_sq"].clone() for name, m in zip(parameters, moments, strict=True)},
        best_misfit=torch.where(better, unseen, state.best_misfit),
        best_iteration=torch.where(better, iteration, state.best_iteration),
        history=torch.cat([state.history, row[None]]),
    )


def _fresh(start: dict[str, Tensor], fit: Data) -> DIPState:
    zeros = {name: torch.zeros_like(value) for name, value in start.items()}
    infinite = torch.full((len(fit.y),), torch.inf, device=fit.y.device)
    none = torch.zeros(len(fit.y), dtype=torch.int64, device=fit.y.device)
    return DIPState(0, start, start, start, zeros, zeros, infinite, none, torch.zeros(0, 1 + 2 * len(fit.y)))


def _restore(optimiser: torch.optim.Adam, parameters: dict[str, Tensor], state: DIPState) -> None:
    for name, value in parameters.items():
        optimiser.state[value] = {
            "step": torch.tensor(float(state.iteration)),
            "exp_avg": state.first[name].clone(),
            "exp_avg_sq": state.second[name].clone(),
        }


def _schedule(iteration: int, iterations: int) -> float:
    warm = min(1.0, iteration / 50)
    return warm * max(0.01, 0.5 * (1 + math.cos(math.pi * iteration / iterations)))


def _variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring voxels along every spatial axis, one value for each image."""
    means = [x.diff(dim=axis).abs().flatten(1).mean(1) for axis in range(1, x.ndim)]
    return torch.stack(means).sum(0)
