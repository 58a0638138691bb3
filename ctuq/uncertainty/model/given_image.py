"""How sure systematic errors are beside an image whose error bars are scaled: only what the image makes of them is.

Errors n given rays have the variance that they would have of a known image, from the rays' own noise, and what the image's
errors make of them,

    Var(n) = E Var(n | x) + Var E(n | x),      Var(n | x) = V = (S^-1 + N^T N)^-1,      E(n | x) = V N^T (t - b x)

with rays t, their derivatives N and rays of the image ``b x`` in units of the noise. Held-out views say how far an image is off
where no ray has been, so that their scale a is that of the image's covariance P, and of the second term alone:

    Var(n) = V + V N^T b a P b^T N V

Of flux and shifts of single views the second term is a sixth to a half of the whole, of angles most.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.linops.gaussian import root_given, whitened_factor
from ctuq.uncertainty.model.solved import SolvedRays


@dataclass(frozen=True, eq=False)
class ErrorsGivenImage:
    """Systematic errors if the image were known, and what becomes of their posterior with that.

    Parameters
    ----------
    seen : Tensor, float64, shape (m, e)
        N, in units of the noise.
    before, after : Tensor, float64, shape (e, e)
        Upper triangular roots of V: as the model has it, and as it is to be, over the scale.
    """

    seen: Tensor
    before: Tensor
    after: Tensor

    @classmethod
    def of(cls, given: SolvedRays, scale: float) -> "ErrorsGivenImage":
        """Of a posterior whose covariance is to be multiplied by ``scale``, as `SolvedRays.with_errors_over` prepares it."""
        seen, errors = given.directions[:, given.model.factor.rank :], given.model.prior.errors
        prior = given.model.prior.error_variances(given.system.point.psi)
        # Of a known variance the model has a part, which times the scale is the whole.
        known = torch.tensor([1.0 if error.variance is None else scale for error in errors])
        sizes, gram = torch.tensor([error.size for error in errors], dtype=torch.int64), seen.T @ seen
        before, after = (_root(v.repeat_interleave(sizes).to(gram), gram) for v in (prior, prior * known))
        return cls(seen, before, after / scale**0.5)

    def covariance(self, own: Tensor) -> Tensor:
        """Of all errors, (e, e), from that of the model."""
        return own - self.before @ self.before.T + self.after @ self.after.T

    def draws(self, rays: Tensor, errors: Tensor) -> Tensor:
        """Draws of errors (k, e), from those of the model and the rays (k, m) of the image's draws, in units of the noise."""
        by_image = -(rays @ self.seen) @ self.before @ self.before.T
        left = torch.linalg.solve_triangular(self.before, (errors - by_image).T, upper=True)
        return by_image + left.T @ self.after.T


def _root(variances: Tensor, gram: Tensor) -> Tensor:
    """Of ``(S^-1 + N^T N)^-1``, by the prior's variances (e,)."""
    root = variances.sqrt()
    return root_given(torch.diag(root), whitened_factor(gram, root))
