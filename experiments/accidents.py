"""What else happens to a run: a full disk, a folder that may not be written, a cache that is gone or spoilt, another input.

``python -m experiments.accidents`` takes some minutes. Each trial is a command as a user types it; the last one must come
to the same result, bit for bit, as a run to which nothing happened. Full and read-only disks are small ones in memory, which
only root may mount: without that right they are left out.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ctuq import files
from ctuq.app import slices
from ctuq.pipeline import bars
from ctuq.recon.dip import DIPOptions
from ctuq.tomo import radians
from ctuq.tomo.simulate import phantom_scan
from experiments.kills import begun, contents

_OPTIONS = ("--size", "16", "--samples", "8", "--threads", "1")
_SHORT = partial(DIPOptions, iterations=60, check_every=10)


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
        whole = self.run(folder / "whole")
        if whole.code:
            raise RuntimeError(whole.told)
        self.expected = contents(folder / "whole" / "results.h5")

    def _write_scan(self, seed: int) -> None:
        files.write_scan(phantom_scan("ellipses", 16, radians(np.arange(0, 180, 12.0)), noise=0.03, seed=seed), self.scan)

    def run(self, place: Path, *more: str, environment: Mapping[str, str] | None = None, killed: bool = False) -> Ended:
        """``ctuq reconstruct``; killed when its fit is in a file, if that is asked for."""
        words = ("reconstruct", self.scan, "-o", place, *_OPTIONS, *more)
        settings = {"XDG_CACHE_HOME": str(self.cache)} | dict(environment or {})
        with tempfile.TemporaryFile("w+") as told:
            child = begun(words, told, lambda: _prepared(settings, killed))
            status = os.waitpid(child, 0)[1]
            told.seek(0)
            lines = [line for line in told.read().replace("\r", "\n").splitlines() if line.strip()]
        return Ended(os.waitstatus_to_exitcode(status), lines[-1] if lines else "")

    def same(self, place: Path) -> bool:
        """Whether the result is that of the run to which nothing happened."""
        return (place / "results.h5").is_file() and contents(place / "results.h5") == self.expected

    def all(self) -> Iterator[tuple[str, bool, str]]:
        """What happened, whether the command did what is right, and what it told."""
        yield from self._other_work()
        yield from self._disks()
        yield from self._caches()

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
        before = (place / "checkpoint.h5").read_bytes()
        options, nothing = self.run(place, "--resume", "--samples", "9"), self.run(place)
        self._write_scan(2)
        scan = self.run(place, "--resume")
        self._write_scan(1)
        kept = (place / "checkpoint.h5").read_bytes() == before
        self.run(place, "--resume")
        for name, ended in (("other options", options), ("neither --resume nor --overwrite", nothing), ("another scan", scan)):
            yield f"a killed run and {name}", ended.code == 2 and kept and self.same(place), ended.told
        again, missing = self.run(place), self.run(self.folder / "missing", "--resume")
        yield "a run that is done, begun again", again.code == 2 and self.same(place), again.told
        yield "nothing to resume", missing.code == 2, missing.told


def _prepared(settings: Mapping[str, str], killed: bool) -> None:
    """The environment of a command, a short fit, and maybe the end of it when the fit is in a file: then J is asked for."""
    os.environ.update(settings)
    slices.DIPOptions = _SHORT
    if killed:
        bars.jacobian_of = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)


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
