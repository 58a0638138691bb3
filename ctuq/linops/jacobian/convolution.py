"""Jacobian products of convolutions for many rows at once."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ctuq.linops.jacobian.layers import channels_last, merge

_FEW_PIXELS, _LITTLE_WORK = 512, 5e6
"""Below either, pixels of the output or products for a row, unfolding the input beats a convolution for each row."""


class Convolution:
    """Convolution in input, weight and bias.

    Where images are small, the input is unfolded once into patches, and the weight part of all rows is one matrix product.
    Elsewhere convolutions are 2 to 4 times faster than that, and need no memory of nine times the input.

    Parameters
    ----------
    x : Tensor, shape (images, channels, *pixels)
        Channels last in memory; kept as it is.
    weight : Tensor
    output : torch.Size
        Shape of the convolution's output.
    learned : bool
        Whether there will be products with the weight; else only the shape of ``x`` matters.
    stride, padding, dilation : list of int
    """

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        output: torch.Size,
        *,
        learned: bool,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
    ):
        self._x, self._weight = x, weight
        self._settings = (stride, padding, dilation, False, [0] * len(stride), 1)
        self._shape = (output[0], *output[2:], output[1])
        self._local = weight[0, 0].numel() == 1 and stride == [1] * len(stride) and not any(padding)
        self._patches: Tensor | None = None
        pixels = math.prod(self._shape[:-1])
        if learned and self._local:
            self._patches = x.movedim(1, -1).reshape(-1, x.shape[1])
        elif learned and (pixels < _FEW_PIXELS or pixels * weight.numel() < _LITTLE_WORK):
            self._patches = _unfold(x, weight.shape[2:], stride, padding, dilation)

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        """See `Rule`."""
        dx, dw, db = tangents
        out = None
        if dx is not None:
            out = _pixels(torch.convolution(merge(dx), channels_last(self._weight), None, *self._settings), dx.shape[0])
        if dw is not None:
            out = self._weight_jvp(dw, out)
        if db is not None:
            shift = db[:, None, :]
            out = shift.expand(-1, math.prod(self._shape[:-1]), -1) if out is None else out + shift
        assert out is not None
        return out.reshape(-1, *self._shape).movedim(-1, 2)

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """See `Rule`."""
        k, g = cotangent.shape[0], merge(cotangent)
        dx = dw = None
        if wanted[0] and self._local:
            dx = (_pixels(g, k) @ self._weight.flatten(1)).reshape(k, *self._shape[:-1], -1).movedim(-1, 2)
        elif wanted[0]:
            size = (g.shape[0], *self._x.shape[1:])
            dx = self._backward(g, self._x.new_empty(()).expand(size), 0).unflatten(0, (k, -1))
        if wanted[1] and self._patches is not None:
            dw = torch.bmm(_pixels(g, k).mT, self._patches.expand(k, -1, -1)).reshape(k, *self._weight.shape)
        elif wanted[1]:
            dw = torch.stack([self._backward(row, self._x, 1) for row in g.unflatten(0, (k, -1))])
        return [dx, dw, _pixels(g, k).sum(1) if wanted[2] else None]

    def _weight_jvp(self, dw: Tensor, out: Tensor | None) -> Tensor:
        k = len(dw)
        if self._patches is not None:
            patches, weights = self._patches.expand(k, -1, -1), dw.flatten(2).mT
            return torch.bmm(patches, weights) if out is None else out.baddbmm_(patches, weights)
        # The rows see the same input: their weights are channels of one convolution.
        rows = torch.convolution(self._x, channels_last(dw.flatten(0, 1)), None, *self._settings)
        rows = rows.unflatten(1, (k, -1)).movedim(1, 0).movedim(2, -1)
        return rows.reshape(k, -1, rows.shape[-1]) if out is None else out.view(rows.shape).add_(rows).view(out.shape)

    def _backward(self, g: Tensor, x: Tensor, which: int) -> Tensor:
        mask = [which == 0, which == 1, False]
        return torch.ops.aten.convolution_backward(g, x, channels_last(self._weight), None, *self._settings, mask)[which]


def _pixels(images: Tensor, k: int) -> Tensor:
    return images.movedim(1, -1).reshape(k, -1, images.shape[1])


def _unfold(x: Tensor, kernel: Sequence[int], stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    """Patches ``(images * pixels, channels * taps)`` that a convolution multiplies, in the order of its weight."""
    patches = torch.nn.functional.pad(x, [p for pad in reversed(padding) for p in (pad, pad)])
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        patches = patches.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    space = x.ndim - 2
    order = [0, *range(2, 2 + space), 1, *range(2 + space, 2 + 2 * space)]
    return patches.permute(order).reshape(-1, x.shape[1] * math.prod(kernel))
