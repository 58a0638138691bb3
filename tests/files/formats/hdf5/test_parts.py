"""HDF5 whose parts are elsewhere or cannot be decompressed is refused by the name of what is missing."""

import h5py
import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.files.formats.hdf5 import parts


def test_a_compressed_dataset_names_the_filter_that_is_missing(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=np.ones((40, 40)), compression="gzip")
    with h5py.File(tmp_path / "a.h5") as file:
        assert parts.readable(file["d"], tmp_path / "a.h5").shape == (40, 40)
        monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
        with pytest.raises(InputError, match=r"is whole, but .*pip install"):
            parts.readable(file["d"], tmp_path / "a.h5")


def test_names_are_found_in_any_case_but_not_guessed_between_two(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["Entry/DATA"], file["b/x"], file["b/X"] = 1, 2, 3
        assert parts.found(file, "entry/Data", tmp_path / "a.h5")[()] == 1
        assert parts.found(file, "b/X", tmp_path / "a.h5")[()] == 3
        assert parts.found(file, "B/y", tmp_path / "a.h5") is None


def test_the_share_of_chunks_that_nobody_wrote(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("d", (10, 4), chunks=(1, 4))
        data[:7] = 1
        assert parts.unwritten(data) == pytest.approx(0.3)
        assert parts.unwritten(file.create_dataset("e", data=np.ones(3))) == 0
