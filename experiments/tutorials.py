"""The numbers of the tutorials, by their own commands and listings: ``python -m experiments.tutorials``.

It runs sections 1 to 3 of the operators' tutorial, the report that the scientists' quotes, and the listings of the
researchers' up to the table of priors, and writes ``figures/tutorials.csv``. `tests/test_documented.py` compares the pages with
that table.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import tempfile
from ast import literal_eval
from pathlib import Path

import numpy as np

from ctuq.app.cli import main
from ctuq.uncertainty.results.image import Result
from experiments.engine.rows import Row, Rows

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "figures" / "tutorials.csv"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUNS = ("simulate ", "reconstruct ")


def blocks(page: str, first: str, last: str) -> list[tuple[str, str]]:
    """Language and text of the blocks of a page between two of its headings."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return _BLOCK.findall(text[text.index(f"\n## {first}") if first else 0 : text.index(f"\n## {last}")])


def printed(code: str) -> list[str]:
    """Lines that a listing prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "listing", "exec"), {})
    return out.getvalue().splitlines()


def typical(result: Result) -> float:
    """Median standard deviation inside the object, as the report tells it."""
    assert result.std is not None
    return float(np.median(result.std[result.mean > 0.5 * np.percentile(result.mean, 99)]))


def operator() -> list[Row]:
    """Each choice of views, scored on the views that it did not use."""
    found = blocks("tutorial_operator.md", "", "4. When to stop")
    for language, text in found:
        for line in text.splitlines() if not language else ():
            if line.removeprefix("ctuq ").startswith(_RUNS) and main(shlex.split(line)[1:]):
                raise SystemExit(line)
    (code,) = (text for language, text in found if language == "python")
    rows: list[Row] = []
    for line in printed(code):
        folder, scores = line.split(" ", 1)
        result = Result.load(f"{folder}/results.h5")
        kept = {name: literal_eval(scores)[name] for name in ("rmse", "rms_z", "cover_68", "cover_95")}
        kept |= {"psnr": result.scores["truth"]["psnr"], "typical_std": typical(result)}
        rows += [{"page": "operator", "what": folder, "name": name, "value": value} for name, value in kept.items()]
    return rows


def scientist() -> list[Row]:
    """What the report of twenty views says."""
    for line in ("ctuq simulate --size 32 --angles 20 -o twenty.h5", "ctuq reconstruct twenty.h5 -o twenty/ --size 32"):
        if main(shlex.split(line)[1:]):
            raise SystemExit(line)
    result = Result.load("twenty/results.h5")
    inside = result.mean > 0.5 * np.percentile(result.mean, 99)
    assert result.std is not None and result.calibration is not None
    low, high = np.percentile(result.std[inside], [5, 95])
    axis = result.systematics["axis"]
    kept = {
        "typical_std": typical(result),
        "level": float(np.median(result.mean[inside])),
        "low": float(low),
        "high": float(high),
        "rms_z": result.calibration.calibrated["rms_z"],
        "rms_z_raw": result.calibration.raw["rms_z"],
        "cover_95_low": result.calibration.cover_95[0],
        "cover_95_high": result.calibration.cover_95[1],
        "cover_68_low": result.calibration.cover_68[0],
        "cover_68_high": result.calibration.cover_68[1],
        "axis": float(axis.values[0]),
        "axis_std": float(axis.std[0]),
    }
    return [{"page": "scientist", "what": "report", "name": name, "value": value} for name, value in kept.items()]


def researcher() -> list[Row]:
    """Classical methods and the table of priors."""
    found = blocks("tutorial_researcher.md", "A scan with a truth", "The same in one call")
    code = "\n".join(text for language, text in found if language == "python")
    rows: list[Row] = []
    for line in printed(code + "\nprint('dip', image_scores(image.numpy(), scan.truth))"):
        name, _, rest = line.partition(" ")
        if rest.startswith("{"):
            rows += [
                {"page": "researcher", "what": name, "name": key, "value": value} for key, value in literal_eval(rest).items()
            ]
        elif name in ("isotropic", "layerwise", "filter", "g"):
            keys = ("evidence", "scale", "log_likelihood", "cover_68", "cover_95", "patches", "rank_correlation")
            values = [float(word) for word in re.sub(r"[a-z.]*float\d+\(([^)]*)\)", r"\1", rest).split()]
            rows += [{"page": "researcher", "what": name, "name": key, "value": v} for key, v in zip(keys, values, strict=True)]
    return rows


def run() -> None:
    """Write the table anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("operator", "scientist", "researcher"), help="rows of one page")
    only, home = parser.parse_args().only, Path.cwd()
    pages = {"operator": operator, "scientist": scientist, "researcher": researcher}
    kept = [row for row in Rows(TABLE).rows if only is not None and row["page"] != only]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = [row for name, rows in pages.items() if only in (None, name) for row in rows()]
        os.chdir(home)
    TABLE.unlink(missing_ok=True)
    Rows(TABLE).add([*kept, *made])


if __name__ == "__main__":
    run()
