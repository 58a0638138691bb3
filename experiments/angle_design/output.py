"""Table and figure of a measurement, each written whole."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ctuq.app.png import png_bytes
from ctuq.records import write_whole


def write(stem: Path, columns: Sequence[str], rows: Sequence[dict[str, str]], figure: Figure) -> None:
    """``stem`` with the endings ``.csv`` and ``.png``."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    for ending, data in ((".csv", text.getvalue().encode()), (".png", png_bytes(figure))):
        write_whole(stem.with_name(stem.name + ending), lambda target, data=data: target.write(data))
