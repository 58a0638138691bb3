"""The same work gives the same on one worker and on several, and what is lost is made again or told."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ctuq.errors import InputError, ResourceError
from ctuq.scale import chained, cluster, mapped, seed_of

CHAINS = [[(chain, place) for place in range(3)] for chain in range(4)]


def walk(shared, item, before):
    """A random walk along a chain; the worker that reaches ``shared["deadly"]`` first is killed there."""
    if item == shared.get("deadly") and not Path(shared["mark"]).exists():
        Path(shared["mark"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item == shared.get("wrong"):
        raise InputError(f"Item {item} cannot be.")
    step = np.random.default_rng(seed_of(shared["root"], *item)).standard_normal(3)
    return step if before is None else before + step


def done(executor=None, **shared):
    return {item: result for _, item, result in chained(walk, CHAINS, {"root": 7, **shared}, executor)}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for item, value in one.items():
        np.testing.assert_array_equal(value, other[item])


@pytest.fixture(scope="module")
def here():
    return done()


@pytest.fixture(scope="module")
def dask():
    pytest.importorskip("distributed")
    with cluster(2) as executor:
        yield executor


def test_seeds_come_from_the_key_alone():
    assert seed_of(7, "slice", 12) == seed_of(7, "slice", 12) < 2**62
    assert len({seed_of(7, "slice", n) for n in range(100)}) == 100


def test_a_piece_knows_what_came_before_it_in_its_chain_and_nothing_else(here):
    assert list(here) == [item for chain in CHAINS for item in chain]
    alone = dict(done_of([CHAINS[2]]))
    np.testing.assert_array_equal(alone[2, 2], here[2, 2])
    assert not np.allclose(here[2, 2], here[2, 1])


def done_of(chains, first=None):
    return [(item, result) for _, item, result in chained(walk, chains, {"root": 7}, first=first)]


def test_a_chain_goes_on_from_what_is_given_to_it(here):
    rest = dict(done_of([CHAINS[1][2:]], first=[here[1, 1]]))
    np.testing.assert_array_equal(rest[1, 2], here[1, 2])


@pytest.mark.parametrize("workers", [1, 3])
def test_any_executor_gives_the_same(here, workers):
    with ThreadPoolExecutor(workers) as executor:
        assert_same(done(executor), here)


def test_workers_of_dask_give_the_same_and_so_they_do_when_one_is_killed(here, dask, tmp_path):
    assert_same(done(dask), here)
    mark = tmp_path / "killed"
    assert_same(done(dask, deadly=(2, 1), mark=str(mark)), here)
    assert mark.exists()
    assert [v.tolist() for v in mapped(walk, [(0, 0), (1, 0)], {"root": 7}, dask)] == [here[0, 0].tolist(), here[1, 0].tolist()]


@pytest.mark.parametrize("executor", [None, "dask"])
def test_what_a_piece_refuses_is_what_is_told(executor, request):
    with pytest.raises(InputError, match=r"\(1, 1\) cannot be"):
        done(executor and request.getfixturevalue(executor), wrong=(1, 1))


def test_a_pool_that_lost_its_worker_is_told_in_a_sentence(tmp_path):
    with ProcessPoolExecutor(1) as executor, pytest.raises(ResourceError, match="worker was lost"):
        done(executor, deadly=(0, 1), mark=str(tmp_path / "killed"))


def test_a_scheduler_that_goes_away_is_told_in_a_sentence():
    pytest.importorskip("distributed")
    with cluster(1) as executor, pytest.raises(ResourceError, match="scheduler is gone"):
        for count, _ in enumerate(chained(walk, CHAINS, {"root": 7}, executor)):
            if count == 2:
                executor._client.cluster.close(timeout=10)


@pytest.mark.parametrize(
    ("what", "said"),
    [("scheduler", "ResourceError: A worker was lost, or the scheduler is gone"), ("interrupt", "KeyboardInterrupt")],
)
def test_a_run_that_is_cut_off_shows_a_sentence_and_no_traceback(tmp_path, what, said):
    """Dask and tornado logged 30 lines of a scheduler that died, and each worker its own of Ctrl-C."""
    pytest.importorskip("distributed")
    words = [sys.executable, str(Path(__file__).parent / "helpers" / "dying.py"), what, str(tmp_path)]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=120, start_new_session=True, check=False).stderr
    assert said in shown and "Traceback" not in shown, shown


def test_what_cannot_be_started_is_refused():
    for workers, scheduler in ((0, None), (5000, None), (2, "tcp://127.0.0.1:1")):
        with pytest.raises(InputError, match="--workers"), cluster(workers, scheduler):
            pass
    with cluster() as executor:
        assert executor is None


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("ctuq.scale._PATIENCE", 1)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1'"), cluster(scheduler="tcp://127.0.0.1:1"):
        pass
