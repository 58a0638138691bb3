"""The Jacobian of a network's output in its weights, as a linear operator that keeps one linearisation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ctuq.errors import InputError
from ctuq.linops.jacobian.kernels import twice_differentiable
from ctuq.linops.jacobian.tape import Tape, record
from ctuq.linops.memory import in_parts
from ctuq.linops.operator import LinearOperator, Space

_NEAR_BYTES = {"cpu": 2**23, "cuda": 2**28}
"""Of the widest value of all rows pushed through the network at once, so that it stays near the cache."""
_MOST_ROWS = 64
_LIVE = 8
"""Values of the widest kind that a product takes for each row: 4 with the default U-Net, and as much in gaps between them."""
_MEMORY = 2**30
_NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_WITH_BIAS = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    *_NORMALISATIONS,
)
_BIASES = re.compile("(in_proj_)?bias(_[kv]|_(ih|hh)(_.*)?)?")
"""What these layers call their biases."""


@dataclass(frozen=True)
class WeightBlock:
    """One parameter tensor in the flat vector: ``vector[..., slice]`` holds ``shape`` in torch's own order."""

    name: str
    slice: slice
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ProductChoice:
    """How products are made. Equal choices give bit-equal products on one machine, others agree to rounding: record it.

    Parameters
    ----------
    vjp, jvp : str
        Of `J.T` and of `J`: "tape" for the rules of this package, "func" for `torch.func` of the whole network.
    vjp_rows, jvp_rows : int
        Rows that are pushed through the network at once.
    """

    vjp: str = "tape"
    jvp: str = "tape"
    vjp_rows: int = 1
    jvp_rows: int = 1

    def __post_init__(self):
        if not {self.vjp, self.jvp} <= {"tape", "func"}:
            raise InputError(f"Products are made by 'tape' or 'func', not {self.vjp!r} and {self.jvp!r}.")
        if min(self.vjp_rows, self.jvp_rows) < 1:
            raise InputError(f"The chunk is {min(self.vjp_rows, self.jvp_rows)} rows: give at least 1.")


class Jacobian(LinearOperator):
    """``J`` of shape (output, P) at fixed weights: ``J(v)`` pushes weights ``(k, P)`` forward, ``J.T(u)`` pulls images back.

    Neither runs the network again. Later changes of the module's weights have no effect.

    Attributes
    ----------
    blocks : tuple of WeightBlock
        The parameters in the order of the flat vector.
    weights : Tensor
        The weights linearised at, ``(P,)``.
    choice : ProductChoice
    widest : int
        Bytes of the largest intermediate value of one row.
    source : (Frozen, Tensor), optional
        Network and inputs that it is of.
    """

    def __init__(self, tapes: tuple[Tape, Tape], network: "Frozen", output: Tensor, *, widest: int, choice: ProductChoice):
        (self._tape, self._whole), self._raw, self.widest, self.choice = tapes, output.shape, widest, choice
        self.weights, self.blocks = network.weights, network.blocks
        self.domain = Space(tuple(self.weights.shape), self.weights.dtype, self.weights.device)
        self.range = Space(tuple(squeeze(output).shape), output.dtype, output.device)
        self.source: tuple[Frozen, Tensor] | None = None

    def __reduce__(self):
        """Pickled as network and inputs, to be linearised again: what torch keeps of a call cannot be pickled."""
        return super().__reduce__() if self.source is None else (_again, (*self.source, self.choice))

    @torch.no_grad()
    def _apply(self, x: Tensor) -> Tensor:
        out = x.new_empty(x.shape[0], *self._raw, dtype=self.range.dtype)
        tape = self._tape if self.choice.jvp == "tape" else self._whole

        def push(part: slice) -> None:
            out[part] = tape.jvp([x[part, b.slice].reshape(-1, *b.shape) for b in self.blocks])

        self.choice = replace(self.choice, jvp_rows=in_parts(len(x), self.choice.jvp_rows, push))
        return out.reshape(-1, *self.range.shape)

    @torch.no_grad()
    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self.add_transpose(y, y.new_zeros(y.shape[0], *self.domain.shape, dtype=self.domain.dtype))

    @torch.no_grad()
    def add_transpose(self, y: Tensor, total: Tensor) -> Tensor:
        """Add ``J^T y`` to ``total`` (k, P) in place and return it: sums over mini-batches need no second vector."""
        tape = self._tape if self.choice.vjp == "tape" else self._whole

        def pull(part: slice) -> None:
            # What is left of an attempt that ran out of memory must not be in the sum.
            target = torch.zeros_like(total[part]) if total.is_cuda else total[part]
            tape.add_vjp(y[part].reshape(-1, *self._raw), [target[:, b.slice].view(-1, *b.shape) for b in self.blocks])
            if target.is_cuda:
                total[part] += target

        self.choice = replace(self.choice, vjp_rows=in_parts(len(y), self.choice.vjp_rows, pull))
        return total

    @property
    def recorded(self) -> bool:
        """Whether the network's calls were recorded one by one; else both ways to make a product are torch.func's."""
        return len(self._tape.nodes) > 1

    def rows_within(self, memory: int | None = None) -> int:
        """How many rows can be pushed at once beside the linearisation in ``memory`` bytes, by default 1 GiB; at least 1."""
        left = (_MEMORY if memory is None else memory) - self.bytes
        return min(_MOST_ROWS, max(1, left // max(1, self.row_bytes)))

    @property
    def row_bytes(self) -> int:
        """Memory that a product needs for each row that is pushed at once, beside the rows themselves."""
        return _LIVE * self.widest

    @property
    def bytes(self) -> int:
        """Memory that the linearisation holds beside the weights, without what torch.func keeps for calls without a rule."""
        held = _held([vars(node.rule) for node in self._tape.nodes])
        held.pop(self.weights.untyped_storage().data_ptr(), None)
        return sum(x.untyped_storage().nbytes() for x in held.values())


@dataclass(frozen=True, eq=False)
class Frozen:
    """A module at fixed weights: what linearisations at different inputs share.

    Parameters
    ----------
    module : nn.Module
    weights : Tensor, shape (P,)
        Copy of the chosen parameters.
    blocks : tuple of WeightBlock
    fixed : dict of str to Tensor
        Copies of the other parameters and of the buffers.
    trusted : set
        Structures of the records that have been compared with autograd.
    """

    module: nn.Module
    weights: Tensor
    blocks: tuple[WeightBlock, ...]
    fixed: dict[str, Tensor]
    trusted: set[tuple] = field(default_factory=set)

    @classmethod
    def of(cls, module: nn.Module, parameters: Sequence[str] | None = None) -> "Frozen":
        """Copy the parameters; see `jacobian_of` for their choice and the errors."""
        names = list(weight_names(module) if parameters is None else parameters)
        _check(module, names)
        values = {name: value.detach() for name, value in module.named_parameters()}
        chosen = [(name, values.pop(name)) for name in names]
        values.update((name, value.detach()) for name, value in module.named_buffers())
        fixed = {name: value.clone() for name, value in values.items()}
        return cls(module, torch.cat([value.reshape(-1) for _, value in chosen]), _blocks(chosen), fixed)

    def leaves(self, weights: Tensor | None = None) -> list[Tensor]:
        """The chosen parameters one by one, views of ``weights`` (P,) or of the fixed ones."""
        flat = self.weights if weights is None else weights
        return [flat[block.slice].reshape(block.shape) for block in self.blocks]

    def __call__(self, inputs: Tensor, *leaves: Tensor) -> Tensor:
        """``module(inputs)`` at other values of the chosen parameters, or at the fixed ones."""
        _check_steady(self.module)
        chosen = {block.name: leaf for block, leaf in zip(self.blocks, leaves or self.leaves(), strict=True)}
        with twice_differentiable(self.module):
            return functional_call(self.module, {**self.fixed, **chosen}, (inputs.detach(),))

    @torch.no_grad()
    def linearise(
        self, inputs: Tensor, *, chunk: int | None = None, choice: ProductChoice | None = None
    ) -> tuple[Tensor, Jacobian]:
        """The module's own output, with all its axes, and the Jacobian that `jacobian_of` gives.

        The record of a first input is compared with autograd, and that of a later one if it has made other calls.
        """
        if choice is None and chunk is not None:
            choice = ProductChoice(vjp_rows=chunk, jvp_rows=chunk)

        def function(*leaves: Tensor) -> Tensor:
            return self(inputs, *leaves)

        leaves = self.leaves()
        output, tape, widest = record(function, leaves, trusted=self.trusted)
        if choice is None:
            near = _NEAR_BYTES.get(output.device.type, _NEAR_BYTES["cuda"]) // max(1, widest)
            rows = min(max(1, near), _MOST_ROWS)
            choice = ProductChoice(vjp_rows=rows, jvp_rows=rows)
        jacobian = Jacobian((tape, Tape.whole(function, leaves)), self, output, widest=widest, choice=choice)
        jacobian.source = self, inputs
        return output, jacobian


def jacobian_of(
    module: nn.Module,
    inputs: Tensor,
    *,
    parameters: Sequence[str] | None = None,
    chunk: int | None = None,
    choice: ProductChoice | None = None,
) -> tuple[Tensor, Jacobian]:
    """Output and Jacobian of ``module(inputs)`` in the chosen weights.

    The network runs once, and once more to compare the record with autograd.

    Parameters
    ----------
    module : nn.Module
        Any network without random or batch-dependent layers in training mode. Convolutions, linear layers, group and
        batch normalisation, activations, resampling, sums and concatenations are fast; everything else goes through
        ``torch.func``.
    inputs : Tensor
        The one argument of the module, batch axis in front.
    parameters : sequence of str, optional
        Names as in ``module.named_parameters()``, in the order of the flat vector; by default `weight_names`.
    chunk : int, optional
        Rows pushed through the network at once; by default as many as keep the widest activation near the cache.
    choice : ProductChoice, optional
        In place of ``chunk``: what `times_of_products` found fastest, or what an earlier run recorded.

    Returns
    -------
    output : Tensor
        ``squeeze(module(inputs))``: without its axes 0 and 1 where these have length one.
    jacobian : Jacobian
        From ``(P,)`` to the shape of ``output``.

    Raises
    ------
    InputError
        For unknown or no parameters, and for batch normalisation or dropout in training mode.
    """
    output, jacobian = Frozen.of(module, parameters).linearise(inputs, chunk=chunk, choice=choice)
    return squeeze(output), jacobian


def _again(network: Frozen, inputs: Tensor, choice: ProductChoice) -> Jacobian:
    return network.linearise(inputs, choice=choice)[1]


def squeeze(output: Tensor) -> Tensor:
    """A network's output without its batch and channel axes (0 and 1) where these have length one."""
    return output.squeeze(tuple(axis for axis in (0, 1) if axis < output.ndim))


def weight_names(module: nn.Module) -> list[str]:
    """Names of all weights: of every parameter but biases of torch's layers and what normalisation layers have.

    A parameter of the user's own that is called bias is a weight: it may multiply. Where some of them require gradients and
    others do not, the latter have been fixed on purpose, and are left out.
    """
    names = _unfixed(module)
    learned = [name for name in names if module.get_parameter(name).requires_grad]
    return learned or names


def fixed_share(module: nn.Module) -> float:
    """Share of the weights that `weight_names` leaves out since they do not require gradients."""
    total = _count(module, _unfixed(module))
    return 1 - _count(module, weight_names(module)) / total if total else 0.0


def called_norm_share(module: nn.Module) -> float:
    """Share of all parameters that `weight_names` leaves out since their layer, not one of torch's, is called a norm."""
    every = [name for name, _ in module.named_parameters()]
    called = [n for n in every if _is_normalisation(module, n) and not isinstance(_owner(module, n)[0], _NORMALISATIONS)]
    return _count(module, called) / max(_count(module, every), 1)


def _count(module: nn.Module, names: Sequence[str]) -> int:
    return sum(module.get_parameter(name).numel() for name in names)


def _unfixed(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters() if not (_is_bias(module, name) or _is_normalisation(module, name))]


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The layer of a parameter and what it is called there, also where a parametrisation holds it."""
    before, _, parametrised = name.rpartition("parametrizations.")
    if parametrised != name:
        return module.get_submodule(before.removesuffix(".")), parametrised.partition(".")[0]
    before, _, last = name.rpartition(".")
    return module.get_submodule(before), last


def _is_bias(module: nn.Module, name: str) -> bool:
    """Whether a parameter is what a layer of torch adds (bias, in_proj_bias, bias_hh_l0)."""
    owner, last = _owner(module, name)
    return isinstance(owner, _WITH_BIAS) and _BIASES.fullmatch(last) is not None


def _is_normalisation(module: nn.Module, name: str) -> bool:
    """Whether a parameter is the scale of a normalisation layer, of torch's own or of a class called like one."""
    owner, _ = _owner(module, name)
    return isinstance(owner, _NORMALISATIONS) or (
        "norm" in type(owner).__name__.lower() and module.get_parameter(name).ndim < 2
    )


def _blocks(weights: Sequence[tuple[str, Tensor]]) -> tuple[WeightBlock, ...]:
    blocks, start = [], 0
    for name, value in weights:
        blocks.append(WeightBlock(name, slice(start, start + value.numel()), tuple(value.shape)))
        start += value.numel()
    return tuple(blocks)


def _check(module: nn.Module, names: list[str]) -> None:
    known = dict(module.named_parameters())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"The network has no parameter named {unknown[0]!r}; it has {', '.join(known)}.")
    if not names or len(set(names)) < len(names):
        raise InputError(f"A Jacobian needs at least one parameter and each only once, not {names}.")
    _check_steady(module)


def _check_steady(module: nn.Module) -> None:
    unsteady = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for name, layer in module.named_modules():
        if layer.training and isinstance(layer, unsteady):
            raise InputError(f"Layer {name!r} ({type(layer).__name__}) is in training mode: call eval() on the network first.")


def _held(tree: object) -> dict[int, Tensor]:
    """Tensors inside lists, tuples and dicts, one for each storage."""
    if isinstance(tree, Tensor):
        return {tree.untyped_storage().data_ptr(): tree}
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return {key: value for part in parts for key, value in _held(part).items()}
