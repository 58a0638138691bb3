"""Jacobian products of single layers for many rows at once, the primal shared by all rows.

A rule holds what the products of one call need; its tensors carry the rows in front: ``(k, *shape)`` for a value of
``shape``. Images are kept channels-last, where convolutions and sums over pixels are fastest.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

PATCH_BYTES = 2**28
"""Unfolded inputs up to this size are kept, for one matrix product over all rows; larger ones go row by row."""


class Rule(Protocol):
    """Derivative of one call in its operands."""

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        """Tangent ``(k, *output)`` from those of the operands; ``None`` is zero, not all of them are."""
        ...

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """Cotangents ``(k, *operand)`` of the wanted operands."""
        ...


class Convolution:
    """Convolution in input, weight and bias; the shared input's patches turn its weight part into a matrix product."""

    def __init__(self, x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]):
        self._x, self._weight = channels_last(x), channels_last(weight)
        self._settings = (stride, padding, dilation, False, [0] * len(stride), 1)
        out = torch.convolution(self._x[:1], self._weight, None, *self._settings)
        self._shape = (x.shape[0], *out.shape[2:], out.shape[1])
        size = out[0, 0].numel() * x.shape[0] * weight[0].numel() * x.element_size()
        self._local = weight[0, 0].numel() == 1 and stride == [1] * len(stride) and not any(padding)
        self._patches = _unfold(x, weight.shape[2:], stride, padding, dilation) if size <= PATCH_BYTES else None

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        dx, dw, db = tangents
        out = None
        if dx is not None:
            out = self._pixels(torch.convolution(_merge(dx), self._weight, None, *self._settings), dx.shape[0])
        if dw is not None:
            out = self._weight_jvp(dw, out)
        if db is not None:
            shift = db[:, None, :]
            out = shift.expand(-1, math.prod(self._shape[:-1]), -1) if out is None else out + shift
        assert out is not None
        return out.reshape(-1, *self._shape).movedim(-1, 2)

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        k, g = cotangent.shape[0], _merge(cotangent)
        dx = dw = None
        if wanted[0] and self._local:
            dx = (self._pixels(g, k) @ self._weight.flatten(1)).reshape(k, *self._shape[:-1], -1).movedim(-1, 2)
        elif wanted[0]:
            size = (g.shape[0], *self._x.shape[1:])
            dx = self._backward(g, self._x.new_empty(()).expand(size), 0).unflatten(0, (k, -1))
        if wanted[1] and self._patches is not None:
            pixels = self._pixels(g, k)
            dw = torch.bmm(pixels.mT, self._patches.expand(k, -1, -1)).reshape(k, *self._weight.shape)
        elif wanted[1]:
            dw = torch.stack([self._backward(row, self._x, 1) for row in g.unflatten(0, (k, -1))])
        return [dx, dw, self._pixels(g, k).sum(1) if wanted[2] else None]

    def _weight_jvp(self, dw: Tensor, out: Tensor | None) -> Tensor:
        if self._patches is None:
            rows = torch.cat([torch.convolution(self._x, channels_last(row), None, *self._settings) for row in dw])
            rows = self._pixels(rows, dw.shape[0])
            return rows if out is None else out.add_(rows)
        patches, weights = self._patches.expand(dw.shape[0], -1, -1), dw.flatten(2).mT
        return torch.bmm(patches, weights) if out is None else out.baddbmm_(patches, weights)

    def _backward(self, g: Tensor, x: Tensor, which: int) -> Tensor:
        mask = [which == 0, which == 1, False]
        return torch.ops.aten.convolution_backward(g, x, self._weight, None, *self._settings, mask)[which]

    @staticmethod
    def _pixels(images: Tensor, k: int) -> Tensor:
        return images.movedim(1, -1).reshape(k, -1, images.shape[1])


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


class Pointwise:
    """An elementwise function: one stored factor for each operand."""

    def __init__(self, function: Callable[..., Tensor], operands: Sequence[Tensor]):
        factors = pull_back(function, operands, torch.ones_like(operands[0]))
        self._factors = [channels_last(factor) if factor.ndim > 1 else factor for factor in factors]

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        terms = [t * factor for t, factor in zip(tangents, self._factors, strict=True) if t is not None]
        return sum(terms[1:], start=terms[0])

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        return [cotangent * factor if want else None for factor, want in zip(self._factors, wanted, strict=True)]


class Linear:
    """A linear function of images, applied to the rows of all images at once."""

    def __init__(self, function: Callable[[Tensor], Tensor], shape: torch.Size):
        self._function, self._shape = function, shape

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        (dx,) = tangents
        assert dx is not None
        return self._function(_merge(dx)).unflatten(0, (dx.shape[0], -1))

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        g = _merge(cotangent)
        anywhere = g.new_empty(g.shape[0], *self._shape[2:], self._shape[1]).movedim(-1, 1)
        return [pull_back(self._function, [anywhere], g)[0].unflatten(0, (cotangent.shape[0], -1))]


class Concatenation:
    """``torch.cat`` of values along their channels."""

    def __init__(self, operands: Sequence[Tensor]):
        self._shapes = [x.shape for x in operands]

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        some = next(t for t in tangents if t is not None)
        parts = [some.new_zeros(some.shape[0], *s) if t is None else t for t, s in zip(tangents, self._shapes, strict=True)]
        return torch.cat([_merge(part) for part in parts], 1).unflatten(0, (some.shape[0], -1))

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


class Opaque:
    """Any differentiable function, by torch.func; linearised when first asked, and then kept."""

    def __init__(self, function: Callable[..., Tensor], operands: Sequence[Tensor]):
        self._function, self._operands = function, tuple(operands)

    @cached_property
    def _forward(self) -> Callable[..., Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own tracer, about itself
            return torch.func.linearize(self._function, *self._operands)[1]

    @cached_property
    def _reverse(self) -> Callable[..., tuple[Tensor, ...]]:
        return torch.func.vjp(self._function, *self._operands)[1]

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        k = next(t.shape[0] for t in tangents if t is not None)
        full = [x.new_zeros(k, *x.shape) if t is None else t for t, x in zip(tangents, self._operands, strict=True)]
        return torch.vmap(self._forward)(*full)

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


def _merge(rows: Tensor) -> Tensor:
    return channels_last(rows.flatten(0, 1))


def _unfold(x: Tensor, kernel: Sequence[int], stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    """Patches ``(images * pixels, channels * taps)`` that a convolution multiplies, in the order of its weight."""
    patches = torch.nn.functional.pad(x, [p for pad in reversed(padding) for p in (pad, pad)])
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        patches = patches.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    space = x.ndim - 2
    order = [0, *range(2, 2 + space), 1, *range(2 + space, 2 + 2 * space)]
    return patches.permute(order).reshape(-1, x.shape[1] * math.prod(kernel))
