"""How much memory is left, and refusing work that does not fit before it starts."""

from pathlib import Path

import torch

from ctuq.errors import ResourceError

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Bytes that can still be allocated on a device; None where the system does not say."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [bytes_left for bytes_left in (_system(), _container()) if bytes_left is not None]
    return min(limits, default=None)


def require_memory(needed: float, what: str, advice: str, device: torch.device | str = "cpu") -> None:
    """Refuse work that needs more bytes than are available.

    Raises
    ------
    ResourceError
        Naming the work, both sizes and the advice.
    """
    left = available_memory(device)
    if left is not None and needed > left:
        raise ResourceError(
            f"{what} needs about {needed / 2**30:.1f} GiB on {device}, and {left / 2**30:.1f} GiB are available; {advice}."
        )


def _system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(sizes[0]) * 1024 if sizes else None


def _container() -> int | None:
    try:
        limit, used = (path.read_text().strip() for path in _CGROUP)
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
