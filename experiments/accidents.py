"""What else happens to a run: a full disk, a folder that may not be written, a cache that is gone or spoilt, another input.

``python -m experiments.accidents`` takes some minutes. Each trial is a command as a user types it; the last one must come
to the same result, bit for bit, as a run to which nothing happened. Full and read-only disks are small ones in memory, which
only root may mount: without that right they are left out.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctuq import files
from ctuq.tomo import radians
from ctuq.tomo.simulate import phantom_scan
from experiments.kills import contents

HERE = Path(__file__).resolve().parent.parent
_OPTIONS = ("--size", "16", "--iterations", "60", "--samples", "8", "--threads", "1")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and the last line that it told."""

    code: int
    told: str


class Trials:
    """Runs of one scan in one folder."""

    def __init__(self, folder: Path):
        self.folder, self.scan = folder, folder / "scan.h5"
        self.cache = folder / "cache"
        self._write_scan(1)
        assert self.run(folder / "whole").code == 0
        self.expected = contents(folder / "whole" / "results.h5")

    def _write_scan(self, seed: int) -> None:
        files.write_scan(phantom_scan("ellipses", 16, radians(np.arange(0, 180, 12.0)), noise=0.03, seed=seed), self.scan)

    def run(self, place: Path, *more: str, environment: Mapping[str, str] | None = None, killed: bool = False) -> Ended:
        """``ctuq reconstruct``; killed when its fit is in a file, if that is asked for."""
        words = [sys.executable, "-m", "ctuq", "reconstruct", str(self.scan), "-o", str(place), *_OPTIONS, *more]
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "XDG_CACHE_HOME": str(self.cache)}
        if killed:
            words[1:3] = ["-c", _DYING]
        done = subprocess.run(words, env=settings | dict(environment or {}), capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
        return Ended(done.returncode, lines[-1] if lines else "")

    def same(self, place: Path) -> bool:
        """Whether the result is that of the run to which nothing happened."""
        return (place / "results.h5").is_file() and contents(place / "results.h5") == self.expected

    def all(self) -> Iterator[tuple[str, bool, str]]:
        """What happened, whether the command did what is right, and what it told."""
        yield from self._disks()
        yield from self._caches()
        yield from self._other_work()

    def _disks(self) -> Iterator[tuple[str, bool, str]]:
        place = self.folder / "disk"
        for kibibytes in (8, 300, 1500):
            with mounted(place, f"size={kibibytes}k") as there:
                if not there:
                    return
                full = self.run(place / "run")
                subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
                more = ("--resume",) if (place / "run" / "checkpoint.h5").is_file() else ()
                self.run(place / "run", *more)
                yield f"a disk of {kibibytes} KiB", full.code == 4 and self.same(place / "run"), full.told
        with mounted(place, "size=200m") as there:
            self.run(place / "run", killed=True)
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
            refused = self.run(place / "run", "--resume"), self.run(place / "new")
            subprocess.run(["mount", "-o", "remount,rw", place], check=True)
            self.run(place / "run", "--resume")
            right = [ended.code for ended in refused] == [2, 2] and self.same(place / "run")
            yield "a folder that may only be read", right, refused[0].told

    def _caches(self) -> Iterator[tuple[str, bool, str]]:
        for name, where in (("no cache folder", "/nowhere/at/all"), ("a cache that cannot be", "/proc/version")):
            ended = self.run(self.folder / name, environment={"XDG_CACHE_HOME": where, "HOME": where})
            yield name, ended.code == 0 and self.same(self.folder / name), ended.told
        for path in self.cache.rglob("*"):
            if path.is_file():
                path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))
        ended = self.run(self.folder / "spoilt")
        yield "a spoilt cache", ended.code == 0 and self.same(self.folder / "spoilt"), ended.told

    def _other_work(self) -> Iterator[tuple[str, bool, str]]:
        place = self.folder / "other"
        self.run(place, killed=True)
        before = sorted(path.name for path in place.iterdir())
        options, nothing = self.run(place, "--resume", "--samples", "9"), self.run(place)
        self._write_scan(2)
        scan = self.run(place, "--resume")
        self._write_scan(1)
        kept = sorted(path.name for path in place.iterdir()) == before
        self.run(place, "--resume")
        for name, ended in (("other options", options), ("neither --resume nor --overwrite", nothing), ("another scan", scan)):
            yield f"a killed run and {name}", ended.code == 2 and kept and self.same(place), ended.told
        again, missing = self.run(place), self.run(self.folder / "missing", "--resume")
        yield "a run that is done, begun again", again.code == 2 and self.same(place), again.told
        yield "nothing to resume", missing.code == 2, missing.told


# The fit is whole and in a file when the route's next stage asks for the Jacobian.
_DYING = """
import os, signal, sys
from ctuq.app import cli
from ctuq.pipeline import job
job.jacobian_of = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
cli.main(sys.argv[1:])
"""


@contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """A disk in memory at a place; whether this process may mount one."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", place], check=True)


def main() -> int:
    """Print what came of each; exit code 1 if something is wrong."""
    folder = Path(tempfile.mkdtemp())
    wrong = 0
    try:
        for what, right, told in Trials(folder).all():
            wrong += not right
            print(f"{'right' if right else 'WRONG':<6} {what:<44} {told.replace(str(folder) + '/', '')}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
