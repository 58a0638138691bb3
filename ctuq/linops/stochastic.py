"""Solvers that see a mini-batch at a time: stochastic gradients with Nesterov momentum, and stochastic dual descent.

Their steps come from the largest eigenvalues of the whole problem and of its mini-batches, never from a user.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.linops.basic import Symmetric
from ctuq.linops.estimate import largest_eigenvalue
from ctuq.linops.operator import LinearOperator, Space
from ctuq.linops.solve import Solution, relative, reported

_CAUTION = 0.7
_SINGLE = 32
_LARGE = 10
_MEMORY = 100
_MOMENTUM = 0.9


def step_limit(largest: float, noise: float, momentum: float) -> float:
    """Step below which stochastic gradients with Nesterov momentum converge in mean square.

    A mode of curvature h turns gradient noise of variance 1 into ``h^2`` times its own variance

        gamma(b) = b (1 + r + r (1 + 2 r) b) / ((2 (1 + r) - (1 + 2 r) b) (1 - r + r b)),     b = step h,

    at momentum r. Noise of multiplicative gradients has at most the variance ``noise`` (in curvature) times that of the
    gradients, and is bounded if the modes' gains add up to less than 1. As gamma(b) / b is largest at one of the ends, it is
    enough that ``noise gamma(step largest) <= largest`` and ``noise step <= 2 (1 - r)``. Without noise, what remains is the
    limit of exact gradients, ``2 (1 + r) / ((1 + 2 r) largest)``.

    Parameters
    ----------
    largest : float
        Largest eigenvalue of the curvature.
    noise : float
        ``(n - batch) / (batch (n - 1))`` times the largest curvature that a single datum's estimate of the whole has.
    momentum : float
        In [0, 1).
    """
    c, r = 1 + noise / largest, momentum
    # noise gamma(b) = largest is the quadratic r (1 + 2 r) c b^2 + slope b - 2 (1 - r^2) = 0.
    slope = (1 + r) * c - 2 * r * (1 + 2 * r)
    b = 4 * (1 - r**2) / (slope + math.sqrt(slope**2 + 8 * c * r * (1 + 2 * r) * (1 - r**2)))
    return min(b / largest, 2 * (1 - r) / noise if noise > 0 else math.inf)


def automatic_step(
    curvature: Callable[[Tensor], LinearOperator], *, n: int, batch: int, momentum: float, rng: torch.Generator
) -> float:
    """0.7 of `step_limit`, with eigenvalues by Lanczos steps.

    Parameters
    ----------
    curvature : callable
        ``curvature(index)``: the unbiased estimate of the whole curvature from the data with these indices, symmetric.
    n, batch : int
        All data, and those of a mini-batch. Ten mini-batches, or all data, stand for the whole, 32 single data for all.
    momentum : float
    rng : torch.Generator
    """
    order = torch.randperm(n, generator=rng, device=rng.device)
    largest = largest_eigenvalue(curvature(order[: _LARGE * batch]), rng=rng, steps=15)
    noise = 0.0
    if batch < n:
        single = max(largest_eigenvalue(curvature(index), rng=rng, steps=4) for index in order[:_SINGLE, None])
        noise = single * (n - batch) / (batch * (n - 1))
    return _CAUTION * step_limit(largest, noise, momentum)


@torch.no_grad()
def sgd(
    gradient: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    *,
    n: int,
    batch: int,
    steps: int,
    step_size: float | None = None,
    momentum: float = _MOMENTUM,
    rng: torch.Generator,
) -> Tensor:
    """Minimise k quadratics by mini-batch gradients with Nesterov momentum, decaying steps and averaged iterates.

    ``v <- r v - b g(x + r v, index)``, ``x <- x + v``, average over about the last hundredth of the iterates. The noise of the
    gradient does not vanish at the optimum: the step falls to zero over the second half, and mini-batches go through all
    data in random order, again and again, which makes errors cancel (iterates from batches drawn independently, however
    averaged, were measured to be 2 to 12 times further from the optimum).

    Parameters
    ----------
    gradient : callable
        ``gradient(x, index)``: unbiased estimate ``(k, *shape)`` at x ``(k, *shape)`` from the data ``index``; affine in x with
        a symmetric slope, the same for each of the k.
    start : Tensor, shape (k, *shape)
    n, batch, steps : int
        Data, most data in a mini-batch, mini-batches in all.
    step_size : float, optional
        The first; by default from `automatic_step`.
    momentum : float
    rng : torch.Generator

    Returns
    -------
    Tensor, shape (k, *shape)
        Of the type of ``start``.

    Raises
    ------
    CtuqError
        If the iterates overflow.
    """

    def slope(index: Tensor) -> LinearOperator:
        index = index.to(start.device)
        origin = gradient(torch.zeros_like(start), index)
        return Symmetric(lambda x: (gradient(x.expand_as(start), index) - origin)[:1], Space.of(start))

    if step_size is None:
        step_size = automatic_step(slope, n=n, batch=_smallest_batch(n, batch), momentum=momentum, rng=rng)
    schedule = [step_size * min(1.0, 2 - 2 * t / steps) for t in range(steps)]
    return descend(gradient, start, _batches(n, batch, rng), schedule, momentum)


@torch.no_grad()
def sdd(
    rows: Callable[[Tensor, Tensor], Tensor],
    b: Tensor,
    *,
    batch: int,
    steps: int,
    step_size: float | None = None,
    momentum: float = _MOMENTUM,
    rtol: float = 1e-2,
    rng: torch.Generator,
    start: Tensor | None = None,
) -> Solution:
    """Solve ``K a = b`` by stochastic dual descent (Lin et al. 2024): momentum, random coordinates, averaged iterates.

    Minimises ``a^T K a / 2 - a^T b`` by the coordinates of its gradient in a random block, ``(n / batch) [(K a)_I - b_I]``.
    Their noise vanishes at the solution, so that the step stays. The average is over about the last hundredth of the iterates.

    Parameters
    ----------
    rows : callable
        ``rows(index, a)``: ``(K a)[:, index]``, noise included, ``(k, |index|, ...)`` for a ``(k, n, ...)``.
    b : Tensor, shape (k, n, ...)
    batch, steps : int
        Most coordinates (of axis 1) in a block, and blocks in all.
    step_size : float, optional
        By default from `automatic_step`.
    momentum : float
    rtol : float
        Relative residual to expect; a miss is a warning with the number.
    rng : torch.Generator
    start : Tensor, shape (k, n, ...), optional
        Zeros if None.

    Raises
    ------
    CtuqError
        If the iterates overflow.
    """
    b, n = b.double(), b.shape[1]

    def place(index: Tensor, part: Tensor) -> Tensor:
        return part.new_zeros(len(part), *b.shape[1:]).index_copy_(1, index, part)

    def principal(index: Tensor) -> LinearOperator:
        index = index.to(b.device)
        return Symmetric(lambda x: (n / len(index)) * rows(index, place(index, x)), Space.of(b[:, index]))

    def gradient(a: Tensor, index: Tensor) -> Tensor:
        return place(index, (n / len(index)) * (rows(index, a).to(b) - b[:, index]))

    if step_size is None:
        step_size = automatic_step(principal, n=n, batch=_smallest_batch(n, batch), momentum=momentum, rng=rng)
    a = torch.zeros_like(b) if start is None else start.to(b)
    a = descend(gradient, a, _batches(n, batch, rng), [step_size] * steps, momentum)
    return reported("SDD", Solution(a, residuals(rows, a, b, batch), steps, True), rtol)


@torch.no_grad()
def sdd_features(
    features: Callable[[Tensor], LinearOperator],
    covariance: Callable[[Tensor], Tensor],
    noise: Tensor,
    b: Tensor,
    *,
    batch: int,
    steps: int,
    rtol: float = 1e-2,
    rng: torch.Generator,
) -> tuple[Solution, Tensor]:
    """Stochastic dual descent for ``K = H Sigma H^T + N`` by products with the features of one mini-batch.

    ``u = Sigma H^T a`` is carried along: each step changes it by the features of the mini-batch alone, and costs one product
    with ``H_I`` and one with ``H_I^T``.

    Parameters
    ----------
    features : callable
        ``features(index)``: ``H_I`` from ``(P,)`` to ``(|I|, ...)``.
    covariance : callable
        Sigma applied to ``(k, P)``.
    noise : Tensor
        Noise variances, of the shape ``(n, ...)`` of the observations.
    b : Tensor, shape (k, n, ...)
    batch, steps, rtol, rng
        As for `sdd`.

    Returns
    -------
    solution : Solution
    lifted : Tensor, float64, shape (k, P)
        ``u`` of the solution, computed anew.
    """
    b, noise, shape = b.double(), noise.double(), b.shape[1:]
    n, size = shape[0], shape.numel()

    def lift(index: Tensor, part: Tensor) -> Tensor:
        H = features(index)
        return covariance(H.T(part.to(H.range.dtype))).to(b)

    def push(index: Tensor, u: Tensor) -> Tensor:
        H = features(index)
        return H(u.to(H.domain.dtype)).to(b)

    def principal(index: Tensor) -> LinearOperator:
        index = index.to(b.device)
        scale = n / len(index)
        return Symmetric(lambda x: scale * (push(index, lift(index, x)) + noise[index] * x), Space.of(b[:, index]))

    def gradient(pair: Tensor, index: Tensor) -> Tensor:
        a, u = pair[:, :size].reshape(-1, *shape), pair[:, size:]
        change = (n / len(index)) * (push(index, u) + noise[index] * a[:, index] - b[:, index])
        return torch.cat([torch.zeros_like(b).index_copy_(1, index, change).flatten(1), lift(index, change)], 1)

    step_size = automatic_step(principal, n=n, batch=_smallest_batch(n, batch), momentum=_MOMENTUM, rng=rng)
    weights = features(torch.arange(1, device=b.device)).domain.size
    pair = descend(gradient, b.new_zeros(len(b), size + weights), _batches(n, batch, rng), [step_size] * steps, _MOMENTUM)
    a = pair[:, :size].reshape(b.shape)
    blocks = torch.arange(n, device=b.device).split(batch)
    u = torch.stack([lift(index, a[:, index]) for index in blocks]).sum(0)
    residual = residuals(lambda index, a: push(index, u) + noise[index] * a[:, index], a, b, batch)
    return reported("SDD", Solution(a, residual, steps, True), rtol), u


def descend(
    gradient: Callable[[Tensor, Tensor], Tensor], x: Tensor, batches: Iterator[Tensor], schedule: list[float], momentum: float
) -> Tensor:
    """Geometric average of the iterates of gradient steps with Nesterov momentum, one for each entry of the schedule.

    Raises
    ------
    CtuqError
        If the iterates overflow.
    """
    # ahead = x + momentum v is all that is kept of x: three vectors, and the gradient's.
    ahead, v, average = x.clone(), torch.zeros_like(x), x.clone()
    share = min(1.0, _MEMORY / len(schedule))
    for step_size, index in zip(schedule, batches, strict=False):
        slope = gradient(ahead, index.to(x.device))
        ahead.sub_(v, alpha=momentum)
        v.mul_(momentum).sub_(slope, alpha=step_size)
        del slope
        ahead.add_(v)
        average.lerp_(ahead, share)
        ahead.add_(v, alpha=momentum)
    if not average.isfinite().all():
        raise CtuqError(f"Stochastic gradients diverged with the step {schedule[0]:.1e}: take larger mini-batches.")
    return average


def residuals(rows: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, batch: int) -> Tensor:
    """``|b - K a| / |b|`` for each of ``(k, n, ...)``, a block of coordinates at a time."""
    blocks = torch.arange(b.shape[1], device=b.device).split(batch)
    left = torch.cat([b[:, index] - rows(index, a).to(b) for index in blocks], 1)
    return relative(left.flatten(1), b.flatten(1))


def _batches(n: int, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Mini-batches of at most ``batch``, nearly equal, from all data in random order, a new one each time."""
    while True:
        yield from torch.randperm(n, generator=rng, device=rng.device).tensor_split(-(-n // batch))


def _smallest_batch(n: int, batch: int) -> int:
    """Data in the smallest of `_batches`."""
    return n // -(-n // batch)
