"""What a product with a network's Jacobian costs on this machine, and the fastest way to make it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ctuq.linops.elapsed import seconds_of
from ctuq.linops.jacobian.convolution import ROWS_WORTH_UNFOLDING
from ctuq.linops.jacobian.network import Frozen, Jacobian, ProductChoice

_ENOUGH_SECONDS, _LONG_SECONDS, _MOST_CALLS = 0.2, 1.0, 5
_KNOWN: dict[tuple, "ProductCost"] = {}


@dataclass(frozen=True)
class ProductCost:
    """Measured on a few rows.

    Parameters
    ----------
    choice : ProductChoice
        The fastest of those tried, for `jacobian_of`.
    forward_seconds : float
        A forward pass.
    vjp_seconds, jvp_seconds : float
        A row of `J.T` and of `J` by the choice.
    bytes : int
        Memory that the linearisation and a product hold.
    """

    choice: ProductChoice
    forward_seconds: float
    vjp_seconds: float
    jvp_seconds: float
    bytes: int

    def seconds(self, *, vjps: int = 0, jvps: int = 0) -> float:
        """Of so many rows."""
        return vjps * self.vjp_seconds + jvps * self.jvp_seconds


def times_of_products(
    network: nn.Module | Frozen, inputs: Tensor, *, parameters: Sequence[str] | None = None, memory: int | None = None
) -> ProductCost:
    """Try the ways to make a product on a few rows, about a dozen each for ``J`` and ``J.T``, sixty forward passes in all.

    Processors differ in which way is fastest. Networks of one layout are measured once in a process for each shape, type,
    device and number of threads, so that the same work is done in the same way twice.

    Parameters
    ----------
    network : nn.Module or Frozen
    inputs : Tensor
        Only its shape, type and device matter.
    parameters : sequence of str, optional
        As for `jacobian_of`, if the network is a module.
    memory : int, optional
        Bytes that the linearisation and a product may take, by default 1 GiB. It bounds the rows pushed at once, but a
        single row is always allowed.
    """
    frozen = network if isinstance(network, Frozen) else Frozen.of(network, parameters)
    layout = (type(frozen.module), *((block.name, block.shape) for block in frozen.blocks))
    key = (layout, tuple(inputs.shape), inputs.dtype, inputs.device, memory, torch.get_num_threads())
    if key not in _KNOWN:
        _KNOWN[key] = _measure(frozen, inputs, memory)
    return _KNOWN[key]


@torch.no_grad()
def _measure(frozen: Frozen, inputs: Tensor, memory: int | None) -> ProductCost:
    _, J = frozen.linearise(inputs)
    most, near = J.rows_within(memory), J.choice.vjp_rows
    # Below the threshold a convolution takes another way to the gradient of its weight.
    tape = {min(near, ROWS_WORTH_UNFOLDING - 1), max(near, 8)} if J.recorded else set()
    ways = [("tape", rows) for rows in sorted({min(rows, most) for rows in tape})]
    whole = [("func", min(max(1, near // 2), most))]  # vmap keeps more of each row
    forward = _seconds(lambda: frozen(inputs))
    vjp = {way: _row_seconds(J, "vjp", *way) for way in ways + whole}
    # torch.func pushes forward by transposing twice, which takes three forward passes and more.
    jvp = {way: _row_seconds(J, "jvp", *way) for way in ways or whole}
    pull, push = min(vjp, key=lambda way: vjp[way]), min(jvp, key=lambda way: jvp[way])
    choice = ProductChoice(vjp=pull[0], vjp_rows=pull[1], jvp=push[0], jvp_rows=push[1])
    return ProductCost(choice, forward, vjp[pull], jvp[push], J.bytes + J.row_bytes * max(pull[1], push[1]))


def _row_seconds(J: Jacobian, way: str, method: str, rows: int) -> float:
    J.choice = replace(J.choice, **{way: method, f"{way}_rows": rows})
    operator = J if way == "jvp" else J.T
    batch = torch.ones(rows, *operator.domain.shape, dtype=operator.domain.dtype, device=operator.domain.device)
    return _seconds(lambda: operator(batch)) / rows


def _seconds(job: Callable[[], object]) -> float:
    """The fastest of a few calls after a first one that sets things up, or that one if it takes long itself."""
    times: list[float] = []
    while len(times) < 2 or (sum(times[1:]) < _ENOUGH_SECONDS and len(times) <= _MOST_CALLS):
        times.append(seconds_of(job))
        if times[0] > _LONG_SECONDS:
            break
    return min(times[1:], default=times[0])
