"""``python -m experiments.field``: every kind of scan, what the command does with it, and whether that is right."""

import sys
import tempfile
from pathlib import Path

from experiments.field.judged import outcome_of_command
from experiments.field.kinds import KINDS


def main(wanted: list[str]) -> int:
    """Print one line for each kind whose name has one of the words; exit code 1 if something is wrong."""
    chosen = [kind for kind in KINDS if not wanted or any(word in kind.name for word in wanted)]
    wrong = 0
    for kind in chosen:
        with tempfile.TemporaryDirectory() as folder:
            outcome = outcome_of_command(kind, Path(folder))
            text = outcome.words().replace(folder + "/", "")
        right = outcome.is_right(kind)
        wrong += not right
        print(f"{'right' if right else 'WRONG':<6} {kind.name:<48} {text}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
