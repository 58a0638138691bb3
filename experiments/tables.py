"""Tables that an experiment writes whole, of what it has kept in ``runs``."""

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def write(rows: Sequence[Mapping[str, object]], path: Path, digits: int = 5) -> None:
    """Rows as CSV, numbers with so many digits; of no rows it ends the experiment, as the table that is there would be lost."""
    if not rows:
        sys.exit(f"Nothing is kept to make a table of: {path.name} stays as it is.")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows({k: f"{v:.{digits}g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
