"""Errors of the scanner that no ray tells, beside a posterior whose model does not know them."""

import torch
from torch import Tensor

from ctuq.systematics.block import Block, columns_of
from ctuq.uncertainty.model.covariance import Changed, ImageCovariance
from ctuq.uncertainty.model.gaussian import GaussianPosterior


class BesideHidden(Changed):
    """``N(mean, P + sum_k h_k h_k^T)``, h_k how far a standard deviation of each hidden error puts the image beside the truth.

    As `ctuq.uncertainty.model.posterior.ImagePosterior` has it: rays are not asked how large these errors are.

    Parameters
    ----------
    plain : ImageCovariance
    hidden : tuple of Block
    images : Tensor, float64, shape (k, d)
        The h_k, one for each column of the blocks.
    scale : float
        What the whole covariance is to be multiplied by.
    """

    def __init__(self, plain: ImageCovariance, hidden: tuple[Block, ...], images: Tensor, scale: float = 1.0):
        super().__init__(plain)
        self._blocks, self._scale, self._images = hidden, scale, images / scale**0.5
        widths = [torch.full((block.columns.shape[1],), block.width, dtype=torch.float64) for block in hidden]
        self._widths = torch.cat(widths).to(images.device) / scale**0.5

    @classmethod
    def of(cls, plain: GaussianPosterior, hidden: tuple[Block, ...], scale: float) -> ImageCovariance:
        """The posterior of a Gaussian prior with errors that its image holds; itself where there are none."""
        if not hidden:
            return plain
        columns = columns_of(hidden, plain.given.rays, plain.given.precision)
        return cls(plain, hidden, -plain.response(columns.T), scale)

    def around(self, plain: ImageCovariance) -> "BesideHidden":
        """The same errors beside another covariance of the image, such as a stretched one."""
        return BesideHidden(plain, self._blocks, self._images * self._scale**0.5, self._scale)

    @property
    def error(self) -> float:
        return self._plain.error

    @property
    def hidden(self) -> tuple[Block, ...]:
        return self._blocks

    def hidden_images(self) -> Tensor:
        return self._images.reshape(-1, *self.shape)

    def of_hidden(self, errors: Tensor) -> Tensor:
        return (errors.double() / self._widths @ self._images).reshape(-1, *self.shape)

    def times(self, images: Tensor) -> Tensor:
        """``(P + sum h h^T) x`` for each row of images (k, d), float64."""
        return self._plain.times(images) + (images.double() @ self._images.T) @ self._images

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        return self._plain.draws(n, rng=rng)

    def deviations(self, n: int, *, rng: torch.Generator) -> Tensor:
        return self.joint_deviations(n, rng=rng)[0]

    def joint_deviations(self, n: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `deviations`, and beside each draw that of the hidden errors, (n, k)."""
        images = self._plain.deviations(n, rng=rng)
        z = torch.randn(n, len(self._images), generator=rng, dtype=torch.float64, device=rng.device).to(self.device)
        return images + (z @ self._images).reshape(images.shape).to(images), (z * self._widths).to(images)

    def std(self) -> Tensor:
        return (self._plain.std().square() + self.hidden_images().square().sum(0)).sqrt()
