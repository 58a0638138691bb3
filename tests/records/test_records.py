import os
import resource
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import half_written, killed

from ctuq import records
from ctuq.errors import CtuqError, InputError, ResourceError
from ctuq.guard import UnforeseenError
from ctuq.records import files

_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
)
_trees = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner)
    ),
    max_leaves=8,
)


def _same(a, b) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    return a == b


@settings(max_examples=30, deadline=None)
@given(tree=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), _trees, max_size=3))
def test_any_tree_reads_back_equal(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("tree") / "tree.h5"
    records.write(path, tree, kind="tree")
    back = records.read(path, kind="tree")
    assert set(back) == set(tree)
    assert all(_same(tree[key], back[key]) for key in tree)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "complex64", "float16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (70, 40), (2, 3, 4)])
def test_arrays_keep_shape_and_dtype(tmp_path, dtype, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    records.write(tmp_path / "a.h5", {"encoder.0.weight": array}, kind="a")
    back = records.read(tmp_path / "a.h5", kind="a")["encoder.0.weight"]
    assert back.dtype == array.dtype and back.shape == array.shape and np.array_equal(back, array)


@pytest.mark.parametrize("thing", [object(), np.array([object()]), {1: 2}, np.array(["text"]), {1, 2}])
def test_what_cannot_be_stored_is_refused_and_nothing_is_written(tmp_path, thing):
    with pytest.raises(InputError):
        records.write(tmp_path / "a.h5", {"thing": thing}, kind="a")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.h5"
    records.write(path, {"x": 1}, kind="a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ResourceError, match="no room"):
            records.write(path, {"x": np.random.default_rng(0).normal(size=100_000)}, kind="a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert records.read(path, kind="a") == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path):
    def fill(target):
        target.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.write_whole(tmp_path / "a.h5", fill)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_half_written_is_cleared_away_by_the_next(tmp_path):
    path, other = tmp_path / "a [1].h5", tmp_path / "b.h5"
    for target in (path, other):
        assert killed(lambda target=target: (half_written(files), records.write(target, {"a": 1}, kind="scan")))
    assert len(list(tmp_path.iterdir())) == 2
    lives = next(tmp_path.glob(".a*")).name.rpartition(".")[0].rpartition(".")[0] + f".{os.getppid()}.partial"
    (tmp_path / lives).write_bytes(b"another process writes this now")
    records.write(path, {"a": 1}, kind="scan")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, lives, next(tmp_path.glob(".b*")).name}


def test_a_folder_that_does_not_exist_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="Cannot write"):
        records.write(tmp_path / "none" / "a.h5", {}, kind="a")


def test_a_name_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "a.h5").mkdir()
    (tmp_path / "a.h5" / "inside").touch()
    with pytest.raises(InputError, match="Cannot write"):
        records.write(tmp_path / "a.h5", {}, kind="a")
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("kept", [0, 10, 700, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "a.h5"
    records.write(path, {"x": np.random.default_rng(0).normal(size=5000)}, kind="a")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(InputError):
        records.read(path, kind="a")


def test_flipped_bytes_in_an_array_are_noticed(tmp_path):
    path = tmp_path / "a.h5"
    records.write(path, {"x": np.random.default_rng(0).normal(size=5000)}, kind="a")
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 4] = bytes(b ^ 0xFF for b in whole[middle : middle + 4])
    path.write_bytes(whole)
    with pytest.raises(InputError, match="damaged"):
        records.read(path, kind="a")


def test_missing_foreign_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        records.read(tmp_path / "none.h5", kind="a")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match="not a whole HDF5"):
        records.read(tmp_path / "text.h5", kind="a")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="another program"):
        records.read(tmp_path / "foreign.h5", kind="a")
    records.write(tmp_path / "scan.h5", {}, kind="scan")
    with pytest.raises(InputError, match="holds a scan, not a result"):
        records.read(tmp_path / "scan.h5", kind="result")


def test_a_newer_format_is_refused(tmp_path):
    records.write(tmp_path / "a.h5", {}, kind="a")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["ctuq_format"] = records.FORMAT + 1
    with pytest.raises(InputError, match="newer"):
        records.read(tmp_path / "a.h5", kind="a")


def test_attributes_stand_on_their_nodes(tmp_path):
    records.write(tmp_path / "a.h5", {"entry": {"mean": np.ones(3)}}, kind="a", attributes={"entry/mean": {"units": "1/mm"}})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["entry/mean"].attrs["units"] == "1/mm"
    assert np.array_equal(records.read(tmp_path / "a.h5", kind="a")["entry"]["mean"], np.ones(3))


def _tree():
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=40),
        "large": rng.normal(size=2000),
        "about": {"name": "a walnut", "count": 3, "no": (None, True)},
    }


def test_no_flipped_byte_changes_a_tree_without_a_word(tmp_path):
    path = tmp_path / "a.h5"
    records.write(path, _tree(), kind="a")
    whole = path.read_bytes()
    refused = 0
    for where in np.random.default_rng(1).integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[where] ^= 1 << (where % 8)
        path.write_bytes(damaged)
        try:
            back = records.read(path, kind="a")
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            # Only the checksum itself was hit: the data are whole, and that it is gone can be told.
            assert not records.is_sealed(path) and all(_same(back[key], value) for key, value in _tree().items())
    assert refused > 280


def test_a_file_that_another_program_edited_is_read_and_known_by_its_lost_checksum(tmp_path):
    path = tmp_path / "a.h5"
    records.write(path, _tree(), kind="a")
    assert records.is_sealed(path)
    with h5py.File(path, "a") as file:
        file["x"][0] = 7.0
    assert not records.is_sealed(path)
    assert records.read(path, kind="a")["x"][0] == 7.0


def _twice(file):
    file["again"] = file["about"]


def _circle(file):
    file["about/self"] = file["about"]


def _deep(file):
    group = file
    for _ in range(300):
        group = group.create_group("d")
        group.attrs["ctuq_type"] = "dict"


def _lazy(file):
    node = file.create_dataset("lazy", shape=(10**6, 10**6), dtype="f4", chunks=(64, 64))
    node.attrs["ctuq_type"] = "array"


def _text(file):
    file["x"].attrs["ctuq_type"] = "str"


DAMAGE = {
    "a node that stands there twice": _twice,
    "a circle": _circle,
    "three hundred levels": _deep,
    "terabytes that were declared": _lazy,
    "numbers that are to be text": _text,
    "a soft link": lambda file: file.__setitem__("soft", h5py.SoftLink("/nowhere")),
    "an external link": lambda file: file.__setitem__("out", h5py.ExternalLink("other.h5", "/x")),
    "an array that is to be a dict": lambda file: file["x"].attrs.__setitem__("ctuq_type", "dict"),
    "an unknown type": lambda file: file["x"].attrs.__setitem__("ctuq_type", "pickle"),
    "no type": lambda file: file["x"].attrs.__delitem__("ctuq_type"),
    "a type that is a number": lambda file: file["x"].attrs.__setitem__("ctuq_type", 3),
    "a named type": lambda file: file.__setitem__("type", np.dtype("f4")),
    "a tuple with a gap": lambda file: file["about/no"].move("1", "2"),
    "an array that is to be one number": lambda file: file["x"].attrs.__setitem__("ctuq_type", "float"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_tree_is_refused_in_one_sentence(tmp_path, damage):
    path = tmp_path / "a.h5"
    records.write(path, _tree(), kind="a")
    with h5py.File(path, "a") as file:
        DAMAGE[damage](file)
    with pytest.raises(CtuqError, match=r"a\.h5") as caught:
        records.read(path, kind="a")
    assert not isinstance(caught.value, UnforeseenError)


def test_threads_that_write_one_name_leave_one_whole_file(tmp_path):
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: records.write(tmp_path / "a.h5", {"n": n}, kind="test"), range(40)))
    assert records.read(tmp_path / "a.h5", kind="test")["n"] in range(40) and len(list(tmp_path.iterdir())) == 1


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    """Nor is a device, such as /dev/null, which whoever has all rights could replace."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="device, pipe or socket"):
        records.write(tmp_path / "pipe", {"n": 1}, kind="test")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(InputError, match="name the file"):
        records.write("", {"n": 1}, kind="test")


def test_what_goes_wrong_beside_an_open_file_is_not_the_files_fault(tmp_path):
    records.write(tmp_path / "a.h5", {"x": np.zeros(3)}, kind="thing")
    with pytest.raises(AttributeError, match="no attribute"), records.opened_record(tmp_path / "a.h5", kind="thing") as file:
        file.nothing_of_this_name  # noqa: B018
    with pytest.raises(FileNotFoundError), records.opened_record(tmp_path / "a.h5", kind="thing"):
        (tmp_path / "elsewhere.txt").read_text()
    with pytest.raises(InputError, match="cannot be read whole"), records.opened_record(tmp_path / "a.h5", kind="thing"):
        raise OSError("Can't synchronously read data (inflate() failed)")


@pytest.mark.parametrize("error", [OSError("1024 requested and 904 written"), OSError(28, "No space left on device")])
def test_a_full_disk_is_told_as_one_however_it_is_met(tmp_path, error):
    """NumPy raises a short write without a number, for which a folder was advised that may be written to."""

    def fill(target):
        raise error

    with pytest.raises(ResourceError, match=r"no room for .*mean\.tif"):
        records.write_whole(tmp_path / "mean.tif", fill)
    assert not list(tmp_path.iterdir())
