"""The Jacobian of a network at many inputs: one linearisation for each mini-batch, kept where they fit in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from ctuq.errors import InputError
from ctuq.linops.jacobian.network import Frozen, Jacobian
from ctuq.linops.memory import available_memory, require_memory
from ctuq.linops.operator import LinearOperator, Space

_BATCH_BYTES = {"cpu": 2**22, "cuda": 2**27}
_ROWS_BYTES = {"cpu": 2**25, "cuda": 2**29}
_KEPT_SHARE, _BATCH_SHARE = 0.25, 0.1


class DataJacobian(LinearOperator):
    """``J`` of shape (n, *output, P) for n data that the network treats independently.

    Parameters
    ----------
    network : Frozen
    inputs : Tensor, shape (n, *input)
    batch : int, optional
        Data in a mini-batch; by default as many as keep the widest activation near the cache and fit in memory.

    Attributes
    ----------
    outputs : Tensor, shape (n, *output)
        Of the network at its own weights.
    batch : int
    kept : bool
        Whether the linearisations are kept. They are while they fill at most a quarter of the free memory; else every product
        linearises the mini-batches again, one after the other, and memory does not grow with the number of data.

    Raises
    ------
    InputError
        For a batch below 1.
    ResourceError
        If the linearisation at a single input does not fit in memory.
    """

    def __init__(self, network: Frozen, inputs: Tensor, *, batch: int | None = None):
        if batch is not None and batch < 1:
            raise InputError(f"The mini-batch is {batch} data: give at least 1.")
        self.network, self.inputs = network, inputs
        self.batch = min(_batch(network, inputs) if batch is None else batch, len(inputs))
        self._slices = [slice(start, min(start + self.batch, len(inputs))) for start in range(0, len(inputs), self.batch)]
        first, J = network.linearise(inputs[self._slices[0]])
        self.kept = len(self._slices) == 1 or _fits(J.bytes * len(self._slices), inputs.device)
        self._jacobians = [J] if self.kept else []
        del J  # or two linearisations would be alive while the next is made
        outputs = [first]
        for rows in self._slices[1:]:
            if self.kept:
                output, J = network.linearise(inputs[rows])
                self._jacobians.append(J)
            else:
                output = _evaluate(network, inputs[rows])
            outputs.append(output)
        self.outputs = torch.cat(outputs)
        self.domain = Space(tuple(network.weights.shape), network.weights.dtype, network.weights.device)
        self.range = Space(tuple(self.outputs.shape), self.outputs.dtype, self.outputs.device)

    def __reduce__(self):
        """Pickled as network and inputs, to be linearised again."""
        return _again, (self.network, self.inputs, self.batch)

    def linearisations(self) -> Iterator[tuple[slice, Jacobian]]:
        """The data of each mini-batch and its Jacobian, whose range has lost axes of length one; drop it before the next."""
        for i, rows in enumerate(self._slices):
            yield rows, self._jacobians[i] if self.kept else self.network.linearise(self.inputs[rows])[1]

    def rows(self, index: Tensor) -> "DataJacobian":
        """Of the data with these indices, linearised anew."""
        return DataJacobian(self.network, self.inputs[index], batch=self.batch)

    def dense_rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the data with their Jacobians, ``(b, *output, P)``, by reverse mode for each datum."""
        row = self.outputs[0].numel() * self.domain.size * self.outputs.element_size()
        size = max(1, _ROWS_BYTES[_kind(self.inputs)] // row)
        for start in range(0, len(self.inputs), size):
            rows = slice(start, min(start + size, len(self.inputs)))
            yield rows, per_datum(self.network, self.inputs[rows])

    def dense(self) -> Tensor:
        """The matrix ``(n * outputs, P)``; `ResourceError` if it does not fit in memory."""
        return stack(self.dense_rows(), self.range, self.domain)

    def _apply(self, x: Tensor) -> Tensor:
        out = x.new_empty(x.shape[0], *self.range.shape, dtype=self.range.dtype)
        for rows, J in self.linearisations():
            out[:, rows] = J(x).reshape(x.shape[0], -1, *self.range.shape[1:])
            del J
        return out

    def _apply_transpose(self, y: Tensor) -> Tensor:
        out = y.new_zeros(y.shape[0], *self.domain.shape, dtype=self.domain.dtype)
        for rows, J in self.linearisations():
            J.add_transpose(y[:, rows].reshape(-1, *J.range.shape), out)
            del J
        return out


def _again(network: Frozen, inputs: Tensor, batch: int) -> DataJacobian:
    return DataJacobian(network, inputs, batch=batch)


def _evaluate(network: Frozen, inputs: Tensor) -> Tensor:
    """The network's output at its own weights, without a graph."""
    with torch.no_grad():
        return network(inputs)


def per_datum(network: Frozen, inputs: Tensor) -> Tensor:
    """Dense Jacobians of b data, each by itself, (b, *output, P)."""

    def output(leaves: tuple[Tensor, ...], datum: Tensor) -> Tensor:
        return network(datum[None], *leaves)[0]

    try:
        parts = vmap(jacrev(output), in_dims=(None, 0))(tuple(network.leaves()), inputs)
    except RuntimeError:  # autograd functions of the user may know no vmap
        return torch.stack([_one_by_one(network, datum[None]) for datum in inputs])
    free = parts[0].ndim - len(network.blocks[0].shape)
    return torch.cat([part.flatten(free) for part in parts], -1)


def stack(rows: Iterator[tuple[slice, Tensor]], range_: Space, domain: Space) -> Tensor:
    """Blocks of rows ``(b, *shape, P)`` in one matrix, `ResourceError` before the first if it does not fit in memory."""
    size = range_.size * domain.size * torch.empty((), dtype=domain.dtype).element_size()
    require_memory(size, "The dense Jacobian", "use a matrix-free method, or fewer data", domain.device)
    out = torch.empty(*range_.shape, domain.size, dtype=domain.dtype, device=domain.device)
    for part, block in rows:
        out[part] = block
    return out.reshape(range_.size, domain.size)


def _one_by_one(network: Frozen, datum: Tensor) -> Tensor:
    output, J = network.linearise(datum)
    eye = torch.eye(output.numel(), dtype=output.dtype, device=output.device)
    return J.T(eye.reshape(-1, *J.range.shape)).reshape(*output.shape[1:], -1)


def _batch(network: Frozen, inputs: Tensor) -> int:
    """Data in a mini-batch by the activations of one, which also tell whether that one fits."""
    saved = _saved_bytes(network, inputs[:1])
    require_memory(3 * saved, "The linearisation at one input", "use a smaller input or network", inputs.device)
    _, J = network.linearise(inputs[:1])
    left = available_memory(inputs.device)
    most = len(inputs) if left is None else int(_BATCH_SHARE * left / (J.bytes + 2 * saved))
    return max(1, min(_BATCH_BYTES[_kind(inputs)] // max(1, J.widest), most))


def _fits(needed: int, device: torch.device) -> bool:
    left = available_memory(device)
    return left is None or needed <= _KEPT_SHARE * left


def _saved_bytes(network: Frozen, inputs: Tensor) -> int:
    """What autograd would keep of one forward pass, weights included."""
    sizes: dict[int, int] = {}

    def note(x: Tensor) -> None:  # keeps nothing: an output that its own graph holds would never be freed
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        network(inputs, *(leaf.requires_grad_() for leaf in network.leaves()))
    return sum(sizes.values())


def _kind(x: Tensor) -> str:
    return "cpu" if x.device.type == "cpu" else "cuda"
