"""What to compare with, by other libraries: KFAC, diagonal and dense Laplace by laplace-torch; deep ensembles and MC dropout.

All take a model or modules as they are, and give draws of the outputs ``(k, n, *output)`` that the scores of
`ctuq.scores.classes` and the predictives of `ctuq.laplace.predictive` understand. The libraries are the extra ``baselines``.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctuq.errors import CtuqError, InputError
from ctuq.laplace.tangent.likelihoods import Categorical, Gaussian
from ctuq.laplace.tangent.model import LinearModel

_STRUCTURES = ("full", "kron", "diag")
_BATCH = 50
"""Data in a mini-batch of the library, whose diagonal holds dense Jacobians: 500 of a LeNet took 15 GB."""


@dataclass(frozen=True, eq=False)
class LibraryPosterior:
    """A Laplace approximation of laplace-torch, over the same weights as a linear model of ours.

    Parameters
    ----------
    model : LinearModel
    library : Any
        The fitted object of laplace-torch.
    columns : Tensor of int, shape (P,)
        Where the model's weights lie in the library's flat vector, which may have biases too.
    """

    model: LinearModel
    library: Any
    columns: Tensor

    @property
    def precision(self) -> float:
        """Of the prior, the same for all weights."""
        return float(self.library.prior_precision.reshape(-1)[0])

    def deviations(self, k: int, *, rng: torch.Generator) -> Tensor:
        """``k`` draws of the weights minus the trained ones, (k, P)."""
        draws = self.library.sample(k, generator=rng) - self.library.mean
        return draws[:, self.columns].to(self.model.weights)

    def samples(self, k: int, inputs: Tensor | None = None, *, rng: torch.Generator) -> Tensor:
        """``k`` functions drawn from the tangent model around the network, at n inputs: (k, n, *output)."""
        outputs, jacobian = self.model.at(inputs)
        return outputs + jacobian(self.deviations(k, rng=rng))


def laplace_torch(
    model: LinearModel, targets: Tensor, *, structure: str = "kron", precision: float | None = None
) -> LibraryPosterior:
    """Laplace approximation by laplace-torch, with one prior precision for all weights.

    A model over the parameters of the last layer alone makes it a last-layer approximation.

    Parameters
    ----------
    model : LinearModel
        Of many data, with `Categorical` likelihood or `Gaussian` of known noise.
    targets : Tensor
        As the library takes them: class indices (n,), or values of the shape of the outputs.
    structure : {"kron", "diag", "full"}
        Of the curvature: KFAC, diagonal, dense.
    precision : float, optional
        Of the prior; by default the library's own choice, by its evidence at the trained weights.

    Raises
    ------
    CtuqError
        If the library is not installed.
    InputError
        For an unknown structure or another likelihood.
    """
    if structure not in _STRUCTURES:
        raise InputError(f"There is no structure {structure!r}; choose one of {', '.join(_STRUCTURES)}.")
    kind, noise = _likelihood(model)
    library = _import_laplace()
    network = deepcopy(model.network.module).eval()
    names = [block.name for block in model.blocks]
    # The library's KFAC has a block for each bias beside a weight: drawing from all and leaving biases out conditions on them.
    wanted = {*names, *(_beside(network, names) if structure == "kron" else ())}
    for name, value in network.named_parameters():
        value.requires_grad_(name in wanted)
    data = torch.utils.data.TensorDataset(model.inputs, targets)
    options = {"subset_of_weights": "all", "hessian_structure": structure, "sigma_noise": noise}
    with _quiet():
        found = library.Laplace(network, kind, prior_precision=1.0 if precision is None else precision, **options)
        found.fit(torch.utils.data.DataLoader(data, batch_size=_BATCH))
        if precision is None:
            found.optimize_prior_precision(method="marglik", prior_structure="scalar")
    return LibraryPosterior(model, found, _columns(network, model))


def ensemble(members: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """Outputs of networks that were trained from different starts, (k, n, *output).

    Raises
    ------
    InputError
        For no networks.
    """
    if not members:
        raise InputError("An ensemble needs at least one network.")
    with torch.no_grad():
        return torch.stack([member(inputs) for member in members])


def dropout(module: nn.Module, inputs: Tensor, draws: int, *, rng: torch.Generator) -> Tensor:
    """Outputs under draws of a network's dropout masks, (draws, n, *output), each the same function for all n inputs.

    Parameters
    ----------
    module : nn.Module
        With dropout layers, trained with them; its mode is restored.
    inputs : Tensor, shape (n, *input)
    draws : int
    rng : torch.Generator
        Seeds torch's own generator, which is restored.

    Raises
    ------
    InputError
        If the network has no dropout layer.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    if not layers:
        raise InputError("The network has no dropout layer with a positive rate.")
    seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
    devices = [] if inputs.device.type == "cpu" else [inputs.device]
    modes = [m.training for m in layers]
    try:
        for layer in layers:
            layer.train()
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(seed)
            one_mask = torch.func.vmap(lambda x: module(x[None])[0], randomness="same")
            return torch.stack([one_mask(inputs) for _ in range(draws)])
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.train(mode)


def _likelihood(model: LinearModel) -> tuple[str, float]:
    """What the library calls it, and the standard deviation of the noise."""
    likelihood = model.likelihood
    if isinstance(likelihood, Categorical):
        return "classification", 1.0
    if isinstance(likelihood, Gaussian) and likelihood.sigma2 is not None and likelihood.weights is None:
        return "regression", likelihood.sigma2**0.5
    raise InputError("laplace-torch needs Categorical(), or Gaussian(sigma2) with one known noise variance and no weights.")


def _import_laplace() -> Any:
    try:
        with _quiet():
            import laplace
    except ImportError as error:
        raise CtuqError("This baseline needs laplace-torch; install it with `pip install 'ctuq[baselines]'`.") from error
    return laplace


def _beside(network: nn.Module, names: Sequence[str]) -> set[str]:
    """Biases of the layers that the named weights belong to."""
    known = dict(network.named_parameters())
    return {name for name in (f"{n.removesuffix('weight')}bias" for n in names) if name in known}


def _columns(network: nn.Module, model: LinearModel) -> Tensor:
    """Places of the model's weights in the vector of the parameters that the library uses."""
    places, start = {}, 0
    for name, value in network.named_parameters():
        if value.requires_grad:
            places[name] = torch.arange(start, start + value.numel())
            start += value.numel()
    return torch.cat([places[block.name] for block in model.blocks]).to(model.weights.device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' warnings about each other and their defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
