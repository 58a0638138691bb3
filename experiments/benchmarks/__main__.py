"""All benchmarks by one command: ``python -m experiments.benchmarks`` (hours), or some by name: ``--only jobs,accuracy``.

``--quick`` runs each at its smallest size, to see that it works; its figures mean nothing and go to a folder that is thrown
away.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec

import tyro

# What each prints is described at the head of its module; the problems with published times are not shipped.
ALL: Mapping[str, list[list[str]]] = {
    "jobs": [[]],
    "accuracy": [["--size", "64"], ["--size", "96"]],
    "start": [[]],
    "jacobian": [[]],
    "ray_transform": [[]],
    "volumes": [["--size", "32", "--views", "30"], ["--size", "64"]],
    "volume_bars": [["--size", "24"]],
    "workers": [[]],
    "laplace_mlp": [[]],
    "memory": [[]],
    "gp": [[]],
}
QUICK: Mapping[str, list[list[str]]] = {
    "jobs": [["--only", "walnut-24"]],
    "accuracy": [["--size", "16"]],
    "start": [["--scans", "walnut", "--sizes", "16", "--starts", "educated"]],
    "jacobian": [["--sizes", "64", "--rounds", "1"]],
    "ray_transform": [["--small", "--repeats", "1"]],
    "volumes": [["--size", "8", "--views", "6", "--repeats", "1"]],
    "volume_bars": [["--size", "8", "--views", "8", "--samples", "4", "--iterations", "10"]],
    "workers": [["--size", "8", "--slices", "4", "--kill-after", "2"]],
    "laplace_mlp": [["--n", "50", "--new", "10", "--hidden", "4", "--repeats", "1"]],
    "memory": [["--images", "1", "--samples", "1"]],
    "gp": [["--n", "200", "--seconds", "1"]],
}


_NEEDS = {"laplace_mlp": "laplace"}


def main(only: str | None = None, quick: bool = False) -> None:
    """Run each in a process of its own and show what it prints."""
    with tempfile.TemporaryDirectory() as trial:
        environment = os.environ | ({"CTUQ_FIGURES": trial} if quick else {})
        failed = [name for name in (ALL if only is None else only.split(",")) if not _ran(name, quick, environment)]
    if failed:
        sys.exit(f"These failed: {', '.join(failed)}.")


def _ran(name: str, quick: bool, environment: Mapping[str, str]) -> bool:
    """Whether a benchmark ended well, in all that it is run with."""
    if name in _NEEDS and find_spec(_NEEDS[name]) is None:
        print(f"== {name} is left out: it needs {_NEEDS[name]}, of the extra baselines", flush=True)
        return True
    codes = []
    for arguments in (QUICK if quick else ALL)[name]:
        print(f"== {name} {' '.join(arguments)}", flush=True)
        command = [sys.executable, "-m", f"experiments.benchmarks.{name}", *arguments]
        codes.append(subprocess.run(command, check=False, env=environment).returncode)
    return not any(codes)


if __name__ == "__main__":
    tyro.cli(main)
