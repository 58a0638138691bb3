"""Jacobian products of single layers for many rows at once, the primal shared by all rows.

A rule holds what the products of one call need; its tensors carry the rows in front: ``(k, *shape)`` for a value of
``shape``. Images are kept channels-last, where convolutions and sums over pixels are fastest.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ctuq.linops.jacobian.kernels import without_fused_kernels


class Rule(Protocol):
    """Derivative of one call in its operands."""

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        """Tangent ``(k, *output)`` from those of the operands; ``None`` is zero, not all of them are."""
        ...

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """Cotangents ``(k, *operand)`` of the wanted operands."""
        ...


class GroupNorm:
    """Group normalisation in its input: self-adjoint but for the scale of the channels.

    ``y = a (x - mean) / s``, with the group's standard deviation s and ``n = (x - mean) / s``, has the derivative
    ``dy = (a / s) (dx - mean(dx) - n mean(n dx))``.
    """

    def __init__(self, x: Tensor, groups: int, weight: Tensor | None, eps: float):
        self._groups = groups
        self._normal = channels_last(torch.nn.functional.group_norm(x, groups, eps=eps))
        self._rate = self._spread((x.unflatten(1, (groups, -1)).flatten(2).var(2, correction=0) + eps).rsqrt())
        self._weight = None if weight is None else weight.reshape(-1, *[1] * (x.ndim - 2))

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        (dx,) = tangents
        assert dx is not None
        return self._centre(dx, self._rate if self._weight is None else self._rate * self._weight)

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        return [self._centre(cotangent if self._weight is None else cotangent * self._weight, self._rate)]

    def _centre(self, t: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(3, t.ndim))
        mean, slope = self._mean(t.sum(axes)), self._mean((t * self._normal).sum(axes))
        return (t - mean).addcmul_(self._normal, slope, value=-1).mul_(scale)

    def _mean(self, channels: Tensor) -> Tensor:
        pixels = self._normal[0, 0].numel()
        return self._spread(channels.unflatten(-1, (self._groups, -1)).mean(-1) / pixels)

    def _spread(self, groups: Tensor) -> Tensor:
        channels = groups.repeat_interleave(self._normal.shape[1] // self._groups, -1)
        return channels.reshape(*channels.shape, *[1] * (self._normal.ndim - 2))


class BatchNorm:
    """Batch normalisation with fixed statistics: ``a n + b`` with ``n = (x - mean) / s``.

    Parameters
    ----------
    normal : Tensor, optional
        n, needed where the weight a is an operand.
    factor : Tensor, shape (channels,)
        ``a / s``.
    shape : torch.Size
        Of x.
    """

    def __init__(self, normal: Tensor | None, factor: Tensor, shape: torch.Size):
        self._normal, self._shape = normal, shape
        self._factor = self._spread(factor)

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        """Of the input, the scale and the shift, each of which may stand still (None)."""
        dx, da, db = tangents
        terms = [] if dx is None else [dx * self._factor]
        if da is not None:
            assert self._normal is not None
            terms.append(self._spread(da) * self._normal)
        if db is not None:
            terms.append(self._spread(db).expand(-1, *self._shape))
        return sum(terms[1:], start=terms[0])

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        axes = (1, *range(3, cotangent.ndim))
        dx = cotangent * self._factor if wanted[0] else None
        da = (cotangent * self._normal).sum(axes) if wanted[1] and self._normal is not None else None
        return [dx, da, cotangent.sum(axes) if wanted[2] else None]

    def _spread(self, channels: Tensor) -> Tensor:
        return channels.reshape(*channels.shape[:-1], 1, -1, *[1] * (len(self._shape) - 2))


class Pointwise:
    """An elementwise function: one stored factor for each operand, one number where it is the same everywhere."""

    def __init__(self, function: Callable[..., Tensor], operands: Sequence[Tensor]):
        factors = pull_back(function, operands, torch.ones_like(operands[0]))
        self._factors = [_compact(factor) for factor in factors]

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        terms = [_times(t, factor) for t, factor in zip(tangents, self._factors, strict=True) if t is not None]
        return sum(terms[1:], start=terms[0])

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        return [_times(cotangent, factor) if want else None for factor, want in zip(self._factors, wanted, strict=True)]


class Rectifier:
    """Linear on both sides of zero; its output, which the next layer keeps too, tells the sides.

    Parameters
    ----------
    output : Tensor
        Channels last in memory.
    slope : float
        On the negative side, not negative itself.
    """

    def __init__(self, output: Tensor, slope: float):
        self._output, self._slope = output, slope

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        (dx,) = tangents
        assert dx is not None
        return torch.ops.aten.leaky_relu_backward(dx, self._output, self._slope, False)

    def in_place(self, values: Tensor) -> Tensor:
        """Tangents or cotangents, overwritten: large values then take two thirds of the time."""
        return torch.ops.aten.leaky_relu_backward.grad_input(values, self._output, self._slope, False, grad_input=values)

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        return [self.jvp([cotangent])]


class Affine:
    """``x W^T + b`` of vectors along the last axis, in input, weight and bias."""

    def __init__(self, x: Tensor, weight: Tensor):
        self._x, self._weight = x, weight

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        """Of the input, the weight and the bias, each of which may stand still (None)."""
        dx, dw, db = tangents
        terms = [] if dx is None else [dx @ self._weight.mT]
        if dw is not None:
            part = self._x.reshape(-1, self._x.shape[-1]) @ dw.mT
            terms.append(part.reshape(len(dw), *self._x.shape[:-1], -1))
        if db is not None:
            size = (len(db), *self._x.shape[:-1], db.shape[-1])
            terms.append(db.reshape(len(db), *[1] * (self._x.ndim - 1), -1).expand(size))
        return sum(terms[1:], start=terms[0])

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        dx = cotangent @ self._weight if wanted[0] else None
        g = cotangent.reshape(len(cotangent), -1, cotangent.shape[-1])
        dw = g.mT @ self._x.reshape(-1, self._x.shape[-1]) if wanted[1] else None
        return [dx, dw, g.sum(1) if wanted[2] else None]


class Linear:
    """A linear function of images, applied to the rows of all images at once."""

    def __init__(self, function: Callable[[Tensor], Tensor], shape: torch.Size):
        self._function, self._shape = function, shape

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        (dx,) = tangents
        assert dx is not None
        return self._function(merge(dx)).unflatten(0, (dx.shape[0], -1))

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        g = merge(cotangent)
        anywhere = g.new_empty(g.shape[0], *self._shape[2:], self._shape[1]).movedim(-1, 1)
        return [pull_back(self._function, [anywhere], g)[0].unflatten(0, (cotangent.shape[0], -1))]


class Concatenation:
    """``torch.cat`` of values along their channels."""

    def __init__(self, operands: Sequence[Tensor]):
        self._shapes = [x.shape for x in operands]

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        some = next(t for t in tangents if t is not None)
        parts = [some.new_zeros(some.shape[0], *s) if t is None else t for t, s in zip(tangents, self._shapes, strict=True)]
        return torch.cat([merge(part) for part in parts], 1).unflatten(0, (some.shape[0], -1))

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        parts = cotangent.split([s[1] for s in self._shapes], 2)
        return [part if want else None for part, want in zip(parts, wanted, strict=True)]


class Crop:
    """A part of a value by slices, as ``x[index]``."""

    def __init__(self, index: tuple, shape: torch.Size):
        self._index, self._shape = (slice(None), *index), shape

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        (dx,) = tangents
        assert dx is not None
        return dx[self._index]

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        images, channels, *pixels = self._shape
        whole = cotangent.new_zeros(cotangent.shape[0], images, *pixels, channels).movedim(-1, 2)
        whole[self._index] = cotangent
        return [whole]


class Reshape:
    """The same values in the same order in another shape."""

    def __init__(self, before: torch.Size, after: torch.Size):
        self._before, self._after = before, after

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        (dx,) = tangents
        assert dx is not None
        return dx.reshape(-1, *self._after)

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        return [cotangent.reshape(-1, *self._before)]


class Opaque:
    """Any differentiable function, by torch.func; linearised when first asked, and then kept.

    It is pushed forward by the transpose of its pull-back: ``u -> J^T u`` is linear, so that its own pull-back is ``J``. To
    trace a linearisation instead takes a tenth of a second for each call, as often as a mini-batch is linearised.
    """

    def __init__(self, function: Callable[..., Tensor], operands: Sequence[Tensor]):
        self._function, self._operands = without_fused_kernels(function), tuple(operands)

    @cached_property
    def _reverse(self) -> Callable[..., tuple[Tensor, ...]]:
        return torch.func.vjp(self._function, *self._operands)[1]

    @cached_property
    def _twice(self) -> Callable[..., tuple[Tensor, ...]]:
        output, reverse, *_ = torch.func.vjp(self._function, *self._operands)
        return torch.func.vjp(reverse, torch.zeros_like(output))[1]

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        k = next(t.shape[0] for t in tangents if t is not None)
        full = tuple(x.new_zeros(k, *x.shape) if t is None else t for t, x in zip(tangents, self._operands, strict=True))
        return torch.vmap(lambda *row: self._twice(row)[0])(*full)

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        return list(torch.vmap(self._reverse)(cotangent))


def pull_back(function: Callable[..., Tensor], operands: Sequence[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
    """The vector-Jacobian product of one cotangent, by autograd (torch.func takes seconds to load)."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in operands]
        out = function(*leaves)
    if not out.requires_grad:
        return tuple(torch.zeros_like(x) for x in operands)
    return torch.autograd.grad(out, leaves, cotangent, materialize_grads=True)


def channels_last(x: Tensor) -> Tensor:
    """The same values with the channels (axis 1) innermost in memory, and strides that say so even for one channel."""
    dense = x.movedim(1, -1).contiguous()
    return dense.view(-1).view(dense.shape).movedim(-1, 1)


def merge(rows: Tensor) -> Tensor:
    """Rows ``(k, images, ...)`` as one batch ``(k images, ...)``, channels last."""
    return channels_last(rows.flatten(0, 1))


def _compact(factor: Tensor) -> Tensor | float:
    first = float(factor.reshape(-1)[0])
    if bool((factor == first).all()):
        return first
    return channels_last(factor) if factor.ndim > 1 else factor


def _times(values: Tensor, factor: Tensor | float) -> Tensor:
    return values if isinstance(factor, float) and factor == 1 else values * factor
