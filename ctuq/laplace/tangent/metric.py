"""A Gaussian likelihood whose noise is correlated between the outputs of a datum."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.tangent.likelihoods import Gaussian


@dataclass(frozen=True, eq=False)
class Metric:
    """Gaussian noise of precision ``precision / sigma2`` over the c outputs of a datum: any metric on outputs (n, c).

    Parameters
    ----------
    precision : Tensor, shape (c, c) or (n, c, c)
        Symmetric and positive definite.
    sigma2 : float, optional
        Common factor of the noise covariances; learned with the hyperparameters if None.
    """

    precision: Tensor
    sigma2: float | None = None
    factor: Tensor | None = field(default=None, repr=False)

    @property
    def learns_noise(self) -> bool:
        return self.sigma2 is None

    @property
    def offset(self) -> str:
        return "taylor"

    def conform(self, outputs: Tensor) -> "Metric":
        """The same with the Cholesky factors (n, c, c) of its precisions, for outputs (n, c)."""
        Gaussian(self.sigma2).conform(outputs)
        n, c = (*outputs.shape, 0)[:2]
        if outputs.ndim != 2 or self.precision.shape not in ((c, c), (n, c, c)):
            raise InputError(f"Precisions {tuple(self.precision.shape)} need outputs (n, c), not {tuple(outputs.shape)}.")
        factor, faults = torch.linalg.cholesky_ex(self.precision.double())
        lopsided = not torch.allclose(self.precision, self.precision.mT, rtol=1e-4)
        if bool(faults.any()) or lopsided:
            raise InputError("A precision matrix of the outputs is not symmetric and positive definite.")
        return replace(self, factor=factor.to(outputs).expand(n, c, c))

    def rows(self, index: Tensor, axis: int = 0) -> "Metric":
        precision = self.precision if self.precision.ndim == 2 else self.precision.index_select(axis, index)
        return replace(self, precision=precision, factor=self._root.index_select(axis, index))

    def targets(self, outputs: Tensor, y: Tensor) -> Tensor:
        return Gaussian().targets(outputs, y)

    def root(self, outputs: Tensor, e: Tensor) -> Tensor:
        return (self._root.to(e) @ e[..., None])[..., 0]

    def root_transpose(self, outputs: Tensor, v: Tensor) -> Tensor:
        return (self._root.mT.to(v) @ v[..., None])[..., 0]

    def curvature(self, outputs: Tensor, v: Tensor) -> Tensor:
        return self.root(outputs, self.root_transpose(outputs, v))

    def negative_log(self, outputs: Tensor, y: Tensor) -> Tensor:
        return 0.5 * self.root_transpose(outputs, outputs - y).square().sum()

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.curvature(outputs, outputs - y)

    def residual(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.root_transpose(outputs, y - outputs)

    @property
    def _root(self) -> Tensor:
        assert self.factor is not None, "conform() comes first"
        return self.factor
