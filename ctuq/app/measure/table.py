"""Measured quantities beside the results that they are of, so that the report has a table of them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctuq.app.folder import held_folder
from ctuq.app.runs import REPORT
from ctuq.app.terminal import plain, say, warn
from ctuq.errors import CtuqError, InputError
from ctuq.quantities import Quantity
from ctuq.records import checksum, write_whole
from ctuq.text import visible

MEASURED = "measured.json"
_NUMBERS = ("value", "standard_uncertainty", "coverage_factor", "level", "monte_carlo_error")
_LARGEST = 2**26
"""Bytes; a quantity takes some 500."""


def put_into_report(results: Path, quantities: Sequence[Quantity]) -> None:
    """Keep quantities beside the report of their results, those of the same name replaced, and write the report anew.

    Nothing is written where there is no report. Trouble is told and stops nothing: the quantities are known.
    """
    # The report imports matplotlib, and the commands import this module.
    from ctuq.app.report.anew import written_anew

    folder = results.parent
    if not (folder / REPORT).is_file():
        return
    try:
        with held_folder(folder):
            # The names are those that the file has, where `plain` writes what no screen shows otherwise.
            kept = {visible(each.name): each for each in (*remembered(results), *quantities)}
            told = plain({"results": checksum(results), "quantities": list(kept.values())})
            text = json.dumps(told, indent=1, allow_nan=False)
            write_whole(folder / MEASURED, lambda target: target.write(text.encode()))
            say(f"Report: {written_anew(results, tuple(kept.values()))}, {len(kept)} measured quantities.")
    except CtuqError as error:
        warn((f"The report was left as it is: {error}",))


def remembered(results: Path) -> tuple[Quantity, ...]:
    """What was measured of these very results before; nothing of others that lay there.

    Raises
    ------
    InputError
        If the file of measured quantities is damaged.
    """
    path = results.parent / MEASURED
    if not path.is_file():
        return ()
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["results"] != checksum(results):
            return ()
        return tuple(_quantity(each) for each in told["quantities"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged; delete it and measure again.") from error


def _number(told: Any) -> Any:
    """NaN where there is none: JSON has no NaN."""
    return math.nan if told is None else told


def _quantity(told: dict[str, Any]) -> Quantity:
    lists: dict[str, Any] = {"interval": tuple(told["interval"]), "notes": tuple(told["notes"])}
    lists["interval"] = tuple(_number(end) for end in lists["interval"])
    found = Quantity(**{**told, **lists, **{name: _number(told[name]) for name in _NUMBERS}})
    numbers = (found.value, found.standard_uncertainty, found.monte_carlo_error, found.level, *found.interval)
    if not (len(found.interval) == 2 and all(isinstance(number, int | float) for number in numbers)):
        raise ValueError("no numbers")
    texts = (found.name, found.unit, *found.notes)
    if not (all(isinstance(text, str) for text in texts) and isinstance(found.draws, int)):
        raise ValueError("no texts")
    return found
