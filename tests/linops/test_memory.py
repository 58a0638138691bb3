import subprocess
import sys

import pytest

FAULTS = """
import resource
import statistics
import torch
from ctuq.linops.memory import keep_freed_memory

if {keep} and not keep_freed_memory():
    raise SystemExit(3)
counts = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
for _ in range(15):
    torch.ones(2**24)
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(round(statistics.median(b - a for a, b in zip(counts, counts[1:]))))
"""


def faults(keep):
    """Of one array among several: the first ones find room beside what imports have left in the heap."""
    done = subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("another C library")
    return int(done.stdout)


def test_pages_of_freed_memory_are_used_again():
    # Where the heap cannot grow, which the random places of a process's memory decide, every array is new: once in some
    # hundred runs, and not three times.
    most = faults(keep=False) / 5
    assert any(faults(keep=True) < most for _ in range(3))
