"""What a network has to be before it is linearised: one clear error each, before any work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ctuq.errors import CtuqError, InputError, ResourceError
from ctuq.linops.jacobian.network import Frozen


def check_inputs(inputs: Tensor, device: torch.device) -> None:
    """Data in rows, on the network's device, without NaN.

    Raises
    ------
    InputError
    """
    if not isinstance(inputs, Tensor) or inputs.ndim < 1 or not len(inputs):
        raise InputError("The inputs are one tensor (n, ...) of at least one datum.")
    if inputs.device != device:
        raise InputError(f"The inputs are on {inputs.device}, but the network is on {device}: move one of them.")
    if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
        raise InputError(f"{int((~inputs.isfinite()).sum())} of {inputs.numel()} input values are NaN or infinite.")


def check_weights(module: nn.Module) -> None:
    """Parameters and buffers on one device, of one type of at least 32 bits, without NaN.

    Raises
    ------
    InputError
    """
    state = [*module.named_parameters(), *module.named_buffers()]
    if len({value.device for _, value in state}) > 1:
        raise InputError("The network's weights are on several devices: move it to one.")
    kinds = sorted({str(value.dtype)[6:] for _, value in module.named_parameters()})
    if not set(kinds) <= {"float32", "float64"}:
        raise InputError(
            f"The network's weights are {' and '.join(kinds)}, too coarse for error bars: call float() on it first."
        )
    if len(kinds) > 1:
        raise InputError(f"The network's weights are {' and '.join(kinds)}: call float() or double() on it first.")
    for name, value in state:
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(f"The network's {name!r} has values that are NaN or infinite: train it again.")


def check_network(network: Frozen, datum: Tensor) -> None:
    """One output tensor in floating point for each datum, finite, that depends on the weights.

    Parameters
    ----------
    network : Frozen
    datum : Tensor, shape (1, *input)

    Raises
    ------
    InputError
    """
    leaves = [leaf.requires_grad_() for leaf in network.leaves()]
    try:
        with torch.enable_grad():
            output = network(datum, *leaves)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"The network does not run on an input of shape {tuple(datum.shape)}: {_first_line(error)}") from error
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"The network gives {kind}: it has to give one tensor of real numbers, such as logits before argmax.")
    if output.dtype not in (torch.float32, torch.float64):
        raise InputError(f"The network gives {output.dtype}, too coarse for error bars: take autocast and casts out of it.")
    if output.ndim < 1 or output.shape[0] != 1:
        raise InputError(f"One datum gives an output of shape {tuple(output.shape)}: the first axis has to be the data's.")
    if not output.numel():
        raise InputError(f"One datum gives an output of shape {tuple(output.shape)}, which holds nothing.")
    if not output.requires_grad:
        raise InputError("The network's output cannot be differentiated in the chosen parameters: look for detach or no_grad.")
    if not bool(output.isfinite().all()):
        raise InputError("The network's output is NaN or infinite at the first datum.")


def check_independent(network: Frozen, inputs: Tensor) -> None:
    """The first datum's output is the same alone as beside the second, and when asked again.

    Raises
    ------
    InputError
    """
    with torch.no_grad():
        alone, beside = network(inputs[:1])[0], network(inputs[:2])
    if len(beside) != len(inputs[:2]):
        raise InputError(f"{len(inputs[:2])} data give {len(beside)} outputs: the first axis has to be the data's.")
    tolerance = 100 * torch.finfo(alone.dtype).eps ** 0.75
    if not bool((alone - beside[0]).norm() <= tolerance * alone.norm()):
        raise InputError(
            "The network's output at a datum changes with its neighbours in the batch or from run to run; "
            "call eval() on the network, and take out layers that are random or normalise over the batch."
        )


@contextmanager
def differentiating() -> Iterator[None]:
    """Turns what torch.func says of a network that it cannot differentiate into one sentence.

    Raises
    ------
    InputError
    """
    try:
        yield
    except CtuqError:
        raise
    except torch.OutOfMemoryError as error:
        raise ResourceError(f"Memory ran out ({_first_line(error)}): give a smaller batch.") from error
    except RuntimeError as error:
        raise InputError(
            f"torch.func cannot differentiate the network ({_first_line(error)}): write it without item(), branches on "
            "values and changes in place, or leave the weights of that layer out of parameters=."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".")
