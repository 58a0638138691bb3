from dataclasses import replace

import h5py
import numpy as np
import pytest
from scans import assert_equal

from ctuq.errors import InputError
from ctuq.files import describe, read, read_volume, write_nxtomo, write_scan, write_volume_scan
from ctuq.guard import UnforeseenError
from ctuq.records.seal import seal_of
from ctuq.tomo.axis import axis_column, with_axis_column
from ctuq.tomo.solids import solid_scan


@pytest.mark.parametrize("which", ["fan_scan", "counted"])
def test_a_written_scan_reads_back_equal(tmp_path, request, which):
    scan = request.getfixturevalue(which).warned("Something was assumed.")
    write_nxtomo(scan, tmp_path / "scan.nx")
    (tmp_path / "scan.yaml").write_text("reverse_columns: true\n")  # of another file of that name
    assert_equal(read(tmp_path / "scan.nx"), scan)
    assert "Something was assumed." in describe(tmp_path / "scan.nx")[0].warnings


def test_rows_are_read_back_one_by_one(tmp_path, counted):
    rows = [replace(counted, projections=counted.projections * n, weights=counted.weights / n, truth=None) for n in (1, 2, 3)]
    write_nxtomo(rows, tmp_path / "scan.nx")
    for n, row in enumerate(rows):
        assert_equal(read(tmp_path / "scan.nx", row=n), row)
    assert "row 1 of 3" in describe(tmp_path / "scan.nx")[0].data
    with pytest.raises(InputError, match="rows 0 to 2"):
        read(tmp_path / "scan.nx", row=3)


@pytest.mark.parametrize("which", ["fan_scan", "counted"])
def test_other_programs_find_transmission_angles_lengths_and_axis(tmp_path, request, which):
    application = pytest.importorskip("nxtomo.application.nxtomo")
    scan = request.getfixturevalue(which)
    scan = replace(scan, geometry=with_axis_column(scan.geometry, 21.25))
    write_nxtomo(scan, tmp_path / "scan.nx")
    found = application.NXtomo().load(str(tmp_path / "scan.nx"), "entry0000")
    detector = found.instrument.detector
    assert [int(key.value) for key in detector.image_key] == [2, 1] + [0] * scan.n_angles
    with h5py.File(tmp_path / "scan.nx") as file:
        frames = file["entry0000/instrument/detector/data"][:, 0]
    dark, flat, views = frames[0], frames[1], frames[2:]
    assert np.allclose(-np.log((views - dark) / (flat - dark)), scan.projections, atol=1e-6)
    assert np.allclose(found.sample.rotation_angle[2:].to("radian").magnitude, scan.geometry.angles)
    assert detector.x_pixel_size.to("mm").magnitude == pytest.approx(scan.geometry.pixel)
    assert found.sample.x_pixel_size.to("mm").magnitude == pytest.approx(scan.geometry.pixel_at_axis)
    assert detector.x_rotation_axis_pixel_position == pytest.approx(21.25 - (scan.geometry.columns - 1) / 2)
    if which == "fan_scan":
        assert found.instrument.source.distance.to("mm").magnitude == pytest.approx(-110)
        assert detector.distance.to("mm").magnitude == pytest.approx(190)


@pytest.mark.parametrize("which", ["fan_scan", "counted"])
def test_a_file_that_was_changed_since_is_read_as_any_nxtomo(tmp_path, request, which):
    scan = request.getfixturevalue(which)
    write_nxtomo(scan, tmp_path / "scan.nx")
    with h5py.File(tmp_path / "scan.nx", "a") as file:
        file["entry0000/sample/rotation_angle"][...] += 30.0
    found = read(tmp_path / "scan.nx")
    assert np.allclose(found.geometry.angles, scan.geometry.angles + np.deg2rad(30))
    assert type(found.geometry) is type(scan.geometry)
    assert axis_column(found.geometry) == pytest.approx(axis_column(scan.geometry))
    assert np.allclose(found.projections, scan.projections, atol=1e-5)


def test_what_is_no_attenuation_and_rows_of_several_geometries_are_refused(tmp_path, fan_scan):
    with pytest.raises(InputError, match=r"reach .* no attenuation"):
        write_nxtomo(replace(fan_scan, projections=fan_scan.projections + 900), tmp_path / "scan.nx")
    other = replace(fan_scan, geometry=with_axis_column(fan_scan.geometry, 3))
    with pytest.raises(InputError, match="different geometries"):
        write_nxtomo([fan_scan, other], tmp_path / "scan.nx")
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_refused(tmp_path, fan_scan):
    path = tmp_path / "scan.nx"
    write_nxtomo(fan_scan, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read(path)


@pytest.mark.parametrize("wrong", ["a dataset", "a type"])
def test_a_sealed_file_with_something_else_in_the_place_of_its_group_is_refused(tmp_path, fan_scan, wrong):
    path = _resealed(tmp_path, fan_scan, "entry0000/ctuq", np.zeros(3) if wrong == "a dataset" else np.dtype("f8"))
    with pytest.raises(InputError, match="in the place of 'entry0000/ctuq'"):
        read(path)


def test_a_sealed_file_with_a_geometry_of_no_kind_is_refused_in_our_words(tmp_path, fan_scan):
    with pytest.raises(InputError, match="geometry 'of no kind'") as told:
        read(_resealed(tmp_path, fan_scan, "entry0000/ctuq/geometry/kind", None))
    assert not isinstance(told.value, UnforeseenError)


def _resealed(tmp_path, scan, name, value):
    """A file of ours with something else (None: nothing) in the place of one of its parts, and a new seal."""
    path = tmp_path / "scan.nx"
    write_nxtomo(scan, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: -len(seal_of(whole))])
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value
    path.write_bytes((content := path.read_bytes()) + seal_of(content))
    return path


@pytest.mark.parametrize(
    "facts", [{"beam": "monochromatic"}, {"beam": "monochromatic", "energy": "25.5 keV"}, {"beam": "polychromatic"}, {}]
)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_beam_of_one_energy_stays_one_when_another_program_has_changed_the_file(tmp_path, counted, facts, rows):
    scan = replace(counted, provenance=replace(counted.provenance, facts=facts))
    write_nxtomo([scan] * rows, tmp_path / "scan.nx")
    assert dict(read(tmp_path / "scan.nx").provenance.facts) == facts
    with h5py.File(tmp_path / "scan.nx", "a") as file:
        file["entry0000/title"] = "seen by another program"
        assert ("monochromator" in file["entry0000/instrument"]) == scan.provenance.monochromatic
    foreign = read(tmp_path / "scan.nx", row=0)
    assert foreign.provenance.monochromatic == scan.provenance.monochromatic
    assert foreign.provenance.facts.get("energy") == facts.get("energy")
    write_nxtomo(foreign, tmp_path / "again.nx")
    assert read(tmp_path / "again.nx").provenance.monochromatic == scan.provenance.monochromatic


def test_own_files_keep_the_beam_of_slices_and_volumes(tmp_path, counted):
    """Of slices, volumes, rows of these, and a row that becomes NXtomo."""
    scan = replace(counted, provenance=replace(counted.provenance, facts={"beam": "monochromatic"}))
    write_scan(scan, tmp_path / "scan.h5")
    assert read(tmp_path / "scan.h5").provenance.monochromatic
    volume = solid_scan("ball", 8, np.arange(4.0) * 0.7, noise=0.05, seed=0, distances=None)
    write_volume_scan(volume, tmp_path / "volume.h5")
    assert read_volume(tmp_path / "volume.h5").provenance.monochromatic
    row = read(tmp_path / "volume.h5", row=3)
    assert row.provenance.monochromatic
    write_nxtomo(row, tmp_path / "row.nx")
    assert read(tmp_path / "row.nx").provenance.monochromatic
