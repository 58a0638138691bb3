"""A damaged HDF5 file at which the HDF5 library itself would never end is refused before it is opened."""

import h5py
import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.files import read
from ctuq.files.formats.matlab import read_matlab
from ctuq.records import kind_of, refuse_endless_heap


def _written(path, texts):
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(50.0)
        for number, text in enumerate(texts):
            file["data"].attrs[f"note {number}"] = text
    return path


def _endless(path):
    """The free object at the end of the last collection with a size of 0."""
    content = bytearray(path.read_bytes())
    at = content.rindex(b"GCOL") + 16
    while (index := int.from_bytes(content[at : at + 2], "little")) != 0:
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    assert index == 0 and any(content[at + 8 : at + 16])
    content[at + 8 : at + 16] = bytes(8)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("texts", [["degrees"], ["a" * 3000, "b" * 3000], ["a"] * 400])
def test_what_h5py_writes_is_sound_and_without_its_end_refused(tmp_path, texts):
    path = _written(tmp_path / "a.h5", texts)
    refuse_endless_heap(path)
    assert kind_of(path) is None
    _endless(path)
    for look in (refuse_endless_heap, kind_of, read, read_matlab):
        with pytest.raises(InputError, match=r"damaged in its attributes.*copy it again"):
            look(path)


def test_a_file_that_takes_data_from_such_a_file_is_refused(tmp_path):
    _endless(_written(tmp_path / "other.h5", ["degrees"]))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exchange/data"] = h5py.ExternalLink("other.h5", "data")
    with pytest.raises(InputError, match="damaged in its attributes"):
        read(tmp_path / "a.h5")


def test_the_word_in_measured_values_is_no_collection(tmp_path):
    path = tmp_path / "a.bin"
    for tail in (b"", bytes(8), bytes(40), (4096).to_bytes(8, "little"), b"\xff" * 60):
        path.write_bytes(b"x" * 100 + b"GCOL\x01\x00\x00\x00" + tail)
        assert refuse_endless_heap(path) is None
    path.write_bytes(b"")
    assert refuse_endless_heap(path) is None
