"""Scores of predictive probabilities: log-likelihood, calibration error, Brier, ROC area, joint log-likelihood."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import InputError


def log_likelihood(probabilities: Tensor, y: Tensor) -> float:
    """Mean ``log p(y_i)``, nats.

    Parameters
    ----------
    probabilities : Tensor, shape (n, c) or (n,)
        Of the classes, or of class 1 of two.
    y : Tensor of int, shape (n,)
    """
    p, y = _checked(probabilities, y)
    return float(p.gather(1, y[:, None]).log().mean())


def brier(probabilities: Tensor, y: Tensor) -> float:
    """Mean ``sum_c (p_c - [y = c])^2``, from 0 to 2; for probabilities (n,) of class 1 that is ``2 (p - y)^2``."""
    p, y = _checked(probabilities, y)
    return float((p - torch.nn.functional.one_hot(y, p.shape[1])).square().sum(1).mean())


def calibration_error(probabilities: Tensor, y: Tensor, *, bins: int = 15) -> float:
    """Expected calibration error: mean ``|accuracy - confidence|`` over equal bins (a, b] of the largest probability.

    References
    ----------
    .. [1] Guo, Pleiss, Sun, Weinberger, arXiv 1706.04599.
    """
    p, y = _checked(probabilities, y)
    confidence, choice = p.max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64, device=p.device)
    gaps.index_add_(0, place, (choice == y).double() - confidence)
    return float(gaps.abs().sum() / len(y))


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve: the probability that a positive case scores above a negative one, ties counted half.

    Parameters
    ----------
    scores : Tensor, shape (n,)
        High for positives, such as the entropy of out-of-distribution data.
    positive : Tensor of bool, shape (n,)

    Raises
    ------
    InputError
        If there are no positives or no negatives.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        raise InputError(f"A ROC curve needs both kinds of cases, not {positives} positives and {negatives} negatives.")
    from scipy.stats import rankdata

    ranks = rankdata(scores.detach().cpu().double().numpy())
    above = ranks[positive.cpu().numpy().astype(bool)].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


@dataclass(frozen=True)
class JointScore:
    """Mean joint log-likelihood of groups of data.

    Parameters
    ----------
    value : float
        Nats a group, of ``tau`` weighted observations.
    error : float
        Standard error over the groups of one shuffle.
    tau : int
        Sum of the weights in a group.
    marginal : float
        The same with every datum's draws averaged by themselves, a weighted observation: ``tau * marginal`` is the joint score
        of a predictor without correlations, and equals ``value`` for one that is certain of its function.
    """

    value: float
    error: float
    tau: int
    marginal: float


def joint_score(log_likelihoods: Tensor, kappa: int, *, shuffles: int = 10, rng: torch.Generator) -> JointScore:
    """Log-likelihood of kappa data together, each repeated a random number of times: it sees correlations of predictions.

    ``log mean_j exp sum_l b_l log p_j(y_l | x_l)`` over groups of kappa data, with uniformly drawn positive integers ``b`` that
    sum to ``tau = 10 (kappa - 1)`` (1 for kappa = 1, the usual log-likelihood). From few draws j it is biased low: take 64 or
    more.

    Parameters
    ----------
    log_likelihoods : Tensor, shape (k, n)
        ``log p_j(y_i | x_i)`` of each draw j of the function: `predict.log_likelihoods`.
    kappa : int
    shuffles : int
        How many times the data are divided into groups.
    rng : torch.Generator

    References
    ----------
    .. [1] Osband, Wen, Asghari et al., arXiv 2202.13509, for the repetition; Antoran, arXiv 2404.19157, for the weights.
    """
    n = log_likelihoods.shape[1]
    if not 1 <= kappa <= n:
        raise InputError(f"Groups of {kappa} data cannot be made of {n}.")
    tau = 10 * (kappa - 1) if kappa > 1 else 1
    draws = log_likelihoods.detach().double()
    single = _log_mean(draws)
    values, marginals = [], []
    for _ in range(shuffles):
        order = torch.randperm(n, generator=rng, device=rng.device)[: n // kappa * kappa].reshape(-1, kappa)
        order = order.to(draws.device)
        weights = _compositions(len(order), kappa, tau, rng).to(draws)
        values.append(weighted_joint(draws[:, order], weights))
        marginals.append((weights * single[order]).sum(1) / tau)
    value = torch.stack(values)
    error = float(value.std()) / math.sqrt(value.shape[1]) if value.numel() > 1 else math.nan
    return JointScore(float(value.mean()), error, tau, float(torch.stack(marginals).mean()))


def weighted_joint(log_likelihoods: Tensor, weights: Tensor) -> Tensor:
    """``log mean_j exp sum_l b_gl L_jgl`` for draws (k, groups, kappa) and weights (groups, kappa), (groups,)."""
    return _log_mean((weights * log_likelihoods).sum(2))


def _log_mean(x: Tensor) -> Tensor:
    return x.logsumexp(0) - math.log(len(x))


def _compositions(count: int, parts: int, total: int, rng: torch.Generator) -> Tensor:
    """Uniform draws of ``parts`` positive integers that sum to ``total``, (count, parts): by cuts between total ones."""
    keys = torch.rand(count, total - 1, generator=rng, device=rng.device)
    cuts = keys.argsort(1)[:, : parts - 1].sort(1).values + 1
    ends = torch.nn.functional.pad(cuts, (0, 1), value=total)
    return ends.diff(dim=1, prepend=ends.new_zeros(count, 1))


def _checked(probabilities: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (n, c), float64, and classes (n,)."""
    p = probabilities.detach().double()
    p = torch.stack([1 - p, p], 1) if p.ndim == 1 else p
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(y):
        raise InputError(f"Probabilities {tuple(probabilities.shape)} and classes {tuple(y.shape)} are not of the same data.")
    y = y.to(p.device, torch.long)
    if int(y.min()) < 0 or int(y.max()) >= p.shape[1]:
        raise InputError(f"Classes run from {int(y.min())} to {int(y.max())}, but there are {p.shape[1]} probabilities.")
    if not bool(((p >= 0) & (p <= 1 + 1e-6)).all()) or not bool(((p.sum(1) - 1).abs() < 1e-4).all()):
        raise InputError("Probabilities are not from 0 to 1 with sum 1: were they logits?")
    return p, y
