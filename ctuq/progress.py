"""Progress of long work, and its bar on a terminal or in a notebook: one a stage, with what is left of the whole run."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

_QUIET_INTERVAL = 30.0


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Parameters
    ----------
    stage : str
        Its name.
    done, total : int
        Steps that are done, and all of them.
    message : str
        What there is to say.
    share, left : float
        Share of the whole run that is done, and the seconds that are left of it, by its plan and by its pace so far; NaN where
        nothing was planned.
    """

    stage: str
    done: int
    total: int
    message: str = ""
    share: float = math.nan
    left: float = math.nan


def _told_time(seconds: float) -> str:
    """Seconds, minutes or hours in few characters."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ProgressBar:
    """A callable that shows each `Progress` record it is given; one bar a stage.

    Parameters
    ----------
    stream : text stream
        Where the bars go, by default to standard error if there is one; one that is no terminal gets a line at most every 30 s,
        and one that cannot be written to no further one.
    kind : type of tqdm
        That of a notebook, for example.
    """

    def __init__(self, stream: TextIO | None = None, kind: type[tqdm] = tqdm):
        self._stream = sys.stderr if stream is None else stream
        self._kind, self._stage = kind, ""
        self._bar: tqdm | None = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._close()
        except OSError:
            self._leave()

    def __call__(self, record: Progress) -> None:
        if self._stream is None:
            return
        try:
            self._show(record, self._stream)
        except OSError:
            self._leave()

    def _show(self, record: Progress, stream: TextIO) -> None:
        if self._bar is None or record.stage != self._stage:
            self._close()
            interval = 0.1 if stream.isatty() or self._kind is not tqdm else _QUIET_INTERVAL
            self._bar = self._kind(total=record.total, desc=record.stage, file=stream, mininterval=interval, leave=True)
            self._stage = record.stage
        self._bar.total = record.total
        self._bar.set_postfix_str("; ".join(part for part in (record.message, _whole(record)) if part), refresh=False)
        self._bar.update(record.done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _leave(self) -> None:
        """Show nothing from now on: whoever read it is gone."""
        if self._bar is not None:
            self._bar.disable = True
        self._bar = self._stream = None


@contextmanager
def shown(progress: bool | Callable[[Progress], None] | None) -> Iterator[Callable[[Progress], None] | None]:
    """Who is told of progress: a bar that is closed at the end for True, nobody for False or None, else the callable itself."""
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    with ProgressBar(kind=_bar_here()) as bar:
        yield bar


def _whole(record: Progress) -> str:
    if math.isnan(record.left):
        return ""
    return f"all {100 * record.share:.0f} %, {_told_time(record.left)} left"


def _bar_here() -> type[tqdm]:
    """The bar of a notebook, where there is one that has widgets."""
    kernel = "IPKernelApp" in getattr(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)(), "config", {})
    if kernel:
        try:
            import ipywidgets  # noqa: F401  # pyright: ignore[reportMissingImports]
            from tqdm.notebook import tqdm as notebook_bar
        except ImportError:
            return tqdm
        return notebook_bar
    return tqdm
