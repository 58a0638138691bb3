"""The Deep Image Prior: a U-Net with a fixed input, fitted to one scan, stopped by rays that it never sees."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ctuq.errors import FitError
from ctuq.recon.noise import noise_std
from ctuq.recon.schedule import ended, falls, finished, looked_at, origin, own_looks, settings_of, share_of_rate
from ctuq.recon.start import Data, DIPOptions, Generator, generator, random_weights
from ctuq.recon.state import DIPState
from ctuq.recon.tv import tv

__all__ = ["DIPOptions", "DIPState", "Data", "Generator", "dip", "generator", "trial_step", "tries"]

# The misfit of first images is no noise yet: total variation by all of it keeps some objects flat for good, from 1e-2 on.
_MOST_VARIATION, _COARSE = 5e-3, 64
# Noise that lets total variation weigh so many times more is worth a fit of its own.
_WORTH = 1.2
# What a second fit's held-out misfit may be over the first's: on 12 of 15 noisy scans it is the better one on unseen rays, by
# 1 to 18 %, where held-out rays, noisy themselves, give it 0.93 to 1.017 of the first's misfit; on the others 1.04 and more.
_EVEN = 1.02
_JUDGED_FROM = 100
_NO_IMAGE = "finds nothing"
_ATTEMPTS, _LEAP, _NOTHING, _LIKE_ANOTHER, _FLAT = 6, 3.0, 0.25, 1.5, 1e-4
# Of the flat image that fits best, where a network that died is begun again.
_LEVELS = (1.0, 0.5, 2.0)
_log = logging.getLogger(__name__)


def dip(
    generate: Generator,
    start: dict[str, Tensor],
    fit: Data,
    held_out: Data,
    options: DIPOptions,
    *,
    resume: DIPState | None = None,
    due: Callable[[], bool] = lambda: False,
) -> Iterator[DIPState]:
    """Fit the network; yields the state at every look at the held-out rays, the last one when it stops.

    The rule: keep the averaged weights whose misfit on the held-out rays is smallest, and stop when it has not improved for
    ``patience`` of the iterations. Held-out rays see over-fitting directly; a ground truth is never used.

    A fit whose misfit leaps to thrice its smallest goes back to its best weights with half the learning rate. A network that
    is dead (a flat image or no gradient), or after 100 iterations no better than a quarter of nothing, than twice the noise, or
    than half as bad again as another method's image, is drawn anew at random. Both follow from the state alone: a fit that is
    resumed is the same fit.

    Where total variation was kept below what the noise allows to the end, a second fit from the same start lets it weigh by
    all the noise. The better of both is kept, the second where held-out rays see no difference: at 5 and 10 % of noise most
    simulated objects gain 0.3 to 2.9 dB by it, and a thin shell on coarse pixels loses 0.6 to 2.1, which held-out rays tell.

    Parameters
    ----------
    generate, start
        From `generator`.
    fit, held_out : Data
        Rays that are fitted, and rays that only stop the fit.
    options : DIPOptions
    resume : DIPState, optional
        Continue from here.
    due : callable, optional
        Asked after every iteration between two looks: whether the state is wanted there, too. It is looked at later.

    Yields
    ------
    DIPState

    Raises
    ------
    FitError
        If six attempts bring no image.
    """
    noise, judge = _noise(fit), _Judge(fit, held_out)
    state = resume or _fresh(start, fit, options)
    while not finished(state, options):
        if state.follows:
            state = _second(state, start)
        failure = ""
        for following, alive in _descend(generate, fit, held_out, noise, options=options, state=state, due=due):
            failure = judge.failure(following, alive)
            if failure:
                break
            state = following
            yield state
        if state.follows:
            continue
        if not failure:
            return
        worthy = judge.worthy(state, generate)
        if state.opened and worthy:
            # From its own start once more: the best weights may be the first fit's.
            if state.attempt + 1 >= _ATTEMPTS:
                return
            _log.info("The network's second fit %s at iteration %d and is begun again.", failure, state.iteration)
            state = replace(_second(state, start), attempt=state.attempt + 1, opened=state.opened)
            continue
        if state.attempt + 1 >= _ATTEMPTS:
            if worthy:
                _log.warning("The network's fit %s again and again; its best weights so far are kept.", failure)
                return
            raise FitError(
                f"The network's fit {failure} in {_ATTEMPTS} attempts; check the projections for outliers and the geometry by "
                "the image of --method tv, which comes with error bars of its own."
            )
        _log.info("The network's fit %s at iteration %d and is begun again.", failure, state.iteration)
        state = _again(state, generate, fit, worthy, options)


def tries(fit: Data, options: DIPOptions) -> int:
    """Fits that `dip` may make to choose from: 2 where the projections are so noisy that total variation may weigh more."""
    return 2 if options.patient and options.by_noise is None and bool(_allowed(fit, _noise(fit), options).any()) else 1


def _second(state: DIPState, start: dict[str, Tensor]) -> DIPState:
    """From the start once more, with total variation by all the noise; what was best stays."""
    none, at = {name: torch.zeros_like(value) for name, value in start.items()}, state.iteration
    again = replace(state, parameters=start, average=start, first=none, second=none, by_noise=1, follows=0, falls_from=0)
    return replace(again, opened=at, begun=at, attempt=0)


def _noise(fit: Data) -> Tensor:
    """Variance of the noise of a ray of weight 1; of a volume each row of the detector is a row of the sinogram."""
    return noise_std(fit.y.flatten(1, -2), fit.weights.flatten(1, -2)).square()


def _weight(fit: Data, options: DIPOptions) -> float:
    return options.total_variation * fit.A.domain.size / fit.A.range.size


def _second_due(state: DIPState, fit: Data, noise: Tensor, options: DIPOptions) -> bool:
    """Whether noise and the misfit of the best weights alike let total variation weigh more."""
    if not options.patient or options.by_noise is not None or state.opened or state.redrawn:
        return False
    at = state.history[:, 0] == state.best_iteration.max().to(state.history)
    misfit = state.history[at, 1 : 1 + len(fit.y)][0].to(noise)
    return bool((_allowed(fit, noise, options) & _allowed(fit, misfit, options)).any())


def _allowed(fit: Data, misfit: Tensor, options: DIPOptions) -> Tensor:
    """Whether a misfit that is noise lets total variation weigh more than its limit, by enough; one answer for each image."""
    return _weight(fit, options) * misfit > _WORTH * _most(fit) * fit.size


def _most(fit: Data) -> float:
    """The limit: of an image on finer pixels, whose neighbours differ less, it is as much more.

    With one limit for all, the network of the walnut missed unseen rays at 256 x 256 by 0.032, and so by 0.028; by 0.033 with
    three times the weight as well.
    """
    return _MOST_VARIATION * max(1.0, fit.A.domain.shape[-1] / _COARSE)


def trial_step(generate: Generator, start: dict[str, Tensor], fit: Data) -> None:
    """A step's work without a step, to be timed."""
    parameters = {name: _laid_out(value).requires_grad_(True) for name, value in start.items()}
    fit.misfit(generate(parameters)).sum().backward()


class _Judge:
    """Whether a fit goes wrong, and whether its best weights show something.

    What total variation leaves of held-out rays is asked for where nobody has told it and a fit seems to find nothing: it costs
    what some of the fit's steps do. It follows from the rays alone, so that a fit that is resumed is judged alike.
    """

    def __init__(self, fit: Data, held_out: Data):
        self._fit, self._held_out, self._noise = fit, held_out, _noise(fit)

    def failure(self, state: DIPState, alive: Tensor) -> str:
        """What is wrong with a fit; nothing if it is well."""
        failure = _failure(state, self._fit, self._nothing, alive)
        if failure != _NO_IMAGE or math.isfinite(self._held_out.beside):
            return failure
        with torch.no_grad():
            image = tv(self._fit.A, self._fit.y, weights=self._fit.weights)
            self._held_out = replace(self._held_out, beside=float(self._held_out.misfit(image).max()))
        return _failure(state, self._fit, self._nothing, alive)

    @torch.no_grad()
    def worthy(self, state: DIPState, generate: Generator) -> bool:
        """Whether the best weights so far show something."""
        found = state.best_misfit < _little(self._held_out) * self._held_out.size
        return bool((_uneven(generate(state.best)) & found).all())

    @property
    def _nothing(self) -> Tensor:
        """Misfit of a fit that has found nothing, (batch,)."""
        return torch.maximum(_little(self._held_out) * self._fit.size, 2 * self._noise)


def _little(held_out: Data) -> Tensor:
    """Share of an empty image's misfit that is left where a fit has found something, one for each image.

    A quarter; where another method's image leaves as much of the held-out rays, of an object that is faint beside what air
    reads, half as much again as that, and at most half way to nothing. Grains in an X-ray microscope were refused so after six
    attempts, where total variation foretold unseen rays as well as it said (rms z 1.03).
    """
    if not math.isfinite(held_out.beside):
        return torch.full_like(held_out.size, _NOTHING)
    other = held_out.beside / held_out.size
    return torch.minimum(_LIKE_ANOTHER * other, (1 + other) / 2).clamp(_NOTHING, 1.0)


def _failure(state: DIPState, fit: Data, nothing: Tensor, alive: Tensor) -> str:
    """What is wrong with a fit; ``nothing`` is the misfit of one that has found nothing, (batch,)."""
    if not bool(alive.all()):
        return "is dead"
    if looked_at(state) < origin(state) + _JUDGED_FROM:
        return ""
    misfits = own_looks(state)[:, 1 : 1 + len(fit.y)].to(nothing)
    latest, smallest = misfits[-1], misfits.amin(0)
    if not bool((latest < _LEAP * smallest.clamp(min=1e-30)).all()):
        return "diverges"
    return "" if bool((latest < nothing).all()) else _NO_IMAGE


def _again(state: DIPState, generate: Generator, fit: Data, worthy: bool, options: DIPOptions) -> DIPState:
    """The best weights with nothing remembered of how they were found; where they are not worth keeping, random ones."""
    attempt, none = state.attempt + 1, {name: torch.zeros_like(value) for name, value in state.first.items()}
    if worthy:
        iteration = int(state.best_iteration.max())
        history = state.history[state.history[:, 0] <= iteration]
        best = state.best
        again = replace(
            state, falls_from=0, iteration=iteration, parameters=best, average=best, first=none, second=none, history=history
        )
        return replace(again, attempt=attempt, begun=iteration)
    rng = torch.Generator(device="cpu").manual_seed(attempt)
    weights = random_weights(generate, fit, options.network, rng=rng, level=_LEVELS[attempt % len(_LEVELS)])
    return replace(_fresh(weights, fit, options), attempt=attempt, redrawn=1)


def _descend(
    generate: Generator,
    fit: Data,
    held_out: Data,
    noise: Tensor,
    *,
    options: DIPOptions,
    state: DIPState,
    due: Callable[[], bool],
) -> Iterator[tuple[DIPState, Tensor]]:
    """States at every look, and between two where one is due; and which images are alive: not flat, and with a gradient."""
    settings = settings_of(state, options)
    rate = settings.rate / 2**state.attempt
    parameters = {name: _laid_out(value).requires_grad_(True) for name, value in state.parameters.items()}
    average = {name: value.clone() for name, value in state.average.items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=rate, betas=(0.9, 0.99))
    _restore(optimiser, parameters, state)
    weight, size = _weight(fit, options), fit.size
    most = (weight * noise / size).clamp(min=_most(fit)) if state.by_noise else torch.full_like(size, _most(fit))
    end = origin(state) + settings.length
    for iteration in range(state.iteration + 1, end + 1):
        optimiser.param_groups[0]["lr"] = rate * share_of_rate(iteration, state, settings)
        optimiser.zero_grad()
        x = generate(parameters)
        misfit = fit.misfit(x) / size
        strength = torch.minimum(weight * misfit.detach(), most)
        loss = misfit + strength * _variation(x) / generate.scale
        loss.sum().backward()
        optimiser.step()
        averaged = iteration - origin(state)
        decay = min(options.average, averaged / (averaged + 10))
        with torch.no_grad():
            for name, value in parameters.items():
                average[name].lerp_(value, 1 - decay)
        if iteration % options.check_every == 0 or iteration == end:
            with torch.no_grad():
                alive = _alive(x, parameters)
                x = generate(average)
                misfits = fit.misfit(x), held_out.misfit(x)
            state = _look(_reached(iteration, state, parameters, average, optimiser), misfits)
            if falls(state, held_out, settings):
                state = replace(state, falls_from=iteration)
            if ended(state, options) and _second_due(state, fit, noise, options):
                state = replace(state, follows=1)
            yield state, alive
            if ended(state, options):
                return
        elif due():
            yield _reached(iteration, state, parameters, average, optimiser), torch.ones(len(fit.y), dtype=torch.bool)


def _laid_out(value: Tensor) -> Tensor:
    """A copy whose filters are channels-last: a step on a CPU is 1.2 times as fast at 64 x 64, 1.6 times at 256 x 256.

    Compiling does not help there: `torch.compile` takes 1.7 times as long as this (`experiments.benchmarks.fit_step`).
    """
    if value.ndim < 5 or len(value) > 1:
        return value.clone()
    layout = torch.channels_last if value.ndim == 5 else torch.channels_last_3d
    return value[0].clone(memory_format=layout)[None]


def _alive(x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    slopes = torch.stack([value.grad.flatten(1).abs().amax(1) for value in parameters.values() if value.grad is not None])
    return _uneven(x) & (slopes.amax(0) > 0)


def _uneven(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return flat.std(1) > _FLAT * flat.abs().mean(1)


def _reached(
    iteration: int,
    state: DIPState,
    parameters: dict[str, Tensor],
    average: dict[str, Tensor],
    optimiser: torch.optim.Adam,
) -> DIPState:
    """The state with the weights of an iteration; what the last look has found stays."""
    moments = [optimiser.state[value] for value in parameters.values()]
    return replace(
        state,
        iteration=iteration,
        parameters={name: value.detach().clone() for name, value in parameters.items()},
        average={name: value.clone() for name, value in average.items()},
        first={name: m["exp_avg"].clone() for name, m in zip(parameters, moments, strict=True)},
        second={name: m["exp_avg_sq"].clone() for name, m in zip(parameters, moments, strict=True)},
    )


def _look(state: DIPState, misfits: tuple[Tensor, Tensor]) -> DIPState:
    """The state with what its average's misfits of fitted and of unseen rays say."""
    fitted, unseen = misfits
    first = (state.best_iteration <= state.opened) & (state.opened > 0)
    better = unseen < torch.where(first, _EVEN, 1.0) * state.best_misfit
    best = {}
    for name, value in state.average.items():
        pick = better.reshape(-1, *[1] * (value.ndim - 1))
        best[name] = torch.where(pick, value, state.best[name])
    row = torch.cat([torch.tensor([float(state.iteration)], device=fitted.device), fitted, unseen]).cpu()
    return replace(
        state,
        best=best,
        best_misfit=torch.where(better, unseen, state.best_misfit),
        best_iteration=torch.where(better, state.iteration, state.best_iteration),
        history=torch.cat([state.history, row[None]]),
    )


def _fresh(start: dict[str, Tensor], fit: Data, options: DIPOptions) -> DIPState:
    zeros = {name: torch.zeros_like(value) for name, value in start.items()}
    infinite = torch.full((len(fit.y),), torch.inf, device=fit.y.device)
    none = torch.zeros(len(fit.y), dtype=torch.int64, device=fit.y.device)
    state = DIPState(0, start, start, start, zeros, zeros, infinite, none, torch.zeros(0, 1 + 2 * len(fit.y)))
    return replace(state, by_noise=int(options.by_noise or False))


def _restore(optimiser: torch.optim.Adam, parameters: dict[str, Tensor], state: DIPState) -> None:
    for name, value in parameters.items():
        optimiser.state[value] = {
            "step": torch.tensor(float(state.iteration - state.begun)),
            "exp_avg": state.first[name].clone(),
            "exp_avg_sq": state.second[name].clone(),
        }


def _variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring voxels along every spatial axis, one value for each image."""
    means = [x.diff(dim=axis).abs().flatten(1).mean(1) for axis in range(1, x.ndim)]
    return torch.stack(means).sum(0)
