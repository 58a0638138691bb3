"""The file of a session: everything a live design needs to go on, read and written whole, without torch."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq import records
from ctuq.design.state import Decision, DesignState, Suggestion
from ctuq.errors import InputError
from ctuq.versions import versions_of

KIND, LAYOUT = "session", 2
_LIBRARIES = ("ctuq", "torch", "numpy", "scipy", "h5py")
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Settings:
    """What is chosen once for a session; angles in radians.

    Parameters
    ----------
    size : int
        Pixels along x and y of the image that the design is made on.
    criterion, prior : str
        Names in `ctuq.design.CRITERIA` and `ctuq.design.PRIORS`.
    retrain_every : int
        Further views after which the model is learned again; 0 learns once. The edge prior is always made anew.
    pilot : int
        Equidistant views that come first.
    batch : int
        Angles to suggest at once, which are worked out ahead.
    forbidden : tuple of (float, float)
        Arcs that are never suggested.
    budget : float, optional
        Total dose, in nominal exposures.
    rotation_cost : float
        Of turning by one radian, in nominal exposures.
    endless : bool
        Whether the stage turns through 360 degrees the shorter way.
    stop_gain, stop_error : float, optional
        When to advise to stop, as `ctuq.design.Stopping`.
    roi : tuple of float, optional
        Left, right, bottom, top in mm: where the image's variance counts.
    tolerance : float
        How far a measured angle may be from its candidate.
    network : mapping
        Options of `ctuq.design.LinDIPOptions` that differ from its defaults, nested.
    """

    size: int = 128
    criterion: str = "eig"
    prior: str = "lindip"
    retrain_every: int = 0
    pilot: int = 5
    batch: int = 1
    forbidden: tuple[tuple[float, float], ...] = ()
    budget: float | None = None
    rotation_cost: float = 0.0
    endless: bool = False
    stop_gain: float | None = None
    stop_error: float | None = None
    roi: tuple[float, float, float, float] | None = None
    tolerance: float = 1.75e-4
    network: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Learnt:
    """What the present model was learned from; numbers and text only.

    Parameters
    ----------
    views : array of int
    marks : tuple of str
        A hash of each of their projections: a view that was taken anew is not what was learned from.
    network : mapping, optional
        The fitted network, as nested arrays.
    network_views : array of int
        What that was fitted to; empty without one.
    values : mapping of str to float
        Hyperparameters, for people.
    note : str
        How it is held.
    """

    views: NDArray[np.int64]
    marks: tuple[str, ...]
    network: Mapping[str, Any] | None
    network_views: NDArray[np.int64]
    values: Mapping[str, float]
    note: str


@dataclass(frozen=True, eq=False)
class Record:
    """All that is in a session's file.

    Parameters
    ----------
    settings : Settings
    geometry : mapping
        Of the scanner at all candidate angles, as nested values; the detector as it is measured.
    intake : mapping
        How the scanner's files are to be read, as the command line keeps it.
    doses : array of float, shape (V,), optional
        Exposure of every candidate.
    counted : float, optional
        Mean photon count that a ray of weight 1 stands for; None while only line integrals were told.
    state : DesignState
    learnt : Learnt, optional
    plan : Suggestion, optional
        The next angles, worked out as soon as this state was reached.
    refusal : str
        Why there are none, if that was found out.
    exhausted : bool
        Whether the reason is that there is no dose left.
    versions : mapping of str to str
        Of the libraries that wrote the file.
    """

    settings: Settings
    geometry: Mapping[str, Any]
    intake: Mapping[str, Any]
    doses: NDArray[np.float64] | None
    counted: float | None
    state: DesignState
    learnt: Learnt | None = None
    plan: Suggestion | None = None
    refusal: str = ""
    exhausted: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def angles(self) -> NDArray[np.float64]:
        """Of all candidates, (V,), radians."""
        return self.geometry["angles"]

    @property
    def dims(self) -> int:
        """Axes of what is imaged: 3 where the detector has rows."""
        return 3 if "rows" in self.geometry else 2

    @property
    def sense(self) -> int:
        """1 where the scanner counts its angles counter-clockwise as ctuq does, else -1."""
        return -1 if self.intake.get("clockwise") else 1


def read(path: str | os.PathLike) -> Record:
    """Read a session.

    Raises
    ------
    InputError
        If the file is missing, damaged anywhere, of another kind, or of a newer ctuq.
    """
    try:
        tree = records.read(path, kind=KIND)
        if tree["layout"] > LAYOUT:
            raise InputError(
                f"'{path}' is a session of a newer ctuq ({tree['versions']['ctuq']}); update ctuq to go on with it."
            )
        if tree["digest"] != digest({key: value for key, value in tree.items() if key != "digest"}):
            raise InputError(
                f"'{path}' was damaged after it was written: its contents do not match their checksum; use a copy."
            )
        return _record(tree)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"'{path}' is damaged and cannot be read whole; use a copy of it.") from error


def behind(path: str | os.PathLike) -> Path:
    """The file that a link leads to: a session that was written in the link's place would be two, which go apart."""
    path = Path(path)
    return path.resolve() if path.is_symlink() else path


def identity(path: Path) -> tuple[int, ...] | None:
    """What differs between any two files that `write` put in one place; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def write(path: str | os.PathLike, record: Record) -> Record:
    """Write a session, whole or not at all; what is new in its log gets the time. Returns what was written.

    Raises
    ------
    InputError, ResourceError
        If the file cannot be written.
    """
    record = _stamped(record)
    tree = {"layout": LAYOUT, **_tree(replace(record, versions=versions_of(*_LIBRARIES)))}
    path = Path(path)
    # Whoever writes holds the session's lock, so these are what killed processes left.
    for left in path.parent.glob(f".{path.name}.*.partial"):
        left.unlink(missing_ok=True)
    records.write(path, {**tree, "digest": digest(tree)}, kind=KIND)
    return record


def _stamped(record: Record) -> Record:
    """The session with the time at the entries of its log that have none yet."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    log = tuple(entry if entry.time else replace(entry, time=now) for entry in record.state.log)
    return replace(record, state=replace(record.state, log=log))


def digest(value: Any) -> str:
    """SHA-256 of a tree of plain values, whatever the order of its names."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, Mapping):
            found.update(f"{{{len(value)}".encode())
            for key in sorted(value):
                found.update(f"{key}\x00".encode())
                add(value[key])
        elif isinstance(value, tuple):
            found.update(f"({len(value)}".encode())
            for entry in value:
                add(entry)
        elif isinstance(value, np.ndarray):
            found.update(f"[{value.dtype}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(f"<{type(value).__name__} {value!r}>".encode())

    add(value)
    return found.hexdigest()


def marks_of(state: DesignState) -> tuple[str, ...]:
    """A hash of the projections and weights of each measured view."""
    return tuple(digest((y, w)) for y, w in zip(state.projections, state.weights, strict=True))


def _tree(record: Record) -> dict[str, Any]:
    tree = {f.name: getattr(record, f.name) for f in fields(record)}
    state = _plain(record.state)
    return tree | {
        "settings": _plain(record.settings),
        "state": state | {"log": tuple(_plain(decision) for decision in record.state.log)},
        "learnt": None if record.learnt is None else _plain(record.learnt),
        "plan": None if record.plan is None else _plain(record.plan),
    }


def _record(tree: Mapping[str, Any]) -> Record:
    state, learnt, plan = tree["state"], tree["learnt"], tree["plan"]
    if tree["layout"] < 2:
        # The network's evidence had another form: what was measured stays, the model is learned again.
        learnt, plan = None, plan if learnt is None else None
    known = {f.name for f in fields(Record)}
    entries = {key: value for key, value in tree.items() if key in known} | {
        "settings": records.made(Settings, tree["settings"]),
        "state": records.made(DesignState, state | {"log": tuple(_entry(entry) for entry in state["log"])}),
        "learnt": None if learnt is None else records.made(Learnt, learnt),
        "plan": None if plan is None else records.made(Suggestion, plan),
    }
    return records.made(Record, entries)


def _entry(entry: Mapping[str, Any]) -> Decision:
    """An entry of the log; one of an older ctuq has no time."""
    return records.made(Decision, {"time": "unknown", **entry})


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass."""
    return {f.name: getattr(value, f.name) for f in fields(value)}
