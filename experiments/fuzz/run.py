"""Cases in a process of their own, so that whatever they do to it can be told."""

import json
import os
import resource
import select
import shutil
import signal
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ctuq.errors import CtuqError
from ctuq.guard import UnforeseenError
from experiments.fuzz.damage import damage
from experiments.fuzz.seeds import FORMATS, Format

SECONDS, MEMORY = 10.0, 1 << 30
FINE = ("refused", "equal", "warned", "unknowable", "other content")
BAD = ("silent", "foreign", "unforeseen", "sentence", "memory", "slow", "crash")
_LONGEST, _WAIT = 1500, 6
"""Characters of a sentence; how many times longer than its time a case is waited for, as others may have the processor."""


@dataclass(frozen=True)
class Outcome:
    """What one case came to.

    Parameters
    ----------
    number : int
    verdict : str
        One of `FINE` and `BAD`: "warned" is read with another content and a warning more; "unknowable" is another value in a
        format without a checksum; "other content" is a sound file that says something else; "silent" is another value in a
        format with a checksum; "foreign" is an exception that is not ours, "unforeseen" one that the net caught in our lines;
        "sentence" is a message of several lines, of no end, or without the file's name; "memory" is more than 1 GiB, "slow"
        more than 10 s, "crash" the end of the process.
    seconds : float
        Of the processor.
    told : str
        What was done to the file, and the message.
    """

    number: int
    verdict: str
    seconds: float
    told: str


def outcomes(name: str, numbers: Iterable[int], folder: Path) -> Iterator[Outcome]:
    """Run cases of a format, in processes that are replaced when one ends.

    Parameters
    ----------
    name : str
        In `experiments.fuzz.seeds.FORMATS`.
    numbers : iterable of int
        Of the cases; the same number is the same case.
    folder : Path
        Empty; for files.
    """
    waiting = list(numbers)
    if not waiting:
        return
    sound = _Sound.made(name, folder)
    while waiting:
        done = 0
        for outcome in _by_child(name, waiting, sound):
            done += 1
            yield outcome
        waiting = waiting[done:]


@dataclass(frozen=True)
class _Sound:
    """Sound files of a format, and what they say; made before the children are, so that these find all modules loaded."""

    folder: Path
    main: str
    seen: tuple[str, set[str]]

    @classmethod
    def made(cls, name: str, folder: Path) -> "_Sound":
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "clean").mkdir(parents=True)
        (folder / "outside.h5").write_bytes(b"secret and more")
        main = FORMATS[name].make(folder / "clean")
        return cls(folder, main, FORMATS[name].look(folder / "clean" / main))


def _by_child(name: str, numbers: list[int], sound: _Sound) -> Iterator[Outcome]:
    """Outcomes of one process, up to the case that ends it."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _work(name, numbers, sound, theirs)
    os.close(theirs)
    done, rest = 0, b""
    while done < len(numbers):
        ready, _, _ = select.select([ours], [], [], _WAIT * SECONDS)
        block = os.read(ours, 1 << 16) if ready else b""
        if not block:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            verdict = "crash" if ready else "slow"
            os.close(ours)
            yield Outcome(numbers[done], verdict, SECONDS, f"signal {os.WTERMSIG(status) if ready else 0}; run it alone to see")
            return
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            done += 1
            yield Outcome(**json.loads(line))
    os.waitpid(child, 0)
    os.close(ours)


def _work(name: str, numbers: list[int], sound: _Sound, pipe: int) -> None:
    try:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for number in numbers:
            outcome = case(name, FORMATS[name], number, sound)
            os.write(pipe, json.dumps(asdict(outcome)).encode() + b"\n")
    finally:
        os._exit(0)


def case(name: str, kind: Format, number: int, sound: _Sound) -> Outcome:
    """Damage a copy of the sound files and read it."""
    clean, copy, name_damaged = sound.folder / "clean", sound.folder / "case", kind.damaged or sound.main
    if not copy.is_dir():
        shutil.copytree(clean, copy)
    # The others stay as they are: to copy all of them would take as long as to read them.
    shutil.copyfile(clean / name_damaged, copy / name_damaged)
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    told, rewritten = damage(copy / name_damaged, kind.structure, rng)
    begun = time.process_time()
    verdict, message = _verdict(kind, copy / sound.main, sound.seen, rewritten)
    seconds = time.process_time() - begun
    return Outcome(number, verdict if seconds < SECONDS else "slow", round(seconds, 4), f"{told}: {message}"[:600])


def _verdict(kind: Format, path: Path, before: tuple[str, set[str]], rewritten: bool) -> tuple[str, str]:
    try:
        after, warnings = kind.look(path)
    except UnforeseenError as error:
        return "unforeseen", str(error)
    except CtuqError as error:
        if isinstance(error.__cause__, MemoryError):
            return "memory", str(error)
        return ("refused" if _is_sentence(str(error), path) else "sentence"), str(error)
    except MemoryError as error:
        return "memory", repr(error)
    except Exception as error:
        return "foreign", repr(error)
    if after == before[0] and warnings == before[1]:
        return "equal", ""
    if warnings - before[1]:
        return "warned", " ".join(sorted(warnings - before[1]))
    return ("other content" if rewritten else "silent" if kind.checked else "unknowable"), "read without a word"


def _is_sentence(text: str, path: Path) -> bool:
    names = any(str(name) in text for name in (path.parent, path.name))
    return names and len(text) < _LONGEST and "\n" not in text


def table(found: dict[str, list[Outcome]]) -> str:
    """How many cases of each format came to what, and the slowest."""
    columns = [*FINE, *BAD]
    lines = [["format", "cases", *columns, "slowest (s)"]]
    for name, all_of_it in found.items():
        counts = Counter(outcome.verdict for outcome in all_of_it)
        slowest = max((outcome.seconds for outcome in all_of_it), default=0)
        lines.append([name, str(len(all_of_it)), *(str(counts[column]) for column in columns), f"{slowest:.2f}"])
    every = [sum(int(line[i]) for line in lines[1:]) for i in range(1, len(columns) + 2)]
    lines.append(["all", *map(str, every), max(line[-1] for line in lines[1:])])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join(rows)
