"""Effective dimension ``gamma = tr(I - S)`` from posterior samples, S the posterior covariance in units of the prior.

With prior draws x, noise draws e and samples ``z = S (x + B^T e)``, all in units of prior and noise, each function gives one
unbiased value for each sample. With ``s_i`` the eigenvalues of ``I - S`` their variances are

===================  ==============================  ====================================
form                 variance of one sample          needs
===================  ==============================  ====================================
`prediction_form`    ``2 sum s^2``                   the fitted values ``B z``
`residual_form`      ``2 sum s^2``, equal to it      nothing; at the exact optimum only
`difference_form`    ``2 sum s^2``                   nothing; also for blocks of weights
`prior_form`         ``sum s (1 + s)``               nothing; also for blocks of weights
`weight_form`        ``2 sum (1 - s)^2``             nothing; hopeless where P >> gamma
===================  ==============================  ====================================

``B z`` and ``x - z`` are independent, so that the mean of prediction and difference form has half their variance: it stands
for twice as many samples. For a block of weights with the block G of ``I - S`` the difference form has variance
``2 |G|_F^2``, the prior form ``tr G + |G|_F^2``, which is never less.
"""

import math

from torch import Tensor


def prediction_form(fitted: Tensor) -> Tensor:
    """``|B z|^2`` from fitted values (k, ...)."""
    return fitted.flatten(1).square().sum(1)


def residual_form(z: Tensor, centre: Tensor) -> Tensor:
    """``z^T (z_n - z)`` with the centres ``z_n = x + B^T e``; (k, P) both."""
    return (z * (centre - z)).sum(1)


def difference_form(z: Tensor, x: Tensor) -> Tensor:
    """``|x - z|^2`` from samples and prior draws (k, P), or their entries of one block."""
    return (x - z).square().sum(1)


def prior_form(z: Tensor, x: Tensor) -> Tensor:
    """``x^T (x - z)`` from samples and prior draws (k, P), or their entries of one block."""
    return (x * (x - z)).sum(1)


def weight_form(z: Tensor) -> Tensor:
    """``P - |z|^2`` from samples (k, P)."""
    return z.shape[1] - z.square().sum(1)


def samples_needed(dimension: float, accuracy: float, *, contraction: float = 0.0) -> int:
    """How many samples give a precision to a relative ``accuracy``.

    One sample has a variance of at most gamma (mean of prediction and difference form), and the fixed point of a map that
    contracts by a factor rho multiplies the error by ``1 / (1 - rho)``: ``k >= 1 / (gamma accuracy^2 (1 - rho)^2)``.
    """
    return max(1, math.ceil(1 / (max(dimension, 1e-6) * accuracy**2 * (1 - contraction) ** 2)))
