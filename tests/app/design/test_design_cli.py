import subprocess
import sys
from pathlib import Path

import pytest

from ctuq.app import cli


@pytest.fixture
def parsed(monkeypatch):
    """The command that these words mean, without running it."""
    seen = []
    monkeypatch.setattr(cli, "_run", lambda command: seen.append(command.step) or 0)

    def parse(*words):
        assert cli.main(["design", *words]) == 0
        return seen.pop()

    return parse


def test_the_flags_of_start(parsed):
    words = "--candidates 0:180:1 --forbid 80:100,120:130 --dose-budget 40 --batch 2 --rotation-cost 0.01 --roi=-5,5,0,10"
    command = parsed("start", "s.h5", "--geometry", "g.yml", *words.split())
    assert (command.session, command.geometry, command.forbid) == (Path("s.h5"), Path("g.yml"), "80:100,120:130")
    assert (command.candidates, command.dose_budget, command.batch) == ("0:180:1", 40.0, 2)
    assert (command.rotation_cost, command.roi, command.endless) == (0.01, "-5,5,0,10", False)
    # Of slices 128 pixels, of volumes 16 voxels.
    assert (command.prior, command.criterion, command.size) == ("lindip", "eig", None)
    assert (command.pilot, command.retrain_every, command.stop_gain) == (5, "never", None)
    words = "--prior edges --criterion ese --stop-gain 2 --stop-error 1e-3"
    command = parsed("start", "s.h5", "--geometry", "g.yml", *words.split())
    assert (command.prior, command.criterion) == ("edges", "ese")
    assert (command.stop_gain, command.stop_error) == (2.0, 1e-3)


def test_the_flags_of_the_other_steps(parsed):
    command = parsed("suggest", "s.h5", "-n", "3", "--pending", "12,40.5")
    assert (command.session, command.n, command.pending) == (Path("s.h5"), 3, "12,40.5")
    command = parsed("tell", "s.h5", "a.h5", "b.h5", "--geometry", "g.yml", "--no-retrain")
    assert (command.projections, command.geometry, command.retrain) == ((Path("a.h5"), Path("b.h5")), Path("g.yml"), False)
    command = parsed("tell", "s.h5", "--reject", "36", "--final", "--because", "beam lost")
    assert (command.projections, command.reject, command.final, command.because) == ((), "36", True, "beam lost")
    assert parsed("status", "s.h5", "--draw", "s.png").draw == Path("s.png")
    assert parsed("retrain", "s.h5").session == Path("s.h5")


def test_debug_is_an_option_of_every_step(monkeypatch, capsys):
    assert cli.main(["design", "status", "nothing.h5", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys\nfrom ctuq.app.cli import main\n"
        "try:\n    main(['design', 'start', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'h5py'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--rotation-cost" in done.stdout
