"""What a run has done so far, in files, so that it goes on where it stopped: the fit's state, and products of all stages."""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctuq import records
from ctuq.errors import CtuqError, InputError
from ctuq.linops.jacobian.network import ProductChoice
from ctuq.pipeline.running.options import ReconstructOptions, flat_settings
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.recon.dip import Data, DIPOptions, DIPState, Generator, dip
from ctuq.recon.schedule import finished
from ctuq.stages import KeptStages, Stages
from ctuq.tomo.geometry import bytes_of
from ctuq.tomo.scan import Scan
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.model.route import Route
from ctuq.versions import version_of

_EVERY, _SECONDS = 4, 20.0
"""The fit is kept at every fourth look, and after so many seconds, however few iterations these are."""
_ANEW = "start anew (--overwrite)"
_log = logging.getLogger(__name__)
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, RuntimeError)


class Checkpoint:
    """A file that belongs to one piece of work, and beside it a folder ``NAME.stages`` with the products of its stages.

    Parameters
    ----------
    path : path, optional
        None keeps nothing.
    data : str
        A hash of all that the work depends on, beside ``settings``.
    settings : mapping of str to str, float or int, optional
        What a user can choose, by name: where it differs from the file's, that is told.
    needed : bool
        Whether a file that cannot be used or written is an error; otherwise the work is begun anew, and nothing is kept of it.

    Attributes
    ----------
    stages : Stages
    threads : int, optional
        What the work was begun with.
    way : tuple of Route and ProductChoice, optional
        How the error bars are made: memory and a measurement decided it when the run began, and a resumed run keeps to it.

    Raises
    ------
    InputError
        If there is a file of other work, or a damaged one.
    """

    def __init__(
        self,
        path: Path | str | None,
        data: str,
        settings: Mapping[str, str | float | int] | None = None,
        *,
        needed: bool = True,
    ):
        path = None if path is None else Path(path)
        self._path, self._data, self._settings, self._needed = path, data, dict(settings or {}), needed
        self.threads: int | None = None
        self.way: tuple[Route, ProductChoice] | None = None
        self.stages = Stages()
        self._state: dict[str, Any] | None = None
        self._seconds = 0.0
        self._is_new = path is not None and not path.exists()
        if path is not None:
            if path.is_file():
                self._look_into(path)
            identity = hashlib.sha256(repr((data, sorted(self._settings.items()), version_of("ctuq"))).encode()).hexdigest()
            self.stages = KeptStages(path.with_suffix(".stages"), identity)

    @classmethod
    def of(cls, path: Path | str | None, scan: Scan | VolumeScan, options: ReconstructOptions | VolumeOptions) -> "Checkpoint":
        """That of a reconstruction."""
        settings = flat_settings(replace(options, threads=None))
        return cls(path, digest_of(scan) if path is not None else "", settings)

    def begin(self) -> None:
        """Write the file if there is none, or what is known of the run has changed since."""
        self._write(self._state)

    def fit(
        self,
        generate: Generator,
        start: dict[str, Tensor],
        data: tuple[Data, Data],
        options: DIPOptions,
        *,
        tell: Callable[[DIPState], object] = lambda state: None,
    ) -> DIPState:
        """`ctuq.recon.dip.dip` to its end, from the state in the file on.

        Parameters
        ----------
        generate, start, data, options
            As of `ctuq.recon.dip.dip`.
        tell : callable, optional
            Is given every state.
        """
        begun, before, written = time.perf_counter(), self._seconds, time.perf_counter()
        self.stages.spared += before
        state = _state_of(self._state, next(iter(start.values())).device)
        latest = state

        def due() -> bool:
            return time.perf_counter() - written > _SECONDS

        try:
            if state is None or not finished(state, options):
                for latest in dip(generate, start, *data, options, resume=state, due=due):
                    now = time.perf_counter()
                    self._seconds = before + now - begun
                    if (latest.iteration // options.check_every) % _EVERY == 0 or due():
                        self._keep(latest)
                        written, state = now, latest
                    tell(latest)
        except BaseException:
            # Whatever stopped the fit is told; that its last iterations could not be kept would be the lesser evil.
            with suppress(CtuqError, OSError, MemoryError):
                self._keep_if(latest, state)
            raise
        self._keep_if(latest, state)
        assert latest is not None
        return latest

    def clear_if_new(self) -> None:
        """Remove file and folder of work that was refused before there was anything worth keeping."""
        if self._path is not None and self._is_new and self._state is None:
            remove(self._path)

    def _keep_if(self, latest: DIPState | None, kept: DIPState | None) -> None:
        if latest is not None and latest is not kept:
            self._keep(latest)

    def _keep(self, state: DIPState) -> None:
        self._state = _mapped({f.name: getattr(state, f.name) for f in fields(state)}, lambda tensor: tensor.cpu().numpy())
        self._write(self._state)

    def _write(self, state: dict[str, Any] | None) -> None:
        if self._path is None:
            return
        way = None if self.way is None else {"route": asdict(self.way[0]), "products": asdict(self.way[1])}
        tree = {"data": self._data, "settings": self._settings, "threads": self.threads, "way": way, "state": state}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            records.write(self._path, tree | {"seconds": self._seconds}, kind="checkpoint")
        except (CtuqError, OSError) as error:
            if self._needed:
                raise
            _log.warning("The fit cannot be kept (%s); if it is killed, it is begun anew.", str(error).rstrip("."))
            self._path = None

    def _look_into(self, path: Path) -> None:
        try:
            self._load(path)
        except CheckpointError as error:
            if self._needed:
                raise
            _log.warning("The work is begun anew: %s", error)
            self._state = None

    def _load(self, path: Path) -> None:
        try:
            tree = records.read(path, kind="checkpoint")
            self._refuse_other(path, tree["data"], tree["settings"])
            self.threads, self._state, self._seconds = tree["threads"], tree["state"], tree["seconds"]
            if tree["way"] is not None:
                self.way = Route(**tree["way"]["route"]), ProductChoice(**tree["way"]["products"])
            _state_of(self._state, torch.device("cpu"))
        except _DAMAGE as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"'{path}' is damaged or of another ctuq, and cannot be gone on from; start anew (--overwrite)."
            ) from error

    def _refuse_other(self, path: Path, data: str, settings: Mapping[str, Any]) -> None:
        if data != self._data:
            raise CheckpointError(f"'{path}' belongs to another scan or other views of it; give the same, or {_ANEW}.")
        for name in sorted(settings.keys() | self._settings.keys()):
            before, now = settings.get(name), self._settings.get(name)
            if before != now:
                raise CheckpointError(
                    f"'{path}' was begun with other options ({name} {before}, now {now}); give the same, or {_ANEW}."
                )


class CheckpointError(InputError):
    """A checkpoint is damaged, or belongs to another scan or other options."""


def remove(path: Path) -> None:
    """Remove a checkpoint with the products of its stages; the file last, which says whose they are."""
    KeptStages(path.with_suffix(".stages"), "").clear()
    path.unlink(missing_ok=True)


def digest_of(scan: Scan | VolumeScan) -> str:
    """A hash of a scan's rays, their weights, its geometry, and whether its beam may harden."""
    weights = b"" if scan.weights is None else scan.weights.tobytes()
    # What is known of the beam decides whether error bars hold its hardening.
    told = repr((scan.grid, scan.provenance.monochromatic)).encode()
    return hashlib.sha256(told + bytes_of(scan.geometry) + scan.projections.tobytes() + weights).hexdigest()


def _state_of(tree: dict[str, Any] | None, device: torch.device) -> DIPState | None:
    if tree is None:
        return None
    state = _mapped(tree, lambda array: torch.tensor(array, device=device))
    return DIPState(**(state | {"history": state["history"].cpu()}))


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of dicts with its arrays or tensors changed and its numbers kept."""
    if isinstance(value, dict):
        return {name: _mapped(entry, change) for name, entry in value.items()}
    return value if isinstance(value, int) else change(value)
