"""The network's tangent model of a scan: which space it is solved in, its components, and its posterior.

With H = A J (all used rays of positive weight) everything the evidence needs is ``K_c = H D_c H^T``. Where the image is not
much larger than the data, J is kept and the posterior is exact in image space; else H is kept and the posterior is sampled.

Beside the network's own variance there are two misfits that no weights explain: a white error of all pixels, and edges that
lie a little beside where the image has them, whose error is the displacement times the image's slope.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace import Conditioning, DensePosterior, Evidence, PathwisePosterior, g_prior, isotropic, layerwise
from ctuq.laplace.priors.diagonal import FilterProcess, Prior
from ctuq.laplace.priors.variation import VariationPrior
from ctuq.linops.jacobian.network import Jacobian
from ctuq.linops.memory import require_memory
from ctuq.tomo.rays.matrix import MatrixRayTransform

PRIORS = ("isotropic", "layerwise", "filter", "g")
_IMAGE_SPACE_RATIO = 2.0
_SMALL_IMAGE = 4096
_BATCH = 64
_DRAWS = 512


@dataclass(frozen=True)
class Plan:
    """Which space the posterior is solved in, and what it will need.

    Parameters
    ----------
    space : {"image", "projection"}
    rows : int
        Vector-Jacobian products to come.
    bytes : int
        Estimated peak memory.
    reason : str
        One sentence.
    """

    space: str
    rows: int
    bytes: int
    reason: str


def plan(pixels: int, rays: int, weights: int, components: int) -> Plan:
    """Choose the space by size, and estimate memory.

    Image space is exact and costs one product a pixel; projection space costs one a ray, and its image variances are sampled.
    """
    if pixels <= max(_SMALL_IMAGE, _IMAGE_SPACE_RATIO * rays):
        space, rows = "image", pixels
        reason = f"{pixels} pixels against {rays} rays: exact in image space"
    else:
        space, rows = "projection", rays
        reason = f"{pixels} pixels against {rays} rays: sampled from projection space"
    dense = 8 * ((components + 4) * rays**2 + (components + 4) * pixels**2 * (space == "image"))
    return Plan(space, rows, int(4.2 * rows * weights + dense), reason)


class TangentModel:
    """``h(theta) = f + J (theta - theta_hat)`` seen through the ray transform.

    Parameters
    ----------
    A : MatrixRayTransform
        Of all used views.
    y, weights : Tensor, shape (angle, column)
        Log-corrected projections and relative precisions; rays of weight 0 are left out.
    image : Tensor, shape (y, x)
        The reconstruction f, in 1/mm.
    jacobian : Jacobian
        Of the image over ``scale``.
    scale : float
    prior : str
        One of `PRIORS`.
    progress : callable, optional
        ``progress(done, total)`` after each batch of products.

    Raises
    ------
    ResourceError
        If the estimate of `plan` does not fit in memory, before any product.
    """

    def __init__(
        self,
        A: MatrixRayTransform,
        y: Tensor,
        weights: Tensor,
        *,
        image: Tensor,
        jacobian: Jacobian,
        scale: float,
        prior: str,
        progress: Callable[[int, int], None] | None = None,
    ):
        if prior not in PRIORS:
            raise InputError(f"There is no prior {prior!r}; choose one of {', '.join(PRIORS)}.")
        device = y.device
        kept = (weights.reshape(-1) > 0).nonzero()[:, 0]
        self.rays = kept.cpu().numpy()
        self.view = torch.div(kept, y.shape[1], rounding_mode="floor").cpu()
        self.image, self.shape, self.scale, self.jacobian = image, tuple(image.shape), scale, jacobian
        self._M = sp.csr_array(A.matrix[self.rays], dtype=np.float64)
        self.noise = (1 / weights.reshape(-1)[kept]).double()
        blocks = jacobian.blocks
        count = {"isotropic": 1, "g": 1, "layerwise": len(blocks), "filter": 6 * len(blocks)}[prior]
        self.plan = plan(image.numel(), len(self.rays), jacobian.domain.size, count)
        advice = "choose a smaller image, fewer or binned rays, the isotropic prior, or no uncertainty"
        require_memory(self.plan.bytes, "The tangent model", advice, device)
        self.features = self._assemble(device, progress)
        self.prior = self._make_prior(prior, blocks)
        self._output_components: Tensor | None = None
        if self.plan.space == "image":
            self._output_components = torch.stack(list(self.prior.components(self.features)))
            self.components = torch.stack([self._project_both(S) for S in self._output_components])
        else:
            self.components = torch.stack(list(self.prior.components(self.features)))
        self.profiles = torch.stack([torch.ones_like(image).double(), _slopes(image.double())]).flatten(1)
        self.misfits = torch.stack([self._white(p) for p in self.profiles])
        offset = image.double() - scale * jacobian(jacobian.weights[None])[0].double()
        self.target = y.reshape(-1)[kept].double() - self.project(offset)

    def project(self, image: Tensor) -> Tensor:
        """The kept rays of images ``(..., y, x)``: ``(..., m)``, float64."""
        flat = image.reshape(-1, int(np.prod(self.shape))).double().cpu().numpy()
        rays = torch.from_numpy(np.ascontiguousarray((self._M @ flat.T).T)).to(image.device)
        return rays.reshape(*image.shape[: image.ndim - 2], -1)

    def backproject(self, rays: Tensor) -> Tensor:
        """The transpose of `project`, for ``(k, m)``: ``(k, y, x)``, float64."""
        images = (self._M.T @ rays.double().cpu().numpy().T).T
        return torch.from_numpy(np.ascontiguousarray(images)).to(rays.device).reshape(-1, *self.shape)

    def prior_covariance(self, evidence: Evidence) -> Tensor:
        """Covariance of the kept rays under the prior, without noise: (m, m), float64."""
        a = self.prior.coefficients(evidence.psi).to(self.components)
        return torch.tensordot(a, self.components, 1) + torch.tensordot(_floors(evidence, self.misfits), self.misfits, 1)

    def misfit(self, evidence: Evidence) -> Tensor:
        """Variance of each pixel, (d,) float64, that no weights explain: the white floor, and edges that are displaced."""
        return _floors(evidence, self.profiles) @ self.profiles

    def respond(self, evidence: Evidence, delta: Tensor) -> Tensor:
        """Prior covariance of image and rays applied to rows of ``delta`` (k, m): (k, y, x), float64."""
        if self._output_components is not None:
            S = self._prior_image_covariance(evidence)
            return (self.backproject(delta).flatten(1) @ S).reshape(-1, *self.shape)
        return self._push(self._gain(evidence, delta)).double()

    def posterior(self, evidence: Evidence) -> DensePosterior | PathwisePosterior:
        """The posterior given all kept rays."""
        conditioning = Conditioning.of(self.prior_covariance(evidence), evidence.sigma2 * self.noise)
        if self._output_components is None:
            return PathwisePosterior(
                conditioning,
                lambda n, rng: self._draw(evidence, n, rng),
                lambda delta: self._gain(evidence, delta),
                self._push,
                _DRAWS,
            )
        S = self._prior_image_covariance(evidence)
        cross = torch.from_numpy(np.ascontiguousarray((self._M @ S.cpu().numpy()).T)).to(S)
        return DensePosterior(conditioning.predict(cross, S), self.shape)

    def variation_prior(self, strength: float) -> VariationPrior:
        """The TV hyperprior of this model, ``strength`` per unit of total variation over the image's own.

        Raises
        ------
        InputError
            If the model is not solved in image space, where the variances of differences are exact.
        """
        if self._output_components is None:
            raise InputError("The TV hyperprior needs the model in image space; choose a smaller image or leave it out.")
        index = torch.arange(self.image.numel()).reshape(self.shape)
        first = torch.cat([index[:, :-1].reshape(-1), index[:-1].reshape(-1)])
        second = torch.cat([index[:, 1:].reshape(-1), index[1:].reshape(-1)])
        flat = self.image.reshape(-1).double()
        rows = [S.diagonal()[first] + S.diagonal()[second] - 2 * S[first, second] for S in self._output_components]
        means = flat[first] - flat[second]
        owners = [int(o) for o in self._owners()]
        return VariationPrior(self.prior, torch.stack(rows), means, owners, strength / float(means.abs().sum()))

    def _owners(self) -> Tensor:
        """Which variance each component belongs to: the one entry of psi whose change scales it."""
        psi = self.prior.start().requires_grad_(True)
        a = self.prior.coefficients(psi)
        slopes = torch.stack([torch.autograd.grad(value, psi, retain_graph=True)[0] for value in a])
        return slopes[:, self.prior.is_variance].argmax(1)

    def _assemble(self, device: torch.device, progress: Callable[[int, int], None] | None) -> Tensor:
        """J (pixels, P) in image space, H (rays, P) in projection space; float32."""
        rows = self.plan.rows
        features = torch.empty(rows, self.jacobian.domain.size, dtype=torch.float32, device=device)
        identity = sp.csr_array(sp.eye_array(rows)) if self.plan.space == "image" else self._M
        for start in range(0, rows, _BATCH):
            images = torch.from_numpy(identity[start : start + _BATCH].toarray().astype(np.float32)).to(device)
            features[start : start + _BATCH] = self.jacobian.T(images.reshape(-1, *self.shape))
            if progress is not None:
                progress(min(start + _BATCH, rows), rows)
        return features.mul_(self.scale)

    def _make_prior(self, name: str, blocks) -> Prior:
        if name == "g":
            return g_prior(blocks, self._ray_features())
        return {"isotropic": isotropic, "layerwise": layerwise, "filter": FilterProcess}[name](blocks)

    def _ray_features(self) -> Tensor:
        if self.plan.space == "projection":
            return self.features
        return torch.from_numpy(sp.csr_array(self._M, dtype=np.float32) @ self.features.cpu().numpy()).to(self.features)

    def _white(self, profile: Tensor) -> Tensor:
        """Gram matrix of the kept rays of independent pixels with these variances."""
        weighted = self._M.multiply(profile.cpu().numpy()[None])
        return torch.from_numpy(sp.csr_array(weighted @ self._M.T).toarray()).to(profile)

    def _project_both(self, S: Tensor) -> Tensor:
        half = self._M @ S.cpu().numpy()
        return torch.from_numpy(np.ascontiguousarray(self._M @ half.T)).to(S)

    def _prior_image_covariance(self, evidence: Evidence) -> Tensor:
        assert self._output_components is not None
        a = self.prior.coefficients(evidence.psi).to(self._output_components)
        S = torch.tensordot(a, self._output_components, 1)
        S.diagonal().add_(self.misfit(evidence))
        return S

    def _draw(self, evidence: Evidence, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        def normal(width: int) -> Tensor:
            return torch.randn(n, width, generator=rng, device=rng.device).to(self.features)

        theta = self.prior.root(normal(self.features.shape[1]), evidence.psi)
        misfit = self.misfit(evidence).sqrt().to(self.features) * normal(self.image.numel())
        noise = (evidence.sigma2 * self.noise).sqrt() * normal(len(self.rays)).double()
        observations = (theta @ self.features.T).double() + self.project(misfit.reshape(n, *self.shape)) + noise
        return torch.cat([theta, misfit], 1), observations

    def _gain(self, evidence: Evidence, delta: Tensor) -> Tensor:
        theta = self.prior.covariance(delta.to(self.features) @ self.features, evidence.psi)
        misfit = self.misfit(evidence) * self.backproject(delta).flatten(1)
        return torch.cat([theta, misfit.to(theta)], 1)

    def _push(self, latent: Tensor) -> Tensor:
        width = self.features.shape[1]
        return self.scale * self.jacobian(latent[:, :width]) + latent[:, width:].reshape(-1, *self.shape)


def _slopes(image: Tensor) -> Tensor:
    """Squared gradient of an image (y, x) per pixel of displacement, by central differences."""
    return sum((g.square() for g in torch.gradient(image)), start=torch.zeros_like(image))


def _floors(evidence: Evidence, like: Tensor) -> Tensor:
    return torch.tensor(evidence.floors).to(like)
