"""What every command of ``ctuq`` shares; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
On = Annotated[bool, arg(help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Name = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]
Amount = Annotated[float | None, arg(metavar="X", help_behavior_hint="")]


ENOUGH, BUDGET_SPENT = 10, 11
"""Exit codes of ``ctuq design suggest``: the advice is to stop, and there is no dose left."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the command line, with its options as fields."""

    debug: On = False
    """Show the traceback of an error."""
    json: On = False
    """Print one JSON document in place of lines (docs/json.md)."""
    quiet: On = False
    """Print warnings and errors only."""
    verbose: On = False
    """Tell every step."""
