"""A table that grows: rows of finished runs in a CSV file, which are not run again."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

Value = str | int | float
Row = dict[str, Value]


class Rows:
    """Rows of one experiment, kept in a CSV file.

    Parameters
    ----------
    path : Path
        Read if it exists; delete it to run everything again.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[Row] = []
        if path.is_file():
            with path.open(newline="") as file:
                self.rows = [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]

    def where(self, **key: Value) -> list[Row]:
        """Rows with these values."""
        return [row for row in self.rows if all(_same(row[k], v) for k, v in key.items())]

    def add(self, rows: list[Row]) -> None:
        """Append rows and write the file."""
        self.rows += [{key: _rounded(value) for key, value in row.items()} for row in rows]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


def changes(before: Row, after: Row, forms: Sequence[str]) -> list[str]:
    """Cells of a table, "before → after"; of each name and format in ``forms``, such as "rmse .4f". Empty where it was NaN."""
    cells = []
    for name, form in (text.split() for text in forms):
        then, now = float(before[name]), float(after[name])
        cells.append("" if math.isnan(then) else f"{then:{form}} → {now:{form}}")
    return cells


def _rounded(value: Value) -> Value:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _same(a: Value, b: Value) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return math.isclose(a, b, rel_tol=1e-4)


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
