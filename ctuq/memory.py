"""How much memory the machine, its container and this process may still take, and a refusal before it is asked for."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ctuq.errors import ResourceError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

_SMALL = 1 << 20
_GROUPS, _GROUP_OF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Of version 2 and 1 of control groups: limit, what is used, and how much of that is a cache of files that gives way.
_VERSIONS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory() -> int | None:
    """Bytes that this process can still allocate; None where the system does not say."""
    limits = [left for left in (_system(), _container(), _process()) if left is not None]
    return min(limits, default=None)


def require_room(shape: Sequence[int], itemsize: int, what: str, advice: str, *, copies: int = 2) -> None:
    """Refuse an array before it is read.

    Parameters
    ----------
    shape : sequence of int
    itemsize : int
        Bytes of one value.
    what, advice : str
        What declares the array, as the subject of the sentence, and what to do.
    copies : int
        How many times the array is held at once.

    Raises
    ------
    ResourceError
        If it is larger than what is left.
    """
    needed = copies * itemsize * math.prod(int(n) for n in shape)
    # A process without room for this can do nothing; a file of ours has hundreds of small arrays, and asking takes 0.3 ms each.
    left = free_memory() if needed > _SMALL else None
    if left is not None and needed > left:
        size, gib = " x ".join(str(n) for n in shape), 2**30
        raise ResourceError(
            f"{what} declares {size} values, which take {needed / gib:.3g} GiB, and {left / gib:.3g} GiB are free; {advice}."
        )


def _system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(sizes[0]) * 1024 if sizes else None


def _container() -> int | None:
    """What the limits of this process' control group and of those around it leave: a container's, a batch job's."""
    try:
        lines = [line.split(":", 2) for line in _GROUP_OF.read_text().splitlines()]
    except OSError:
        lines = []
    own = {kind: path for _, kinds, path in lines for kind in kinds.split(",")}
    left = []
    for kind, names in _VERSIONS.items():
        # Inside of a container its own group is the root, whatever the host calls it.
        at = Path(own.get(kind, "/").lstrip("/"))
        left += [_left_in(_GROUPS / kind / group, *names) for group in (at, *at.parents)]
    return min((each for each in left if each is not None), default=None)


def _left_in(group: Path, limit: str, used: str, cache: str) -> int | None:
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return None
        taken = int((group / used).read_text())
    except (OSError, ValueError):
        return None
    with suppress(OSError):
        stat = (group / "memory.stat").read_text().splitlines()
        taken -= sum(int(line.split()[1]) for line in stat if line.split()[0] == cache)
    return max(0, int(most) - taken)


def _process() -> int | None:
    """What a limit of the address space (ulimit -v) leaves."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return max(0, limit - pages * resource.getpagesize())
