"""The text files that scanners put beside their pictures: lines of ``key = value``, in any case, code page and decimal mark."""

import codecs
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctuq.errors import InputError

_LARGEST = 16 << 20
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_NUMBER = re.compile(r"\s*([-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?)\s*(?:[^\d.,].*)?$")


@dataclass(frozen=True)
class SideFile:
    """What such a file says; of a key that stands twice the first holds.

    Parameters
    ----------
    path : Path
    values : mapping of str to str
        Keys in lower case with single spaces, micro as u.
    """

    path: Path
    values: Mapping[str, str]

    def text(self, *names: str) -> str:
        """The first of these that is there and not empty, else nothing."""
        return next((self.values[name] for name in names if self.values.get(name)), "")

    def number(self, *names: str) -> float | None:
        """The first of these that is there, as a number.

        Raises
        ------
        InputError
            If it is no number.
        """
        name = next((name for name in names if self.values.get(name)), None)
        if name is None:
            return None
        found = _NUMBER.match(self.values[name])
        if found is None or not math.isfinite(float(found.group(1).replace(",", "."))):
            raise InputError(f"'{name}' in '{self.path}' must be a number, not '{self.values[name][:40]}'.")
        return float(found.group(1).replace(",", "."))

    def needed(self, *names: str) -> float:
        """The same, positive.

        Raises
        ------
        InputError
            If it is missing or not positive.
        """
        value = self.number(*names)
        if value is None or not value > 0:
            said = "lacks" if value is None else f"says {value:g} for"
            raise InputError(f"'{self.path}' {said} '{names[0]}', which must be a positive number; repair that line.")
        return value


def read_sidefile(path: Path) -> SideFile:
    """Read such a file.

    Raises
    ------
    InputError
        If it cannot be read, or is larger than any such file.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"'{path}' is {path.stat().st_size >> 20} MiB, too large for a file of settings; check the name.")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read '{path}' ({error.strerror}); check the name.") from error
    values: dict[str, str] = {}
    for line in decoded(content).splitlines():
        name, found, value = line.partition("=")
        if found:
            values.setdefault(" ".join(name.split()).lower().replace("µ", "u").replace("μ", "u"), value.strip())
    return SideFile(path, values)


def decoded(content: bytes) -> str:
    """Text of an unknown code page: by its byte order mark, else UTF-8, else Latin 1, which takes any byte."""
    for start, name in _MARKS:
        if content.startswith(start):
            return content.decode(name, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def beside(folder: Path, suffix: str) -> list[Path]:
    """Files of a folder with a suffix in any case, in the order of their names."""
    return sorted(part for part in folder.iterdir() if part.suffix.lower() == suffix and part.is_file())


def the_one(path: Path, found: Sequence[Path], kind: str) -> Path:
    """The side file itself, or the only one in a folder.

    Raises
    ------
    InputError
        If there are several.
    """
    if not path.is_dir():
        return path
    if len(found) != 1:
        names = ", ".join(part.name for part in found[:5])
        raise InputError(f"'{path}' holds {len(found)} {kind} files ({names}); name the one to read.")
    return found[0]


def last_name(path: str) -> str:
    """The last part of a path that was written on any system."""
    return re.split(r"[\\/]", path.strip().strip('"').rstrip("\\/"))[-1]
