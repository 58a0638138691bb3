"""All benchmarks by one command: ``python -m experiments.benchmarks`` (hours), or some by name: ``--only jobs,accuracy``.

``--quick`` runs each at its smallest size, to see that it works; its figures mean nothing and go to a folder that is thrown
away. Then all run in one process: each spends seconds on imports, but only their figures need a process of their own.
"""

import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import tyro

import experiments

# What each prints is described at the head of its module; the problems with published times are not shipped.
ALL: Mapping[str, list[list[str]]] = {
    "jobs": [[]],
    "accuracy": [["--size", "64"], ["--size", "96"]],
    "start": [[]],
    "fit_step": [[]],
    "jacobian": [[]],
    "ray_transform": [[]],
    "volumes": [["--size", "32", "--views", "30"], ["--size", "64"]],
    "volume_bars": [["--size", "24"]],
    "workers": [[]],
    "laplace_mlp": [[]],
    "memory": [[]],
    "gp": [[]],
    "scaling": [[]],
}
QUICK: Mapping[str, list[list[str]]] = {
    "jobs": [["--only", "walnut-24"]],
    "accuracy": [["--size", "16"]],
    "start": [["--scans", "walnut", "--sizes", "16", "--starts", "educated"]],
    "fit_step": [["--sizes", "16", "--steps", "1"]],
    "jacobian": [["--sizes", "64", "--rounds", "1"]],
    "ray_transform": [["--small", "--repeats", "1"]],
    "volumes": [["--size", "8", "--views", "6", "--repeats", "1"]],
    "volume_bars": [["--size", "8", "--views", "8", "--samples", "4", "--iterations", "10"]],
    "workers": [["--size", "8", "--slices", "4", "--kill-after", "2", "--counts", "1"]],
    "laplace_mlp": [["--n", "50", "--new", "10", "--hidden", "4", "--repeats", "1"]],
    "memory": [["--width", "8", "--images", "1", "--samples", "1"]],
    "gp": [["--n", "100", "--seconds", "0.1", "--parallel", "8"]],
    "scaling": [["--quick"]],
}


_NEEDS = {"laplace_mlp": "laplace"}


def main(only: str | None = None, quick: bool = False) -> None:
    """Run each and show what it prints."""
    with tempfile.TemporaryDirectory() as trial:
        if quick:
            # For processes that they start, and for this one.
            os.environ["CTUQ_FIGURES"], experiments.FIGURES = trial, Path(trial)
        failed = [name for name in (ALL if only is None else only.split(",")) if not _ran(name, quick)]
    if failed:
        sys.exit(f"These failed: {', '.join(failed)}.")


def _ran(name: str, quick: bool) -> bool:
    """Whether a benchmark ended well, in all that it is run with."""
    if name in _NEEDS and find_spec(_NEEDS[name]) is None:
        print(f"== {name} is left out: it needs {_NEEDS[name]}, of the extra baselines", flush=True)
        return True
    ended = []
    for arguments in (QUICK if quick else ALL)[name]:
        print(f"== {name} {' '.join(arguments)}", flush=True)
        ended.append((_ended_here if quick else _ended_apart)(f"experiments.benchmarks.{name}", arguments))
    return all(ended)


def _ended_apart(module: str, arguments: list[str]) -> bool:
    return not subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode


def _ended_here(module: str, arguments: list[str]) -> bool:
    before, sys.argv = sys.argv, [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        return not end.code
    except Exception:
        traceback.print_exc()
        return False
    finally:
        sys.argv = before
    return True


if __name__ == "__main__":
    tyro.cli(main)
