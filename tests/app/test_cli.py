import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ctuq
from ctuq.app import cli, commands
from ctuq.app.design import commands as steps
from ctuq.app.options import Demo, Doctor
from ctuq.errors import InputError, ResourceError


def parsed(monkeypatch, *arguments):
    """The command that these words mean, without running it."""
    seen = []
    monkeypatch.setattr(cli, "_run", lambda command: seen.append(command) or 0)
    assert cli.main(arguments) == 0
    return seen[0]


def failing(monkeypatch, error):
    def run(command):
        raise error

    monkeypatch.setattr(cli, "_run", run)


def python(*arguments, cwd=None):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=cwd)


def test_help_needs_neither_torch_nor_numpy():
    code = (
        "import sys\nfrom ctuq.app.cli import main\n"
        "try:\n    main(['reconstruct', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'astra', 'h5py'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "--calibration-views" in done.stdout


def test_the_module_is_the_command():
    done = python("-m", "ctuq", "--help")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("demo", "info", "simulate", "reconstruct", "report", "doctor"))


def test_the_flags_of_reconstruct(monkeypatch):
    words = "a.h5 b.h5 -o run --method tv --size 64 --every 4 --no-uncertainty --samples 8 --resume --no-calibrate"
    more = "--calibration-views 5 --geometry g.yml --start random --threads 2"
    command = parsed(monkeypatch, "reconstruct", *words.split(), *more.split())
    assert (command.start, command.threads) == ("random", 2)
    assert command.scan == (Path("a.h5"), Path("b.h5"))
    assert (command.output, command.method, command.size, command.every) == (Path("run"), "tv", 64, 4)
    assert (command.uncertainty, command.calibrate, command.resume) == (False, False, True)
    assert (command.samples, command.calibration_views, command.geometry) == (8, 5, Path("g.yml"))
    command = parsed(monkeypatch, "reconstruct", "s.h5", "-o", "run", "--angles", "0,12,40", "--truth", "t.tif")
    assert (command.start, command.threads) == ("educated", None)
    assert (command.angles, command.truth, command.every) == ("0,12,40", Path("t.tif"), None)
    assert (command.uncertainty, command.calibrate, command.resume, command.debug) == (True, True, False, False)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("data/walnut.png", "ctuq-walnut"),
        ("ta_000-060.mat ta_269-299.mat", "ctuq-ta_000-060"),
        ("data/ta_*.mat", "ctuq-ta"),
        ("data/pictures/", "ctuq-pictures"),
        ("..", "ctuq-scan"),
        ("/", "ctuq-scan"),
        ("a.h5 -o run", "run"),
    ],
)
def test_without_a_folder_results_go_where_the_command_is_typed_by_the_name_of_the_scan(words, folder, monkeypatch):
    assert parsed(monkeypatch, "reconstruct", *words.split()).folder == Path(folder)


def test_a_reconstruction_needs_nothing_but_the_name_of_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ctuq.write_scan(ctuq.simulate(size=8, angles=4), "disc.h5")
    assert cli.main(["reconstruct", "disc.h5", "--method", "fbp", "--size", "8"]) == 0
    assert ctuq.Result.load("ctuq-disc/results.h5").method == "fbp"
    assert cli.main(["reconstruct", "disc.h5", "--method", "fbp", "--size", "8"]) == 2
    assert "ctuq-disc holds results" in capsys.readouterr().err


EVERY = sorted(kind.__name__.lower() for kind in commands._DOES if kind not in (Demo, Doctor))
STEPS = sorted(f"design {kind.__name__.lower()}" for kind in steps._DOES)


@pytest.mark.parametrize("words", [*EVERY, "design", *STEPS])
def test_no_command_without_arguments_is_a_defect(words, tmp_path, monkeypatch, capsys):
    """Only demo and doctor do something then."""
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(words.split())
    except SystemExit as end:
        code = end.code
    assert code == 2 and capsys.readouterr().err
    assert not list(tmp_path.iterdir())


OPTIONS = ("", " --stack", " --volume", " --plan", " --stack --plan", " --volume --plan", " --geometry g.yml")
WITHOUT_SCAN = [*(f"reconstruct{more}" for more in OPTIONS), "info", "info --volume", "design next"]


@pytest.mark.parametrize("words", [*WITHOUT_SCAN, "calibrate -o out --held-out 3"])
def test_a_scan_that_is_not_named_is_asked_for(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    assert capsys.readouterr().err == "ctuq: Name a scan file.\n"


def test_every_command_speaks_as_it_is_asked(monkeypatch):
    for words in ("info s.h5", "doctor", "design status s.h5", "export run out.zarr"):
        command = parsed(monkeypatch, *words.split(), "--quiet", "--verbose")
        step = getattr(command, "step", command)
        assert (step.json, step.quiet, step.verbose) == (False, True, True)
    more = "--iterations 30 --prior g --variation 0.5"
    command = parsed(monkeypatch, "reconstruct", "s.h5", "-o", "run", *more.split())
    assert (command.iterations, command.prior, command.variation) == (30, "g", 0.5)
    assert parsed(monkeypatch, "demo", "--threads", "1").threads == 1


def test_the_flags_of_the_other_commands(monkeypatch):
    words = "simulate --phantom rectangles --size 128 --angles 20 --noise 5% -o scan.h5"
    command = parsed(monkeypatch, *words.split())
    assert (command.phantom, command.size, command.angles, command.noise) == ("rectangles", 128, 20, "5%")
    assert command.output == Path("scan.h5")
    command = parsed(monkeypatch, "demo", "-o", "d", "--size", "32", "--no-open")
    assert (command.output, command.size, command.open) == (Path("d"), 32, False)
    assert parsed(monkeypatch, "info", "s.h5", "--draw", "g.png").draw == Path("g.png")
    assert parsed(monkeypatch, "report", "run").folder == Path("run")
    assert parsed(monkeypatch, "doctor", "--debug").debug


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("The file is odd."), 2, "The file is odd."),
        (MemoryError(), 4, "too little memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), 4, "too little memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 4, "too little memory"),
        (ResourceError("It needs 9 GiB."), 4, "It needs 9 GiB."),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 4, "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "x.h5"), 2, "x.h5: permission denied."),
        (KeyboardInterrupt("Interrupted; add --resume."), 3, "--resume"),
        (ImportError("_flapack.so: failed to map segment from shared object"), 4, "too little memory"),
        (ZeroDivisionError("oh"), 1, "defect of ctuq (ZeroDivisionError: oh)"),
    ],
)
def test_trouble_is_one_sentence_and_a_code(monkeypatch, capsys, error, code, said):
    failing(monkeypatch, error)
    assert cli.main(["doctor"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert shown.err.count("\n") == 1


def test_who_thinks_better_of_it_at_once_sees_one_sentence(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.tyro, "cli", interrupted)
    assert cli.main(["doctor"]) == 3
    assert capsys.readouterr().err == "ctuq: Interrupted; nothing was written.\n"


def test_a_backend_of_another_program_is_no_matter(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "garbage")
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    cli._draw_on_no_screen()
    assert "MPLBACKEND" not in os.environ


def test_debug_shows_the_traceback(monkeypatch, capsys):
    failing(monkeypatch, InputError("The file is odd."))
    assert cli.main(["doctor", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_option_exits_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--nonsense"])
    assert end.value.code == 2
    assert "--nonsense" in capsys.readouterr().err
