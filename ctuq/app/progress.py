"""What a run tells on the terminal: its bars, and lines of the log that do not tear them."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tqdm import tqdm

from ctuq import progress
from ctuq.app.terminal import current
from ctuq.text import visible

__all__ = ["BarSafeHandler", "TerminalBar", "told_about"]


class TerminalBar(progress.ProgressBar):
    """`ctuq.progress.ProgressBar`, which is not shown to those who want it quiet."""

    def __call__(self, record: progress.Progress) -> None:
        if not current().quiet:
            super().__call__(record)


class BarSafeHandler(logging.Handler):
    """A log handler whose lines do not tear the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        # Nobody may read it any more.
        with suppress(OSError):
            tqdm.write(visible(self.format(record)), file=sys.stderr or sys.stdout or io.StringIO())


@contextmanager
def told_about(debug: bool) -> Iterator[None]:
    """Show ctuq's own log and warnings as plain lines; those of other libraries stay away."""
    handler, log = BarSafeHandler(), logging.getLogger("ctuq")
    level = log.level
    log.addHandler(handler)
    speech = current()
    log.setLevel(logging.DEBUG if debug or speech.verbose else logging.WARNING if speech.quiet else logging.INFO)
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
