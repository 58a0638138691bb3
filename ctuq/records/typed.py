"""Records from trees: what was read from a file is of the types that the record says, before anyone works with it."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from ctuq.errors import InputError

_Record = TypeVar("_Record")
_KINDS = {np.floating: "iuf", np.integer: "iu", np.bool_: "b"}


def made(kind: type[_Record], values: Mapping[str, Any]) -> _Record:
    """A dataclass from its fields, each checked against its annotation.

    Raises
    ------
    InputError
        Naming the field that is missing, unknown or of another type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"A {kind.__name__} is {_named(values)}, with its parts missing.")
    known = {f.name: f for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    lost = [name for name, f in known.items() if name not in values and f.default is f.default_factory is MISSING]
    if lost or not set(values) <= set(known):
        wrong = f"has its '{lost[0]}' missing" if lost else f"has the unknown part '{min(set(values) - set(known))}'"
        raise InputError(f"A {kind.__name__} {wrong}.")
    hints = _hints(kind)
    for name, value in values.items():
        if not _is(value, hints[name]):
            raise InputError(f"'{name}' of a {kind.__name__} is {_named(value)}, not {_shown(hints[name])}.")
    return kind(**values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as files can hold it."""
    hint = _unfolded(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is(value, each) for each in inner)
    if origin is np.ndarray:
        return isinstance(value, np.ndarray) and value.dtype.kind in _kinds(inner[1])
    if origin is tuple:
        wanted = inner[:1] * len(value) if inner[1:] == (Ellipsis,) and isinstance(value, tuple) else inner
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_is, value, wanted))
    if origin is not None:
        return isinstance(value, Mapping) and all(_is(each, inner[1]) for each in value.values())
    if hint in (float, int):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return hint is Any or isinstance(value, hint)


def _unfolded(hint: Any) -> Any:
    """What an alias stands for: from numpy 2.5 on `NDArray` is one that says nothing of arrays itself."""
    alias = getattr(get_origin(hint), "__value__", None)
    return getattr(hint, "__value__", hint) if alias is None else alias[get_args(hint)]


def _kinds(dtype: Any) -> str:
    scalar = get_args(dtype)[0]
    return next((kinds for base, kinds in _KINDS.items() if isinstance(scalar, type) and issubclass(scalar, base)), "biuf")


def _named(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"of the type {type(value).__name__}"


def _shown(hint: Any) -> str:
    if get_origin(_unfolded(hint)) is np.ndarray:
        return "an array of real numbers"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("collections.abc.", "")
