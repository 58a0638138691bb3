"""A mapping in a YAML file, read in bounded time: no aliases, no depths, no key twice."""

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

from ctuq.errors import InputError

_LARGEST, _DEEPEST = 4 << 20, 20
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_NO_DECIMAL = re.compile(r"[-+]?0[0-7_]+|.*:.*")
"""YAML 1.1 takes 045 (an angle) for 37, by the eight, and 1:30 for 90, by the sixty."""
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_mapping(path: Path, kind: str = "geometry file") -> dict[Any, Any]:
    """The entries of a YAML file, which errors call a ``kind``.

    Raises
    ------
    InputError
        If it cannot be read, is larger than 4 MiB, no YAML or no mapping, has aliases or a key twice, or nests too deep.
    """
    what = f"{kind} '{path}'"
    text = _text(path, what)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _check(node, what)
        entries = loader.construct_document(node) if node is not None else None
    except RecursionError as error:
        raise _too_deep(what) from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise InputError(f"The {what} is not valid YAML{line}.") from error
    finally:
        loader.dispose()
    if not isinstance(entries, dict):
        raise InputError(f"The {what} must hold 'key: value' lines such as 'kind: parallel'.")
    return entries


def _text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"The {what} has more than {_LARGEST >> 20} MiB; it is none.")
        content = path.read_bytes()
        # Notepad writes UTF-16 where it is asked for "Unicode".
        return content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8")
    except OSError as error:
        raise InputError(f"Cannot read the {what} ({error.strerror}); check the name.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The {what} is not text in UTF-8 or UTF-16, so not valid YAML.") from error


def _check(root: Any, what: str) -> None:
    """Refuse what would unfold without end, before anything is made of it; what YAML reads otherwise than it looks is text."""
    seen: set[int] = set()
    waiting = [] if root is None else [(root, 0)]
    while waiting:
        node, depth = waiting.pop()
        if id(node) in seen:
            raise InputError(f"The {what} uses aliases (*name), which are not read; write the values out.")
        if depth > _DEEPEST:
            raise _too_deep(what)
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _refuse_twice([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)], what)
            waiting += [(part, depth + 1) for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(part, depth + 1) for part in node.value]
        elif node.tag in _NUMBERS and _NO_DECIMAL.fullmatch(node.value):
            node.tag = "tag:yaml.org,2002:str"


def _refuse_twice(keys: list[str], what: str) -> None:
    twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
    if twice is not None:
        raise InputError(f"The {what} has the key '{twice}' twice; leave one of them.")


def _too_deep(what: str) -> InputError:
    return InputError(f"The {what} nests deeper than {_DEEPEST} levels; it is none.")
