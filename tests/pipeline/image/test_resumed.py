"""A run that is killed anywhere goes on to the same result, bit for bit, and makes nothing twice that it had kept."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import at_call, die, half_written, killed

from ctuq import stages
from ctuq.errors import InputError
from ctuq.laplace.evidence import dense
from ctuq.laplace.evidence.sampled import SampledExpectation
from ctuq.pipeline import ReconstructOptions, reconstruct
from ctuq.pipeline.image import freed, job, network
from ctuq.pipeline.running import checkpoint
from ctuq.pipeline.running.checkpoint import Checkpoint, remove
from ctuq.recon import dip as dip_module
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.uncertainty.model import factor

DIP = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,)), iterations=60, check_every=10)
OPTIONS = ReconstructOptions(size=12, samples=8, dip=DIP, device="cpu", threads=1)
IMAGES = ("mean", "std", "std_raw", "samples", "directions")


@pytest.fixture(scope="module", autouse=True)
def everything_is_kept():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_WORTH", 0.0)
        yield


@pytest.fixture(scope="module")
def scan(noisy_scan):
    return noisy_scan


@pytest.fixture(scope="module")
def whole(noisy_scan):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield reconstruct(noisy_scan, options=OPTIONS)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def done(scan, tmp_path_factory):
    """A folder with everything that a run keeps, and its result."""
    folder = tmp_path_factory.mktemp("done")
    return folder, reconstruct(scan, options=OPTIONS, checkpoint=folder / "checkpoint.h5")


@pytest.fixture
def copy(done, tmp_path):
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    return tmp_path / "checkpoint.h5"


def same(a, b):
    for name in IMAGES:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.sigma2, a.log_evidence, dict(a.prior)) == (b.sigma2, b.log_evidence, dict(b.prior))
    assert a.scores == b.scores and a.warnings == b.warnings
    np.testing.assert_array_equal(a.calibration.predictions, b.calibration.predictions)
    for name, values in a.history.items():
        np.testing.assert_array_equal(values, b.history[name])


class Killed:
    """Dies when a stage has told of its progress so often."""

    def __init__(self, stage, number=1):
        self.stage, self.left = stage, number

    def __call__(self, progress):
        if progress.stage == self.stage:
            self.left -= 1
            if self.left == 0:
                die()


POINTS = {
    "before anything": lambda: at_call(job, "ray_transform"),
    "first look": ("Deep Image Prior", 1),
    "fifth look": ("Deep Image Prior", 5),
    "end of the fit": ("Deep Image Prior", 7),
    "first product": ("Jacobian", 1),
    "third product": ("Jacobian", 3),
    "evidence": ("Evidence", 1),
    "in the search of the evidence": lambda: at_call(dense.ExactExpectation, "value_and_slope", 9),
    "between two looks": lambda: (setattr(checkpoint, "_SECONDS", 0.0), at_call(dip_module, "_look", 5)),
    "after the evidence": ("Evidence", 2),
    "samples": ("Samples", 1),
    "after the samples": ("Samples", 2),
    "classical": ("Classical reconstructions", 2),
    "a product of a stage half written": lambda: half_written(stages, 2),
    "the third product of a stage half written": lambda: half_written(stages, 5),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_result(point, scan, whole, tmp_path):
    path, where = tmp_path / "checkpoint.h5", POINTS[point]

    def work():
        progress = None if callable(where) else Killed(*where)
        if callable(where):
            where()
        reconstruct(scan, options=OPTIONS, checkpoint=path, progress=progress)

    assert killed(work)
    same(reconstruct(scan, options=OPTIONS, checkpoint=path), whole)


@pytest.mark.parametrize("method", ["dip", "tv"])
def test_a_run_over_an_arc_keeps_what_no_view_sees(method, disc_scan, tmp_path):
    arc = disc_scan.select(np.flatnonzero(disc_scan.geometry.angles < np.deg2rad(80)))
    options = replace(OPTIONS, method=method)
    expected, path = reconstruct(arc, options=options), tmp_path / "checkpoint.h5"
    assert len(expected.samples) == OPTIONS.samples
    for where in (("Samples", 1), ("Samples", 2)):
        assert killed(lambda where=where: reconstruct(arc, options=options, checkpoint=path, progress=Killed(*where)))
    same(reconstruct(arc, options=options, checkpoint=path), expected)


def test_a_run_that_is_killed_again_and_again_goes_on_to_the_same_result(scan, whole, tmp_path):
    path = tmp_path / "checkpoint.h5"
    for where in POINTS.values():
        if not callable(where):
            # A stage that is kept is not made again, so that some points are not met a second time.
            killed(lambda where=where: reconstruct(scan, options=OPTIONS, checkpoint=path, progress=Killed(*where)))
    same(reconstruct(scan, options=OPTIONS, checkpoint=path), whole)


def test_what_is_kept_is_not_made_again_and_its_time_counts(scan, whole, done, copy, monkeypatch):
    def never(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr("ctuq.pipeline.running.checkpoint.dip", never)
    monkeypatch.setattr("ctuq.uncertainty.estimate.fit_evidence", never)
    monkeypatch.setattr(factor._Work, "images", never)
    monkeypatch.setattr("ctuq.uncertainty.model.posterior.ImagePosterior.deviations", never)
    again = reconstruct(scan, options=OPTIONS, checkpoint=copy)
    same(again, whole)
    assert again.timings["dip"] >= 0.5 * done[1].timings["dip"]


def test_a_search_of_the_evidence_that_was_killed_computes_no_point_of_it_twice(scan, whole, tmp_path, monkeypatch):
    path, made, original = tmp_path / "checkpoint.h5", [], dense.ExactExpectation.value_and_slope

    def counted(self, point):
        made.append(stages.name_of(point.vector))
        return original(self, point)

    monkeypatch.setattr(dense.ExactExpectation, "value_and_slope", counted)
    reconstruct(scan, options=OPTIONS)
    points = made.copy()
    made.clear()
    assert len(points) > 12
    at = 10

    def work():
        at_call(dense.ExactExpectation, "value_and_slope", at)
        reconstruct(scan, options=OPTIONS, checkpoint=path)

    assert killed(work)
    same(reconstruct(scan, options=OPTIONS, checkpoint=path), whole)
    assert made == points[at - 1 :]


@pytest.mark.parametrize("call", [1, 4])
def test_a_search_by_samples_that_was_killed_goes_on_to_the_same_result(call, scan, tmp_path, monkeypatch):
    found = network._route
    monkeypatch.setattr(network, "_route", lambda *parts: replace(found(*parts), exact_evidence=False))
    monkeypatch.setattr(stages, "_OFTEN", 0.0)
    path = tmp_path / "checkpoint.h5"

    def work():
        at_call(SampledExpectation, "__call__", call)
        reconstruct(scan, options=OPTIONS, checkpoint=path)

    assert killed(work)
    resumed, whole = reconstruct(scan, options=OPTIONS, checkpoint=path), reconstruct(scan, options=OPTIONS)
    assert whole.log_evidence_error >= 0 and "posterior samples" in str(whole.plan)
    same(resumed, whole)


@pytest.mark.parametrize(
    ("where", "error"),
    [((freed, "linear_model"), torch.linalg.LinAlgError("singular")), ((network, "estimate"), ZeroDivisionError("oh"))],
    ids=["model", "estimate"],
)
def test_an_error_after_the_fit_does_not_lose_it(where, error, scan, whole, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.h5"

    def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*where, fails)
        with pytest.raises(type(error)):
            reconstruct(scan, options=OPTIONS, checkpoint=path)
    told = []
    same(reconstruct(scan, options=OPTIONS, checkpoint=path, progress=told.append), whole)
    assert [p.done for p in told if p.stage == "Deep Image Prior"] == [60]


def test_an_interrupted_fit_loses_no_look(scan, tmp_path):
    path, told = tmp_path / "checkpoint.h5", []

    def interrupted(progress):
        if progress.stage == "Deep Image Prior" and progress.done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct(scan, options=OPTIONS, checkpoint=path, progress=interrupted)
    reconstruct(scan, options=OPTIONS, checkpoint=path, progress=told.append)
    assert next(p.done for p in told if p.stage == "Deep Image Prior") == 40


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign"])
def test_a_damaged_product_of_a_stage_is_made_again_with_a_warning(damage, scan, whole, copy, caplog):
    files = sorted(copy.with_suffix(".stages").glob("*.npz"))
    assert len(files) > 5
    for file in files:
        data = bytearray(file.read_bytes())
        if damage == "flipped":
            data[len(data) // 2] ^= 4
        file.write_bytes({"flipped": data, "cut": data[: len(data) // 2], "foreign": b"text"}[damage])
    same(reconstruct(scan, options=OPTIONS, checkpoint=copy), whole)
    assert "damaged" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_checkpoint_is_told_and_left_alone(share, scan, copy):
    damaged = copy.read_bytes()[: int(share * copy.stat().st_size)]
    copy.write_bytes(damaged)
    with pytest.raises(InputError, match=r"checkpoint\.h5.*--overwrite") as told:
        reconstruct(scan, options=OPTIONS, checkpoint=copy)
    assert str(told.value).count(". ") == 0 and copy.read_bytes() == damaged


def test_other_options_are_named(scan, copy):
    before = copy.read_bytes()
    with pytest.raises(InputError, match="seed 0, now 7"):
        reconstruct(scan, options=replace(OPTIONS, seed=7), checkpoint=copy)
    with pytest.raises(InputError, match=r"dip\.iterations 60, now 61"):
        reconstruct(scan, options=replace(OPTIONS, dip=replace(DIP, iterations=61)), checkpoint=copy)
    assert copy.read_bytes() == before


def test_a_disk_too_full_for_products_ends_no_run(scan, whole, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stages, "write_whole", full)
    same(reconstruct(scan, options=OPTIONS, checkpoint=tmp_path / "checkpoint.h5"), whole)
    assert caplog.text.count("cannot be kept") == 1


def test_a_refused_scan_leaves_nothing(scan, tmp_path):
    with pytest.raises(InputError, match="no object"):
        reconstruct(replace(scan, projections=-scan.projections), options=OPTIONS, checkpoint=tmp_path / "checkpoint.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_product_is_of_one_work_alone(tmp_path):
    rng = torch.Generator().manual_seed(3)
    one, other = (stages.KeptStages(tmp_path / "s", name) for name in ("one", "other"))
    made = one.once("draw", lambda: torch.randn(3, generator=rng), rng=rng)
    after = torch.randn(3, generator=rng)
    fresh = torch.Generator().manual_seed(9)
    again = stages.KeptStages(tmp_path / "s", "one").once("draw", lambda: 1 / 0, rng=fresh)
    assert torch.equal(again, made) and torch.equal(torch.randn(3, generator=fresh), after)
    assert other.once("draw", lambda: 5) == 5
    one.clear()
    assert not (tmp_path / "s").exists()


def test_a_checkpoint_may_be_none():
    Checkpoint(None, "").begin()


def test_many_runs_in_one_process_leave_no_memory_and_no_files(scan, tmp_path):
    def state():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, sum(1 for _ in Path("/proc/self/fd").iterdir())

    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell")
    short = replace(OPTIONS, dip=replace(DIP, iterations=10))
    seen = []
    for _ in range(8):
        reconstruct(scan, options=short, checkpoint=tmp_path / "c.h5").save(tmp_path / "r.h5")
        remove(tmp_path / "c.h5")
        seen.append(state())
    assert seen[-1][0] - seen[3][0] < 20
    assert seen[-1][1] == seen[3][1]
