"""Groups of weights that share a hyperparameter."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from ctuq.errors import InputError
from ctuq.linops.jacobian.network import WeightBlock


class HasBlocks(Protocol):
    """A linear model, seen as its weights."""

    @property
    def blocks(self) -> tuple[WeightBlock, ...]:
        """Parameters in the order of the flat vector."""
        ...


Groups = Mapping[str, Sequence[str]]


def blocks_of_weights(model: HasBlocks | Sequence[WeightBlock]) -> tuple[WeightBlock, ...]:
    """The blocks of a model, or the given ones."""
    return tuple(model) if isinstance(model, Sequence) else model.blocks


def grouped(blocks: Sequence[WeightBlock], groups: Groups) -> dict[str, tuple[WeightBlock, ...]]:
    """The blocks of each group.

    Parameters
    ----------
    blocks : sequence of WeightBlock
    groups : mapping of str to sequence of str
        Names of parameters by name of group.

    Raises
    ------
    InputError
        For unknown parameters, and for parameters in no group, in several, or for an empty group.
    """
    known = {block.name: block for block in blocks}
    named = [name for names in groups.values() for name in names]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise InputError(f"The prior names the parameter {unknown[0]!r}, but the model has only {', '.join(known)}.")
    missed = [name for name in known if name not in named]
    if missed:
        raise InputError(f"The prior misses {len(missed)} parameters ({', '.join(missed)}): put each into a group.")
    empty = [group for group, names in groups.items() if not names]
    if empty or len(set(named)) < len(named):
        raise InputError("Each group of a prior needs a parameter, and each parameter one group only.")
    return {group: tuple(known[name] for name in names) for group, names in groups.items()}


def by_module(blocks: Sequence[WeightBlock], depth: int = 1) -> dict[str, tuple[str, ...]]:
    """Parameters grouped by the first ``depth`` parts of their names: ``down.0.2.weight`` of depth 2 goes to ``down.0``.

    Parameters
    ----------
    blocks : sequence of WeightBlock
        Parameters of the network, such as ``Jacobian.blocks``.
    depth : int
        How many parts of a name make a group.

    Returns
    -------
    dict of str to tuple of str
        Names of the parameters of each group, in their order.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for block in blocks:
        group = ".".join(block.name.split(".")[:-1][:depth]) or block.name
        groups[group] = (*groups.get(group, ()), block.name)
    return groups
