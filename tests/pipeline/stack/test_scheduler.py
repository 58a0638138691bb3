"""Stacks on the workers of a scheduler that runs elsewhere: by its address, after it is gone, and as the docs start it."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cylinders import N, cylinders

from ctuq.app.cli import main
from ctuq.errors import ResourceError
from ctuq.files import write_volume_scan
from ctuq.pipeline import ReconstructOptions, reconstruct_stack
from ctuq.uncertainty.results.volume import VolumeResult

TV = ReconstructOptions(method="tv", size=N, device="cpu")
DOCS = Path(__file__).resolve().parents[3] / "docs" / "stacks.md"


@pytest.fixture(scope="module")
def scan():
    return cylinders()[0]


class Going(Executor):
    """Does some pieces, and then says what dask says when its scheduler is gone."""

    def __init__(self, pieces):
        self._left = pieces

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self._left -= 1
        if self._left < 0:
            future.set_exception(BrokenExecutor("Connection to the scheduler closed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_what_was_done_before_the_scheduler_went_away_is_gone_on_with(scan, tmp_path):
    path = tmp_path / "checkpoint.h5"
    with pytest.raises(ResourceError, match=r"scheduler is gone .*go on from there"):
        reconstruct_stack(scan, options=TV, checkpoint=path, executor=Going(6))
    kept = {file.name for file in (tmp_path / "checkpoint.stages").iterdir()}
    assert {"teacher_0.npz", "slice_0.npz", "slice_1.npz"} <= kept and "slice_4.npz" not in kept
    whole, again = reconstruct_stack(scan, options=TV), reconstruct_stack(scan, options=TV, checkpoint=path)
    np.testing.assert_array_equal(again.mean, whole.mean)
    np.testing.assert_array_equal(again.std, whole.std)


@contextmanager
def running(module, *words):
    command = [sys.executable, "-m", f"distributed.cli.{module}", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def address_in(file, patience=60):
    """What a scheduler wrote there."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = re.search(r'"address": "(tcp://[^"]+)"', file.read_text()) if file.exists() else None
        if found:
            return found[1]
        time.sleep(0.1)
    raise TimeoutError("The scheduler has not started.")


def test_a_scheduler_and_a_worker_that_were_started_by_hand_give_the_same_bits(scan, tmp_path, capsys):
    """As two machines do it: processes that share an address and nothing else; then the scheduler is gone."""
    pytest.importorskip("distributed")
    write_volume_scan(scan, tmp_path / "scan.h5")
    file, run = tmp_path / "scheduler.json", tmp_path / "run"
    quiet = ("--no-dashboard", "--host", "127.0.0.1")
    with running("dask_scheduler", "--port", 0, "--scheduler-file", file, *quiet) as scheduler:
        address = address_in(file)
        one_thread = ("--nthreads", 1, "--no-nanny", "--local-directory", tmp_path)
        with running("dask_worker", address, *one_thread, *quiet):
            words = ["reconstruct", str(tmp_path / "scan.h5"), "--stack", "--method", "tv", "--size", str(N), "--slices", "0:3"]
            assert main([*words, "--scheduler", address, "-o", str(run)]) == 0
            found, here = VolumeResult.load(run / "results.h5"), reconstruct_stack(scan, rows=range(3), options=TV)
            np.testing.assert_array_equal(found.mean, here.mean)
            np.testing.assert_array_equal(found.std, here.std)
            assert scheduler.poll() is None  # it is not ours to end
            os.kill(scheduler.pid, signal.SIGKILL)
            scheduler.wait()
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctuq.scale._PATIENCE", 1)
        assert main([*words, "--scheduler", address, "-o", str(tmp_path / "other")]) == 2
    told = capsys.readouterr().err
    assert "No scheduler of dask answers" in told and told.count("\n") == 1


def test_the_recipe_for_slurm_asks_for_workers_of_one_thread(monkeypatch, tmp_path):
    """The script in the docs, run up to the cluster's queue, which is not here."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    (recipe,) = re.findall(r"```\n(import signal\n.*?)```", DOCS.read_text(), re.DOTALL)
    asked, scripts = [], []

    def scale(self, jobs):
        asked.append(jobs)
        scripts.append(self.job_script())

    monkeypatch.setattr(jobqueue.SLURMCluster, "scale", scale)
    monkeypatch.setattr(signal, "pause", lambda: None)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(recipe.replace('"port": 8786', '"port": 0, "dashboard_address": "127.0.0.1:0"'), scope)
    address = scope["cluster"].scheduler_address
    scope["cluster"].close()
    script = scripts[0]
    assert asked == [100, 0]  # closing asks for none
    for words in ("#SBATCH --cpus-per-task=1", "#SBATCH --mem=6G", "#SBATCH -t 08:00:00", "--nthreads 1", address):
        assert words in script
    assert script.index("export OMP_NUM_THREADS=1") < script.index("dask_worker")
