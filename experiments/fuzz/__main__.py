"""``python -m experiments.fuzz``: thousands of damaged files of every format, and a table of what reading them came to.

Run again, it goes on where it stopped; a run of all formats at 5,000 cases and more writes ``figures/fuzz.txt``. A case that
went wrong is run alone by ``--formats NAME --only NUMBER``.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from experiments import FIGURES
from experiments.fuzz.run import BAD, Outcome, outcomes, table
from experiments.fuzz.seeds import FORMATS

_MANY = 5000
_FIGURE = FIGURES / "fuzz.txt"


def main() -> int:
    asked = _arguments()
    names = asked.formats.split(",") if asked.formats else list(FORMATS)
    asked.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Outcome]] = {}
    for name in names:
        kept = asked.output / f"{name.replace(' ', '_').replace('/', '_')}.jsonl"
        known = [] if asked.only is not None else _known(kept)
        wanted = [asked.only] if asked.only is not None else range(asked.cases)
        done = {outcome.number for outcome in known}
        with tempfile.TemporaryDirectory() as folder, kept.open("a") as file:
            for outcome in outcomes(name, [n for n in wanted if n not in done], Path(folder) / "fuzz"):
                known.append(outcome)
                if asked.only is None:
                    file.write(json.dumps(asdict(outcome)) + "\n")
                if outcome.verdict in BAD or asked.only is not None:
                    print(f"{name} {outcome.number}: {outcome.verdict} ({outcome.seconds} s) {outcome.told}", flush=True)
        found[name] = [outcome for outcome in known if outcome.number in set(wanted)]
    text = table(found)
    print(text)
    if asked.only is None:
        (asked.output / "table.txt").write_text(text + "\n")
    if asked.only is None and not asked.formats and asked.cases >= _MANY:
        _FIGURE.write_text(text + "\n")
    return int(any(outcome.verdict in BAD for all_of_it in found.values() for outcome in all_of_it))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="of each format")
    parser.add_argument("--formats", help=f"some of: {', '.join(FORMATS)}; separated by commas")
    parser.add_argument("--output", type=Path, default=Path("fuzz-output"), help="folder for outcomes and table")
    parser.add_argument("--only", type=int, help="run this case alone and show it")
    return parser.parse_args()


def _known(path: Path) -> list[Outcome]:
    """Outcomes of an earlier run; a line that was cut off is left out."""
    lines = path.read_text().splitlines() if path.is_file() else []
    known = []
    for line in lines:
        try:
            known.append(Outcome(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return known


if __name__ == "__main__":
    raise SystemExit(main())
