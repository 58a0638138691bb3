"""The tangent model of a network: a Gaussian-linear model in whitened observations, at the trained weights."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctuq.errors import InputError
from ctuq.laplace.tangent.checks import check_independent, check_inputs, check_network, check_weights, differentiating
from ctuq.laplace.tangent.features import DataFeatures, GaussNewton, ObservedFeatures
from ctuq.laplace.tangent.jacobians import DataJacobian
from ctuq.laplace.tangent.likelihoods import Gaussian, Likelihood
from ctuq.laplace.tangent.normalisation import before_normalisation
from ctuq.linops.jacobian.network import Frozen, WeightBlock, called_norm_share, fixed_share, squeeze
from ctuq.linops.operator import LinearOperator, Space

_OFFSETS = ("taylor", "features", "delta")
_WIDE_GAP = 0.1
_TOLD = 0.01
"""From this share on it is told that parameters of layers that are called norms are left out: those of a real one are fewer."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """``h(theta) = constant + J theta`` with a likelihood; built by `linearise`.

    Attributes
    ----------
    network : Frozen
        The module at its trained weights.
    inputs : Tensor, shape (n, *input)
    likelihood : Likelihood
        Conformed to ``outputs``.
    jacobian : LinearOperator
        Weights (P,) to the network's outputs (n, *output).
    features : DataFeatures or ObservedFeatures
        H: weights (P,) to whitened observations.
    predicted : Tensor
        The network's outputs f, (n, *output), or the one image.
    outputs : Tensor
        f, or A f where it is observed through A; the shape of the observations.
    constant : Tensor, the shape of ``outputs``, float64
        ``h`` at zero weights: ``f - J theta_hat`` (taylor), 0 (features) or f (delta).
    offset : {"taylor", "features", "delta"}
    offset_gap : float
        ``|f - J theta_hat| / |f|``.
    centre : {"mode", "network"}
        Where predictions are centred: at the linear model's mode, or at the network's output.
    scale_free : tuple of str
        Weights that stand before a normalisation layer.
    """

    network: Frozen
    inputs: Tensor
    likelihood: Likelihood
    jacobian: LinearOperator
    features: DataFeatures | ObservedFeatures
    predicted: Tensor
    outputs: Tensor
    constant: Tensor
    offset: str
    offset_gap: float
    centre: str
    scale_free: tuple[str, ...]

    @property
    def blocks(self) -> tuple[WeightBlock, ...]:
        """Parameters in the order of the flat vector."""
        return self.network.blocks

    @property
    def weights(self) -> Tensor:
        """The trained weights theta_hat, (P,)."""
        return self.network.weights

    @property
    def n(self) -> int:
        """Number of data, or of groups of observations that `rows` can choose."""
        features = self.features
        return self.outputs.shape[features.axis if isinstance(features, ObservedFeatures) else 0]

    @property
    def m(self) -> int:
        """Number of observations."""
        return self.features.range.size

    @property
    def groups(self) -> Tensor | None:
        """Noise group of each observation, the shape of ``outputs``; None for one group."""
        return getattr(self.likelihood, "groups", None)

    def rows(self, index: Tensor | Sequence[int]) -> LinearOperator:
        """H of the data with these indices."""
        return self.features.rows(index)

    def target(self, y: Tensor) -> Tensor:
        """Whitened target t, the shape of ``outputs``, float64.

        ``t = r + R^T (f - constant)`` with ``R r`` the negative gradient of the likelihood at f. A Gaussian's is
        ``w^1/2 (y - constant)``. For classes it makes ``|H theta - t|^2 / 2`` the second-order expansion of the negative
        log-likelihood at the network's outputs: a start for the mode, not the mode.

        Raises
        ------
        InputError
            For targets of another shape, classes out of range, NaN.
        """
        likelihood, outputs = self.likelihood, self.outputs.double()
        y = likelihood.targets(outputs, y)
        return likelihood.residual(outputs, y) + likelihood.root_transpose(outputs, outputs - self.constant)

    def gauss_newton(self, precision: Tensor | None = None) -> GaussNewton:
        """``H^T diag(precision) H``, with each mini-batch linearised once a product.

        Parameters
        ----------
        precision : Tensor, the shape of ``outputs``, optional
            ``1 / sigma2`` of each observation; ones if None.
        """
        return GaussNewton(self.features, precision)

    def energy(self, *, rng: torch.Generator | None = None, probes: int = 64) -> Tensor:
        """``sum_n H_ni^2`` of each feature, float64 (P,): exact where that costs no more than the probes."""
        return self.features.energy(rng=rng, probes=probes)

    def at(self, inputs: Tensor | None = None) -> tuple[Tensor, LinearOperator]:
        """Outputs and Jacobian of the network at other inputs (n', *input), or at its own; unwhitened and not observed."""
        if inputs is None:
            return self.predicted, self.jacobian
        check_inputs(inputs, self.weights.device)
        if inputs.shape[1:] != self.inputs.shape[1:]:
            raise InputError(f"The model's inputs have shape {tuple(self.inputs.shape[1:])}, not {tuple(inputs.shape[1:])}.")
        if inputs.dtype != self.inputs.dtype:
            raise InputError(f"The model's inputs are {self.inputs.dtype}, not {inputs.dtype}: convert one of them.")
        if isinstance(self.features, ObservedFeatures):
            return _one_output(self.network, inputs)
        jacobian = DataJacobian(self.network, inputs)
        return jacobian.outputs, jacobian

    def mean(self, outputs: Tensor, jacobian: LinearOperator, mode: Tensor) -> Tensor:
        """Predictive mean at the inputs of ``outputs, jacobian = at(inputs)``, for the linear model's ``mode`` (P,)."""
        if self.centre == "network":
            return outputs
        mode = mode.to(self.weights)
        if self.offset == "features":
            return jacobian(mode)
        return outputs + jacobian(mode - self.weights if self.offset == "taylor" else mode)


def linearise(
    module: nn.Module,
    inputs: Tensor,
    *,
    likelihood: Likelihood | None = None,
    observe: LinearOperator | None = None,
    parameters: Sequence[str] | None = None,
    batch: int | None = None,
    offset: str = "auto",
) -> LinearModel:
    """The tangent model of a network at its weights.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; maps (n, *input) to (n, *output), each datum by itself.
    inputs : Tensor, shape (n, *input)
    likelihood : Likelihood, optional
        `Gaussian` with learned noise by default; `Categorical` or `Bernoulli` for classes.
    observe : LinearOperator, optional
        A ray transform or any other A: the data are then A applied to the one output of ``module(inputs)``, without its batch
        and channel axes.
    parameters : sequence of str, optional
        Names as in ``module.named_parameters()``; by default all weights: every parameter but biases of torch's layers and
        what normalisation layers have. Of weights some of which require gradients those that do not are left out, with a
        warning.
    batch : int, optional
        Data in a mini-batch; by default by size of the activations.
    offset : {"auto", "taylor", "features", "delta"}
        The linear model's value at zero weights. ``taylor``: ``h = f + J (theta - theta_hat)``; ``features``: ``h = J theta``;
        ``delta``: ``h = f + J theta``, whose weights are a deviation from the trained ones. The prior is centred at zero in
        each. The three agree only as far as ``|f - J theta_hat| / |f|``, which the model reports, is small. ``auto`` is
        ``taylor`` for Gaussian likelihoods and ``features`` for classes.

    Returns
    -------
    LinearModel
        Predictions of classes with ``offset="auto"`` are centred at the network's output, all others at the linear model's
        mode: noise and covariance of a regression are those of the linear model about its own mode, and say nothing of the
        residuals that a network keeps which was stopped early. A gap of 0.1 or more, with ``auto``, is a warning.

    Raises
    ------
    InputError
        For NaN in weights or inputs, layers in training mode, outputs that are not differentiable or not one for each datum,
        control flow that torch.func cannot follow, and a likelihood or A that does not suit the outputs.
    ResourceError
        If the linearisation at one input does not fit in memory.

    References
    ----------
    .. [1] Immer, Korzepa, Bauer, arXiv 2008.08400. Antoran, Janz, Allingham et al., arXiv 2206.08900.
    """
    if offset not in ("auto", *_OFFSETS):
        raise InputError(f"There is no offset {offset!r}; choose one of auto, {', '.join(_OFFSETS)}.")
    network = _checked(module, inputs, parameters)
    likelihood = Gaussian() if likelihood is None else likelihood
    with differentiating():
        jacobian, predicted, features = _parts(network, inputs, likelihood, observe, batch)
        tangent = jacobian(network.weights)
    gap = float((predicted - tangent).norm() / predicted.norm().clamp(min=torch.finfo(predicted.dtype).tiny))
    chosen = features.likelihood.offset if offset == "auto" else offset
    if offset == "auto" and chosen == "taylor":
        _warn_of_gap(gap)
    outputs, shift = features.outputs.double(), (tangent if observe is None else observe(tangent)).double()
    constant = {"taylor": outputs - shift, "features": torch.zeros_like(outputs), "delta": outputs}[chosen]
    return LinearModel(
        network,
        inputs,
        features.likelihood,
        jacobian,
        features,
        predicted,
        features.outputs,
        constant,
        offset=chosen,
        offset_gap=gap,
        centre="network" if offset == "auto" and chosen == "features" else "mode",
        scale_free=before_normalisation(network, inputs[:1]),
    )


def _checked(module: nn.Module, inputs: Tensor, parameters: Sequence[str] | None) -> Frozen:
    """The module at its weights, if it can be linearised at these inputs."""
    check_weights(module)
    network = Frozen.of(module, parameters)
    if parameters is None:
        _warn_of_left_out(module)
    check_inputs(inputs, network.weights.device)
    check_network(network, inputs[:1])
    check_independent(network, inputs)
    return network


def _parts(
    network: Frozen, inputs: Tensor, likelihood: Likelihood, observe: LinearOperator | None, batch: int | None
) -> tuple[LinearOperator, Tensor, DataFeatures | ObservedFeatures]:
    """Jacobian, the network's outputs, whitened features."""
    if observe is None:
        jacobian = DataJacobian(network, inputs, batch=batch)
        return jacobian, jacobian.outputs, DataFeatures(jacobian, likelihood.conform(jacobian.outputs))
    image, single = _one_output(network, inputs)
    _check_observe(observe, single.range)
    outputs = observe(image)
    return single, image, ObservedFeatures(single, observe, likelihood.conform(outputs), outputs)


def _one_output(network: Frozen, inputs: Tensor) -> tuple[Tensor, LinearOperator]:
    output, jacobian = network.linearise(inputs)
    return squeeze(output), jacobian


def _check_observe(observe: LinearOperator, image: Space) -> None:
    if observe.domain.shape != image.shape:
        raise InputError(f"The network's output has shape {image.shape}, but what observes it takes {observe.domain.shape}.")
    if observe.domain.dtype != image.dtype:
        raise InputError(f"The network computes in {image.dtype}, but what observes it takes {observe.domain.dtype}: cast one.")


def _warn_of_left_out(module: nn.Module) -> None:
    fixed, called = fixed_share(module), called_norm_share(module)
    if fixed > 0:
        warnings.warn(
            f"{fixed:.0%} of the network's weights do not require gradients and are taken for exact: name them in "
            "parameters= if the error bars are to include them.",
            stacklevel=3,
        )
    if called >= _TOLD:
        warnings.warn(
            f"{called:.0%} of the network's parameters are those of layers that are called norms and are taken for exact: name "
            "them in parameters= if the error bars are to include them.",
            stacklevel=3,
        )


def _warn_of_gap(gap: float) -> None:
    if gap < _WIDE_GAP:
        return
    warnings.warn(
        f"J theta_hat misses the network's output by {gap:.0%} of it (biases, saturation, batch norm): predictions are "
        "those of the linear model at its own mode, maybe far from the network's output; offset='taylor' says that it may.",
        stacklevel=3,
    )
