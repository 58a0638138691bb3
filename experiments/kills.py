"""Kills at random moments: whether what goes on afterwards is bit for bit what it would have been, and how much work was lost.

``OMP_NUM_THREADS=1 python -m experiments.kills`` takes half an hour: 20 kills of ``ctuq reconstruct`` and of each command of
``ctuq design``, 50 rounds of two processes on one session, 200 reconstructions in one process. ``--only reconstruct`` runs
some, ``--kills 3 --rounds 5 --runs 20`` fewer. Every kill is printed; how many there were of each command, and how many ended
as if nothing had been, is written to ``figures/kills.csv``, in place of what an earlier run wrote of the same.
"""

import csv
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Literal

import h5py
import numpy as np
import tyro

import ctuq
from ctuq import files
from ctuq.app import cli
from ctuq.design.session import file as sessionfile
from ctuq.design.session.session import Session
from ctuq.pipeline import ReconstructOptions
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ParallelBeam, Scan, radians
from ctuq.tomo.simulate import phantom_scan
from experiments import FIGURES

SIZE, VIEWS = 24, 15
_VOLATILE = ("timings", "plan", "date", "versions", "ask", "learn")
"""What two runs of the same never share: times."""
_GEOMETRY = "kind: parallel\npixel: 1.0\ncolumns: 36\n"

Words = Sequence[str | Path]


@dataclass(frozen=True)
class Kill:
    """One kill: of which command, when, at which stage, CPU seconds lost, whether the end is the same."""

    command: str
    second: float
    stage: str
    lost: float
    same: bool

    def __str__(self) -> str:
        return f"{self.command:>19} {self.second:6.1f} s  {self.stage:<26} lost {self.lost:5.1f} s  same {self.same}"


def main(
    only: Sequence[Literal["reconstruct", "design", "files", "sessions", "memory"]] = (
        "reconstruct",
        "design",
        "files",
        "sessions",
        "memory",
    ),
    kills: int = 20,
    rounds: int = 50,
    runs: int = 200,
    seed: int = 0,
    steps: Sequence[str] = (),
) -> None:
    """Kill, go on, compare, and print the table; of the steps of a design only these, if some are named."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        found: list[Kill] = []
        for name, work in (
            ("reconstruct", reconstructions),
            ("design", partial(designs, chosen=steps)),
            ("files", conversions),
        ):
            for kill in work(Path(folder), kills, rng) if name in only else ():
                print(kill, flush=True)
                found.append(kill)
                _write({f"kills of ctuq {kill.command}": _summed([k for k in found if k.command == kill.command])})
        if "sessions" in only:
            _write({"changes of one session by two processes": (4 * rounds, together(Path(folder), rounds), "")})
    if "memory" in only:
        for name, values in endurance(runs).items():
            told = f"{name} after each tenth: {', '.join(f'{v:.0f}' for v in values)}"
            _write({f"reconstructions in one process, {name}": (runs, runs, told)})


def reconstructions(folder: Path, kills: int, rng: np.random.Generator) -> Iterator[Kill]:
    """``ctuq reconstruct`` killed at moments spread over its run, each followed by ``--resume``."""
    scan = folder / "scan.h5"
    files.write_scan(phantom_scan("ellipses", SIZE, radians(np.arange(0, 180, 180 / VIEWS)), noise=0.03, seed=1), scan)
    words = ("reconstruct", scan, "--size", str(SIZE), "--samples", "8", "--threads", "1", "-o")
    whole = _timed(lambda: _ctuq(*words, folder / "whole"))
    expected = contents(folder / "whole" / "results.h5")
    for number, share in enumerate((np.arange(kills) + rng.random(kills)) / kills):
        run = folder / f"run{number}"
        second, stage = _killed(share * whole, *words, run)
        # Killed before there was a folder, it is not resumed but begun.
        more = ("--resume",) if run.is_dir() else ()
        after = _timed(lambda run=run, more=more: _ctuq(*words, run, *more))
        same = contents(run / "results.h5") == expected and sorted(p.name for p in run.iterdir()) == _NAMES
        yield Kill("reconstruct", second, stage, second + after - whole, same)


_NAMES = ["figures", "mean.tif", "report.html", "results.h5", "std.tif"]


def designs(folder: Path, kills: int, rng: np.random.Generator, chosen: Sequence[str] = ()) -> Iterator[Kill]:
    """Every step of a session and of trials, killed and gone on with as a user would."""
    angles = np.arange(0, 180, 10.0)
    geometry = ParallelBeam(angles=radians(angles), columns=36, pixel=1.0)
    sinogram = _measured(geometry)
    for name, told in (("pilot", [0, 60, 120]), ("more", [30]), ("more 2", [90]), ("more 3", [150])):
        views = np.isin(angles, told)
        files.write_scan(Scan(sinogram[views], geometry.subset(np.flatnonzero(views))), folder / f"{name}.h5")
    start = "start s.h5 --geometry g.yml --size 16 --pilot 3 --retrain-every 1 --candidates 0:180:10 --iterations 60"
    trials = "simulate ellipses -o trials --size 16 --candidates 12 --pilot 3 --total 6 --random 1 --prior isotropic"
    steps: dict[str, Words] = {"start": start.split(), "suggest": ("suggest", "s.h5")}
    for name in ("pilot", "more", "more 2", "more 3"):
        steps |= {f"tell {name}": ("tell", "s.h5", folder / f"{name}.h5"), f"suggest after {name}": ("suggest", "s.h5")}
    steps |= {
        "retrain": ("retrain", "s.h5"),
        "simulate": trials.split(),
        "compare": ("compare", "trials", "-o", "compared"),
    }
    place = folder / "session"
    place.mkdir()
    (place / "g.yml").write_text(_GEOMETRY)
    for name, words in steps.items():
        before = folder / f"before {name}"
        shutil.copytree(place, before)
        whole = _timed(lambda words=words: _ctuq("design", *words, cwd=place))
        expected = _state(place)
        count = kills if name[-1].isalpha() else max(1, kills // 4)
        count *= not name.startswith("suggest after") and (not chosen or name in chosen)
        for share in (np.arange(count) + rng.random(count)) / max(count, 1):
            run = folder / "run"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(before, run)
            second, _ = _killed(share * whole, "design", *words, cwd=run)
            after = _timed(lambda words=words, run=run, before=before: _go_on(words, run, before))
            yield Kill(f"design {name}", second, "", second + after - whole, _state(run) == expected)
        if name == "start":
            _shorten(place / "s.h5")


def conversions(folder: Path, kills: int, rng: np.random.Generator) -> Iterator[Kill]:
    """Commands that write one file: after a kill it is whole or not there, and made again it is the same."""
    place = folder / "files"
    place.mkdir()
    commands: dict[str, Words] = {
        "simulate": ("simulate", "-o", "scan.h5", "--size", "64", "--angles", "60"),
        "convert": ("convert", "scan.h5", "every.h5", "--every", "2"),
        "convert to NXtomo": ("convert", "scan.h5", "scan.nx"),
    }
    for name, words in commands.items():
        whole = _timed(lambda words=words: _ctuq(*words, cwd=place))
        target = place / (words[2])
        expected = contents(target)
        for share in (np.arange(kills) + rng.random(kills)) / kills:
            target.unlink(missing_ok=True)
            second, _ = _killed(share * whole, *words, cwd=place)
            sound = not target.is_file() or contents(target) == expected
            target.unlink(missing_ok=True)
            after = _timed(lambda words=words: _ctuq(*words, cwd=place))
            same = sound and contents(target) == expected and not list(place.glob(".*.partial"))
            yield Kill(name, second, "", second + after - whole, same)


def _shorten(session: Path) -> None:
    """Let a session's later fits take few iterations, which no option does: what kills do is the same."""
    record = sessionfile.read(session)
    network = {**record.settings.network, "warm_iterations": 60}
    sessionfile.write(session, replace(record, settings=replace(record.settings, network=network)))


def _go_on(words: Words, run: Path, before: Path) -> None:
    """The same command again where it has changed nothing yet; after a `tell` that was taken in, `suggest`."""
    session = run / "s.h5"
    if words[0] in ("simulate", "compare") or not session.is_file():
        _ctuq("design", *words, cwd=run)
    elif words[0] == "tell" and len(sessionfile.read(session).state.views) > len(sessionfile.read(before / "s.h5").state.views):
        os.waitpid(_forked(lambda: Session(session).update()), 0)
    elif _session(session) == _session(before / "s.h5") if (before / "s.h5").is_file() else False:
        _ctuq("design", *words, cwd=run)


def together(folder: Path, rounds: int) -> int:
    """Two processes ask and tell one session at once; how many of their changes are there in the end."""
    angles = radians(np.arange(2 * rounds + 4) * 180.0 / (2 * rounds + 4))
    geometry = ParallelBeam(angles=angles, columns=18, pixel=1.0)
    sinogram = _measured(geometry)
    settings = sessionfile.Settings(size=12, prior="isotropic", pilot=2)
    path = folder / "together.h5"
    Session.start(path, geometry, settings)

    def work(first: int) -> None:
        for view in range(first, 2 * rounds, 2):
            Session(path).tell(angles[view], sinogram[view : view + 1])
            Session(path).ask()

    children = [_forked(lambda first=first: work(first)) for first in (0, 1)]
    if any([os.waitpid(child, 0)[1] for child in children]):
        raise RuntimeError("One of the processes failed.")
    state = Session(path).state
    return len(state.views) + sum(entry.kind in ("ask", "pilot") for entry in state.log)


def endurance(runs: int) -> dict[str, list[float]]:
    """MiB of memory and open files of this process after each tenth of so many small reconstructions."""
    network = UNetOptions(channels=(8, 8), skips=(4,))
    options = ReconstructOptions(size=16, samples=8, threads=1, dip=DIPOptions(iterations=20, check_every=10, network=network))
    scan = phantom_scan("ellipses", 16, radians(np.arange(0, 180, 12.0)), noise=0.03, seed=1)
    found: dict[str, list[float]] = {"MiB": [], "open files": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.h5"
        for run in range(1, runs + 1):
            ctuq.reconstruct(scan, options=options, checkpoint=path).save(Path(folder) / "results.h5")
            path.unlink()
            if run % max(1, runs // 10) == 0:
                found["MiB"].append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
                found["open files"].append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
    return found


def _measured(geometry: ParallelBeam) -> np.ndarray:
    scan = phantom_scan("ellipses", geometry.columns * 2 // 3, geometry.angles, noise=0.03, seed=2)
    return scan.projections[:, : geometry.columns]


def begun(words: Words, told: IO[str], before: Callable[[], object] = lambda: None) -> int:
    """A process that does a command. It is forked, as to import everything would take longer than most commands do."""

    def work() -> None:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
        before()
        code = cli.main(list(map(str, words)))
        sys.stdout.flush()
        os._exit(code)

    return _forked(work)


def _ctuq(*words: str | Path, cwd: Path | None = None) -> None:
    with tempfile.TemporaryFile("w+") as told:
        status = os.waitpid(begun(words, told, lambda: os.chdir(cwd or Path.cwd())), 0)[1]
        told.seek(0)
        if status:
            raise RuntimeError(f"ctuq {' '.join(map(str, words))} ended with {status}: {told.read()[-600:]}")


def _killed(second: float, *words: str | Path, cwd: Path | None = None) -> tuple[float, str]:
    """Kill a command after so many seconds of the processor; how many it took, and the stage that its progress told of last."""
    spent = _spent()
    with tempfile.TemporaryFile("w+") as told:
        child = begun(words, told, lambda: os.chdir(cwd or Path.cwd()))
        # What has ended waits to be waited for, and takes no more seconds.
        while _is_running(child) and _seconds_of(child) < second:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        told.seek(0)
        lines = [line for line in told.read().replace("\r", "\n").splitlines() if "|" in line]
    stage = lines[-1].partition(":")[0].strip() if lines else "start"
    return _spent() - spent, "done" if status == 0 else stage


def _is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _seconds_of(pid: int) -> float:
    """Of the processor, that a running process has had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _spent() -> float:
    """Seconds of the processor of all processes that were waited for: others on the machine do not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def contents(path: Path) -> dict[str, bytes]:
    """Every value of an HDF5 file by name, but for times."""
    found: dict[str, bytes] = {}

    def take(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and not any(part in _VOLATILE for part in name.split("/")):
            found[name] = np.asarray(node[()]).tobytes() if node.shape else repr(node[()]).encode()

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def _session(path: Path) -> str:
    tree = sessionfile._tree(sessionfile.read(path))
    return sessionfile.digest({**tree, "versions": {}})


def _state(folder: Path) -> dict[str, object]:
    """All that a user can see in a folder of sessions and trials."""
    found: dict[str, object] = {path.name: contents(path) for path in folder.glob("trials/*.h5")}
    found |= {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/comparison*.csv")}
    if (folder / "s.h5").is_file():
        found["session"] = _session(folder / "s.h5")
    found["partial"] = sorted(str(path) for path in folder.rglob("*.partial"))
    return found


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 7
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def _timed(work: Callable[[], None]) -> float:
    spent = _spent()
    work()
    return _spent() - spent


def _summed(kills: Sequence[Kill]) -> tuple[int, int, str]:
    """Of one command: how many kills, how many that ended the same, the rest in words."""
    stages = ", ".join(sorted({kill.stage for kill in kills} - {""}))
    told = f"at most {max(kill.lost for kill in kills):.1f} s lost" + (f"; killed in {stages}" if stages else "")
    return len(kills), sum(kill.same for kill in kills), told


def _write(rows: Mapping[str, tuple[int, int, str]]) -> None:
    """Rows of the table, by what was tried; those of other trials stay as they are."""
    path, known = FIGURES / "kills.csv", {}
    if path.is_file():
        with path.open(newline="") as file:
            known = {row["what"]: tuple(row.values())[1:] for row in csv.DictReader(file)}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("what", "times", "as if nothing had been", "told"))
        writer.writerows((what, *row) for what, row in (known | dict(rows)).items())


if __name__ == "__main__":
    tyro.cli(main)
