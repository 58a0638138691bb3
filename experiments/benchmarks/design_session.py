"""Latency of a live session at a scanner: ``python -m experiments.benchmarks.design_session``.

Once the model is learned: seconds of wall clock and of CPU, and the largest memory. "told and asked" is a running Python
process that tells one batch and asks for the next; "served" are calls of a client to `ctuq design serve`, counted with the
client and its JSON, "again" where the angles were worked out since the last "tell"; the others are commands as an operator
types them, each a new process. "suggest" reads what "tell" worked out ahead; "suggest, one more" must condition on the batch
first; "cold" has lost its cache. With other programs running the CPU seconds are the ones to read.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from ctuq.app.design.serve import Resident, server_of
from ctuq.design.client import Client
from ctuq.design.session.file import Settings
from ctuq.design.session.session import Session
from ctuq.files import write_scan
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, radians
from ctuq.tomo.phantoms import rectangles
from ctuq.tomo.simulate import RelativeNoise, simulate

# The peak of a process's own memory: what the operating system reports of a child counts its parent's.
COMMAND = """
import sys, time
from pathlib import Path
from ctuq.app.cli import main
if main(sys.argv[1:]):
    sys.exit(1)
peak = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(time.process_time(), *peak, file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--candidates", type=int, default=180)
    parser.add_argument("--prior", default="lindip")
    parser.add_argument("--criterion", default="eig")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--views", type=int, nargs="+", default=[5, 10, 20, 40], help="measured views at which to measure")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="also without the cache")
    parser.add_argument("--served", action="store_true", help="only the calls of a client")
    parser.add_argument("--folder", type=Path, help="keep the session here, and go on with one that is there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        report(options, options.folder or Path(temporary))


def report(options: argparse.Namespace, folder: Path) -> None:
    scan, path = measured(options), folder / "session.h5"
    if not path.exists():
        settings = Settings(size=options.size, prior=options.prior, criterion=options.criterion, batch=options.batch)
        Session.start(path, scan.geometry, settings)
    session = Session(path)
    if session.record.learnt is None:
        began = time.process_time()
        angles = session.ask().angles
        session.tell(angles, scan.projections[places(scan, angles)])
        print(f"learned from the pilot: {time.process_time() - began:.0f} CPU s; {session.record.learnt.note}")
    print(f"{'views':>6}  {'what':<18}{'wall s':>8}{'CPU s':>8}{'GiB':>7}")
    for views in options.views:
        while len(session.state.views) < views:
            angles = session.ask().angles
            wall, cpu = time.perf_counter(), time.process_time()
            session.tell(angles, scan.projections[places(scan, angles)])
            session.ask()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if len(session.state.views) >= views:
                row(views, "told and asked", wall, cpu, float("nan"))
        if options.served:
            served(path, scan, views)
            continue
        new, angles, more = folder / "new.h5", session.ask().angles, ["suggest", str(path), "-n", str(options.batch + 1)]
        write_scan(scan.select(places(scan, angles)), new)
        row(views, "suggest", *timed(["suggest", str(path)], options.threads))
        row(views, "suggest, one more", *timed(more, options.threads))
        row(views, "tell", *timed(["tell", str(path), str(new)], options.threads))
        served(path, scan, views)
        if options.cold:
            shutil.rmtree(folder / "session.h5.cache")
            row(views, "cold, one more", *timed(more, options.threads))


def served(path: Path, scan: Scan, views: int) -> None:
    """Calls of a client to ``ctuq design serve`` in this process, on a copy of the session."""
    copy = path.with_name("served.h5")
    shutil.copy(path, copy)
    shutil.copytree(path.with_name("session.h5.cache"), path.with_name("served.h5.cache"), dirs_exist_ok=True)
    resident = Resident(copy)
    with server_of(resident, 0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        where = path.with_name("server.json")
        where.write_text(json.dumps({"url": f"http://127.0.0.1:{server.server_port}", "token": resident.token}))
        scanner = Client(where)
        asked = scanner.ask()["angles_deg"]
        rays = scan.projections[places(scan, np.deg2rad(asked))].tolist()
        tell = ("served tell", lambda: scanner.tell(asked, rays))
        for name, call in (tell, ("served ask", scanner.ask), ("served ask, again", scanner.ask)):
            if name.endswith("again"):
                # The angles of the next view are worked out while that is measured.
                asked = scanner.ask()["angles_deg"]
                scanner.tell(asked, scan.projections[places(scan, np.deg2rad(asked))].tolist())
                while scanner.call("status")["learning"]:
                    time.sleep(0.05)
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            row(views, name, time.perf_counter() - wall, time.process_time() - cpu, float("nan"))
        server.shutdown()


def row(views: int, name: str, wall: float, cpu: float, memory: float) -> None:
    print(f"{views:>6}  {name:<18}{wall:>8.2f}{cpu:>8.2f}{memory:>7.2f}", flush=True)


def timed(words: list[str], threads: int) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in GiB of a command of ``ctuq design``."""
    began = time.perf_counter()
    line = [sys.executable, "-c", COMMAND, "design", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(line, check=True, capture_output=True, text=True, env=environment)
    cpu, *peak = map(float, done.stderr.splitlines()[-1].split())
    return time.perf_counter() - began, cpu, peak[0] / 2**20 if peak else float("nan")


def measured(options: argparse.Namespace) -> Scan:
    """Rectangles at all candidate angles with 5 % noise; the detector's pixels are the image's."""
    voxel = 40.0 / options.size
    angles = radians(np.arange(options.candidates) * 180.0 / options.candidates)
    geometry = ParallelBeam(angles=angles, columns=int(np.ceil(2**0.5 * options.size)), pixel=voxel)
    rng = np.random.default_rng(0)
    grid = VolumeGrid((options.size, options.size), voxel)
    return simulate(lambda size: rectangles(size, rng), geometry, grid, RelativeNoise(0.05), rng=rng, attenuation=0.05)


def places(scan: Scan, angles: np.ndarray) -> np.ndarray:
    return np.abs(scan.geometry.angles - angles[:, None]).argmin(1)


if __name__ == "__main__":
    main()
