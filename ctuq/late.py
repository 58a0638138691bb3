"""Names of a package that are imported on first use, so that none waits for what another needs."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

Getter = Callable[[str], object]
Lister = Callable[[], list[str]]


def attach(package: str, homes: Mapping[str, Sequence[str]], parts: Sequence[str] = ()) -> tuple[Getter, Lister]:
    """``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
    homes : mapping of str to sequence of str
        Names by the module that has them.
    parts : sequence of str
        Modules of the package that are names of it.
    """

    def get(name: str) -> object:
        if name in parts:
            return import_module(f"{package}.{name}")
        for home, names in homes.items():
            if name in names:
                return getattr(import_module(home), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted([*parts, *(name for names in homes.values() for name in names)])
