"""All benchmarks by one command: ``python -m experiments.benchmarks`` (hours), or some by name: ``--only jobs,accuracy``."""

import subprocess
import sys

import tyro

# What each prints is described at the head of its module; the problems with published times are not shipped.
ALL = {
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


def main(only: str | None = None) -> None:
    """Run each in a process of its own and show what it prints."""
    failed = []
    for name in ALL if only is None else only.split(","):
        for arguments in ALL[name]:
            print(f"== {name} {' '.join(arguments)}", flush=True)
            command = [sys.executable, "-m", f"experiments.benchmarks.{name}", *arguments]
            if subprocess.run(command, check=False).returncode:
                failed.append(name)
    if failed:
        sys.exit(f"These failed: {', '.join(failed)}.")


if __name__ == "__main__":
    tyro.cli(main)
