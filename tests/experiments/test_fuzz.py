"""Damaged files of every format: `experiments.fuzz` at a small size, and whether it would notice."""

import os
import signal
import sys

import numpy as np
import pytest

from experiments.fuzz import run
from experiments.fuzz.__main__ import main
from experiments.fuzz.run import BAD, FINE, outcomes
from experiments.fuzz.seeds import FORMATS, Format

CASES = 200


def test_no_damaged_file_of_any_format_gives_anything_but_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz", "--cases", str(CASES), "--output", str(tmp_path / "out")])
    assert main() == 0, capsys.readouterr().out[-6000:]
    done = capsys.readouterr().out
    rows = {line[:16].strip(): [int(n) for n in line[16:].split()[:-1]] for line in done.splitlines()[1:]}
    assert set(rows) == {*FORMATS, "all"}
    for name in FORMATS:
        cases, refused, *others = rows[name]
        assert cases == CASES == refused + sum(others) and refused > CASES / 10, name
        assert sum(others[len(FINE) - 1 :]) == 0
    # Run again, it has nothing left to do.
    monkeypatch.setattr("experiments.fuzz.__main__.outcomes", lambda name, numbers, folder: iter(numbers))
    assert main() == 0
    assert capsys.readouterr().out == done


def _looks(path):
    """Does with a file what it says."""
    what = path.read_bytes()
    if what == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == b"hang":
        signal.pause()
    if what == b"hoard":
        return str(np.ones(1 << 28).sum()), set()
    if what == b"raise":
        raise IndexError(3)
    return what.decode(), set()


WAYS = {b"kill": "crash", b"hang": "slow", b"hoard": "memory", b"raise": "foreign", b"fine": "equal", b"other": "silent"}


@pytest.mark.parametrize("way", WAYS)
def test_the_harness_notices_what_a_reader_does_wrong(tmp_path, monkeypatch, way):
    kind = Format(lambda folder: (folder / "a").write_bytes(b"fine") and "a", "bytes", checked=True, look=_looks)
    monkeypatch.setitem(FORMATS, "test", kind)
    monkeypatch.setattr(run, "damage", lambda path, structure, rng: (path.write_bytes(way) and "told", False))
    monkeypatch.setattr(run, "SECONDS", 0.5)
    found = list(outcomes("test", range(3), tmp_path / "fuzz"))
    assert [outcome.number for outcome in found] == [0, 1, 2]
    assert {outcome.verdict for outcome in found} == {WAYS[way]} <= {*BAD, *FINE}


def test_a_case_is_the_same_whenever_it_is_run(tmp_path):
    one, other = (list(outcomes("npz", numbers, tmp_path / "fuzz")) for numbers in (range(20), range(10, 20)))
    assert [(o.number, o.verdict, o.told) for o in one[10:]] == [(o.number, o.verdict, o.told) for o in other]
