"""Parallel Thompson sampling: draw many posterior functions, evaluate the objective at the maximum of each, repeat."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.gp.paths import SamplePaths

_NARROW, _WIDE = 1e-3, 0.3


@dataclass(frozen=True, eq=False)
class Domain:
    """Where to search.

    Parameters
    ----------
    lower, upper : Tensor, float64, shape (d,)
    """

    lower: Tensor
    upper: Tensor

    def uniform(self, count: int, *, rng: torch.Generator) -> Tensor:
        """Uniform points (count, d)."""
        unit = torch.rand(count, len(self.lower), generator=rng, device=rng.device, dtype=torch.float64)
        return self.lower + unit.to(self.lower) * (self.upper - self.lower)


@dataclass(frozen=True)
class Search:
    """How each function is maximised.

    Parameters
    ----------
    candidates : int
        Points at which all functions are evaluated: half uniform, half around the best data.
    starts : int
        Best candidates of each function that are improved.
    steps : int
        Of gradient ascent (Adam) from each.
    """

    candidates: int = 2000
    starts: int = 3
    steps: int = 30


@dataclass(frozen=True, eq=False)
class Campaign:
    """All that was evaluated.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
    best : tuple of float
        Largest value before the first round and after each.
    seconds : tuple of float
        Wall time spent on choosing, in all, at the same moments.
    residual : tuple of float
        Largest relative residual of each round's draws.
    """

    x: Tensor
    y: Tensor
    best: tuple[float, ...]
    seconds: tuple[float, ...]
    residual: tuple[float, ...]


def thompson(
    objective: Callable[[Tensor], Tensor],
    draw: Callable[[Tensor, Tensor], SamplePaths],
    x: Tensor,
    y: Tensor,
    domain: Domain,
    *,
    rounds: int,
    search: Search | None = None,
    rng: torch.Generator,
) -> Campaign:
    """Maximise an objective by rounds of parallel Thompson sampling (Hernandez-Lobato et al. 2017).

    Parameters
    ----------
    objective : callable
        ``objective(x)`` of inputs (k, d), noisy or not, shape (k,).
    draw : callable
        ``draw(x, y)``: the round's posterior functions given all data, by `GaussianProcess.condition` and its samples.
    x : Tensor, float64, shape (n, d)
        Where the objective is known.
    y : Tensor, float64, shape (n,)
    domain : Domain
    rounds : int
    search : Search, optional
    rng : torch.Generator
        For candidates.

    Raises
    ------
    InputError
        If there is no round or no data to start from.
    """
    if rounds < 1 or not len(x):
        raise InputError(f"Thompson sampling needs at least 1 round and 1 datum, not {rounds} and {len(x)}.")
    best, seconds, residual = [float(y.max())], [0.0], []
    for _ in range(rounds):
        start = time.perf_counter()
        paths = draw(x, y)
        new, _ = maximise_paths(paths, domain, x[y.topk(min(len(y), len(paths))).indices], search=search or Search(), rng=rng)
        seconds.append(seconds[-1] + time.perf_counter() - start)
        x, y = torch.cat([x, new]), torch.cat([y, objective(new)])
        best.append(float(y.max()))
        residual.append(float(paths.residual.max()))
    return Campaign(x, y, tuple(best), tuple(seconds), tuple(residual))


def maximise_paths(
    paths: SamplePaths, domain: Domain, near: Tensor, *, search: Search, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A maximum of each function in the domain, from the best of shared candidates uphill.

    Parameters
    ----------
    paths : SamplePaths
    domain : Domain
    near : Tensor, shape (b, d)
        Good points, to look around.
    search : Search
    rng : torch.Generator

    Returns
    -------
    x : Tensor, shape (k, d)
    value : Tensor, shape (k,)
    """
    points = torch.cat([domain.uniform(search.candidates // 2, rng=rng), _around(near, domain, search.candidates // 2, rng)])
    found = []
    for group in paths.split():
        top = group(points).topk(min(search.starts, len(points)), dim=1).indices
        found.append(_climb(group, points[top], domain, search.steps))
    return torch.cat([x for x, _ in found]), torch.cat([value for _, value in found])


def _around(near: Tensor, domain: Domain, count: int, rng: torch.Generator) -> Tensor:
    """Points at log-uniform distances from some of ``near``."""
    which = torch.randint(len(near), (count,), generator=rng, device=rng.device).to(near.device)
    unit = torch.rand(count, 1, generator=rng, device=rng.device, dtype=torch.float64)
    normal = torch.randn(count, near.shape[1], generator=rng, device=rng.device, dtype=torch.float64)
    width = _NARROW * (_WIDE / _NARROW) ** unit
    moved = near[which] + (width * normal).to(near) * (domain.upper - domain.lower)
    return torch.minimum(torch.maximum(moved, domain.lower), domain.upper)


def _climb(paths: SamplePaths, x: Tensor, domain: Domain, steps: int) -> tuple[Tensor, Tensor]:
    """Gradient ascent from (k, s, d) in coordinates of the domain; the best point of each function, starts included."""
    width = domain.upper - domain.lower
    unit = ((x - domain.lower) / width).requires_grad_()
    optimiser = torch.optim.Adam([unit], lr=0.02)
    best_x, best = x, torch.full(x.shape[:2], -torch.inf, dtype=x.dtype, device=x.device)
    for step in range(steps + 1):
        here = domain.lower + unit * width
        value = paths.each(here)
        better = value.detach() > best
        best, best_x = torch.where(better, value.detach(), best), torch.where(better[..., None], here.detach(), best_x)
        if step < steps:
            optimiser.zero_grad()
            (-value.sum()).backward()
            optimiser.step()
            with torch.no_grad():
                unit.clamp_(0, 1)
    winner = best.argmax(1)
    rows = torch.arange(len(x), device=x.device)
    return best_x[rows, winner], best[rows, winner]
