import h5py
import numpy as np
import pytest
from scanned import misfit, predicted

from ctuq.errors import InputError
from ctuq.files import read
from ctuq.tomo.geometry import ParallelBeam


@pytest.fixture
def compressed(tmp_path):
    """A DXchange file with bitshuffle and LZ4, as ESRF and Dectris write them."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    beam = ParallelBeam(angles=np.arange(30) * np.pi / 30, columns=80, pixel=0.25)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        counts = (50000 * np.exp(-predicted(beam)))[:, None]
        file.create_dataset("exchange/data", data=counts.astype(np.uint16), **hdf5plugin.Bitshuffle(cname="lz4"))
        file["exchange/data_white"] = np.full((1, 1, 80), 50000, np.uint16)
        file["exchange/theta"] = np.arange(30) * 6.0
        file["measurement/instrument/detector/pixel_size_x"] = 0.25
        file["measurement/instrument/detector/pixel_size_x"].attrs["units"] = "mm"
    return tmp_path / "a.h5"


def test_hdf5_in_a_filter_of_hdf5plugin_is_read(compressed):
    assert misfit(read(compressed, axis_column=39.5)) < 1e-3


def test_without_that_library_the_extra_is_named(compressed, monkeypatch):
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(InputError, match=r"bitshuffle.*pip install 'ctuq\[readers\]'"):
        read(compressed)


@pytest.mark.parametrize("name", ["a.dcm", "A.IMA", "plain"])
def test_dicom_is_refused_with_what_to_use(tmp_path, name):
    path = tmp_path / "ct" / name
    path.parent.mkdir()
    path.write_bytes(bytes(128) + (b"DICM" if name == "plain" else b"....") + bytes(999))
    with pytest.raises(InputError, match="helix2fan"):
        read(path)
    if name != "plain":
        with pytest.raises(InputError, match="helix2fan"):
            read(path.parent)


def test_of_hdf5_of_no_known_layout_the_largest_array_is_named(tmp_path):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["entry/pco/data"], file["entry/pco/monitor"] = np.ones((6, 4, 5)), np.ones((6, 4))
        file["entry/spectra"], file["entry/again"] = np.ones(500), h5py.SoftLink("/entry")
    with pytest.raises(InputError, match=r"it holds entry; name its projections .* 'data: entry/pco/data'"):
        read(tmp_path / "a.nxs")
    with h5py.File(tmp_path / "b.nxs", "w") as file:
        file["entry/spectra"] = np.ones(500)
    with pytest.raises(InputError, match=r"it holds entry\.$"):
        read(tmp_path / "b.nxs")
