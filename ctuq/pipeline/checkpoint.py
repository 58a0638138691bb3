"""The state of a fit in a file, so that an interrupted run goes on where it stopped."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctuq import records
from ctuq.errors import InputError
from ctuq.linops.jacobian.network import ProductChoice
from ctuq.pipeline.options import ReconstructOptions
from ctuq.recon.dip import DIPOptions, DIPState
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.route import Route


class Checkpoint:
    """The fit's state in a file that belongs to one scan and one set of options.

    Attributes
    ----------
    threads : int, optional
        What the state that was loaded was computed with.
    way : tuple of Route and ProductChoice, optional
        How the error bars are made: memory and a measurement decided it when the run began, and a resumed run keeps to it.
    """

    _EVERY = 4

    def __init__(self, path: Path | None, scan: Scan, options: ReconstructOptions):
        self._path = path
        self.threads: int | None = None
        self.way: tuple[Route, ProductChoice] | None = None
        weights = b"" if scan.weights is None else scan.weights.tobytes()
        recipe = (
            repr((replace(options, threads=None), scan.geometry)).encode()
            + scan.projections.tobytes()
            + scan.geometry.angles.tobytes()
        )
        self._identity = hashlib.sha256(recipe + weights).hexdigest()

    def load(self, start: dict[str, Tensor]) -> DIPState | None:
        """The state in the file, or None if there is no file."""
        if self._path is None or not self._path.is_file():
            return None
        tree = records.read(self._path, kind="checkpoint")
        if tree["identity"] != self._identity:
            raise InputError(f"'{self._path}' belongs to another scan or other options; leave --resume out to start anew.")
        self.threads = tree["threads"]
        if tree["way"] is not None:
            self.way = Route(**tree["way"]["route"]), ProductChoice(**tree["way"]["products"])
        device = next(iter(start.values())).device
        state = _mapped(tree["state"], lambda array: torch.from_numpy(array).to(device))
        return DIPState(**(state | {"history": state["history"].cpu()}))

    def save(self, state: DIPState, options: DIPOptions, *, last: bool = False) -> None:
        """Write the state, if it is the last one or enough has passed since the one before."""
        due = last or (state.iteration // options.check_every) % self._EVERY == 0
        if self._path is None or not due:
            return

        stored = _mapped({f.name: getattr(state, f.name) for f in fields(state)}, lambda tensor: tensor.cpu().numpy())
        way = None if self.way is None else {"route": asdict(self.way[0]), "products": asdict(self.way[1])}
        tree = {"identity": self._identity, "state": stored, "threads": torch.get_num_threads(), "way": way}
        records.write(self._path, tree, kind="checkpoint")


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of dicts with its arrays or tensors changed and its numbers kept."""
    if isinstance(value, dict):
        return {name: _mapped(entry, change) for name, entry in value.items()}
    return value if isinstance(value, int) else change(value)
