"""One net around whatever reads a file: no file gives anything but one sentence."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from numpy.exceptions import ComplexWarning

from ctuq.errors import CtuqError, InputError, ResourceError
from ctuq.text import shortened

_HERE = Path(__file__).parent
_TALKERS = ("tifffile", "PIL", "mrcfile", "pydicom", "imageio")
_REASON = 200


class UnforeseenError(InputError):
    """A file on which code of ctuq itself stumbled: what it holds should have been checked where it entered."""


@contextmanager
def reading(path: str | os.PathLike, what: str = "") -> Iterator[list[str]]:
    """Turn whatever goes wrong while a file is read, or what it holds is looked at, into one sentence.

    Errors of other libraries mean a damaged file. Those of ctuq's own lines are told apart, so that they are not hidden. What
    other libraries have to say meanwhile is kept from the terminal and given to the caller.

    Parameters
    ----------
    path : path
        Of the file, for the sentence.
    what : str
        What it is to be, such as "a scan".

    Yields
    ------
    list of str
        What libraries told about the file so far, one sentence each.

    Raises
    ------
    InputError
        In place of any other exception; `UnforeseenError` where the exception arose in ctuq.
    ResourceError
        In place of MemoryError.
    """
    with _listening() as heard:
        try:
            yield heard
        except CtuqError as error:
            if any(name in str(error) for name in (str(path), Path(path).name)):
                raise
            raise type(error)(f"'{path}': {error}") from error
        except MemoryError as error:
            raise ResourceError(
                f"There is too little memory to read '{path}'; take a machine with more, or a smaller part."
            ) from error
        except ComplexWarning as error:
            raise InputError(f"'{path}' holds complex numbers where real ones are needed; save their real part.") from error
        except RecursionError as error:
            raise InputError(f"'{path}' nests deeper than any scan does; check where it comes from.") from error
        except Exception as error:
            raise _told(error, path, what) from error


def _told(error: Exception, path: str | os.PathLike, what: str) -> InputError:
    reason = shortened(f"{type(error).__name__}: {error}", _REASON)
    if isinstance(error, OSError) and error.errno and error.strerror:
        return InputError(f"'{path}' cannot be read ({shortened(error.strerror, _REASON)}); check the file and its folder.")
    if _arose_here(error.__traceback__):
        return UnforeseenError(
            f"'{path}' holds something that ctuq does not expect ({reason}); if other programs read it, please report it with "
            "the output of --debug."
        )
    return InputError(f"'{path}' cannot be read whole{f' as {what}' if what else ''} ({reason}): copy it or make it again.")


def _arose_here(trace: TracebackType | None) -> bool:
    """Whether the innermost line is one of ctuq's."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return Path(trace.tb_frame.f_code.co_filename).is_relative_to(_HERE)


class _Ear(logging.Handler):
    def __init__(self, heard: list[str]):
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.name} says: {shortened(record.getMessage(), _REASON)}"
        if text not in self._heard:
            self._heard.append(text)


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Keep logs and warnings of other libraries from the terminal."""
    heard: list[str] = []
    ear, logs = _Ear(heard), [logging.getLogger(name) for name in _TALKERS]
    passed = [log.propagate for log in logs]
    for log in logs:
        log.addHandler(ear)
        log.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", ComplexWarning)
            yield heard
    finally:
        for log, propagate in zip(logs, passed, strict=True):
            log.removeHandler(ear)
            log.propagate = propagate
