"""The same stack on 1, 2 and 4 workers, and on 2 of which one is killed: seconds, and whether the bits are the same.

``python -m experiments.benchmarks.workers`` prints a row each; ``figures/workers.csv`` has them with the machine's load. Ratios
count, and only where nobody else uses the machine.
"""

import csv
import hashlib
import os
import signal
import sys
import threading
import time

import numpy as np
import tyro

from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.stack.job import reconstruct_stack
from ctuq.scale import cluster
from ctuq.tomo import radians
from ctuq.tomo.solids import solid_scan
from experiments import FIGURES

OUTPUT = FIGURES / "workers.csv"


def main(size: int = 32, slices: int = 32, kill_after: float = 20.0, counts: tuple[int, ...] = (1, 2, 4)) -> None:
    """Blocks are of eight slices, so that fewer than 32 leave some of four workers without one."""
    scan = solid_scan("shells", max(size, slices), radians(np.arange(30) * 6.0), noise=0.03, seed=0, distances=None)
    rows = range(scan.geometry.rows // 2 - slices // 2, scan.geometry.rows // 2 + slices // 2)
    options, table = ReconstructOptions(size=size, samples=4, directions=0), []
    for workers, killed in (*((count, False) for count in counts), (2, True)):
        load = os.getloadavg()[0]
        with cluster(workers) as executor:
            assert executor is not None
            if killed:
                threading.Timer(kill_after, _kill_one, [executor]).start()
            began = time.perf_counter()
            result = reconstruct_stack(scan, rows=rows, options=options, executor=executor)
            seconds = time.perf_counter() - began
        digest = hashlib.sha256(np.ascontiguousarray(result.mean).tobytes() + np.ascontiguousarray(result.std).tobytes())
        row = {"workers": workers, "killed": int(killed), "slices": slices, "size": size, "load": f"{load:.2f}"}
        table.append(row | {"seconds": f"{seconds:.1f}", "digest": digest.hexdigest()[:16]})
        print(table[-1], flush=True)
    with OUTPUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    if len({row["digest"] for row in table}) > 1:
        sys.exit("The bits DIFFER.")
    seconds = {row["workers"]: float(row["seconds"]) for row in table if not row["killed"]}
    faster = f" 2 workers are {seconds[1] / seconds[2]:.2f} times as fast as 1." if {1, 2} <= seconds.keys() else ""
    print(f"The same bits.{faster}")


def _kill_one(executor) -> None:
    os.kill(next(iter(executor._client.run(os.getpid).values())), signal.SIGKILL)


if __name__ == "__main__":
    tyro.cli(main)
