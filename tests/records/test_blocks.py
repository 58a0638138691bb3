"""Volumes that are never whole in memory: written slice by slice, read slice by slice, and told when the disk is full."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from ctuq import records
from ctuq.errors import InputError, ResourceError

SHAPE = (20, 100, 100)


def one(z):
    return np.random.default_rng(z).random(SHAPE[1:], np.float32)


@pytest.fixture
def path(tmp_path):
    records.write(tmp_path / "a.h5", {"volume": records.Blocks(SHAPE, one), "rest": {"n": 3}}, kind="thing")
    return tmp_path / "a.h5"


def test_what_is_written_slice_by_slice_reads_back_equal_whole_and_alone(path):
    assert records.is_sealed(path)
    tree = records.read(path, kind="thing")
    np.testing.assert_array_equal(tree["volume"], np.stack([one(z) for z in range(SHAPE[0])]))
    assert tree["rest"] == {"n": 3}
    with records.opened_record(path, kind="thing") as file:
        assert file["volume"].chunks == (1, *SHAPE[1:])
        np.testing.assert_array_equal(file["volume"][7], one(7))


def test_a_flipped_byte_is_noticed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"), records.opened_record(path, kind="thing"):
        pass


def test_a_slice_that_cannot_be_made_leaves_no_file(tmp_path):
    def broken(z):
        if z == 3:
            raise InputError("No.")
        return one(z)

    with pytest.raises(InputError, match="No"):
        records.write(tmp_path / "a.h5", {"volume": records.Blocks(SHAPE, broken)}, kind="thing")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_the_process_lives_on(tmp_path):
    """In a child: HDF5 left with a file that it cannot write ended the process when it cleaned up."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            records.write(tmp_path / "a.h5", {"volume": records.Blocks(SHAPE, one)}, kind="thing")
        except ResourceError:
            left = [p for p in Path(tmp_path).iterdir()]
            os._exit(5 if not left else 6)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
