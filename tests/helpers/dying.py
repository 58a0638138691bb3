"""Work on a cluster that is cut off after its third piece, as a program of its own: what it prints is what a terminal shows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ctuq.errors import ResourceError
from ctuq.scale import chained, cluster


def _slow(shared, item, before):
    time.sleep(0.2)
    return item


def _cut_off(end, **where):
    try:
        with cluster(**where) as executor:
            for count, _ in enumerate(chained(_slow, [[number] for number in range(40)], None, executor)):
                if count == 2:
                    end()
    except (ResourceError, KeyboardInterrupt) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)


def _without_a_scheduler(folder):
    """The scheduler of somebody else dies."""
    told, quiet = folder / "scheduler.json", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    scheduler, worker = (
        subprocess.Popen([*dask[:2], dask[2] + what, "--scheduler-file", str(told), "--no-dashboard", *more], **quiet)
        for what, more in (("scheduler", ["--port", "0"]), ("worker", []))
    )
    try:
        while not told.exists():
            time.sleep(0.1)
        _cut_off(scheduler.kill, scheduler=json.loads(told.read_text())["address"])
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "scheduler":
        _without_a_scheduler(Path(sys.argv[2]))
    else:
        # What a shell starts in the background is deaf to Ctrl-C, and so is all that it starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _cut_off(lambda: os.killpg(os.getpgrp(), signal.SIGINT), workers=2)
