from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.errors import InputError
from ctuq.pipeline import ReconstructOptions, reconstruct, reconstruct_stack, reconstruct_volume
from ctuq.pipeline.running.checkpoint import Checkpoint, CheckpointError, digest_of
from ctuq.pipeline.running.options import flat_settings
from ctuq.tomo import Parallel3D, ParallelBeam, Scan, VolumeScan

ANGLES = np.linspace(0, 3, 2000)


def scan_of(angles, shape, facts=None):
    if len(shape) == 1:
        scan = Scan(np.ones((len(angles), *shape)), ParallelBeam(angles=angles, columns=shape[0], pixel=1.0))
    else:
        rows, columns = shape
        geometry = Parallel3D(angles=angles, rows=rows, columns=columns, pixel=1.0)
        scan = VolumeScan(np.ones((rows, len(angles), columns)), geometry)
    return replace(scan, provenance=replace(scan.provenance, facts=facts or {}))


@pytest.mark.parametrize("shape", [(4,), (2, 4)])
def test_work_is_known_by_all_that_its_numbers_depend_on_and_nothing_else(shape):
    scan = scan_of(ANGLES, shape)
    with np.printoptions(precision=2, threshold=5, suppress=True):
        assert digest_of(scan) == digest_of(scan_of(ANGLES, shape, {"sample": "nut"}))
    moved = np.where(np.arange(2000) == 1000, ANGLES + 1e-9, ANGLES)
    other = [scan_of(moved, shape), scan_of(ANGLES, shape, {"beam": "monochromatic"})]
    other.append(replace(scan, geometry=replace(scan.geometry, detector_offset=0.5)))
    other.append(replace(scan, weights=np.ones_like(scan.projections)))
    assert len({digest_of(each) for each in [scan, *other]}) == len(other) + 1


def test_a_damaged_file_of_work_that_can_be_done_again_is_no_error(tmp_path):
    path = tmp_path / "fit.h5"
    path.write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="start anew"):
        Checkpoint(path, "work")
    Checkpoint(path, "work", needed=False).begin()
    assert Checkpoint(path, "work").threads is None


def test_numbers_of_numpy_are_the_same_options():
    mine = ReconstructOptions(size=np.int64(16), seed=np.uint8(3), field=np.float32(8))
    assert flat_settings(mine) == flat_settings(ReconstructOptions(size=16, seed=3, field=8.0))
    assert torch.Generator().manual_seed(mine.seed).initial_seed() == 3
    with pytest.raises(InputError, match="size takes a whole number, not None"):
        ReconstructOptions(size=None)


@pytest.mark.parametrize("work", [reconstruct, reconstruct_stack, reconstruct_volume])
def test_the_name_of_a_file_is_no_scan(work):
    with pytest.raises(InputError, match=r"not a str; ctuq\.read.* makes one of a file"):
        work("scan.h5")


def test_a_checkpoint_may_be_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Checkpoint("fit.h5", "work").begin()
    assert (tmp_path / "fit.h5").is_file()
