import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from ctuq.linops.memory import keep_freed_memory

if {keep} and not keep_freed_memory():
    raise SystemExit(3)
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    done = subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("another C library")
    return int(done.stdout)


def test_pages_of_freed_memory_are_used_again():
    assert faults(keep=True) < faults(keep=False) / 5
