"""The folder of a run: one run at a time, nothing of an earlier one replaced unasked. Nothing heavy is imported here."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ctuq.app.arguments import Command
from ctuq.errors import InputError
from ctuq.locks import locked, remove_partial

RESULTS, CHECKPOINT, FIGURES = "results.h5", "checkpoint.h5", "figures"
_WRITTEN = (RESULTS, "mean.tif", "std.tif", "report.html", FIGURES)
_OUTPUTS = ("output", "draw", "csv", "token_file")


@contextmanager
def run_folder(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """`held_folder` for a run: it goes on with what is there, replaces it, or finds nothing there.

    Raises
    ------
    InputError
        If there is something and neither was asked for, or both; or nothing to go on with.
    """
    if resume and overwrite:
        raise InputError("--resume goes on with what is there and --overwrite replaces it; give one of them.")
    if resume and not folder.is_dir():
        raise InputError(f"There is nothing to resume in {folder}; leave --resume out to start anew.")
    if not (resume or overwrite):
        # Told before another run's lock is: it is the same folder either way.
        _refuse_loss(folder)
    with held_folder(folder):
        if not (resume or overwrite):
            _refuse_loss(folder)
        yield


def require_scan_file(command: Command) -> None:
    """See that a command that takes scan files has one, before its folder is named after it.

    Raises
    ------
    InputError
    """
    if getattr(command, "scan", None) == ():
        raise InputError("Name a scan file.")


def refuse_own_input(command: Command) -> None:
    """Refuse to write over a file that is read, or the results of a folder that is: they would be gone for good.

    Raises
    ------
    InputError
    """
    named = [(name, value if isinstance(value, tuple) else (value,)) for name, value in vars(command).items()]
    paths = [(name, path) for name, values in named for path in values if isinstance(path, Path)]
    files = [(name, path / RESULTS if path.is_dir() else path) for name, path in paths]
    files = [(name, path) for name, path in files if path.is_file()]
    for _, path in (pair for pair in files if pair[0] in _OUTPUTS):
        if any(path.samefile(other) for name, other in files if name not in _OUTPUTS):
            raise InputError(f"'{path}' is to be read and to be written over; choose another name for what is written.")


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Make a folder, see that it can be written to, and keep other runs out; one that is new and stays empty is removed.

    What processes that were killed left half-written is removed.

    Raises
    ------
    InputError
        If it cannot be written to, or another run is at work in it.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"Cannot write into {folder} ({reason}); choose another folder.") from error
    busy = f"Another run is at work in {folder}; wait until it is done, or choose another folder."
    try:
        with locked(folder / "ctuq", "lock", busy=busy, tidy=True):
            remove_partial(folder, folder / FIGURES, (folder / CHECKPOINT).with_suffix(".stages"))
            yield
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _refuse_loss(folder: Path) -> None:
    checkpoint = folder / CHECKPOINT
    written = [folder / name for name in _WRITTEN if (folder / name).exists()]
    if checkpoint.exists():
        also = f" beside {written[0].name}" if written else ""
        raise InputError(
            f"{folder} holds a run that stopped ({CHECKPOINT} of {_time(checkpoint)}{also}); add --resume to go on with it, or "
            "--overwrite to start anew."
        )
    if written:
        raise InputError(
            f"{folder} holds results ({written[0].name} of {_time(written[0])}); add --overwrite to replace them, or choose "
            "another folder with -o."
        )


def _time(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
