"""Nothing of an earlier run is lost: one run a folder, nothing replaced unasked, and whatever ends a run says how to go on."""

import errno
import os
import signal

import h5py
import numpy as np
import pytest
from killing import die, killed

import ctuq
from ctuq import files, locks
from ctuq.app import cli, slices
from ctuq.app.folder import held_folder
from ctuq.errors import InputError
from ctuq.locks import locked
from ctuq.tomo import ParallelBeam, Scan
from ctuq.tomo.scan import Provenance
from ctuq.uncertainty.results.image import Result


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take most of a run by a classical method, and are no matter here."""
    monkeypatch.setattr("ctuq.app.report.anew.draw_all", lambda result: {"geometry": b"a picture"})


@pytest.fixture(scope="module")
def scan_file(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("scans") / "scan.h5"
    files.write_scan(scan, path)
    return path


@pytest.fixture
def words(scan_file, tmp_path):
    return ["reconstruct", str(scan_file), "-o", str(tmp_path / "run"), "--method", "fbp", "--size", "16"]


def told(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ctuq: ")]
    return line


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails(error):
    def never(*_, **__):
        raise error

    return never


def stopped(monkeypatch, error):
    """A pipeline that has kept something when it fails."""

    def reconstruct(scan, *, options, progress, checkpoint):
        checkpoint.write_bytes(b"state")
        raise error

    monkeypatch.setattr(slices.pipeline, "reconstruct", reconstruct)


def test_results_are_replaced_only_when_that_is_asked_for(words, tmp_path, capsys):
    assert cli.main(words) == 0
    before = contents(tmp_path / "run")
    assert cli.main([*words, "--size", "24"]) == 2
    assert "--overwrite" in told(capsys) and contents(tmp_path / "run") == before
    assert cli.main([*words, "--size", "24", "--overwrite"]) == 0
    assert Result.load(tmp_path / "run" / "results.h5").mean.shape == (24, 24)


@pytest.mark.parametrize("name", ["mean.tif", "report.html", "checkpoint.h5"])
def test_whatever_a_run_would_write_over_is_told(name, words, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    assert cli.main(words) == 2
    assert name in told(capsys) and contents(tmp_path / "run") == {name: b"mine"}


def test_other_files_in_a_folder_are_in_nobodys_way(words, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert cli.main(words) == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_to_resume_what_is_complete_changes_nothing(words, tmp_path, capsys):
    assert cli.main(words) == 0
    before = contents(tmp_path / "run")
    assert cli.main([*words, "--resume"]) == 0
    assert "complete" in capsys.readouterr().out and contents(tmp_path / "run") == before
    assert cli.main([*words, "--resume", "--every", "2"]) == 2
    assert "another scan or other options" in told(capsys) and contents(tmp_path / "run") == before


def test_to_resume_where_nothing_was_kept_begins_anew(words, tmp_path):
    (tmp_path / "run").mkdir()
    assert cli.main([*words, "--resume"]) == 0
    assert (tmp_path / "run" / "results.h5").is_file()


def test_resume_and_overwrite_exclude_each_other(words, capsys):
    assert cli.main([*words, "--resume", "--overwrite"]) == 2
    assert "one of them" in told(capsys)


def test_one_run_a_folder_and_a_killed_one_holds_nothing(words, tmp_path, capsys):
    with held_folder(tmp_path / "run"):
        assert cli.main([*words, "--overwrite"]) == 2
        assert "Another run is at work" in told(capsys)

    def dies():
        with held_folder(tmp_path / "run"):
            (tmp_path / "run" / ".mean.tif.123.partial").write_bytes(b"half")
            (tmp_path / "run" / "figures").mkdir()
            (tmp_path / "run" / "figures" / ".std.png.123.partial").write_bytes(b"half")
            die()

    assert killed(dies)
    assert (tmp_path / "run" / ".ctuq.lock").read_text().startswith(tuple("123456789"))
    assert cli.main([*words, "--overwrite"]) == 0
    assert not [name for name in contents(tmp_path / "run") if name.startswith(".")]


def test_half_written_files_of_others_are_left_alone(tmp_path):
    kept = [tmp_path / ".film.partial", tmp_path / "other" / ".mean.tif.123.partial"]
    (tmp_path / "other").mkdir()
    for path in kept:
        path.write_bytes(b"half")
    with held_folder(tmp_path):
        assert all(path.is_file() for path in kept)


def test_nothing_is_written_over_what_it_is_made_from(tmp_path, capsys):
    scan, angles = tmp_path / "scan.h5", tmp_path / "angles.txt"
    ctuq.write_scan(ctuq.simulate(size=16, angles=6), scan)
    angles.write_text("0 30 60")
    (tmp_path / "link.png").symlink_to(scan)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.h5").write_text("hours of work")
    before = scan.read_bytes()
    for words in (
        ("info", scan, "--draw", scan),
        ("info", scan, "--draw", tmp_path / "link.png"),
        ("design", "status", scan, "--draw", scan),
        ("measure", scan, "--region", "circle:0,0,5", "--csv", scan),
        ("measure", tmp_path / "run", "--region", "circle:0,0,5", "--csv", tmp_path / "run" / "results.h5"),
        ("simulate", "--angles", angles, "-o", angles),
    ):
        assert cli.main([str(word) for word in words]) == 2
        assert "choose another name" in told(capsys)
    assert scan.read_bytes() == before and angles.read_text() == "0 30 60"


def test_a_simulation_replaces_simulations_alone(tmp_path, capsys):
    measured = tmp_path / "measured.h5"
    with h5py.File(measured, "w") as file:
        file["exchange/data"] = np.ones(3)
    assert cli.main(["simulate", "--size", "16", "--angles", "3", "-o", str(measured)]) == 2
    assert "is no scan of ctuq" in told(capsys) and "exchange" in h5py.File(measured)
    for _ in range(2):
        assert cli.main(["simulate", "--size", "16", "--angles", "3", "-o", str(tmp_path / "s.h5")]) == 0
    for words in ([], ["--phantom", "shells"]):
        assert cli.main(["simulate", "--size", "16", "--angles", "3", "-o", str(tmp_path / "s.h5"), *words]) == 0
    beam = ParallelBeam(angles=np.deg2rad([0.0, 60.0, 120.0]), columns=8, pixel=1.0)
    files.write_scan(Scan(np.ones((3, 8), np.float32), beam, provenance=Provenance("scanner.h5")), measured)
    before = measured.read_bytes()
    assert cli.main(["simulate", "--size", "16", "--angles", "3", "-o", str(measured)]) == 2
    assert "was not simulated" in told(capsys) and measured.read_bytes() == before


def test_a_lock_that_is_removed_by_its_holder_is_not_held_by_two(tmp_path):
    with locked(tmp_path / "f", "lock", tidy=True):
        pass
    assert list(tmp_path.iterdir()) == []
    first, second = (locked(tmp_path / "f", "lock", busy="held") for _ in range(2))
    with first, pytest.raises(InputError, match="held"), second:
        raise AssertionError("held twice")


def dead():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", ""),
        (lambda: f"{dead()} {locks.platform.node()}", ""),
        (lambda: f"{os.getppid()} {locks.platform.node()}", "at work"),
        ("77 elsewhere", "Process 77 on elsewhere.*remove"),
        ("nonsense", ""),
    ],
)
def test_without_locks_of_the_system_a_running_process_that_signed_counts(name, said, tmp_path, monkeypatch):
    monkeypatch.setattr(locks.fcntl, "flock", fails(OSError(errno.ENOLCK, "No locks available")))
    (tmp_path / ".f.lock").write_text(name() if callable(name) else name)
    if said:
        with pytest.raises(InputError, match=said), locked(tmp_path / "f", "lock"):
            raise AssertionError("held")
    else:
        with locked(tmp_path / "f", "lock"):
            assert str(os.getpid()) in (tmp_path / ".f.lock").read_text()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_end_that_a_system_sends_is_an_interruption(name, monkeypatch, capsys):
    number = getattr(signal, name)

    def run(command):
        os.kill(os.getpid(), number)
        signal.pause()

    monkeypatch.setattr(cli, "_run", run)
    before = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored
    try:
        assert cli.main(["doctor"]) == 3
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert "Interrupted" in told(capsys)


def test_what_nohup_ignores_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(cli, "_run", lambda command: os.kill(os.getpid(), signal.SIGHUP) or 0)
        assert cli.main(["doctor"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZeroDivisionError("oh"), 1),
        (np.linalg.LinAlgError("singular"), 1),
        (InputError("It is odd."), 2),
        (KeyboardInterrupt(), 3),
        (MemoryError(), 4),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
    ],
)
def test_whatever_ends_a_run_says_that_resume_goes_on(error, code, words, tmp_path, monkeypatch, capsys):
    stopped(monkeypatch, error)
    assert cli.main(words) == code
    assert "--resume" in (said := told(capsys)) and said.endswith(".") and ".;" not in said
    assert contents(tmp_path / "run") == {"checkpoint.h5": b"state"}


@pytest.mark.parametrize("where", ["result.save", "write_tiff", "image_report"])
def test_a_full_disk_at_the_end_keeps_the_work(where, words, tmp_path, monkeypatch, capsys):
    full = fails(OSError(errno.ENOSPC, "No space left on device"))
    with monkeypatch.context() as patch:
        patch.setattr(*((Result, "save") if where == "result.save" else (slices, where)), full)
        assert cli.main(words) == 4
        assert "disk is full" in told(capsys)
    assert cli.main([*words, "--resume"]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"results.h5", "mean.tif", "report.html", "figures"}


@pytest.mark.parametrize(
    "option", ["--seed=-1", "--seed=1180591620717411303424", "--device=meta", "--size=0", "--size=1000000000", "--threads=0"]
)
def test_numbers_that_nobody_means_are_refused_in_one_line(option, words, tmp_path, capsys):
    assert cli.main([*words, option]) == 2
    assert told(capsys) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--seed=-1", "--size=1000000000", "--angles=1000000000", "--noise=nan"])
def test_simulations_that_nobody_means_are_refused_in_one_line(option, tmp_path, capsys):
    assert cli.main(["simulate", "-o", str(tmp_path / "s.h5"), option]) == 2
    assert told(capsys) and list(tmp_path.iterdir()) == []
