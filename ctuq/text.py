"""Text from outside, made fit for a line on a screen."""

import unicodedata
from collections.abc import Iterable, Sequence

_MOST = 2000
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_SHOWN = 12


def visible(text: object) -> str:
    r"""The text with everything that a screen would obey instead of show written out, and no longer than 2,000 characters.

    Control characters (terminal escapes), marks of writing direction, and lone surrogates become ``\x1b`` or ``\u202e``; tabs
    and line ends become spaces.
    """
    text = str(text)
    rest = len(text) - _MOST
    shown = "".join(c if c.isascii() and c.isprintable() else _written_out(c) for c in text[:_MOST])
    return shown if rest <= 0 else f"{shown}… ({rest} characters more)"


def shortened(text: object, most: int = _MOST) -> str:
    """The text on one line, no longer than ``most`` characters and without a full stop at its end."""
    text = " ".join(str(text)[: 4 * most].split()).rstrip(".")
    return text if len(text) <= most else text[:most] + "…"


def listed(names: Iterable[object]) -> str:
    """Names from outside behind one another, each and all of them kept short; empty for none."""
    return first_of([shortened(name, 60) for name in names], _SHOWN)


def first_of(names: Sequence[str], most: int) -> str:
    """Names behind one another, of more than ``most`` the first ones and how many more there are; empty for none."""
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"


def _written_out(c: str) -> str:
    if c in "\t\r\n":
        return " "
    if unicodedata.category(c) not in _HIDDEN:
        return c
    return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" if ord(c) < 65536 else f"\\U{ord(c):08x}"
