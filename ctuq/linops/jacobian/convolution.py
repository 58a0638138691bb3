"""Jacobian products of convolutions for many rows at once."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ctuq.linops.jacobian.layers import channels_last, merge

_BLOCK_BYTES = {"cpu": 2**20, "cuda": 2**28}
"""Patches unfolded at once: they and the pixels they meet stay in a cache of 2 MB. Sizes from 0.25 to 1 MB are equally fast."""


class Convolution:
    """Convolution in input, weight and bias.

    The weight's part of all rows is a batch of matrix products with patches of the input. They are unfolded a few pixels at a
    time: kept whole they would take nine times the memory of the input, and oneDNN's gradient of the weight, which needs
    none, reaches half the speed of a matrix product on processors without AVX-512.

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

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        """See `Rule`."""
        dx, dw, db = tangents
        k = next(len(t) for t in tangents if t is not None)
        out = None
        if dx is not None:
            out = torch.convolution(merge(dx), channels_last(self._weight), None, *self._settings)
            out = out.movedim(1, -1).reshape(k, *self._shape)
        if dw is not None:
            old, out = int(out is not None), self._weight.new_empty(k, *self._shape) if out is None else out
            columns = dw.movedim(2, -1).flatten(2).mT.contiguous()
            for pixels, patches in self._blocks():
                part = out[(slice(None), *pixels)].view(k, -1, out.shape[-1])
                part.baddbmm_(patches.expand(k, -1, -1), columns, beta=old)
        if db is not None:
            shift = db.reshape(k, *[1] * (len(self._shape) - 1), -1)
            out = shift.expand(k, *self._shape) if out is None else out + shift
        assert out is not None
        return out.movedim(-1, 2)

    def vjp(self, cotangent: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """See `Rule`."""
        k, g = cotangent.shape[0], merge(cotangent)
        rows = g.movedim(1, -1).reshape(k, *self._shape)
        dx = self._input_vjp(g).unflatten(0, (k, -1)) if wanted[0] else None
        dw = None
        if wanted[1]:
            outputs, channels, *taps = self._weight.shape
            sums = g.new_zeros(k, outputs, math.prod(taps) * channels)
            for pixels, patches in self._blocks():
                part = rows[(slice(None), *pixels)].view(k, -1, outputs)
                sums.baddbmm_(part.mT, patches.expand(k, -1, -1))
            dw = sums.reshape(k, outputs, *taps, channels).movedim(-1, 2)
        return [dx, dw, rows.flatten(1, -2).sum(1) if wanted[2] else None]

    def _input_vjp(self, g: Tensor) -> Tensor:
        if self._local:
            return (g.movedim(1, -1) @ self._weight.flatten(1)).movedim(-1, 1)
        anywhere = self._x.new_empty(()).expand(g.shape[0], *self._x.shape[1:])
        weight = channels_last(self._weight)
        return torch.ops.aten.convolution_backward(g, anywhere, weight, None, *self._settings, [True, False, False])[0]

    def _blocks(self) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Parts of the output's images and pixels with the patches that they see, ``(pixels, taps * channels)``."""
        stride, padding, dilation = self._settings[:3]
        x, kernel = self._x.movedim(1, -1), self._weight.shape[2:]
        if any(padding):
            x = torch.nn.functional.pad(x, [0, 0, *(p for pad in reversed(padding) for p in (pad, pad))])
        for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), start=1):
            x = x.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
        x = x.movedim(len(kernel) + 1, -1)
        most = _BLOCK_BYTES[x.device.type] // (x[0].numel() // math.prod(self._shape[1:-1]) * x.element_size())
        for pixels in _parts(self._shape[:-1], max(1, most)):
            yield pixels, x[pixels].reshape(-1, math.prod(kernel) * x.shape[-1])


def _parts(shape: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Slices that cut an array into parts of at most ``most`` elements, each contiguous, of about equal size."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    step = math.ceil(shape[0] / math.ceil(shape[0] * inner / most)) if inner <= most else 1
    for start in range(0, shape[0], step):
        rest = [tuple(slice(0, n) for n in shape[1:])] if inner <= most else _parts(shape[1:], most)
        yield from ((slice(start, min(start + step, shape[0])), *part) for part in rest)
