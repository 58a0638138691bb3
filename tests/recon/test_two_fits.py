"""Noisy scans: a fit of strong and one of weak total variation, and held-out rays choose."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.recon import dip as module
from ctuq.recon import schedule
from ctuq.recon.dip import Data, DIPOptions, dip, generator, tries
from ctuq.recon.schedule import finished, own_looks
from ctuq.tomo import ParallelBeam, VolumeGrid, radians, ray_transform

OPTIONS = DIPOptions(check_every=5)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for name, iterations in (("_WARM", 10), ("_LONG", 10), ("_FALL", 15)):
        monkeypatch.setattr(schedule, name, iterations)


def scanned(noise, *, thin):
    """A disc, or a ring as thin as a pixel, by 14 views of which two are held out."""
    size = 20
    grid = VolumeGrid((size, size), 1.0)
    geometry = ParallelBeam(angles=radians(np.arange(14) * 180 / 14), columns=int(1.45 * size), pixel=1.0)
    A = ray_transform(grid, geometry, backend="matrix")
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    radius = torch.hypot(line[None], line[:, None])
    y = A(0.05 * ((radius < 0.8) & (radius > 0.7) if thin else (radius < 0.6)))
    y = y + noise * y.mean() * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    held, seen = [4, 9], [i for i in range(14) if i not in (4, 9)]
    return [Data(A.subset(np.array(v)), y[v][None], torch.ones(1, len(v), geometry.columns)) for v in (seen, held)]


def fitted(data, options=OPTIONS, resume=None):
    generate, start = generator(data[0], options, rng=torch.Generator().manual_seed(0))
    return list(dip(generate, start, *data, options, resume=resume))


@pytest.mark.parametrize("thin", [False, True])
def test_a_noisy_scan_keeps_the_better_of_both_fits(thin):
    data = scanned(0.2, thin=thin)
    assert tries(data[0], OPTIONS) == 2
    both, strong, weak = (fitted(data, replace(OPTIONS, by_noise=by))[-1] for by in (None, True, False))
    better = strong if float(strong.best_misfit) < module._EVEN * float(weak.best_misfit) else weak
    assert float(strong.best_misfit) != float(weak.best_misfit)
    assert float(both.best_misfit) == float(better.best_misfit)
    assert both.best_by_noise == (better is strong)
    assert all(torch.equal(both.best[name], value) for name, value in better.best.items())
    assert len(both.history) == len(strong.history) + len(weak.history)


def test_which_fit_wins_depends_on_the_object():
    assert [fitted(scanned(0.2, thin=thin))[-1].best_by_noise for thin in (False, True)] == [True, False]


def test_what_is_not_noisy_or_given_a_length_is_fitted_once():
    noisy, clean = scanned(0.2, thin=False)[0], scanned(0.0, thin=False)
    # Edges on coarse pixels look like noise before the fit, and not after it.
    assert tries(clean[0], OPTIONS) == 2
    assert not fitted(clean)[-1].opened
    for given in ({"iterations": 40}, {"by_noise": True}, {"by_noise": False}, {"start": "random"}, {"total_variation": 0.0}):
        assert tries(noisy, replace(OPTIONS, **given)) == 1


def test_taken_up_again_at_any_look_it_ends_the_same():
    data = scanned(0.2, thin=False)
    states = fitted(data)
    turn = next(i for i, state in enumerate(states) if state.opened)
    for i in (1, turn - 1, turn, turn + 2):
        assert not finished(states[i], OPTIONS)
        last = fitted(data, resume=states[i])[-1]
        assert last.iteration == states[-1].iteration
        assert torch.equal(last.history, states[-1].history)
        assert all(torch.equal(last.best[name], value) for name, value in states[-1].best.items())
    assert finished(states[-1], OPTIONS)


def test_a_second_fit_that_fails_each_time_leaves_the_first(monkeypatch):
    data, begun = scanned(0.2, thin=False), []
    alone, whole = fitted(data, replace(OPTIONS, by_noise=False))[-1], module._failure

    def failing(state, *others):
        fails = state.by_noise and len(own_looks(state)) == 1
        begun.extend([(state.attempt, state.begun, state.opened)] if fails else [])
        return "diverges" if fails else whole(state, *others)

    monkeypatch.setattr(module, "_failure", failing)
    last = fitted(data)[-1]
    assert begun == [(i, alone.iteration, alone.iteration) for i in range(module._ATTEMPTS)]
    assert float(last.best_misfit) == float(alone.best_misfit)
    assert not last.best_by_noise
