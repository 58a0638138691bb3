"""What programs read of commands: one JSON document, exit codes, and quiet."""

import json

import numpy as np
import pytest

import ctuq
from ctuq.app import cli
from ctuq.app.terminal import Speech, give, plain, say, speaking, warn


def run(capsys, *words):
    """Exit code, document, and what stood on standard error."""
    code = cli.main([str(word) for word in words])
    told = capsys.readouterr()
    return code, json.loads(told.out), told.err


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "scan.h5"
    ctuq.write_scan(ctuq.simulate(size=16, angles=6), path)
    return path


def test_every_command_answers_with_one_document(scan, tmp_path, capsys):
    code, told, _ = run(capsys, "info", scan, "--json")
    assert (code, told["schema"], told["command"], told["exit"]) == (0, "ctuq.command/1", "info", 0)
    assert told["facts"]["scan"]["angles_deg"] == [0, 30, 60, 90, 120, 150]
    assert told["error"] is None and any("views" in line or "angles" in line for line in told["lines"])
    code, told, _ = run(capsys, "reconstruct", scan, "-o", tmp_path / "run", "--method", "fbp", "--size", "16", "--json")
    assert code == 0 and told["facts"]["result"]["grid"]["shape"] == [16, 16]
    assert told["facts"]["result"]["scores"]["truth"]["psnr"] > 5
    assert told["facts"]["report"].endswith("report.html")
    facts = run(capsys, "report", tmp_path / "run", "--json")[1]["facts"]
    assert facts["result"]["method"] == "fbp" and facts["folder"] == str(tmp_path / "run")
    code, told, _ = run(capsys, "convert", scan, tmp_path / "part.nx", "--json")
    assert (code, told["command"], told["facts"]["scan"]["views"]) == (0, "convert", 6)
    code, told, _ = run(capsys, "simulate", "-o", tmp_path / "s.h5", "--size", "16", "--angles", "3", "--json")
    assert (code, told["facts"]["scan"]["has_truth"]) == (0, True)


def test_an_error_is_in_the_document_with_its_code(tmp_path, capsys):
    code, told, error = run(capsys, "info", tmp_path / "none.h5", "--json")
    assert code == told["exit"] == 2
    assert "none.h5" in told["error"] and told["error"] in error


def test_quiet_is_silent_but_for_warnings(scan, tmp_path, capsys):
    words = ["reconstruct", scan, "-o", tmp_path / "run", "--method", "fbp", "--size", "16", "--quiet"]
    assert cli.main([str(word) for word in words]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert all(line.startswith("Warning: ") for line in told.err.splitlines())
    assert (tmp_path / "run" / "results.h5").is_file()


def test_a_command_that_only_speaks_is_read_by_programs_too(capsys):
    with speaking(Speech(as_json=True)) as speech:
        say("one\ntwo")
        warn(["take care"])
        give(value=np.float64(2.5), gap=np.nan, table=np.eye(2), where=ctuq.VolumeGrid((2, 2), 1.0))
    assert capsys.readouterr().out == ""
    told = json.loads(speech.document("x", 0, ""))
    assert (told["lines"], told["warnings"]) == (["one", "two"], ["take care"])
    assert told["facts"] == {
        "value": 2.5,
        "gap": None,
        "table": [[1, 0], [0, 1]],
        "where": {"shape": [2, 2], "voxel": 1.0, "centre": [0.0, 0.0]},
    }
    with speaking(Speech(quiet=True)):
        say("nothing")
        warn(["care"])
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "Warning: care\n")
    say("loud again")
    assert capsys.readouterr().out == "loud again\n"


def test_text_of_files_cannot_break_the_document():
    assert plain({"a\x1b": "b\x1b[2J"}) == {"a\\x1b": "b\\x1b[2J"}
    assert plain([np.inf, -np.inf, np.int8(3), True, None]) == [None, None, 3, True, None]
