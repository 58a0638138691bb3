import errno
import io
import os

import h5py
import numpy as np
import pytest

import ctuq
from ctuq.app import cli
from ctuq.app.terminal import cell, say

HOSTILE = "\x1b[31m\x1b]0;owned\x07\u202egpj.exe\nwarning  all is well\x9b2J"


def test_lines_stay_lines_and_nothing_else(capsys):
    say(f"one {HOSTILE}\ntwo")
    shown = capsys.readouterr().out
    assert shown.isascii() and shown.replace("\n", "").isprintable() and shown.endswith("\ntwo\n")


def test_cells_are_no_formulas():
    assert cell("=1+1") == "'=1+1" and cell("@x") == "'@x" and cell("walnut") == "walnut" and cell(-1.5) == -1.5
    assert "\x1b" not in cell(HOSTILE)


def test_what_a_file_says_cannot_command_the_terminal(tmp_path, capsys):
    path = tmp_path / f"scan{chr(27)}[2J.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data"] = np.full((6, 2, 12), 0.5, np.float32)
        file["exchange/theta"] = np.arange(6) * 30.0
        file["measurement/sample/name"] = HOSTILE
        file["measurement/instrument/name"] = "x" * 9000
    assert cli.main(["info", str(path)]) in (0, 2)
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(text)
    assert "\\x1b[31m" in told.out and not any(line.strip().startswith("warning  all is well") for line in told.out.split("\n"))
    assert max(map(len, told.out.split("\n"))) < 2500


def test_an_error_is_one_line_of_printable_text(tmp_path, capsys):
    path = tmp_path / "a\x1b[31m\nb.npz"
    np.savez(path, **{f"x\x1b{i}": np.ones(1) for i in range(300)})
    assert cli.main(["info", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1 and told.err.strip().isprintable() and len(told.err) < 2500


class Stream(io.StringIO):
    """Standard output that cannot be written to, or only in ASCII."""

    def __init__(self, number=None):
        super().__init__()
        self.number = number

    encoding = "ascii"

    def write(self, text):
        if self.number is not None:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text.encode(self.encoding).decode())


@pytest.mark.parametrize("words", [(), ("--json",), ("--verbose",)])
@pytest.mark.parametrize(("number", "code"), [(errno.EPIPE, 0), (errno.EIO, 0), (errno.ENOSPC, 4), (None, 0)])
def test_work_is_done_whoever_listens(number, code, words, tmp_path, monkeypatch, capsys):
    folder, out = tmp_path / "mä", Stream(number)
    ctuq.write_scan(ctuq.simulate(size=16, angles=6), tmp_path / "scan.h5")
    monkeypatch.setattr("sys.stdout", out)
    call = ["reconstruct", str(tmp_path / "scan.h5"), "-o", str(folder), "--method", "fbp", "--size", "8", *words]
    assert cli.main(call) == code
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "mean.tif", "report.html", "results.h5"]
    told = capsys.readouterr().err
    assert ("standard output is full" in told) == (number == errno.ENOSPC) and "defect" not in told
    assert number is not None or "m\\xe4" in out.getvalue() or "--json" in words


@pytest.mark.parametrize("stream", [None, Stream(errno.EPIPE)])
def test_nobody_need_see_the_progress(stream, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", stream)
    ctuq.write_scan(ctuq.simulate(size=16, angles=6), tmp_path / "scan.h5")
    call = ["reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "run"), "--method", "fbp", "--size", "8"]
    assert cli.main([*call, "--verbose"]) == 0
    assert cli.main(call) == 2  # what is there is not replaced: told to nobody
