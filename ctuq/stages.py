"""Products of long work, kept on the disk by name as soon as they are made: work that is done again makes none twice.

A product is a tree: a dict with string keys whose values are tensors, arrays, numbers, text, None, tuples or dicts of these; or
one such value alone.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ctuq.errors import CtuqError, ResourceError
from ctuq.guard import reading
from ctuq.records import write_whole

T = TypeVar("T")
_WORTH = 0.5
"""Seconds that a product must have taken to be kept: what is cheaper is made again."""
_OFTEN = 5.0
"""Seconds between two states of one piece of work: they may be large."""
_log = logging.getLogger(__name__)


class Stages:
    """Keeps nothing: for work that nobody will go on with.

    Attributes
    ----------
    folder : Path, optional
        Where products are kept.
    spared : float
        Seconds that products took which need not be made again.
    """

    folder: Path | None = None

    def __init__(self):
        self.spared = 0.0

    def once(self, name: str, make: Callable[[], T], *, rng: torch.Generator | None = None) -> T:
        """A product: what was kept under this name, else what ``make`` returns.

        Parameters
        ----------
        name : str
            Of one product alone in the whole work.
        make : callable
            Must depend on nothing but what the work is identified by.
        rng : torch.Generator, optional
            That ``make`` draws from; it is left as ``make`` left it.
        """
        del name, rng
        return make()

    def kept(self, name: str) -> Any | None:
        """What `keep` kept under a name; None if nothing."""
        del name

    def keep(self, name: str, value: Any) -> bool:
        """Keep a product that was made elsewhere; whether it lies on the disk now."""
        del name, value
        return False

    def latest(self, name: str) -> Any | None:
        """What `renew` kept last under a name; None if nothing."""
        del name

    def renew(self, name: str, value: Callable[[], Any]) -> None:
        """Keep where long work is, a product that takes the place of the last one of this name.

        Parameters
        ----------
        name : str
        value : callable
            Is asked for it only when it is due, every few seconds.
        """
        del name, value


class Under(Stages):
    """Products of a part of the work that has its own of the same names: each has the part's before its own.

    Parameters
    ----------
    whole : Stages
    part : str
    """

    def __init__(self, whole: Stages, part: str):
        self._whole, self._part, self.folder = whole, part, whole.folder

    @property
    def spared(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the whole."""
        return self._whole.spared

    def once(self, name: str, make: Callable[[], T], *, rng: torch.Generator | None = None) -> T:
        return self._whole.once(f"{self._part} {name}", make, rng=rng)

    def kept(self, name: str) -> Any | None:
        return self._whole.kept(f"{self._part} {name}")

    def keep(self, name: str, value: Any) -> bool:
        return self._whole.keep(f"{self._part} {name}", value)

    def latest(self, name: str) -> Any | None:
        return self._whole.latest(f"{self._part} {name}")

    def renew(self, name: str, value: Callable[[], Any]) -> None:
        self._whole.renew(f"{self._part} {name}", value)


class KeptStages(Stages):
    """Keeps products in a folder, one file each, which appears only when it is complete.

    Parameters
    ----------
    folder : Path
        Made with the first product; `clear` removes it.
    identity : str
        Of the work: products of other work are not used.
    """

    def __init__(self, folder: Path, identity: str):
        super().__init__()
        self.folder = self._place = folder
        self._identity = identity
        self._full = False
        self._begun: dict[str, tuple[float, float]] = {}

    def once(self, name: str, make: Callable[[], T], *, rng: torch.Generator | None = None) -> T:
        """The kept product if there is one, else `make` it; ``rng`` goes on from where the making left it."""
        path = self._path(name)
        found = self._read(path)
        if found is not None:
            self.spared += found["seconds"]
            if rng is not None:
                rng.set_state(found["rng"])
            return found["value"]
        begun, spared = time.perf_counter(), self.spared
        value = make()
        seconds = time.perf_counter() - begun + self.spared - spared
        if seconds >= _WORTH:
            tree = {"identity": self._identity, "seconds": seconds, "value": value}
            self._write(path, tree if rng is None else tree | {"rng": rng.get_state()})
        return value

    def kept(self, name: str) -> Any | None:
        found = self._read(self._path(name))
        return None if found is None else found["value"]

    def keep(self, name: str, value: Any) -> bool:
        return self._write(self._path(name), {"identity": self._identity, "seconds": 0.0, "value": value})

    def latest(self, name: str) -> Any | None:
        """What `renew` kept last; the clock of this product starts here."""
        found = self._read(self._path(name))
        before = 0.0 if found is None else found["seconds"]
        self.spared += before
        now = time.perf_counter()
        self._begun[name] = now - before, now
        return None if found is None else found["value"]

    def renew(self, name: str, value: Callable[[], Any]) -> None:
        """Keep the product as it is now, unless that was done only just."""
        now = time.perf_counter()
        begun, written = self._begun.get(name, (now, now))
        due = now - written >= _OFTEN
        if due:
            self._write(self._path(name), {"identity": self._identity, "seconds": now - begun, "value": value()})
        self._begun[name] = begun, time.perf_counter() if due else written

    def clear(self) -> None:
        """Remove all products."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._place / f"{name.replace('/', '-').replace(' ', '_')}.npz"

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            with reading(path, "a product"):
                tree = _read_tree(path)
                return tree if tree["identity"] == self._identity else None
        except CtuqError as error:
            _log.warning("'%s' is damaged (%s): this part of the work is done again.", path, error)
            return None

    def _write(self, path: Path, tree: Mapping[str, Any]) -> bool:
        """A product that cannot be kept stops nothing: its work would be done again, and what came before is kept."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tree(path, tree)
            return True
        except (CtuqError, OSError) as error:
            if not self._full:
                reason = "the disk is full" if isinstance(error, ResourceError) else str(error)
                _log.warning(
                    "What is done cannot be kept in '%s' (%s): a run that is killed does it again.", self.folder, reason
                )
            self._full = True
            return False


def name_of(*tensors: Tensor) -> str:
    """A name for work that depends on these values alone."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def write_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a tree to one file, whole or not at all; arrays as they are, each with its checksum.

    Raises
    ------
    InputError, ResourceError
        If it cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    shape = json.dumps(_taken_apart(tree, arrays))
    write_whole(path, lambda target: np.savez(target, allow_pickle=False, tree=np.array(shape), **arrays))


def _read_tree(path: Path) -> Any:
    """Read what `write_tree` wrote; tensors are tensors of the CPU again.

    Raises
    ------
    OSError, ValueError, KeyError, zipfile.BadZipFile
        If the file is damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        return _put_together(json.loads(str(file["tree"])), lambda name: file[name])


def _taken_apart(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A tree as JSON knows it, with its arrays apart."""
    if isinstance(value, Mapping):
        return {"dict": {key: _taken_apart(entry, arrays) for key, entry in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_taken_apart(entry, arrays) for entry in value]}
    if isinstance(value, Tensor | np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        return {"tensor" if isinstance(value, Tensor) else "array": name}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"A {type(value).__name__} cannot be kept as the product of a stage.")


def _put_together(value: Any, array: Callable[[str], np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, entry),) = value.items()
    if kind == "dict":
        return {key: _put_together(part, array) for key, part in entry.items()}
    if kind == "tuple":
        return tuple(_put_together(part, array) for part in entry)
    # In memory of torch's own: products of matrices that lie elsewhere may differ in their last digit.
    return torch.from_numpy(array(entry)).clone() if kind == "tensor" else array(entry)
