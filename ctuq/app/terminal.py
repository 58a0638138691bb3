"""What a command says: lines on the terminal, or one JSON document; whatever a file says, it cannot command the screen.

Every command speaks by `say` and `warn`, and gives facts by `give`. With ``--json`` the lines, warnings and facts come as one
document on standard output when the command ends (``docs/json.md``); with ``--quiet`` only warnings and errors are shown, on
standard error, and what alone was asked for (`answer`). A command needs to do nothing for either but to speak by these
functions; `give` is for what a program wants to read as a number.
"""

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from ctuq.text import visible

SCHEMA = "ctuq.command/1"


@dataclass
class Speech:
    """How a command speaks, what it has said so far if that is to be one document, and why it was not heard."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    unheard: OSError | None = None

    def document(self, command: str, code: int, error: str) -> str:
        """All of it as JSON text; see ``docs/json.md``."""
        told = {"schema": SCHEMA, "command": command, "exit": code, "error": error or None}
        return json.dumps(told | {"warnings": self.warnings, "lines": self.lines, "facts": self.facts}, ensure_ascii=True)


_now = Speech()


def current() -> Speech:
    """How the command that runs now speaks."""
    return _now


@contextmanager
def speaking(speech: Speech) -> Iterator[Speech]:
    """Speak so inside."""
    global _now  # noqa: PLW0603, there is one terminal, and the lines to it come from everywhere
    before, _now = _now, speech
    try:
        yield speech
    finally:
        _now = before


def say(text: object, *, stream: TextIO | None = None) -> None:
    """Print lines at once, with everything written out that a terminal would obey."""
    lines = [visible(line) for line in str(text).split("\n")]
    if stream is None and _now.as_json:
        _now.lines += lines
    elif stream is not None or not _now.quiet:
        put("\n".join(lines), sys.stdout if stream is None else stream)


def answer(text: object) -> None:
    """Say what a command was asked for and has nowhere else, such as a plan: with ``--quiet`` too."""
    say(text, stream=sys.stdout if _now.quiet and not _now.as_json else None)


def put(text: str, stream: TextIO | None) -> None:
    """Print a text at once on a stream, where there is one; characters that it lacks are written out.

    That nobody reads a stream any more (``| head``, a terminal that is gone) or that its disk is full ends no work: what comes
    later goes nowhere.
    """
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        if stream is sys.stdout:
            _now.unheard = error
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def warn(warnings: Iterable[str]) -> None:
    """Print each warning on its line."""
    for text in warnings:
        if _now.as_json:
            _now.warnings.append(visible(text))
        else:
            say(f"Warning: {visible(text)}", stream=sys.stderr if _now.quiet else None)


def give(**facts: object) -> None:
    """Facts for ``--json``: plain values, arrays, mappings, paths and dataclasses; NaN and infinity become null."""
    if _now.as_json:
        _now.facts |= {name: plain(value) for name, value in facts.items()}


def plain(value: Any) -> Any:  # noqa: PLR0911, one line a kind of value
    """A value as JSON has it."""
    if isinstance(value, str):
        return visible(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {visible(name): plain(part) for name, part in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Iterable):
        return [plain(part) for part in value]
    return visible(value)


def cell(value: object) -> object:
    """A cell of a CSV file: text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
