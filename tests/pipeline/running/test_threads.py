import os
import subprocess
import sys

import pytest
import torch

from ctuq.pipeline.running import threads


@pytest.fixture(autouse=True)
def unchanged():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Clock:
    """Time that passes in steps only, by the number of threads."""

    def __init__(self, one, all_of_them):
        self.now, self._seconds = 0.0, (one, all_of_them)

    def step(self):
        self.now += self._seconds[torch.get_num_threads() > 1]

    def seconds_of(self, step):
        before = self.now
        step()
        return self.now - before


@pytest.mark.parametrize(("one", "all_of_them", "expected"), [(2.0, 5.0, 1), (5.0, 1.0, 4), (2.0, 1.9, 1)])
def test_the_quicker_number_of_threads_is_taken(one, all_of_them, expected, monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(4), raising=False)
    clock = Clock(one, all_of_them)
    monkeypatch.setattr(threads, "seconds_of", clock.seconds_of)
    assert threads.quickest(clock.step) == expected


def test_nothing_is_measured_unless_asked():
    def never():
        raise AssertionError

    before = torch.get_num_threads()
    assert threads.take_threads(None, never) == before
    assert threads.take_threads(2, never) == torch.get_num_threads() == 2
    assert threads.take_threads(0, never, kept=3) == torch.get_num_threads() == 3


def command(variables):
    code = "import os, ctuq.app.cli as c; c.main(['design', 'status', 'nothing.h5']); print(os.environ.get('OMP_WAIT_POLICY'))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))} | variables
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()[-1]


@pytest.mark.parametrize(("variables", "expected"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_command_lets_waiting_threads_sleep_unless_the_user_chose(variables, expected):
    assert command(variables) == expected
