"""Angle design on one problem in the ``.npz`` layout of the side-by-side benchmark: which angles, in what time, how good.

``python -m experiments.design_side_by_side r32_0.npz --json OUT``

The file holds an image, its matrix and sinogram for all candidate angles, and ``init_inds``, the pilot angles. Adaptive designs
grow from the pilot one by one with a model learned from the pilot alone, as the reference's do (the edge prior is linearised
again after every angle); equidistant angles are placed anew for each count. Judged by a TV
reconstruction of each count's angles, whose strength (0.35) is about the best of six for equidistant and random angles.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.design import A_OPTIMAL, EIG, ESE, Criterion, Designer, DesignProblem, GaussianModel, Learn, Measurements, learner
from ctuq.design.strategies import equidistant, golden, nested, random
from ctuq.files.formats.arrays import load_npz, system_matrix
from ctuq.recon import tv
from ctuq.records import write_whole
from ctuq.scores.gaussian import image_scores
from ctuq.tomo.rays.matrix import MatrixRayTransform

COUNTS = (10, 15, 20)
RANDOM_SEEDS = 8
ADAPTIVE = {
    "isotropic": (EIG,),
    "matern": (EIG, A_OPTIMAL),
    "lindip": (EIG, ESE, A_OPTIMAL),
    "gprior": (EIG, ESE),
    "edges": (A_OPTIMAL,),
    "lindip+edges": (A_OPTIMAL,),
}
# PSNR at 10, 15, 20 angles of the published implementation on r32_0, with its own TV reconstruction.
REFERENCE = {
    "equidistant": (32.06, 33.00, 34.95),
    "golden ratio": (30.34, 32.83, 34.33),
    "random": (30.66, 32.62, 33.73),
    "isotropic eig": (31.45, 32.99, 33.90),
    "lindip eig": (32.28, 33.49, 34.36),
    "lindip ese": (31.51, 33.43, 33.96),
    "gprior": (31.07, 33.50, 34.78),
}


class Bench:
    """One problem: its views, its sinogram, and the judge."""

    def __init__(self, path: Path, strength: float):
        scan, arrays = ctuq.read(path), load_npz(path, "init_inds")
        if scan.grid is None or scan.truth is None or "init_inds" not in arrays:
            raise ctuq.CtuqError(f"'{path}' needs an image, a matrix, a sinogram and 'init_inds'.")
        self.A = MatrixRayTransform(system_matrix(path), scan.grid, scan.geometry)
        self.y, self.truth, self.strength = scan.projections, scan.truth, strength
        self.pilot = np.asarray(arrays["init_inds"], np.int64)

    @property
    def angles(self) -> NDArray[np.float64]:
        return self.A.geometry.angles

    def psnr(self, views: NDArray[np.int64]) -> float:
        image = tv(self.A.subset(views), torch.tensor(self.y[views]), strength=self.strength, iterations=500)
        return image_scores(image.numpy(), self.truth)["psnr"]

    def result(self, label: str, views: NDArray[np.int64], init: int, **rest: object) -> dict:
        """One strategy's entry; views include the pilot's ``init`` first ones."""
        chosen = views.tolist()
        steps = [{"cpu": 0.0, "chosen": v} for v in chosen[init:]]
        entry = {"label": label, "init": chosen[:init], "selected": chosen[init:], "steps": steps, "timings": {}}
        return entry | {"psnr": {str(n): self.psnr(views[:n]) for n in COUNTS}} | rest


class Timed:
    """A learner that counts its CPU seconds, call by call."""

    def __init__(self, learn: Learn):
        self.learn, self.seconds = learn, []

    def __call__(self, measured: Measurements) -> GaussianModel:
        start = time.process_time()
        model = self.learn(measured)
        self.seconds.append(time.process_time() - start)
        return model


def adaptive(bench: Bench, prior: str, criteria: Sequence[Criterion]) -> list[dict]:
    """Grow designs from the pilot with one prior, learned once; each step asks, tells and conditions."""
    learned, entries = learner(prior), []
    for criterion in criteria:
        timed = Timed(learned)
        designer, start = Designer(DesignProblem(A=bench.A, criterion=criterion), timed), time.process_time()
        designer.tell(bench.angles[bench.pilot], bench.y[bench.pilot])
        timings, steps = {"start": time.process_time() - start}, []
        while len(designer.state.views) < COUNTS[-1]:
            start = time.process_time()
            asked = designer.ask()
            designer.tell(asked.angles, bench.y[asked.views])
            steps.append({"cpu": time.process_time() - start, "chosen": int(asked.views[0])})
        timings |= {"of which learning": timed.seconds[0], "steps": sum(s["cpu"] for s in steps)}
        timings["of which learning again"] = sum(timed.seconds[1:])
        label = f"{prior} {criterion.name}"
        entries.append(bench.result(label, designer.state.views, len(bench.pilot), steps=steps, timings=timings))
    return entries


def fixed(bench: Bench) -> list[dict]:
    """The designs that need no model."""
    n, angles, pilot = COUNTS[-1], bench.angles, bench.pilot
    placed = {str(count): equidistant(angles, count) for count in COUNTS}
    anew = bench.result("equidistant", placed[str(n)], 0)
    anew["psnr"] = {count: bench.psnr(views) for count, views in placed.items()}
    anew["placed"] = {count: views.tolist() for count, views in placed.items()}
    rest = n - len(pilot)
    grown = [("nested", nested(angles, rest, taken=pilot))]
    grown += [(f"random {s}", random(angles, rest, rng=np.random.default_rng(s), taken=pilot)) for s in range(RANDOM_SEEDS)]
    others = [bench.result(label, np.concatenate([pilot, views]), len(pilot)) for label, views in grown]
    return [anew, bench.result("golden ratio", golden(angles, n), 0), *others]


def measure(path: Path, strength: float) -> list[dict]:
    """Every strategy's entry."""
    torch.set_num_threads(1)
    bench = Bench(path, strength)
    return fixed(bench) + [entry for prior, criteria in ADAPTIVE.items() for entry in adaptive(bench, prior, criteria)]


def main(
    problem: tyro.conf.Positional[Path],
    out: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    strength: float = 0.35,
) -> None:
    """Print PSNR and CPU seconds of every strategy; write them as JSON on request."""
    found = measure(problem, strength)
    counts = "".join(f"{n:>8d}" for n in COUNTS)
    print(f"{'strategy':22s}{counts}  angles: PSNR of TV, dB;  reference;  CPU s: pilot with learning, 15 steps")
    drawn = [f for f in found if f["label"].startswith("random")]
    mean = {str(n): float(np.mean([f["psnr"][str(n)] for f in drawn])) for n in COUNTS}
    for entry in [f for f in found if f not in drawn] + [{"label": "random", "psnr": mean, "timings": {}}]:
        beside = REFERENCE.get(entry["label"], REFERENCE.get(entry["label"].split()[0]) if "gprior" in entry["label"] else None)
        row = f"{entry['label']:22s}" + "".join(f"{entry['psnr'][str(n)]:8.2f}" for n in COUNTS)
        row += "  " + (" / ".join(f"{v:.2f}" for v in beside) if beside else "")
        if entry["timings"]:
            row += f"   {entry['timings']['start']:.1f}, {entry['timings']['steps']:.2f}"
        print(row)
    if out is not None:
        write_whole(out, lambda target: target.write(json.dumps(found, indent=1).encode()))


if __name__ == "__main__":
    tyro.cli(main)
