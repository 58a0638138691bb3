"""Views that disagree with the image that all views make: found, weighed by what they show, and told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ctuq
from ctuq.pipeline.image import job
from ctuq.pipeline.image.agreement import Agreement, agreement_of
from ctuq.recon.dip import Data
from ctuq.tomo import ray_transform
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.simulate import RelativeNoise, phantom_scan, simulate

SIZE, VIEWS = 24, 24
NOBODY = np.zeros(0, np.int64)


def scan_of(phantom="ellipses", *, views=VIEWS, noise=0.02, seed=1):
    return phantom_scan(phantom, SIZE, np.arange(views) * np.pi / views, noise=noise, seed=seed)


def changed(scan, view, how):
    projections = scan.projections.copy()
    projections[view] = how(projections[view].copy())
    return replace(scan, projections=projections)


def plate_scan(*, finer=4):
    """A plate seen along its faces by two views of an order by the golden ratio."""
    order = np.mod(np.arange(30) * (np.sqrt(5) - 1) / 2 * np.pi, np.pi)
    grid, image = VolumeGrid((SIZE, SIZE), 1.0), np.zeros((finer * SIZE, finer * SIZE))
    image[46:50, 12:-12] = 1
    geometry = ParallelBeam(angles=order, columns=36, pixel=1.0)
    noise = RelativeNoise(0.02)
    return simulate(image, geometry, grid, noise, rng=np.random.default_rng(0), finer=finer, attenuation=0.05)


def agreement(scan, own=(), **how):
    A = ray_transform(scan.grid, scan.geometry, backend="matrix")
    weights = np.ones_like(scan.projections) if scan.weights is None else scan.weights
    data = Data(A, torch.tensor(scan.projections), torch.tensor(weights))
    return agreement_of(data, own, **how), data


WRONG = {
    "moved": lambda row: np.roll(row, 5),
    "mirrored": lambda row: row[::-1],
    "brighter": lambda row: 1.5 * row,
    "another beam": lambda row: row + 0.4,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_view_counts_for_as_much_less_as_it_is_off(name):
    found, data = agreement(changed(scan_of(), 7, WRONG[name]))
    assert np.flatnonzero(found.far).tolist() == [7]
    weights = found.weighed(data, NOBODY).weights
    assert torch.allclose(weights[7], torch.tensor(found.times[7] ** -2, dtype=torch.float32))
    assert bool((weights[:7] == 1).all()) and bool((weights[8:] == 1).all())
    (told,) = found.told
    assert "1 of 24 views, first number 7 (at 52.5 degrees), lies up to" in told and "it counts for as much less" in told


SOUND = {
    "ellipses": scan_of,
    "glyph": lambda: scan_of("glyph"),
    "shell": lambda: scan_of("shepp-logan"),
    "much noise": lambda: scan_of(noise=1.0),
    "hardly any noise": lambda: scan_of(noise=1e-4),
    "no noise": lambda: scan_of(noise=0.0),
    "many views": lambda: scan_of(views=90),
    "an arc": lambda: phantom_scan("ellipses", SIZE, np.arange(20) * np.pi / 60, noise=0.02, seed=1),
    "seven views, one of them wrong": lambda: changed(scan_of(views=7), 3, WRONG["mirrored"]),
    "a third of the views moved": lambda: changed(scan_of(), slice(0, 8), lambda rows: np.roll(rows, 5, axis=1)),
    "a view without weight": lambda: replace(
        scan := scan_of(), weights=np.where(np.arange(VIEWS)[:, None] == 7, 0, np.ones_like(scan.projections))
    ),
    "nothing": lambda: replace(scan := scan_of(), projections=0 * scan.projections),
}


@pytest.mark.parametrize("name", SOUND)
def test_other_scans_keep_their_weights(name):
    found, data = agreement(SOUND[name]())
    assert not found.far.any() and found.weighed(data, NOBODY) is data and found.told == ()
    assert np.isfinite(found.times).all()


def test_a_held_out_view_that_disagrees_judges_nothing_unless_it_is_the_only_one():
    found, data = agreement(changed(scan_of(), 7, WRONG["moved"]))
    assert float(found.weighed(data, np.array([3, 7, 15])).weights[7].max()) == 0
    alone, fitted = (found.weighed(data, np.array(held)).weights[7] for held in ([7], [3]))
    assert float(alone.min()) > 0 and torch.equal(alone, fitted)


def test_views_are_compared_with_their_neighbours_in_angle():
    rng = np.random.default_rng(0)
    order, times = rng.permutation(20), np.ones(20)
    times[[4, 5, 6, 12]] = 2.6, 3.6, 2.6, 3.6
    found = Agreement(times[order], np.linspace(0, 3, 20)[order])
    assert np.flatnonzero(found.far).tolist() == np.flatnonzero(order == 12).tolist()
    assert "views, first number" in found.told[0]


def test_what_the_model_holds_as_an_error_of_that_view_is_no_disagreement():
    scan = changed(scan_of(), 7, lambda row: row + 0.4)
    assert agreement(scan)[0].far[7] and not agreement(scan, ["flux"])[0].far.any()
    clean = scan_of("glyph", noise=0.003, seed=2)
    turned = replace(clean, geometry=replace(clean.geometry, angles=clean.geometry.angles + 0.2 * np.eye(VIEWS)[7]))
    assert agreement(turned)[0].far[7] and not agreement(turned, ["axis", "jitter"])[0].far.any()


def test_rays_keep_their_weights_to_each_other():
    scan = changed(scan_of(), 7, WRONG["mirrored"])
    weights = np.random.default_rng(0).uniform(0.5, 1.5, scan.projections.shape).astype(np.float32)
    found, data = agreement(replace(scan, weights=weights))
    ratio = found.weighed(data, NOBODY).weights / torch.from_numpy(weights)
    assert float(ratio[7].std() / ratio[7].mean()) < 1e-5 and float(ratio[7].mean()) < 1 / 16


def test_a_reconstruction_is_told_of_it_and_better_for_it(monkeypatch):
    scan = changed(scan_of(), 7, WRONG["moved"])
    settings = {"size": SIZE, "method": "tv", "systematics": "none"}
    weighed = ctuq.reconstruct(scan, **settings)
    assert sum("times as far from the image" in text for text in weighed.warnings) == 1
    assert weighed.scan.weights is None
    monkeypatch.setattr(job, "kept_agreement", lambda run, data, own: Agreement(np.ones(VIEWS), np.zeros(VIEWS)))
    alike = ctuq.reconstruct(scan, **settings)
    assert weighed.scores["truth"]["psnr"] > alike.scores["truth"]["psnr"] + 3


@pytest.mark.parametrize("wrong", [False, True])
def test_views_along_a_plate_are_sound_to_every_method_but_the_network(wrong):
    scan = changed(plate_scan(), 7, WRONG["moved"]) if wrong else plate_scan()
    assert agreement(scan)[0].far.sum() > 2
    assert np.flatnonzero(agreement(scan, judged=True)[0].far).tolist() == [7] * wrong


def test_a_plate_is_not_worse_for_its_views_being_compared(monkeypatch):
    settings = {"size": SIZE, "method": "tv", "uncertainty": False, "systematics": "none"}
    found = ctuq.reconstruct(plate_scan(), **settings)
    monkeypatch.setattr(job, "kept_agreement", lambda run, data, own: Agreement(np.ones(30), np.zeros(30)))
    alike = ctuq.reconstruct(plate_scan(), **settings)
    assert found.scores["truth"]["psnr"] > alike.scores["truth"]["psnr"] - 0.1
    assert not any("times as far from the image" in text for text in found.warnings)


@pytest.mark.parametrize("name", WRONG)
def test_the_views_beside_a_wrong_one_do_not_speak_for_it(name):
    assert np.flatnonzero(agreement(changed(scan_of(), 7, WRONG[name]), judged=True)[0].far).tolist() == [7]


def test_views_held_out_of_what_lies_outside_are_not_far_for_that():
    scan = phantom_scan("ellipses", SIZE, np.arange(VIEWS) * np.pi / VIEWS, noise=0.02, seed=1)
    constant = ctuq.Scan(np.full(scan.projections.shape, 0.7, np.float32), scan.geometry)
    result = ctuq.reconstruct(constant, size=16, method="tv")
    assert any("do not fall to air" in text for text in result.warnings)
    assert not any("times as far from the image" in text for text in result.warnings)
