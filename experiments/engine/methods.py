"""Ways to be uncertain about a class, all as draws of the logits ``(k, n, classes)``, and their scores on turned images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ctuq import laplace
from ctuq.baselines.networks import dropout, ensemble, laplace_torch
from ctuq.laplace.predictive import log_likelihoods, monte_carlo
from ctuq.scores.classes import auroc, brier, calibration_error, joint_score, log_likelihood
from experiments.engine.images import Split, rotated
from experiments.engine.rows import Row

Draws = Callable[[Tensor], Tensor]
CLASSES = laplace.Categorical()
COLOURS = {
    "map": "#111827",
    "ensemble": "#6b7280",
    "dropout": "#a16207",
    "diagonal": "#9333ea",
    "kfac": "#c2410c",
    "last layer": "#047857",
    "laplace": "#1d4ed8",
    "laplace, shared": "#60a5fa",
    "laplace, held-out": "#dc2626",
}
_DRAWS = 64


@dataclass(frozen=True)
class Trainer:
    """How networks are made and trained: ``fit(seed, dropped)``."""

    make: Callable[[float], nn.Module]
    fit: Callable[[Callable[[], nn.Module], int], nn.Module]

    def __call__(self, seed: int, dropped: float = 0.0) -> nn.Module:
        """A trained network in evaluation mode."""
        return self.fit(lambda: self.make(dropped), seed)


def plain(trainer: Trainer, network: nn.Module, seed: int, *, members: int) -> dict[str, Callable[[], Draws]]:
    """The network itself, an ensemble of which it is one, and a network trained with dropout."""

    def many() -> Draws:
        others = [trainer(1000 * (i + 1) + seed) for i in range(members - 1)]
        return lambda x: ensemble([network, *others], x)

    def dropped() -> Draws:
        noisy = trainer(seed, 0.1)
        return lambda x: dropout(noisy, x, _DRAWS, rng=torch.Generator().manual_seed(seed))

    return {"map": lambda: lambda x: ensemble([network], x), "ensemble": many, "dropout": dropped}


def by_library(model: laplace.LinearModel, y: Tensor, structure: str, seed: int) -> Draws:
    """KFAC or diagonal, with the library's choice of one precision."""
    found = laplace_torch(model, y, structure=structure)
    return _pushed(model, found.deviations(_DRAWS, rng=torch.Generator().manual_seed(seed)))


def of_fit(fit: laplace.Fit, seed: int, log_factor: float = 0.0) -> Draws:
    """Draws of the engine's posterior, with all variances times a factor."""
    psi = fit.psi + log_factor * fit.prior.is_variance
    post = laplace.posterior(replace(fit, psi=psi))
    return _pushed(fit.model, post.weights(_DRAWS, rng=torch.Generator().manual_seed(seed)))


def last_layer(network: nn.Module, x: Tensor) -> laplace.LinearModel:
    """The tangent model in the weights of the last linear layer."""
    name = [f"{name}.weight" for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    return laplace.linearise(network, x, likelihood=CLASSES, parameters=[name])


def _pushed(model: laplace.LinearModel, deviations: Tensor) -> Draws:
    def draws(x: Tensor) -> Tensor:
        outputs, jacobian = model.at(x)
        return outputs + jacobian(deviations.to(outputs))

    return draws


def scores(draws: Draws, data: Split, angles: Sequence[float], seed: int) -> list[Row]:
    """Accuracy, log likelihood, calibration, Brier, joint log likelihood, and how well entropy tells turned images apart."""
    x, y = data.test
    rows: list[Row] = []
    upright = _entropy(_probabilities(draws(x)))
    for angle in angles:
        logits = draws(rotated(x, angle)) if angle else draws(x)
        p = _probabilities(logits)
        found: Row = {"angle": angle, "accuracy": float((p.argmax(1) == y).double().mean())}
        found |= {"log_likelihood": log_likelihood(p, y), "ece": calibration_error(p, y), "brier": brier(p, y)}
        turned = torch.arange(2 * len(y)) >= len(y)
        found["auroc"] = auroc(torch.cat([upright, _entropy(p)]), turned) if angle else 0.5
        each = log_likelihoods(CLASSES, logits, y)
        for kappa in (2, 3, 4, 5):
            joint = joint_score(each, kappa, rng=torch.Generator().manual_seed(seed))
            found[f"joint_{kappa}"] = joint.value / joint.tau
        rows.append(found)
    return rows


def _probabilities(logits: Tensor) -> Tensor:
    return monte_carlo(CLASSES, logits.double()).clamp(min=1e-12)


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.log()).sum(1)
