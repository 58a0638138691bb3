import h5py
import numpy as np
import pytest
from scanner import grown, piloted, start

from ctuq import records
from ctuq.design.session import file as sessionfile
from ctuq.design.session.session import Session
from ctuq.errors import InputError


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """With a network, a log, and angles worked out ahead."""
    session = piloted(tmp_path_factory.mktemp("session"), prior="lindip", forbidden=((1.0, 1.2),), roi=(-3.0, 3.0, -3.0, 3.0))
    grown(session, 1)
    return Session(session.path)


@pytest.fixture
def copy(session, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(session.path.read_bytes())
    return path


def same(a, b):
    return sessionfile.digest(sessionfile._tree(a)) == sessionfile.digest(sessionfile._tree(b))


def test_a_session_reads_back_equal(session, tmp_path):
    sessionfile.write(tmp_path / "again.h5", session.record)
    again = sessionfile.read(tmp_path / "again.h5")
    assert same(again, session.record)
    assert again.settings == session.record.settings
    assert len(again.state.log) == 5 and again.versions["torch"]


def test_the_checksum_sees_every_kind_of_change():
    tree = {"a": (1, 2.0, "x"), "b": np.arange(3), "c": {"d": None, "e": True}}
    changed = [
        {**tree, "a": (1, 2.0, "y")},
        {**tree, "a": (1, (2.0, "x"))},
        {**tree, "b": np.arange(3.0)},
        {**tree, "b": np.arange(3)[None]},
        {**tree, "c": {"d": None, "e": 1}},
        {**tree, "c": {"d": None}},
    ]
    assert len({sessionfile.digest(t) for t in [tree, *changed]}) == 7
    assert sessionfile.digest(dict(reversed(tree.items()))) == sessionfile.digest(tree)


@pytest.mark.parametrize("number", range(8))
def test_a_flipped_bit_is_noticed_or_changes_nothing(session, copy, number):
    whole = session.path.read_bytes()
    rng = np.random.default_rng(number)
    noticed = 0
    for place in rng.integers(0, len(whole), 10).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        copy.write_bytes(damaged)
        try:
            assert same(sessionfile.read(copy), session.record)
        except InputError as error:
            noticed += 1
            assert str(copy) in str(error)
    assert noticed


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_session_is_refused(session, copy, share):
    copy.write_bytes(session.path.read_bytes()[: int(share * session.path.stat().st_size)])
    with pytest.raises(InputError, match="whole"):
        Session(copy)


def test_a_session_of_a_newer_ctuq_is_refused(session, copy):
    tree = records.read(session.path, kind="session")
    records.write(copy, {**tree, "layout": sessionfile.LAYOUT + 1}, kind="session")
    with pytest.raises(InputError, match=r"newer ctuq .*; update"):
        Session(copy)
    with h5py.File(copy, "a") as file:
        file.attrs["ctuq_format"] = records.FORMAT + 1
    with pytest.raises(InputError, match="newer than"):
        Session(copy)


def test_a_session_of_an_older_layout_keeps_what_was_measured_and_learns_again(session, copy):
    tree = records.read(session.path, kind="session")
    tree["layout"], tree["learnt"]["space"] = 1, "image"
    del tree["digest"]
    records.write(copy, {**tree, "digest": sessionfile.digest(tree)}, kind="session")
    old = Session(copy)
    assert np.array_equal(old.state.projections, session.state.projections)
    assert old.record.learnt is None and old.record.plan is None
    old.ask()
    assert Session(copy).record.learnt is not None


def test_parts_that_are_missing_are_noticed_even_with_a_checksum(session, copy):
    tree = records.read(session.path, kind="session")
    del tree["state"], tree["digest"]
    records.write(copy, {**tree, "digest": sessionfile.digest(tree)}, kind="session")
    with pytest.raises(InputError, match="damaged"):
        Session(copy)


def test_other_files_are_no_sessions(tmp_path):
    (tmp_path / "text.h5").write_text("no session")
    records.write(tmp_path / "scan.h5", {"a": 1}, kind="scan")
    for name, said in (("missing.h5", "no file"), ("text.h5", "not a whole"), ("scan.h5", "a scan, not a session")):
        with pytest.raises(InputError, match=said):
            Session(tmp_path / name)


def test_what_killed_writers_left_is_cleared_away(tmp_path):
    session = start(tmp_path)
    left = tmp_path / ".s.h5.99999.partial"
    left.write_bytes(b"half")
    session.ask()
    assert not left.exists()
