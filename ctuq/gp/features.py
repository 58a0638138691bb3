"""Random features: finite models of a Gaussian process, whose draws can be evaluated anywhere."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor

from ctuq.errors import InputError
from ctuq.gp.kernels import Kernel, Stationary, Tanimoto

_HASHES = 16


@dataclass(frozen=True, eq=False)
class Features(ABC):
    """``Phi(x)`` of shape (n, L) with ``E Phi(x) Phi(x')^T = k(x, x')``."""

    kernel: Kernel

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The features of inputs (n, d)."""


@dataclass(frozen=True, eq=False)
class _CosineFeatures(Features):
    """Cosines and sines at random frequencies (Rahimi and Recht 2007); the variance is exact at every input.

    Parameters
    ----------
    kernel : Stationary
    frequencies : Tensor, shape (L / 2, d)
        Draws of the spectral density at lengthscales 1: with another kernel of the same kind the draws move with it.
    weights : Tensor, shape (L / 2,)
        Probability that each frequency stands for; they sum to 1.
    """

    kernel: Stationary
    frequencies: Tensor
    weights: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        angles = (x / self.kernel.lengthscales.to(x)) @ self.frequencies.to(x).T
        amplitude = (self.kernel.variance * self.weights.to(self.kernel.variance)).sqrt().to(x)
        return torch.cat([angles.cos() * amplitude, angles.sin() * amplitude], 1)


@dataclass(frozen=True, eq=False)
class _HashFeatures(Features):
    """Random signs of minwise hashes: two fingerprints share a hash with the probability of their Tanimoto similarity.

    Broder 1997; Tripp et al. 2023.

    Parameters
    ----------
    kernel : Tanimoto
    order : Tensor of int, shape (L, d)
        A random order of the bits for each feature; the hash is the first bit that is set.
    signs : Tensor, shape (L, d + 1)
        Random signs for each hash; the last column stands for no bit at all.
    """

    kernel: Tanimoto
    order: Tensor
    signs: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        if not bool(((x == 0) | (x == 1)).all()):
            raise InputError("Random features of the Tanimoto kernel need fingerprints of zeros and ones: threshold them.")
        bits = torch.cat([x > 0, torch.ones_like(x[:, :1], dtype=torch.bool)], 1)
        order = torch.nn.functional.pad(self.order, (0, 1), value=x.shape[1])
        parts = []
        for own, signs in zip(order.split(_HASHES), self.signs.split(_HASHES), strict=True):
            first = bits[:, own].byte().argmax(2)
            hashes = own.gather(1, first.T)
            parts.append(signs.gather(1, hashes).T)
        return torch.cat(parts, 1).to(x) * (self.kernel.variance / len(order)).sqrt().to(x)


def random_features(kernel: Kernel, inputs: int, count: int, *, rng: torch.Generator) -> Features:
    """``count`` random features of a kernel on inputs of ``inputs`` columns.

    Parameters
    ----------
    kernel : Kernel
        A stationary one (cosines of random frequencies; Rahimi and Recht 2007) or Tanimoto (random hashes).
    inputs, count : int
    rng : torch.Generator

    Raises
    ------
    InputError
        For a kernel whose spectral density is unknown, and for fewer than two features.
    """
    if count < 2:
        raise InputError(f"A prior draw needs at least 2 random features, not {count}.")
    if isinstance(kernel, Stationary):
        normal = torch.randn(count // 2, inputs, generator=rng, device=rng.device, dtype=torch.float64)
        if kernel.degrees is None:
            return _CosineFeatures(kernel, normal, torch.full_like(normal[:, 0], 1 / len(normal)))
        roots, weights = _chi(len(normal), kernel.degrees, rng)
        return _CosineFeatures(kernel, normal / roots[:, None], weights)
    if isinstance(kernel, Tanimoto):
        order = torch.rand(count, inputs, generator=rng, device=rng.device).argsort(1)
        signs = torch.randint(0, 2, (count, inputs + 1), generator=rng, device=rng.device, dtype=torch.int8) * 2 - 1
        return _HashFeatures(kernel, order, signs)
    raise InputError(f"No random features are known for {type(kernel).__name__}; use a stationary kernel or Tanimoto.")


def _chi(count: int, degrees: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws of ``sqrt(chi^2 / degrees)``, one from each of ``count`` intervals, and the probability of each interval, (count,).

    Half of the intervals share the probability out, the others thin out as the fourth power towards 0, where frequencies are
    high. Close to data of little noise, the posterior is made of these alone: with intervals of equal probability no draw had
    any, and deviations were up to four times too small.
    """
    places = torch.arange(count + 1, device=rng.device, dtype=torch.float64) / count
    edges = 1.25 * places**4 / (places**3 + 0.25)
    weights = edges.diff()
    levels = edges[:-1] + weights * torch.rand(count, generator=rng, device=rng.device, dtype=torch.float64)
    squares = torch.from_numpy(gammaincinv(degrees / 2, levels.cpu().numpy())).to(rng.device) * 2 / degrees
    return squares.sqrt(), weights
