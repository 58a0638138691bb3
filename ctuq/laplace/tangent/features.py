"""Whitened features ``H = R^T J`` of a linearised model, or ``R^T A J`` where its output is observed through A."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.tangent.jacobians import DataJacobian, stack
from ctuq.laplace.tangent.likelihoods import Likelihood
from ctuq.linops.operator import LinearOperator, Space

_PROBES = 8


class DataFeatures(LinearOperator):
    """``H = R^T J``: weights (P,) to whitened observations (n, *shape).

    Parameters
    ----------
    jacobian : DataJacobian
    likelihood : Likelihood
        Conformed to the outputs of ``jacobian``.
    """

    def __init__(self, jacobian: DataJacobian, likelihood: Likelihood):
        self.jacobian, self.likelihood, self.outputs = jacobian, likelihood, jacobian.outputs
        self.domain, self.range = jacobian.domain, jacobian.range

    def rows(self, index: Tensor | Sequence[int]) -> LinearOperator:
        """Features of the data with these indices."""
        index = torch.as_tensor(index, device=self.domain.device)
        return DataFeatures(self.jacobian.rows(index), self.likelihood.rows(index))

    def dense_rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the data with their features, ``(b, *shape, P)``."""
        for part, block in self.jacobian.dense_rows():
            yield part, self._on(part).root_transpose(self.outputs[part], block.movedim(-1, 0)).movedim(0, -1)

    def dense(self) -> Tensor:
        """The matrix (observations, P); `ResourceError` if it does not fit in memory."""
        return stack(self.dense_rows(), self.range, self.domain)

    def gauss_newton(self, x: Tensor, precision: Tensor | None) -> Tensor:
        """``H^T diag(precision) H`` applied to (k, P), each mini-batch linearised once."""
        out = torch.zeros_like(x)
        for part, J in self.jacobian.linearisations():
            likelihood, outputs = self._on(part), self.outputs[part]
            u = likelihood.root_transpose(outputs, J(x).reshape(len(x), *outputs.shape))
            u = likelihood.root(outputs, u if precision is None else u * precision[part].to(u))
            J.add_transpose(u.reshape(len(x), *J.range.shape), out)
            del J
        return out

    def energy(self, *, rng: torch.Generator | None, probes: int) -> Tensor:
        """``sum_n H_ni^2``, float64 (P,): exact for at most ``probes`` outputs a datum, else by Rademacher probes."""
        if self.outputs[0].numel() > probes:
            return probed_energy(self, rng, probes)
        total = torch.zeros(self.domain.size, dtype=torch.float64, device=self.domain.device)
        for _, block in self.dense_rows():
            total += block.flatten(0, -2).double().square().sum(0)
        return total

    def _apply(self, x: Tensor) -> Tensor:
        return self.likelihood.root_transpose(self.outputs, self.jacobian._apply(x))

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self.jacobian._apply_transpose(self.likelihood.root(self.outputs, y))

    def _on(self, part: slice) -> Likelihood:
        return self.likelihood.rows(torch.arange(part.start, part.stop, device=self.domain.device))


class ObservedFeatures(LinearOperator):
    """``H = R^T A J`` of one output of the network, seen through A.

    Parameters
    ----------
    jacobian : LinearOperator
        Weights (P,) to the domain of A.
    observe : LinearOperator
        A; with a method ``subset`` (a ray transform's views) mini-batches apply their own rows only.
    likelihood : Likelihood
        Conformed to ``outputs``.
    outputs : Tensor
        A applied to the network's output.
    """

    def __init__(self, jacobian: LinearOperator, observe: LinearOperator, likelihood: Likelihood, outputs: Tensor):
        self.jacobian, self.observe, self.likelihood, self.outputs = jacobian, observe, likelihood, outputs
        self.domain, self.range = jacobian.domain, Space(tuple(outputs.shape), outputs.dtype, outputs.device)
        self.axis = _data_axis(observe)

    def rows(self, index: Tensor | Sequence[int]) -> LinearOperator:
        """Features of these groups of observations: views of a ray transform, or entries of the leading axis."""
        index = torch.as_tensor(index, device=self.domain.device)
        subset: Any = getattr(self.observe, "subset", None)
        if subset is None:
            return Take(self.range, index) @ self
        outputs = self.outputs.index_select(self.axis, index)
        return ObservedFeatures(self.jacobian, subset(index.cpu().numpy()), self.likelihood.rows(index, self.axis), outputs)

    def dense(self) -> Tensor:
        """The matrix (observations, P), by the transpose where that takes fewer products."""
        if self.range.size >= self.domain.size:
            return super().dense()
        eye = torch.eye(self.range.size, dtype=self.range.dtype, device=self.range.device)
        return self.T(eye.reshape(-1, *self.range.shape))

    def gauss_newton(self, x: Tensor, precision: Tensor | None) -> Tensor:
        """``H^T diag(precision) H`` applied to (k, P)."""
        u = self._apply(x)
        return self._apply_transpose(u if precision is None else u * precision.to(u))

    def energy(self, *, rng: torch.Generator | None, probes: int) -> Tensor:
        """``sum_n H_ni^2``, float64 (P,): exact for at most ``probes`` observations, else by Rademacher probes."""
        return self.dense().double().square().sum(0) if self.range.size <= probes else probed_energy(self, rng, probes)

    def _apply(self, x: Tensor) -> Tensor:
        return self.likelihood.root_transpose(self.outputs, self.observe._apply(self.jacobian._apply(x)))

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self.jacobian._apply_transpose(self.observe._apply_transpose(self.likelihood.root(self.outputs, y)))


class Take(LinearOperator):
    """Entries of the leading axis."""

    def __init__(self, domain: Space, index: Tensor):
        self.domain, self._index = domain, index
        self.range = Space((len(index), *domain.shape[1:]), domain.dtype, domain.device)

    def _apply(self, x: Tensor) -> Tensor:
        return x[:, self._index]

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return y.new_zeros(y.shape[0], *self.domain.shape).index_add_(1, self._index, y)


class GaussNewton(LinearOperator):
    """``H^T diag(precision) H``: weights to weights, symmetric.

    Parameters
    ----------
    features : DataFeatures or ObservedFeatures
    precision : Tensor, optional
        ``1 / sigma2`` of each whitened observation; ones if None.
    """

    def __init__(self, features: DataFeatures | ObservedFeatures, precision: Tensor | None = None):
        self._features, self._precision = features, precision
        self.domain = self.range = features.domain

    def _apply(self, x: Tensor) -> Tensor:
        return self._features.gauss_newton(x, self._precision)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._apply(y)


def probed_energy(features: LinearOperator, rng: torch.Generator | None, probes: int) -> Tensor:
    """Mean square of ``H^T e`` over vectors of random signs, float64 (P,)."""
    if rng is None:
        raise InputError("The energy of this many features is estimated by random probes: give rng=torch.Generator().")
    total = torch.zeros(features.domain.size, dtype=torch.float64, device=features.domain.device)
    for start in range(0, probes, _PROBES):
        shape = (min(_PROBES, probes - start), *features.range.shape)
        signs = torch.randint(0, 2, shape, generator=rng, device=rng.device) * 2 - 1
        total += features.T(signs.to(features.range.device, features.range.dtype)).double().square().sum(0)
    return total / probes


def _data_axis(observe: LinearOperator) -> int:
    """The axis that ``subset`` of an operator shortens; the leading one where it has none."""
    subset: Any = getattr(observe, "subset", None)
    part = observe.range.shape if subset is None else subset([0]).range.shape
    return next((i for i, (a, b) in enumerate(zip(part, observe.range.shape, strict=True)) if a != b), 0)
