"""Block conjugate gradients: right-hand sides share not only the products but the space that these span."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.linops.operator import LinearOperator
from ctuq.linops.solve import Solution, relative, reported


@dataclass(frozen=True)
class BlockCG:
    """Conjugate gradients in which every right-hand side is solved in the space of all, with orthonormal residuals.

    The form with a QR factorisation of the residuals (Dubrulle, ETNA 2001), which does not mind right-hand sides that
    depend on one another. 64 right-hand sides of the 67,760 rays of HTC ta at 256 x 256 take 55 steps to 1e-4 where each by
    itself took 157. Vectors have the precision of K.

    Parameters
    ----------
    rtol : float or Tensor, shape (k,)
        Relative residual to reach, of each right-hand side or of all.
    max_steps : int
    near : LinearOperator, optional
        Symmetric positive definite, close to the inverse of K: residuals are orthonormal in its metric.
    """

    rtol: float | Tensor = 1e-3
    max_steps: int = 1000
    near: LinearOperator | None = None

    @torch.no_grad()
    def __call__(self, K: LinearOperator, b: Tensor, *, start: Tensor | None = None) -> Solution:
        """Solve for b (k, *shape) from ``start`` (zeros if None); a miss is a warning with the number."""
        rows = b.reshape(len(b), -1).to(K.domain.dtype)
        x = torch.zeros_like(rows) if start is None else start.reshape(rows.shape).to(rows).clone()
        left = rows if start is None else rows - _times(K, x)
        goal = self.rtol * rows.norm(dim=1)
        mixed, basis, along = self._factors(left)
        steps = 0
        while steps < self.max_steps and bool((self._norms(mixed, basis) > goal).any()):
            steps += 1
            pushed = _times(K, along)
            length = torch.linalg.inv(along @ pushed.T)
            x += (mixed @ length) @ along
            turn, basis, ahead = self._factors(torch.addmm(basis, length, pushed, alpha=-1))
            along = torch.addmm(ahead, turn.T, along)
            mixed = mixed @ turn
        found = Solution(x.double().reshape(b.shape), relative(rows - _times(K, x), rows).double(), steps, True)
        return reported("Block CG", found, self.rtol)

    def _factors(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``rows = mixed basis``, with a basis that is orthonormal in the metric of ``near``, and ``near basis``."""
        q, r = torch.linalg.qr(rows.T)
        basis = q.T.contiguous()
        if self.near is None:
            return r.T, basis, basis
        # Of an orthonormal basis the metric's matrix has the condition of the metric at most; of residuals that depend on one
        # another it would be lost in rounding.
        pulled = _times(self.near, basis)
        values, vectors = torch.linalg.eigh((basis @ pulled.T + pulled @ basis.T).double() / 2)
        sizes = values.clamp(min=torch.finfo(rows.dtype).eps * float(values[-1])).sqrt()
        whiten = (vectors / sizes).T.to(rows)
        return r.T @ (vectors * sizes).to(rows), whiten @ basis, whiten @ pulled

    def _norms(self, mixed: Tensor, basis: Tensor) -> Tensor:
        return (mixed if self.near is None else mixed @ basis).norm(dim=1)


def _times(K: LinearOperator, rows: Tensor) -> Tensor:
    return K._apply(rows.reshape(-1, *K.domain.shape)).reshape(rows.shape)
