"""The fit gives an image for every kind of scan: arcs, few views, noise, faint and dense parts, any unit, any place."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, ray_transform
from ctuq.tomo.simulate import RelativeNoise, simulate


@dataclass(frozen=True)
class Case:
    """A scan: half a turn of 20 parallel views of a disc with a hole, but for what is said."""

    object: str = "disc"
    arc: float = 180
    views: int = 20
    noise: float = 0.02
    unit: float = 0.05
    size: int = 24
    fan: bool = False
    offset: float = 0.0
    start: str = "educated"
    iterations: int = 90


CASES = {
    "arc of 20 degrees": Case(arc=20),
    "arc of 30 degrees, fan": Case(arc=30, fan=True, size=32),
    "arc of 60 degrees": Case(arc=60, size=32),
    "arc of 60 degrees, random": Case(arc=60, start="random"),
    "arc of 90 degrees, noisy": Case(arc=90, noise=0.2),
    "3 views": Case(views=3),
    "3 views, noisy, random": Case(views=3, noise=0.2, start="random"),
    "5 views of an arc of 40 degrees": Case(views=5, arc=40, noise=0.1),
    "60 views, no noise": Case(views=60, noise=0),
    "20 % noise": Case(noise=0.2),
    "20 % noise, random": Case(noise=0.2, start="random"),
    "low contrast": Case("faint"),
    "dense inclusion": Case("dense", size=32),
    "dense inclusion, arc": Case("dense", arc=60),
    "unit 1e-6": Case(unit=1e-6),
    "unit 1e-6, random": Case(unit=1e-6, start="random"),
    "unit 1e3": Case(unit=1e3),
    "unit 1e3, arc": Case(unit=1e3, arc=45),
    "off centre": Case("corner"),
    "nearly empty": Case("speck"),
    "nearly empty, arc": Case("speck", arc=60),
    "nearly full": Case("full"),
    "nearly full, random": Case("full", start="random"),
    "nearly full, arc": Case("full", arc=60, iterations=150),
    "evenly full": Case("even", noise=0.05),
    "offset detector": Case(offset=5.0, arc=350, fan=True),
    "16 pixels": Case(size=16, views=10),
    "48 pixels": Case(size=48, views=30, noise=0.05),
}


def drawn(name, size):
    line = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = line[None], -line[:, None]
    disc = (np.hypot(x, y) < 0.8) * 1.0
    hole = np.hypot(x - 0.3, y + 0.2) < 0.25
    return {
        "disc": disc * ~hole,
        "faint": disc * np.where(hole, 0.97, 1),
        "dense": disc * np.where(hole, 10, 1) / 10,
        "corner": (np.hypot(x - 0.65, y - 0.6) < 0.25) * 1.0,
        "speck": (np.hypot(x + 0.2, y - 0.1) < 0.08) * 1.0,
        "full": np.where(hole, 0.3, 1.0) + 0 * y,
        "even": np.ones((size, size)),
    }[name]


def scanned(case):
    """The fitted and the held-out rays of a case, and its truth."""
    grid = VolumeGrid((case.size, case.size), 1.0)
    angles = np.deg2rad(17 + case.arc * np.arange(case.views) / case.views)
    columns = int(1.45 * case.size) + 2
    beam = ParallelBeam(angles=angles, columns=columns, pixel=1.0, detector_offset=case.offset)
    if case.fan:
        far = 4.0 * case.size
        beam = FanBeam(
            angles=angles,
            columns=columns,
            pixel=2.0,
            source_to_axis=far,
            source_to_detector=2 * far,
            detector_offset=case.offset,
        )
    noise, rng = RelativeNoise(case.noise), np.random.default_rng(3)
    scan = simulate(lambda size: drawn(case.object, size), beam, grid, noise, rng=rng, attenuation=case.unit)
    y = torch.tensor(scan.projections)[None]
    apart = (torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    A = ray_transform(grid, beam, backend="matrix")
    return Data(A, y, 1 - apart), Data(A, y, apart), torch.tensor(scan.truth)


@pytest.mark.parametrize("name", CASES)
def test_fit_finds_the_object(name):
    case = CASES[name]
    fit, held, truth = scanned(case)
    iterations = case.iterations if case.start == "educated" else 150
    options = DIPOptions(start=case.start, iterations=iterations, patience=1.0)
    generate, start = generator(fit, options, rng=torch.Generator().manual_seed(0))
    *_, state = dip(generate, start, fit, held, options)
    image = generate(state.best)[0].detach()
    assert bool(torch.isfinite(image).all())
    assert float(image.std()) > 1e-3 * float(image.abs().mean())
    noise = (case.noise * float(fit.y.abs().mean())) ** 2
    assert float(fit.misfit(image[None])) < 1.5 * noise + 0.03 * float(fit.size)
    flat = float(truth.std()) < 1e-6 * case.unit
    likeness = 1.0 if flat else float(torch.corrcoef(torch.stack([image.flatten(), truth.flatten()]))[0, 1])
    assert likeness > (0.3 if case.arc < 90 or case.views < 6 else 0.7)
    # Where there is something, the tangent model has something to say.
    assert float(generate.scale) > 0.1 * case.unit * float(truth.max() > 0) * (1 if case.object != "dense" else 0.1)
