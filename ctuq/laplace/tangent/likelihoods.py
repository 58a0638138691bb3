"""Likelihoods of a linearised model: curvature, its square root for whitening and sampling, gradient and value.

With outputs f of a network, ``B`` is the Hessian of ``-log p(y | f)`` in f and ``R`` a factor with ``R R^T = B``. The whitened
features are ``H = R^T J``, so that no solver has to know the likelihood. Gaussian formulas are at noise variance 1; the engine
scales by the noise variance that it knows or learns.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ctuq.errors import InputError


class Likelihood(Protocol):
    """What the engine asks of a likelihood; ``outputs`` and targets have the data in front, ``(n, *shape)``."""

    @property
    def learns_noise(self) -> bool:
        """Whether the noise variance is a hyperparameter."""
        ...

    @property
    def offset(self) -> str:
        """The convention of the tangent model that suits it; see `ctuq.laplace.tangent.model.linearise`."""
        ...

    def conform(self, outputs: Tensor) -> "Likelihood":
        """The same with tensors of the shape of ``outputs``; `InputError` where it cannot describe such outputs."""
        ...

    def rows(self, index: Tensor, axis: int = 0) -> "Likelihood":
        """Of the data with these indices along an axis of the outputs, after `conform`."""
        ...

    def targets(self, outputs: Tensor, y: Tensor) -> Tensor:
        """``y`` as the other methods take it; `InputError` for a wrong shape or value."""
        ...

    def root(self, outputs: Tensor, e: Tensor) -> Tensor:
        """``R e`` for ``e`` (..., n, *shape): standard normal e become draws of N(0, B)."""
        ...

    def root_transpose(self, outputs: Tensor, v: Tensor) -> Tensor:
        """``R^T v`` for ``v`` (..., n, *shape)."""
        ...

    def curvature(self, outputs: Tensor, v: Tensor) -> Tensor:
        """``B v`` for ``v`` (..., n, *shape)."""
        ...

    def negative_log(self, outputs: Tensor, y: Tensor) -> Tensor:
        """``-log p(y | outputs)`` without terms free of the outputs, summed over all data, differentiable."""
        ...

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Gradient of `negative_log` in the outputs, (n, *shape)."""
        ...

    def residual(self, outputs: Tensor, y: Tensor) -> Tensor:
        """``r`` with ``R r = -gradient``: what the whitened linear model has to explain beyond the outputs."""
        ...


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent Gaussian noise of variance ``sigma2 / weights``.

    Parameters
    ----------
    sigma2 : float, optional
        Noise variance of an observation of weight 1; learned with the hyperparameters if None.
    weights : Tensor, optional
        Known relative precisions, all positive; broadcast to the shape of the outputs. Ones if None.
    groups : Tensor of int, optional
        Group 0, 1, ... of each observation; broadcast to the shape of the outputs. Each group has a noise variance of its own
        (``torch.arange(c)``: each output). One group if None.
    """

    sigma2: float | None = None
    weights: Tensor | None = None
    groups: Tensor | None = None

    @property
    def learns_noise(self) -> bool:
        return self.sigma2 is None

    @property
    def offset(self) -> str:
        return "taylor"

    def conform(self, outputs: Tensor) -> "Gaussian":
        """The same for outputs of this shape: weights and groups spread over it. `InputError` if they do not fit."""
        if self.sigma2 is not None and not self.sigma2 > 0:
            raise InputError(f"The noise variance is {self.sigma2}: give a positive one, or None to learn it.")
        weights = _fitted(self.weights, outputs, "weights")
        groups = _fitted(self.groups, outputs, "noise groups")
        if weights is not None:
            bad = int((~(weights > 0) | weights.isinf()).sum())
            if bad:
                raise InputError(f"{bad} of {weights.numel()} weights are not positive and finite: leave those out.")
            weights = weights.to(outputs.dtype)
        if groups is not None:
            _check_groups(groups)
        return replace(self, weights=weights, groups=groups)

    def rows(self, index: Tensor, axis: int = 0) -> "Gaussian":
        weights, groups = (None if x is None else x.index_select(axis, index) for x in (self.weights, self.groups))
        return replace(self, weights=weights, groups=groups)

    def targets(self, outputs: Tensor, y: Tensor) -> Tensor:
        y = _shaped(y, outputs)
        missing = int((~y.isfinite()).sum())
        if missing:
            raise InputError(f"{missing} of {y.numel()} targets are NaN or infinite: leave these observations out.")
        return y

    def root(self, outputs: Tensor, e: Tensor) -> Tensor:
        return e if self.weights is None else e * self.weights.sqrt()

    def root_transpose(self, outputs: Tensor, v: Tensor) -> Tensor:
        return self.root(outputs, v)

    def curvature(self, outputs: Tensor, v: Tensor) -> Tensor:
        return v if self.weights is None else v * self.weights

    def negative_log(self, outputs: Tensor, y: Tensor) -> Tensor:
        return 0.5 * self.curvature(outputs, (outputs - y).square()).sum()

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.curvature(outputs, outputs - y)

    def residual(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.root_transpose(outputs, y - outputs)


class Categorical:
    """Classes by softmax of logits ``(n, c, *space)``; targets are class indices ``(n, *space)``.

    ``B = diag(p) - p p^T`` has the factor ``R = diag(sqrt p) - p sqrt(p)^T``, O(c) to apply: no matrix of the classes is ever
    formed. B is singular (its null vector is constant), and nothing here needs its inverse.
    """

    learns_noise = False
    offset = "features"

    def conform(self, outputs: Tensor) -> "Categorical":
        if outputs.ndim < 2 or outputs.shape[1] < 2:
            raise InputError(f"Classes need outputs (n, classes, ...) with at least 2 classes, not {tuple(outputs.shape)}.")
        return self

    def rows(self, index: Tensor, axis: int = 0) -> "Categorical":
        return self

    def targets(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Class indices on the device of the outputs; an `InputError` for others than there are classes."""
        shape, classes = (outputs.shape[0], *outputs.shape[2:]), outputs.shape[1]
        if y.is_floating_point() or y.is_complex() or tuple(y.shape) != shape:
            raise InputError(f"Targets are {tuple(y.shape)} of {y.dtype}: give class indices (integers) of shape {shape}.")
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise InputError(f"Targets run from {int(y.min())} to {int(y.max())}, but the classes from 0 to {classes - 1}.")
        return y.to(outputs.device, torch.long)

    def root(self, outputs: Tensor, e: Tensor) -> Tensor:
        p, axis = _softmax(outputs), _class_axis(outputs, e)
        return p.sqrt() * e - p * (p.sqrt() * e).sum(axis, keepdim=True)

    def root_transpose(self, outputs: Tensor, v: Tensor) -> Tensor:
        p, axis = _softmax(outputs), _class_axis(outputs, v)
        return p.sqrt() * (v - (p * v).sum(axis, keepdim=True))

    def curvature(self, outputs: Tensor, v: Tensor) -> Tensor:
        p, axis = _softmax(outputs), _class_axis(outputs, v)
        return p * v - p * (p * v).sum(axis, keepdim=True)

    def negative_log(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs, y, reduction="sum")

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        return _softmax(outputs) - _one_hot(outputs, y)

    def residual(self, outputs: Tensor, y: Tensor) -> Tensor:
        # The gradient sums to zero over the classes, and R (g / sqrt p) = g for such g.
        logarithm = outputs.log_softmax(1)
        return _one_hot(outputs, y) * (-0.5 * logarithm).exp() - (0.5 * logarithm).exp()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Of the classes, the shape of ``outputs``."""
        return _softmax(outputs)

    def log_probability(self, outputs: Tensor, y: Tensor) -> Tensor:
        """``log p(y | outputs)``, the shape of ``y``."""
        return -torch.nn.functional.cross_entropy(outputs, y, reduction="none")


class Bernoulli:
    """Independent binary targets by the logistic function of logits ``(n, *shape)``; ``B = diag(p (1 - p))``."""

    learns_noise = False
    offset = "features"

    def conform(self, outputs: Tensor) -> "Bernoulli":
        return self

    def rows(self, index: Tensor, axis: int = 0) -> "Bernoulli":
        return self

    def targets(self, outputs: Tensor, y: Tensor) -> Tensor:
        y = _shaped(y, outputs)
        wrong = int(((y != 0) & (y != 1)).sum())
        if wrong:
            raise InputError(f"{wrong} of {y.numel()} targets are neither 0 nor 1.")
        return y

    def root(self, outputs: Tensor, e: Tensor) -> Tensor:
        # p (1 - p) by logarithms: 1 - p would round to 0 for certain outputs.
        logarithm = torch.nn.functional.logsigmoid(outputs) + torch.nn.functional.logsigmoid(-outputs)
        return e * (0.5 * logarithm).exp()

    def root_transpose(self, outputs: Tensor, v: Tensor) -> Tensor:
        return self.root(outputs, v)

    def curvature(self, outputs: Tensor, v: Tensor) -> Tensor:
        return self.root(outputs, self.root(outputs, v))

    def negative_log(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs, y, reduction="sum")

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.sigmoid() - y

    def residual(self, outputs: Tensor, y: Tensor) -> Tensor:
        sign = 2 * y - 1
        return sign * (-0.5 * sign * outputs).exp()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Of a target of 1, the shape of ``outputs``."""
        return outputs.sigmoid()

    def log_probability(self, outputs: Tensor, y: Tensor) -> Tensor:
        """``log p(y | outputs)``, the shape of ``y``."""
        return -torch.nn.functional.binary_cross_entropy_with_logits(outputs, y, reduction="none")


def _fitted(values: Tensor | None, outputs: Tensor, what: str) -> Tensor | None:
    if values is None:
        return None
    try:
        return _column(values, outputs).to(outputs.device).expand(outputs.shape)
    except RuntimeError:
        raise InputError(
            f"The {what} have shape {tuple(values.shape)}, which does not broadcast to the outputs' {tuple(outputs.shape)}."
        ) from None


def _check_groups(groups: Tensor) -> None:
    if groups.is_floating_point() or groups.dtype == torch.bool:
        raise InputError(f"Noise groups are integers 0, 1, ..., not {groups.dtype}.")
    found = groups.unique()
    if not torch.equal(found.cpu(), torch.arange(len(found))):
        raise InputError(f"Noise groups are numbered 0, 1, ... without gaps, not {found.tolist()[:8]}.")


def _shaped(y: Tensor, outputs: Tensor) -> Tensor:
    """``y`` of the shape and dtype of the outputs."""
    y = _column(y, outputs)
    if y.shape != outputs.shape or y.is_complex():
        raise InputError(f"Targets are {tuple(y.shape)} of {y.dtype}, but the outputs are {tuple(outputs.shape)}.")
    return y.detach().to(outputs)


def _column(values: Tensor, outputs: Tensor) -> Tensor:
    """(n,) stands for (n, 1)."""
    return values[..., None] if values.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1 else values


def _softmax(outputs: Tensor) -> Tensor:
    return outputs.softmax(1)


def _class_axis(outputs: Tensor, v: Tensor) -> int:
    return 1 + v.ndim - outputs.ndim


def _one_hot(outputs: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(outputs).scatter_(1, y[:, None], 1.0)
