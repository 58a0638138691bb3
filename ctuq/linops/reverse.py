"""Forward products of a call by reverse mode alone."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ctuq.linops.layers import Opaque


class Reverse(Opaque):
    """Any differentiable function, pushed forward by the transpose of its pull-back.

    The pull-back ``u -> J^T u`` is linear, so that its own pull-back is ``J``. Against tracing a linearisation this costs a
    tenth of a second less for each call when it is first used, as often as a mini-batch is linearised, and nothing after.
    """

    @classmethod
    def of(cls, rule: Opaque) -> "Reverse":
        """The same function at the same operands."""
        return cls(rule._function, rule._operands)

    def jvp(self, tangents: Sequence[Tensor | None]) -> Tensor:
        k = next(t.shape[0] for t in tangents if t is not None)
        full = tuple(x.new_zeros(k, *x.shape) if t is None else t for t, x in zip(tangents, self._operands, strict=True))
        return torch.vmap(lambda *row: self._twice(row)[0])(*full)

    @cached_property
    def _twice(self) -> Callable[..., tuple[Tensor, ...]]:
        output, reverse, *_ = torch.func.vjp(self._function, *self._operands)
        return torch.func.vjp(reverse, torch.zeros_like(output))[1]
