import h5py
import numpy as np
import pytest
import tifffile
from scipy.ndimage import binary_erosion

from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.files import read_volume, write_volume_scan
from ctuq.pipeline.volume import VolumeOptions, plan_volume, reconstruct_volume
from ctuq.tomo import ConeBeam, VolumeScan, radians
from ctuq.tomo.solids import solid_scan
from ctuq.uncertainty.volume_result import VolumeResult


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    path = tmp_path_factory.mktemp("ball") / "ball.h5"
    command = ["simulate", "--phantom", "ball", "--cone", "100:200", "--size", "24", "--angles", "40", "--noise", "1%"]
    assert main([*command, "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("method", ["fdk", "sirt", "cgls"])
def test_a_ball_comes_out_with_its_attenuation_in_every_file(ball, tmp_path, method, capsys):
    folder = tmp_path / "run"
    assert main(["reconstruct", str(ball), "--volume", "--method", method, "--size", "24", "-o", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "24 x 24 x 24 voxels" in told
    assert "Against the truth" in told
    result = VolumeResult.load(folder / "results.h5")
    core = binary_erosion(result.truth > 0.049, iterations=2)
    assert result.mean[core].mean() == pytest.approx(0.05, rel=0.02)
    assert result.scores["psnr"] > 20
    np.testing.assert_array_equal(tifffile.imread(folder / "mean.tif"), result.mean)
    with h5py.File(folder / "results.h5") as file:
        assert file["entry/data/data"].chunks is not None
        assert file["entry/data/y"][0] > file["entry/data/y"][-1]
    page = (folder / "report.html").read_text()
    assert "Error bars of volumes are not there yet" in page
    assert (folder / "figures" / "slices.png").read_bytes()[:4] == b"\x89PNG"
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text() == page


def test_the_plan_tells_who_computes_and_writes_nothing(ball, tmp_path, capsys):
    assert main(["reconstruct", str(ball), "--volume", "--method", "sirt", "--plan"]) == 0
    told = capsys.readouterr().out
    assert "GiB" in told
    assert "128 x 128 x 128 voxels" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--volume"], "Error bars of volumes"),
        (["--volume", "--method", "tv"], "for slices"),
        (["--method", "fdk"], "--volume"),
        (["--volume", "--method", "fdk", "--resume"], "resume"),
        (["--volume", "--method", "fdk", "--size", "1"], "size"),
        (["--volume", "--method", "fdk", "--size", "4000"], "GiB"),
        (["--volume", "--method", "fdk", "--every", "0"], "every"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(ball, tmp_path, capsys, arguments, told):
    assert main(["reconstruct", str(ball), *arguments, "-o", str(tmp_path / "run")]) in (2, 4)
    captured = capsys.readouterr().err
    assert told in captured
    assert captured.count("\n") == 1


def test_a_volume_without_volume_is_one_row_and_says_so(ball, tmp_path, capsys):
    assert main(["reconstruct", str(ball), "--method", "fbp", "--size", "24", "-o", str(tmp_path / "run")]) == 0
    assert "--volume takes all of them" in capsys.readouterr().out


def test_slices_and_solids_are_not_mixed_up(tmp_path, capsys):
    assert main(["simulate", "--phantom", "ellipses", "--cone", "100:200", "-o", str(tmp_path / "s.h5")]) == 2
    assert "slice" in capsys.readouterr().err
    for wrong in ("100", "200:100", "a:b", "10:200"):
        assert main(["simulate", "--phantom", "ball", "--size", "8", "--cone", wrong, "-o", str(tmp_path / "s.h5")]) == 2
    assert main(["simulate", "--phantom", "ball", "--size", "8", "--noise", "0%", "-o", str(tmp_path / "s.h5")]) == 0
    assert read_volume(tmp_path / "s.h5").geometry.upright


def test_chosen_views_are_used_alone(ball, tmp_path):
    folder = tmp_path / "run"
    assert (
        main(["reconstruct", str(ball), "--volume", "--method", "fdk", "--every", "2", "--size", "12", "-o", str(folder)]) == 0
    )
    assert VolumeResult.load(folder / "results.h5").geometry.n_angles == 20


def test_what_is_doubtful_about_a_volume_is_told():
    scan = solid_scan("ball", 16, radians(np.arange(0, 360, 12)), noise=0.0, seed=0, distances=(100.0, 200.0))
    geometry = scan.geometry
    cut = ConeBeam(
        angles=geometry.angles,
        rows=8,
        columns=geometry.columns,
        pixel=geometry.pixel,
        source_to_axis=100.0,
        source_to_detector=200.0,
    )
    middle = geometry.rows // 2
    few = VolumeScan(scan.projections[middle - 4 : middle + 4], cut)
    result = reconstruct_volume(few, method="fdk", size=16)
    assert any("lowest and highest detector row" in text for text in result.warnings)
    tall = VolumeScan(few.projections, cut, truth=scan.truth, grid=scan.grid)
    assert any("above or below the detector" in text for text in reconstruct_volume(tall, method="fdk", size=16).warnings)


def test_free_vectors_need_a_grid_and_go_by_sirt(tmp_path):
    scan = solid_scan("ball", 12, radians(np.arange(0, 360, 15)), noise=0.0, seed=0, distances=(100.0, 200.0))
    helix = scan.geometry.raised(np.zeros(24))
    free = VolumeScan(scan.projections, helix, truth=scan.truth, grid=scan.grid)
    write_volume_scan(free, tmp_path / "free.h5")
    result = reconstruct_volume(read_volume(tmp_path / "free.h5"), options=VolumeOptions("sirt", 12, iterations=40))
    assert result.scores["psnr"] > 20
    assert plan_volume(free, VolumeOptions("sirt", 12)).backend in ("matrix", "numba")
    assert main(["reconstruct", str(tmp_path / "free.h5"), "--volume", "--method", "fdk", "-o", str(tmp_path / "r")]) == 2
    with pytest.raises(InputError, match="grid"):
        reconstruct_volume(VolumeScan(scan.projections, helix), method="sirt", size=12)
