"""Progress of a run on the terminal: one bar a stage, with what the pipeline says about it."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

from ctuq.text import visible

if TYPE_CHECKING:
    from ctuq.pipeline import Progress

_QUIET_INTERVAL = 30.0


class ProgressBar:
    """A callable that shows each `Progress` record it is given; one bar a stage.

    Parameters
    ----------
    stream : text stream
        Where the bars go; one that is no terminal gets a line at most every 30 s.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._stage = ""
        self._bar: tqdm | None = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def __call__(self, record: "Progress") -> None:
        if self._bar is None or record.stage != self._stage:
            self._close()
            interval = 0.1 if self._stream.isatty() else _QUIET_INTERVAL
            self._bar = tqdm(total=record.total, desc=record.stage, file=self._stream, mininterval=interval, leave=True)
            self._stage = record.stage
        self._bar.set_postfix_str(record.message, refresh=False)
        self._bar.update(record.done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class BarSafeHandler(logging.Handler):
    """A log handler whose lines do not tear the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(visible(self.format(record)), file=sys.stderr)


@contextmanager
def told_about(debug: bool) -> Iterator[None]:
    """Show ctuq's own log and warnings as plain lines; those of other libraries stay away."""
    handler, log = BarSafeHandler(), logging.getLogger("ctuq")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default" if debug else "ignore")
            warnings.filterwarnings("default", module=r"ctuq\.")
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            warnings.showwarning = lambda message, *_, **__: log.warning("Warning: %s", message)
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
