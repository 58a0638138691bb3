"""Lines on the terminal: whatever a file says, it cannot move the cursor, colour the screen or turn the line around."""

import sys
from collections.abc import Iterable
from typing import TextIO

from ctuq.text import visible


def say(text: object, *, stream: TextIO | None = None) -> None:
    """Print lines at once, with everything written out that a terminal would obey."""
    lines = (visible(line) for line in str(text).split("\n"))
    print("\n".join(lines), file=sys.stdout if stream is None else stream, flush=True)


def warn(warnings: Iterable[str]) -> None:
    """Print each warning on its line."""
    for text in warnings:
        say(f"Warning: {visible(text)}")


def cell(value: object) -> object:
    """A cell of a CSV file: text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
