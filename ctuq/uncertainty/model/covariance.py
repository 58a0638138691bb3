"""What error bars of an image are asked for, whatever model they come from: a covariance P that is known by its products."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ctuq.linops.basic import Symmetric
from ctuq.linops.gaussian import stable_cholesky
from ctuq.linops.operator import Space
from ctuq.linops.precondition import nystrom
from ctuq.linops.sparse import SparseRows
from ctuq.systematics.block import Block
from ctuq.tomo.rays.rows import RayRows
from ctuq.uncertainty.results.kept_covariance import cosine_waves

_TOGETHER = 256


class ImageCovariance(ABC):
    """The posterior of an image about its mean, ``N(0, P)``."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the image."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the image lies."""

    @abstractmethod
    def times(self, images: Tensor) -> Tensor:
        """``P x`` for each row of images (k, d), float64."""

    @abstractmethod
    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws (n, d), without what hidden errors do."""

    @abstractmethod
    def std(self) -> Tensor:
        """Standard deviation of each pixel, float64."""

    @property
    @abstractmethod
    def error(self) -> float:
        """Relative error of `std`, rms over the pixels."""

    @property
    @abstractmethod
    def matrix(self) -> RayRows:
        """The rays that it is given, whitened, (m, d)."""

    @property
    def size(self) -> int:
        """Number of pixels, d."""
        return torch.Size(self.shape).numel()

    def covariance(self) -> Tensor:
        """The whole matrix (d, d), float64: for small images."""
        eye = torch.eye(self.size, dtype=torch.float64, device=self.device)
        return torch.cat([self.times(part) for part in eye.split(1024)])

    def variance_of(self, rows: SparseRows) -> Tensor:
        """Variance of each linear functional of the image, rows of (k, d): (k,), float64."""
        parts = []
        for start in range(0, rows.shape[0], _TOGETHER):
            few = rows.dense(start, min(start + _TOGETHER, rows.shape[0]))
            parts.append((self.times(few) * few).sum(-1))
        return torch.cat(parts)

    def deviations(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws of the image minus its mean, (n, *shape), float32."""
        return self.draws(n, rng=rng).reshape(n, *self.shape).float()

    def hidden_images(self) -> Tensor:
        """How far a standard deviation of each hidden error puts the image beside the truth, (k, *shape), float64.

        Hidden errors are those of the scanner that no ray tells; most covariances know of none.
        """
        return torch.zeros(0, *self.shape, dtype=torch.float64, device=self.device)

    @property
    def hidden(self) -> tuple[Block, ...]:
        """The hidden errors, whose columns have an image of `hidden_images` each."""
        return ()

    def joint_deviations(self, n: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `deviations`, and beside each draw that of the systematic errors, (n, e): here none."""
        images = self.deviations(n, rng=rng)
        return images, images.new_empty(n, 0)

    def of_hidden(self, errors: Tensor) -> Tensor:
        """Of draws of the systematic errors, as `joint_deviations` gives them, what the hidden ones put into each image."""
        return torch.zeros(len(errors), *self.shape, dtype=torch.float64, device=self.device)

    def directions(self, rank: int, *, waves: int = 0, rng: torch.Generator) -> Tensor:
        """``rank`` images l_i with ``sum l_i l_i^T <= P``, (rank, *shape), float64, or fewer where P has no more.

        First what P does to the `cosine_waves`, ``waves`` along each axis, exactly; then the leading directions of what is
        left: the first half of twice as many, whose spectrum is flat.
        """
        d = self.size
        smooth = torch.from_numpy(cosine_waves(self.shape, waves)).to(self.device)
        pushed = self.times(smooth)
        inner = pushed @ smooth.T
        first = torch.linalg.solve_triangular(stable_cholesky((inner + inner.T) / 2), pushed, upper=False) if waves else pushed
        more = min(rank, d) - len(first)
        if more <= 0:
            return first[:rank].reshape(-1, *self.shape)

        def left(x: Tensor) -> Tensor:
            return self.times(x) - (x @ first.T) @ first

        found = nystrom(Symmetric(left, Space((d,), torch.float64, self.device)), min(2 * more, d), rng=rng)
        second = found.values[:more].sqrt()[:, None] * found.vectors[:more]
        return torch.cat([first, second]).reshape(-1, *self.shape)


class Changed(ImageCovariance):
    """A covariance that is made of another one, of the same image given the same rays."""

    def __init__(self, plain: ImageCovariance):
        self._plain = plain

    @property
    def shape(self) -> tuple[int, ...]:
        return self._plain.shape

    @property
    def device(self) -> torch.device:
        return self._plain.device

    @property
    def matrix(self) -> RayRows:
        return self._plain.matrix


class Stretched(Changed):
    """``T P T`` of another covariance P, with a symmetric T that `_of_rows` applies."""

    def times(self, images: Tensor) -> Tensor:
        """``T P T x`` for each row of images (k, d), float64."""
        return self._of_rows(self._plain.times(self._of_rows(images.double())))

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        return self._of_rows(self._plain.draws(n, rng=rng))

    @abstractmethod
    def _of_rows(self, rows: Tensor) -> Tensor:
        """T of each row (k, d), in its type."""
