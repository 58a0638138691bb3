"""The ``ctuq`` command: what was typed is read, done, and trouble is told.

Nothing heavy is imported before a command runs, so that help is quick.
"""

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import tyro

from ctuq.app.arguments import BUDGET_SPENT, Command
from ctuq.app.calibration.options import Calibrate
from ctuq.app.design.options import Design
from ctuq.app.folder import refuse_own_input, require_scan_file, run_folder
from ctuq.app.measure.options import Measure
from ctuq.app.options import Convert, Demo, Doctor, Export, Info, Reconstruct, Report, Simulate
from ctuq.app.terminal import Speech, put, say, speaking
from ctuq.errors import BudgetExhausted, CtuqError, ResourceError
from ctuq.text import visible
from ctuq.versions import version_of

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_MEMORY = ("out of memory", "not enough memory", "t allocate memory", "cannot allocate memory", "failed to map segment")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    0 done, 1 a defect of ctuq, 2 wrong input, 3 interrupted, 4 not enough memory or disk; of ``ctuq design suggest`` 0 to go
    on, 10 where it advises to stop, 11 when the dose budget is spent.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(version_of("ctuq") or "unknown (not installed, run from source)")
        return 0
    try:
        command = _typed(arguments)
    except KeyboardInterrupt as error:
        sentence, code = _told(error)
        say(f"ctuq: {sentence}", stream=sys.stderr)
        return code
    _let_threads_sleep()
    _draw_on_no_screen()
    typed: Command = command.step if isinstance(command, Design) else command
    with speaking(Speech(typed.json, typed.quiet, typed.verbose)) as speech:
        code, error = _done(command, debug=typed.debug)
        if speech.as_json:
            put(speech.document(_name_of(command), code, error), sys.stdout)
        if code == 0 and speech.unheard is not None and speech.unheard.errno in _DISK_FULL:
            say("ctuq: It is done, but what it told is lost: the disk of the standard output is full.", stream=sys.stderr)
            return 4
    return code


def _typed(arguments: Sequence[str]) -> Command | Design:
    """The command that was typed, with its options; ends the process where there is none such."""
    return tyro.cli(
        Demo | Info | Simulate | Convert | Reconstruct | Measure | Calibrate | Design | Report | Export | Doctor,
        prog="ctuq",
        description="X-ray CT that says how sure it is. --version prints the version, COMMAND --help explains one.",
        args=arguments or ["--help"],
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def _done(command: Command | Design, *, debug: bool) -> tuple[int, str]:
    """The exit code of a command, and the sentence that was told of its error."""
    try:
        with _ended_by_signals():
            return _run(command), ""
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        sentence, code = _told(error)
        notes = [note.rstrip(".") for note in getattr(error, "__notes__", [])]
        told = f"{visible('; '.join([sentence.rstrip('.'), *notes]))}."
        say(f"ctuq: {told}", stream=sys.stderr)
        return code, told


def _name_of(command: Command | Design) -> str:
    """As it is typed."""
    step = command.step if isinstance(command, Design) else None
    return f"design {type(step).__name__.lower()}" if step is not None else type(command).__name__.lower()


def _run(command: Command | Design) -> int:
    """Import what a command needs, and do it; the exit code."""
    typed: Command = command.step if isinstance(command, Design) else command
    require_scan_file(typed)
    refuse_own_input(typed)
    if isinstance(command, Design):
        from ctuq.app.design.commands import run_step

        return run_step(command.step)
    # A folder is claimed before the imports, which take seconds: a run that is killed meanwhile has begun.
    with _folder_of(command):
        from ctuq.app.commands import run

        return run(command)


def _folder_of(command: Command) -> AbstractContextManager[None]:
    """The folder of a reconstruction or calibration, held; nothing for other commands."""
    if isinstance(command, Calibrate):
        return run_folder(command.output, resume=False, overwrite=command.overwrite)
    if not isinstance(command, Demo | Reconstruct) or (isinstance(command, Reconstruct) and command.plan):
        return nullcontext()
    folder = command.folder if isinstance(command, Reconstruct) else command.output
    return run_folder(folder, resume=command.resume, overwrite=command.overwrite)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM (of batch systems) and SIGHUP (of terminals) are what Ctrl-C is; one that is ignored, as by nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_threads_sleep() -> None:
    """Where another program has the other processors, threads that spin while they wait slow a fit down eight times.

    OpenMP reads this when torch is loaded. Only the command does it: a program that imports ctuq keeps its own settings.
    """
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
        os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")


def _draw_on_no_screen() -> None:
    """A backend of matplotlib that is meant for another program may not be there, and ctuq draws into files only."""
    if "matplotlib" not in sys.modules:
        os.environ.pop("MPLBACKEND", None)


def _told(error: BaseException) -> tuple[str, int]:
    """One sentence and an exit code for whatever went wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return text or "Interrupted; nothing was written.", 3
    if isinstance(error, BudgetExhausted):
        return text, BUDGET_SPENT
    if isinstance(error, CtuqError):
        return text, 4 if isinstance(error, ResourceError) else 2
    if isinstance(error, MemoryError) or _is_allocation_failure(error, text):
        return "There is too little memory for this; choose a smaller --size, fewer views or fewer --samples.", 4
    if isinstance(error, OSError):
        return _told_by_system(error, text)
    return f"A defect of ctuq ({type(error).__name__}: {text}); please report it with the output of --debug.", 1


def _is_allocation_failure(error: BaseException, text: str) -> bool:
    return isinstance(error, RuntimeError | ImportError) and any(words in text.lower() for words in _NO_MEMORY)


def _told_by_system(error: OSError, text: str) -> tuple[str, int]:
    if error.errno in _DISK_FULL:
        return "The disk is full, so the output was not written; make room or choose another folder with -o.", 4
    if error.errno == errno.ENOMEM:
        return "There is too little memory for this; close other programs, or choose a smaller --size.", 4
    if error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}.", 2
    return text, 2
