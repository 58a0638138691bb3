"""Jacobian products of convolutions for many rows at once."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ctuq.linops.jacobian.layers import channels_last, merge

_BLOCK_BYTES = {"cpu": 2**20, "cuda": 2**28}
"""Patches unfolded at once: they stay in a cache of 2 MB beside the pixels they meet. 0.25 to 1 MB are equally fast."""
_FEW_PIXELS, _LITTLE_WORK = 512, 5e6
"""Pixels of the output and multiplications for a row, below which one matrix product beats a convolution for each row."""
ROWS_WORTH_UNFOLDING = 3
"""From so many rows on, patches are unfolded for large images too."""


class Convolution:
    """Convolution in input, weight and bias; what it returns for the input and the output shares memory with nothing else.

    The weight's part is a batch of matrix products of all rows with patches of the input, unfolded a few pixels at a time:
    kept whole they would take nine times the memory of the input. Where images are large, a convolution for each row is as
    fast forward, and backward while rows are few. Its gradient in the weight reaches half the speed of a matrix product on
    processors without AVX-512.

    Parameters
    ----------
    x : Tensor, shape (images, channels, *pixels)
        Channels last in memory; kept as it is.
    weight : Tensor
    output : torch.Size
        Shape of the convolution's output.
    stride, padding, dilation : list of int
    """

    def __init__(
        self, x: Tensor, weight: Tensor, output: torch.Size, *, stride: list[int], padding: list[int], dilation: list[int]
    ):
        self._x, self._weight = x, weight
        self._settings = (stride, padding, dilation, False, [0] * len(stride), 1)
        self._shape = (output[0], *output[2:], output[1])
        self._local = weight[0, 0].numel() == 1 and stride == [1] * len(stride) and not any(padding)
        pixels = math.prod(self._shape[:-1])
        large = pixels >= _FEW_PIXELS and pixels * weight.numel() >= _LITTLE_WORK
        self._by_row = x.device.type == "cpu" and large and not self._local

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        """See `Rule`."""
        dx, dw, db = tangents
        k = next(len(t) for t in tangents if t is not None)
        out = None if dx is None else self._forward(merge(dx), self._weight).reshape(k, *self._shape)
        if dw is not None:
            add = out is not None
            out = dw.new_empty(k, *self._shape) if out is None else out
            self._weight_jvp(dw, out, add=add)
        if db is not None:
            shift = db.reshape(k, *[1] * (len(self._shape) - 1), -1)
            out = shift.expand(k, *self._shape).contiguous() if out is None else out.add_(shift)
        assert out is not None
        return out.movedim(-1, 2)

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """See `Rule`."""
        k, g = cotangent.shape[0], merge(cotangent)
        rows = g.movedim(1, -1).reshape(k, *self._shape)
        dx = dw = None
        if wanted[0] and self._local:
            dx = (rows @ self._weight.flatten(1)).movedim(-1, 2)
        elif wanted[0]:
            anywhere = self._x.new_empty(()).expand(len(g), *self._x.shape[1:])
            dx = self._backward(g, anywhere, 0).unflatten(0, (k, -1))
        if wanted[1] and self._by_row and k < ROWS_WORTH_UNFOLDING:
            dw = torch.stack([self._backward(row, self._x, 1) for row in g.unflatten(0, (k, -1))])
        elif wanted[1]:
            dw = self._weight_vjp(rows)
        return [dx, dw, rows.flatten(1, -2).sum(1) if wanted[2] else None]

    def _weight_jvp(self, dw: Tensor, out: Tensor, *, add: bool) -> None:
        if self._by_row:
            for row, target in zip(dw, out, strict=True):
                part = self._forward(self._x, row)
                target.add_(part) if add else target.copy_(part)
            return
        columns = dw.movedim(2, -1).flatten(2).mT.contiguous()
        for pixels, patches in self._blocks():
            part = out[(slice(None), *pixels)].view(len(out), -1, out.shape[-1])
            part.baddbmm_(patches.expand(len(out), -1, -1), columns, beta=int(add))

    def _weight_vjp(self, rows: Tensor) -> Tensor:
        k, (outputs, channels, *taps) = len(rows), self._weight.shape
        sums = rows.new_zeros(k, outputs, math.prod(taps) * channels)
        for pixels, patches in self._blocks():
            part = rows[(slice(None), *pixels)].view(k, -1, outputs)
            sums.baddbmm_(part.mT, patches.expand(k, -1, -1))
        return sums.reshape(k, outputs, *taps, channels).movedim(-1, 2)

    def _forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.convolution(x, channels_last(weight), None, *self._settings).movedim(1, -1)

    def _backward(self, g: Tensor, x: Tensor, which: int) -> Tensor:
        mask = [which == 0, which == 1, False]
        return torch.ops.aten.convolution_backward(g, x, channels_last(self._weight), None, *self._settings, mask)[which]

    def _blocks(self) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Parts of the output's images and pixels with the patches that they see, ``(pixels, taps * channels)``."""
        stride, padding, dilation = self._settings[:3]
        x, taps = self._x.movedim(1, -1), self._weight.shape[2:]
        if any(padding):
            x = torch.nn.functional.pad(x, [0, 0, *(p for pad in reversed(padding) for p in (pad, pad))])
        for axis, (size, step, gap) in enumerate(zip(taps, stride, dilation, strict=True), start=1):
            x = x.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
        x = x.movedim(len(taps) + 1, -1)
        width = math.prod(taps) * x.shape[-1]
        most = _BLOCK_BYTES.get(x.device.type, _BLOCK_BYTES["cuda"]) // (width * x.element_size())
        for pixels in _parts(self._shape[:-1], math.prod(self._shape) if self._local else most):
            yield pixels, x[pixels].reshape(-1, width)


def _parts(shape: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Slices that cut an array into contiguous parts of about equal size, of at most ``most`` elements or of one."""
    inner = math.prod(shape[1:])
    if not shape:
        yield ()
    elif inner <= most:
        step = math.ceil(shape[0] / math.ceil(shape[0] * inner / most))
        yield from ((slice(start, start + step), *map(slice, shape[1:])) for start in range(0, shape[0], step))
    else:
        yield from ((slice(i, i + 1), *rest) for i in range(shape[0]) for rest in _parts(shape[1:], most))
