"""Runs that can be gone on with: whether anything is left to do, and what is told when one ends early."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ctuq.app.folder import CHECKPOINT, RESULTS
from ctuq.app.terminal import say
from ctuq.errors import FitError, InputError
from ctuq.pipeline.running.checkpoint import CheckpointError

REPORT = "report.html"
_log = logging.getLogger(__name__)


def is_left(folder: Path, made_by: Callable[[], bool], *, resume: bool) -> bool:
    """Whether anything is left to do in a folder that is held.

    Parameters
    ----------
    folder : Path
    made_by : callable
        Whether the folder's results are those that this run would make.
    resume : bool
        Whether the run is to go on.

    Raises
    ------
    InputError
        If there is nothing to go on with but the results of another run, which are not to be replaced.
    """
    if not resume or (folder / CHECKPOINT).is_file():
        return True
    if not (folder / RESULTS).is_file():
        _log.warning("Nothing was kept in %s yet; the run begins anew.", folder)
        return True
    if not made_by():
        raise InputError(
            f"The results in {folder} are of another scan or other options, and no run is to be gone on with there; choose "
            "another folder, or replace them with --overwrite."
        )
    say(f"The results in {folder} are complete; there is nothing to do. Report: {folder / REPORT}")
    return False


@contextmanager
def told_how_to_go_on(checkpoint: Path) -> Iterator[None]:
    """Whatever ends a run, the state that is kept is told."""
    try:
        yield
    except KeyboardInterrupt:
        told = "Interrupted before there was anything to keep; nothing was written."
        if checkpoint.is_file():
            told = f"Interrupted; the state is kept in {checkpoint.parent}: add --resume to the same command to go on."
        raise KeyboardInterrupt(told) from None
    except Exception as error:
        if checkpoint.is_file() and not isinstance(error, CheckpointError | FitError):
            error.add_note(f"what could be kept of it is in {checkpoint.parent}, and --resume goes on from there")
        raise
