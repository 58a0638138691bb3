"""Where a search keeps what it has found, so that one that was killed goes the same way again."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")


class Memory(Protocol):
    """Keeps trees of tensors, numbers and text by name; `ctuq.stages` does so in files."""

    def once(self, name: str, make: Callable[[], T], *, rng: torch.Generator | None = None) -> T:
        """What was kept under this name, else what ``make`` returns; ``rng`` is left as ``make`` left it."""
        ...

    def latest(self, name: str) -> Any | None:
        """What `renew` kept last under this name; None if nothing."""
        ...

    def renew(self, name: str, value: Callable[[], Any]) -> None:
        """Keep what ``value`` returns in the place of the last one, where it is time to."""
        ...


class Forgetful:
    """Keeps nothing."""

    def once(self, name: str, make: Callable[[], T], *, rng: torch.Generator | None = None) -> T:
        """What ``make`` returns."""
        del name, rng
        return make()

    def latest(self, name: str) -> Any | None:
        """None."""
        del name

    def renew(self, name: str, value: Callable[[], Any]) -> None:
        """Does nothing."""
        del name, value
