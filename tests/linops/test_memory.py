import subprocess
import sys

import pytest

MEMORY = """
import ctypes
import torch
from ctuq.linops.memory import keep_freed_memory

class Books(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if mallinfo is None or {keep} and not keep_freed_memory():
    raise SystemExit(3)
mallinfo.restype = Books
before = mallinfo()
array = torch.ones(2**24)
during = mallinfo()
del array
print(during.hblkhd - before.hblkhd, mallinfo().fordblks)
"""


def memory(keep):
    """Bytes that the system mapped for an array of 64 MiB alone, and those that the process holds free when it is gone.

    From the C library's own books: page faults depend on where a process's memory happens to lie.
    """
    done = subprocess.run([sys.executable, "-c", MEMORY.format(keep=keep)], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("another C library")
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


def test_freed_memory_stays_with_the_process():
    mapped, free = memory(keep=False)
    assert mapped >= 2**26 > free
    mapped, free = memory(keep=True)
    assert mapped == 0 and free >= 2**26
