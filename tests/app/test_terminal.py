import h5py
import numpy as np

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
