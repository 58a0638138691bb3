"""Where a fit of the Deep Image Prior stands."""

from dataclasses import dataclass

from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DIPState:
    """Where a fit stands; tensors only, so that it can be written to a checkpoint and taken up again.

    Parameters
    ----------
    iteration : int
    parameters, average, best, first, second : dict of str to Tensor
        Stacked weights ``(batch, ...)``: of the iterate, its running average, the best average so far, Adam's moments.
    best_misfit, best_iteration : Tensor, shape (batch,)
        Held-out misfit of ``best``, and when it was found.
    history : Tensor, shape (checks, 1 + 2 * batch)
        Iteration, fit misfit and held-out misfit of the average at each check.
    attempt : int
        Restarts so far; each halves the learning rate.
    begun : int
        Iteration at which this attempt began, with nothing remembered but the weights.
    redrawn : int
        1 if the weights were drawn anew because the network was dead.
    falls_from : int
        Iteration from which on the learning rate falls, where the fit decides on it; 0 before that.
    by_noise : int
        1 while total variation weighs by all the noise that the projections show.
    follows : int
        1 where this fit has ended and a second one, by all the noise, is due.
    opened : int
        Iteration at which the second of two fits began: the best weights are those of both.
    """

    iteration: int
    parameters: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    best_misfit: Tensor
    best_iteration: Tensor
    history: Tensor
    attempt: int = 0
    begun: int = 0
    redrawn: int = 0
    falls_from: int = 0
    by_noise: int = 0
    follows: int = 0
    opened: int = 0

    @property
    def best_by_noise(self) -> bool:
        """Whether the best weights are of a fit whose total variation weighs by all the noise."""
        return bool(self.by_noise) and int(self.best_iteration.max()) > self.opened

    @property
    def looks(self) -> dict[str, NDArray]:
        """Iteration, misfit of the fitted rays and of the held-out ones at each look, of the first image."""
        return {name: self.history[:, i].numpy() for i, name in enumerate(("iteration", "loss", "held_out_loss"))}
