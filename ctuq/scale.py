"""Work on many processes: pieces in chains, done here, by any executor, or by the workers of a dask cluster.

A piece is ``work(shared, item, before)``: ``before`` is what the item before it in its chain gave, None for the first. Who
does a piece, and when, changes nothing of what it gives: chains are fixed by whoever asks, random numbers come from `seed_of`
the piece's own key, and each piece runs with one thread. So the same work gives the same bits on one worker and on a hundred,
and after a worker was lost.
"""

import hashlib
import logging
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

from ctuq.errors import InputError, ResourceError
from ctuq.text import shortened

Item = TypeVar("Item")
_TOGETHER = 64
"""Chains that are under way at once: each holds what its last piece gave."""
_RETRIES, _FAILURES = 3, 3
_PATIENCE = 30
_LOGGERS = ("distributed", "tornado", "asyncio")
_LOST = "A worker was lost, or the scheduler is gone ({}); see that workers run and have memory enough, and go on from there."


def seed_of(*key: object) -> int:
    """A seed of 62 bits from what a piece of work is, never from where or when it is done.

    Examples
    --------
    >>> seed_of(7, "slice", 12) == seed_of(7, "slice", 12)
    True
    """
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little") >> 2


def chained(
    work: Callable[[Any, Item, Any], Any],
    chains: Sequence[Sequence[Item]],
    shared: Any,
    executor: Executor | None = None,
    *,
    first: Sequence[Any] | None = None,
) -> Iterator[tuple[int, Item, Any]]:
    """Do the pieces of every chain one after the other, and chains side by side; yields each as it is done.

    Parameters
    ----------
    work : callable
        ``work(shared, item, before)``, a function of a module: it may run in another process.
    chains : sequence of sequences
        Their items; independent pieces are chains of one.
    shared : object
        What all pieces need. It goes to a worker of `cluster` once, to another executor with every piece.
    executor : concurrent.futures.Executor, optional
        By default the pieces are done here.
    first : sequence, optional
        What stands before the first item of each chain; None by default.

    Yields
    ------
    chain, item, result
        The chain's number first.

    Raises
    ------
    ResourceError
        If workers are lost again and again, or the scheduler is gone.
    """
    before = [None] * len(chains) if first is None else list(first)
    if executor is not None:
        yield from _side_by_side(work, chains, shared, executor, before)
        return
    for number, chain in enumerate(chains):
        latest = before[number]
        for item in chain:
            latest = work(shared, item, latest)
            yield number, item, latest


def _side_by_side(
    work: Callable[[Any, Item, Any], Any], chains: Sequence[Sequence[Item]], shared: Any, executor: Executor, before: list
) -> Iterator[tuple[int, Item, Any]]:
    waiting = iter([number for number, chain in enumerate(chains) if len(chain)])
    running: dict[Future, tuple[int, int]] = {}
    try:
        placed = executor.placed(shared) if isinstance(executor, _Cluster) else shared

        def begin(number: int, place: int, latest: Any) -> None:
            running[executor.submit(work, placed, chains[number][place], latest)] = number, place

        for number in islice(waiting, _TOGETHER):
            begin(number, 0, before[number])
        while running:
            # What is done comes before what is lost, which ends it all.
            for future in sorted(wait(running, return_when=FIRST_COMPLETED).done, key=_has_failed):
                number, place = running.pop(future)
                latest = future.result()
                if place + 1 < len(chains[number]):
                    begin(number, place + 1, latest)
                else:
                    for following in islice(waiting, 1):
                        begin(following, 0, before[following])
                yield number, chains[number][place], latest
    except Exception as error:
        if not _is_loss(error):
            raise
        raise ResourceError(_LOST.format(shortened(" ".join(str(error).split()) or type(error).__name__, 120))) from error
    finally:
        for future in running:
            future.cancel()


def mapped(
    work: Callable[[Any, Item, Any], Any], items: Sequence[Item], shared: Any, executor: Executor | None = None
) -> list[Any]:
    """What independent pieces give, in the order of the items: `chained` with chains of one."""
    found: dict[int, Any] = {}
    for number, _, result in chained(work, [[item] for item in items], shared, executor):
        found[number] = result
    return [found[number] for number in range(len(items))]


def require_one_crew(workers: int | None, scheduler: str | None) -> None:
    """Refuse workers of both kinds, or a number of them that nobody means.

    Raises
    ------
    InputError
    """
    if workers is not None and scheduler is not None:
        raise InputError("--workers starts workers here and --scheduler takes those of a running one; give one of them.")
    if workers is not None and not 1 <= workers <= 4096:
        raise InputError(f"--workers takes a number from 1 to 4096, got {workers}.")


@contextmanager
def cluster(
    workers: int | None = None, scheduler: str | None = None, *, memory: int | None = None
) -> Iterator[Executor | None]:
    """Workers on this machine, or those of a scheduler of dask; None where neither is asked for.

    Parameters
    ----------
    workers : int, optional
        Processes of one thread each to start here; they end with the block.
    scheduler : str, optional
        Address of a running scheduler, such as ``tcp://10.0.0.1:8786``.
    memory : int, optional
        Bytes that a worker started here may take before it is started anew.

    Raises
    ------
    InputError
        If both are given, dask is not installed, or no scheduler answers.
    """
    require_one_crew(workers, scheduler)
    if workers is None and scheduler is None:
        yield None
        return
    try:
        import dask.config
        import distributed
    except ImportError as error:
        raise InputError("Work on many processes takes dask.distributed; install it: pip install 'ctuq[scale]'.") from error
    quiet = {
        "distributed.scheduler.allowed-failures": _FAILURES,
        "distributed.admin.low-level-log-length": 0,
        "distributed.worker.daemon": False,
        "distributed.comm.timeouts.connect": f"{_PATIENCE}s",
        "distributed.scheduler.dashboard.status.task-stream-length": 1,
    }
    with dask.config.set(quiet), _their_logs_away(), ExitStack() as ends:
        where: Any = scheduler
        if workers is not None:
            options = {"threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
            where = distributed.LocalCluster(n_workers=workers, memory_limit=memory or 0, **options)
            ends.callback(_quietly, where.close, timeout=_PATIENCE)
        try:
            client = distributed.Client(where)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(f"No scheduler of dask answers at '{scheduler}'; check the address.") from error
        ends.callback(_quietly, client.close, timeout=_PATIENCE)
        _require_workers(client, scheduler)
        if workers is not None:
            client.register_plugin(_deaf())
        yield _Cluster(client)


@contextmanager
def _their_logs_away() -> Iterator[None]:
    """Keep what dask and tornado log to those who debug: of a scheduler that died it is 30 lines beside one sentence."""
    if logging.getLogger("ctuq").isEnabledFor(logging.DEBUG):
        yield
        return
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _LOGGERS]
    before = {log: log.disabled for log in map(logging.getLogger, {*names, *_LOGGERS})}
    for log in before:
        log.disabled = True
    try:
        yield
    finally:
        for log, disabled in before.items():
            log.disabled = disabled


def _deaf() -> Any:
    """Makes workers, those that are started anew too, leave Ctrl-C to whoever started them: a terminal sends it to all."""
    from distributed import WorkerPlugin

    class Deaf(WorkerPlugin):
        name = "ctuq-deaf"

        def setup(self, worker: Any) -> None:
            with suppress(ValueError):  # not in a process of its own
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


def _quietly(close: Callable[..., object], **how: object) -> None:
    """Who loses its scheduler cannot say goodbye to it: what the work itself said counts."""
    with suppress(Exception):
        close(**how)


def _require_workers(client: Any, scheduler: str | None) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        where = "here" if scheduler is None else f"at '{scheduler}'"
        raise InputError(f"The scheduler {where} has no worker after {_PATIENCE} s; start some.") from error


class _Cluster(Executor):
    """The workers of a dask client as an executor; what is shared lies on each worker once."""

    def __init__(self, client: Any):
        self._client = client
        self._executor = client.get_executor(pure=False, retries=_RETRIES)

    @property
    def memory(self) -> int | None:
        """Bytes of the worker that may take most; None where one has no limit, or the scheduler tells of none."""
        limits = [worker["memory_limit"] for worker in self._client.scheduler_info()["workers"].values()]
        return max(limits) if limits and all(limits) else None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """The first argument may be a future of `placed`. The rest goes as bytes: the scheduler reads what it passes on, and
        to import torch for that stops it for seconds.
        """
        import cloudpickle

        return self._executor.submit(_unpacked, cloudpickle.dumps((fn, args[1:], kwargs)), *args[:1])

    def placed(self, shared: Any) -> Any:
        """A future of it. It is a task as all others are: one that a lost worker held is made again, data that was only
        scattered would be gone.
        """
        return self._client.submit(pickle.loads, pickle.dumps(shared, protocol=5), pure=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait=wait)


def _unpacked(packed: bytes, *first: Any) -> Any:
    work, rest, named = pickle.loads(packed)
    return work(*first, *rest, **named)


def _has_failed(future: Future) -> bool:
    return future.cancelled() or future.exception() is not None


def _is_loss(error: Exception) -> bool:
    """Whether workers or scheduler were lost: what dask says of itself is of its own kinds."""
    return isinstance(error, BrokenExecutor | CancelledError) or type(error).__module__.split(".")[0] == "distributed"
