"""The ray transform: image to sinogram, with its exact transpose, for batches, under autograd and torch.func."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import BackendError, InputError
from ctuq.linops.operator import LinearOperator
from ctuq.tomo.geometry import Geometry, VolumeGrid

_EXACT = 1e-6
"""Largest relative mismatch, from `adjoint_mismatch`, of a transpose that counts as exact."""


class RayTransform(LinearOperator):
    """``A`` maps images ``(..., y, x)`` in 1/mm to sinograms ``(..., angle, column)``; ``A.T`` back-projects.

    Attributes
    ----------
    grid : VolumeGrid
    geometry : ParallelBeam or FanBeam
    exact_transpose : bool
        Whether ``A.T`` is the transpose of ``A`` to rounding; uncertainty needs it.
    """

    grid: VolumeGrid
    geometry: Geometry
    exact_transpose: bool

    @property
    def device(self) -> torch.device:
        """Where images and sinograms live."""
        return self.domain.device

    @abstractmethod
    def subset(self, indices: Sequence[int] | NDArray) -> "RayTransform":
        """The ray transform of the chosen views."""


class Pair(Protocol):
    """A linear map and its transpose on flat tensors; a plain object, because torch.func cannot carry sparse tensors."""

    def multiply(self, x: Tensor, transposed: bool) -> Tensor:
        """Map the rows of ``x``, (k, inputs) to (k, outputs), by the map or its transpose."""
        ...


class _Multiply(torch.autograd.Function):
    """A `Pair` on the last axis of x; its derivatives are the pair itself, so all of torch.func works."""

    @staticmethod
    def forward(x: Tensor, pair: Pair, transposed: bool) -> Tensor:
        out = pair.multiply(x.reshape(-1, x.shape[-1]), transposed)
        return out.reshape(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.pair, ctx.transposed = inputs

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        return _Multiply.apply(gradients[0], ctx.pair, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx, *tangents: Tensor):
        return _Multiply.apply(tangents[0], ctx.pair, ctx.transposed)

    @staticmethod
    def vmap(info, in_dims, *inputs):
        x, pair, transposed = inputs
        return _Multiply.apply(x.movedim(in_dims[0], 0), pair, transposed), 0


def multiply(x: Tensor, pair: Pair, *, transposed: bool) -> Tensor:
    """Apply a pair to float32 ``x`` (..., inputs), differentiably and under every transform of torch.func."""
    if x.dtype != torch.float32:
        raise InputError(f"The ray transform takes float32 tensors, not {x.dtype}; convert with x.float().")
    product: Tensor = _Multiply.apply(x, pair, transposed)  # pyright: ignore[reportAssignmentType]
    return product


def adjoint_mismatch(A: LinearOperator, *, rng: torch.Generator, probes: int = 4) -> float:
    """Largest |<A x, y> - <x, A' y>| / (|A x| |y|) over random pairs of zero mean.

    Vectors of zero mean matter: with positive ones the mean dominates both products and hides the mismatch.

    Parameters
    ----------
    A : LinearOperator
    rng : torch.Generator
    probes : int
        How many pairs.

    Returns
    -------
    float
        Below 1e-6 for an exact transpose in float32.
    """
    x, y = A.domain.randn(probes, rng=rng), A.range.randn(probes, rng=rng)
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    with torch.no_grad():
        Ax = A(x.reshape(probes, *A.domain.shape)).reshape(probes, -1).double()
        ATy = A.T(y.reshape(probes, *A.range.shape)).reshape(probes, -1).double()
    difference = (Ax * y).sum(1) - (x * ATy).sum(1)
    scale = Ax.norm(dim=1) * y.double().norm(dim=1)
    return float((difference.abs() / scale.clamp_min(torch.finfo(torch.float64).tiny)).max())


def require_exact_transpose(A: LinearOperator) -> None:
    """Refuse a ray transform whose back-projection is not its transpose: sampling and evidence would be biased.

    Raises
    ------
    BackendError
        With the measured mismatch.
    """
    mismatch = adjoint_mismatch(A, rng=torch.Generator().manual_seed(0))
    if getattr(A, "exact_transpose", False) and mismatch <= _EXACT:
        return
    raise BackendError(
        f"{type(A).__name__} cannot be used for uncertainty: its back-projection is not the exact transpose of its projection "
        f"(measured mismatch {mismatch:.1e}, {_EXACT:.0e} allowed); use backend='matrix'."
    )
