from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile

from ctuq import files
from ctuq.app import cli, slices
from ctuq.errors import ResourceError
from ctuq.pipeline import Progress
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import VolumeResult


@pytest.fixture(scope="module")
def scan_file(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("scans") / "scan.h5"
    files.write_scan(scan, path)
    return path


class Pipeline:
    """Stands in for the pipeline: keeps what it was given, and leaves a given result or trouble."""

    def __init__(self, outcome):
        self.outcome = outcome

    def __call__(self, scan, *, options, progress, checkpoint):
        self.scan, self.options, self.resumed = scan, options, checkpoint.is_file()
        progress(Progress("fit", 1, 2, "misfit 0.5"))
        if isinstance(self.outcome, KeyboardInterrupt):
            checkpoint.write_bytes(b"state")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def pipeline(monkeypatch, bare):
    stand_in = Pipeline(bare)
    monkeypatch.setattr(slices.pipeline, "reconstruct", stand_in)
    return stand_in


@pytest.fixture(scope="module")
def brief(bare, result):
    """A result with uncertainty, and little else to draw."""
    return replace(bare, std=result.std)


def told(capsys):
    """The one line on stderr that is not a progress bar."""
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("ctuq: ")]
    assert len(lines) == 1
    return lines[0]


def test_reconstruct_writes_everything_and_report_rebuilds_it(pipeline, brief, scan_file, tmp_path, capsys):
    pipeline.outcome = brief
    run = tmp_path / "new" / "run"
    assert cli.main(["reconstruct", str(scan_file), "-o", str(run), "--every", "4", "--method", "tv", "--seed", "3"]) == 0
    assert (pipeline.scan.n_angles, pipeline.options.method, pipeline.options.seed) == (5, "tv", 3)
    assert {path.name for path in run.iterdir()} == {"results.h5", "mean.tif", "std.tif", "report.html", "figures"}
    np.testing.assert_array_equal(tifffile.imread(run / "mean.tif"), brief.mean)
    shown = capsys.readouterr()
    assert "Inside the object" in shown.out and str(run / "report.html") in shown.out
    assert "misfit 0.5" in shown.err
    page = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert cli.main(["report", str(run)]) == 0
    assert (run / "report.html").read_text() == page
    assert (run / "figures" / "std.png").is_file()


def test_without_uncertainty_no_std_is_written_nor_kept_from_before(pipeline, bare, brief, scan_file, tmp_path):
    pipeline.outcome = brief
    words = ["reconstruct", str(scan_file), "-o", str(tmp_path)]
    assert cli.main(words) == 0
    pipeline.outcome = bare
    assert cli.main([*words, "--no-uncertainty", "--overwrite"]) == 0
    assert not pipeline.options.uncertainty
    assert not (tmp_path / "std.tif").exists() and not (tmp_path / "figures" / "std.png").exists()
    assert (tmp_path / "mean.tif").exists() and (tmp_path / "figures" / "sinogram.png").exists()


def test_an_interruption_keeps_the_state_and_resume_uses_it(pipeline, bare, scan_file, tmp_path, capsys):
    pipeline.outcome = KeyboardInterrupt()
    words = ["reconstruct", str(scan_file), "-o", str(tmp_path)]
    assert cli.main(words) == 3
    assert "--resume" in told(capsys)
    assert [path.name for path in tmp_path.iterdir()] == [slices.CHECKPOINT]
    pipeline.outcome = bare
    assert cli.main([*words, "--resume"]) == 0
    assert pipeline.resumed
    assert not (tmp_path / slices.CHECKPOINT).exists()


def test_an_interrupted_fit_goes_on_to_what_it_would_have_been(scan_file, tmp_path, capsys, monkeypatch):
    short = DIPOptions(iterations=24, check_every=2, network=UNetOptions(channels=(4, 4), skips=(2,)))
    monkeypatch.setattr(slices, "DIPOptions", lambda **_: short)
    monkeypatch.setattr("ctuq.app.report.anew.draw_all", lambda result: {})
    words = ["reconstruct", str(scan_file), "--size", "16", "--no-uncertainty"]
    assert cli.main([*words, "-o", str(tmp_path / "whole")]) == 0

    def interrupted(self, record):
        if record.stage == "Deep Image Prior" and record.done >= 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slices.TerminalBar, "__call__", interrupted)
        assert cli.main([*words, "-o", str(tmp_path / "parts")]) == 3
    assert "--resume" in told(capsys)
    assert cli.main([*words, "-o", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = (Result.load(tmp_path / name / "results.h5") for name in ("whole", "parts"))
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-3 * whole.mean.max())


def test_an_old_state_is_neither_used_nor_removed_unasked(pipeline, scan_file, tmp_path, capsys):
    (tmp_path / slices.CHECKPOINT).write_bytes(b"old")
    words = ["reconstruct", str(scan_file), "-o", str(tmp_path)]
    assert cli.main(words) == 2
    assert "--resume" in (said := told(capsys)) and "--overwrite" in said
    assert (tmp_path / slices.CHECKPOINT).read_bytes() == b"old"
    assert cli.main([*words, "--overwrite"]) == 0
    assert not pipeline.resumed


def test_there_must_be_something_to_resume(pipeline, scan_file, tmp_path, capsys):
    assert cli.main(["reconstruct", str(scan_file), "-o", str(tmp_path / "run"), "--resume"]) == 2
    assert "nothing to resume" in told(capsys)
    assert not (tmp_path / "run").exists()


def test_trouble_in_the_work_leaves_no_folder(pipeline, scan_file, tmp_path, capsys):
    pipeline.outcome = ResourceError("The Jacobian needs 99 GiB; choose a smaller image.")
    assert cli.main(["reconstruct", str(scan_file), "-o", str(tmp_path / "run")]) == 4
    assert "99 GiB" in told(capsys)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_the_earlier_result(pipeline, scan_file, tmp_path, capsys, monkeypatch):
    words = ["reconstruct", str(scan_file), "-o", str(tmp_path)]
    assert cli.main(words) == 0
    before = (tmp_path / "results.h5").read_bytes()
    monkeypatch.setattr(slices, "write_tiff", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    monkeypatch.setattr(Result, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert cli.main([*words, "--overwrite"]) == 4
    assert "disk is full" in told(capsys)
    assert (tmp_path / "results.h5").read_bytes() == before


def test_an_output_that_cannot_be_written_is_refused_before_the_work(pipeline, scan_file, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["reconstruct", str(scan_file), "-o", str(tmp_path / "file" / "run")]) == 2
    assert "Cannot write into" in told(capsys)
    assert not hasattr(pipeline, "scan")


def npz(path, **changes):
    rng = np.random.default_rng(0)
    angles = np.linspace(0, np.pi, 6, endpoint=False)
    np.savez(path, **({"sinogram": rng.random((6, 20)), "angles": angles, "pixel": 1.0, "kind": "parallel"} | changes))


def make_bad(kind, scan, path):
    if kind == "unknown type":
        path.write_bytes(b"nothing that anyone knows" * 20)
    elif kind == "truncated":
        files.write_scan(scan, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "NaN":
        npz(path, sinogram=np.full((6, 20), np.nan))
    elif kind == "wrong shape":
        npz(path, angles=np.zeros(5))
    elif kind == "degrees":
        npz(path, angles=np.arange(6) * 30.0)
    elif kind == "HDF5 of something else":
        with h5py.File(path, "w") as file:
            file["table"] = [1, 2]


@pytest.mark.parametrize(
    "kind", ["missing", "unknown type", "truncated", "NaN", "wrong shape", "degrees", "HDF5 of something else"]
)
@pytest.mark.parametrize("command", ["info", "reconstruct"])
def test_bad_files_are_told_in_one_line(pipeline, scan, tmp_path, capsys, kind, command):
    path = tmp_path / ("scan.npz" if kind in ("NaN", "wrong shape", "degrees") else "scan.h5")
    make_bad(kind, scan, path)
    words = ["info", str(path), "--draw", str(tmp_path / "g.png")]
    code = cli.main(words if command == "info" else ["reconstruct", str(path), "-o", str(tmp_path / "run")])
    assert code == 2
    assert "Traceback" not in told(capsys)
    assert not (tmp_path / "run").exists() and not (tmp_path / "g.png").exists()


@pytest.mark.parametrize("words", [["--every", "0"], ["--angles", "a"], ["--every", "2", "--angles", "0"]])
def test_an_impossible_selection_is_told_in_one_line(pipeline, scan_file, tmp_path, capsys, words):
    assert cli.main(["reconstruct", str(scan_file), "-o", str(tmp_path / "run"), *words]) == 2
    assert told(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--device cuda", "no GPU"),
        ("--device nonsense", "nonsense"),
        ("--size 3", "must be 8 to"),
        ("--samples=-1", "must be 0 to"),
        ("--calibration-views 20", "20 calibration views"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(scan_file, tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["reconstruct", str(scan_file), "-o", str(tmp_path / "run"), *words.split()]) == 2
    assert said in told(capsys)
    assert not (tmp_path / "run").exists()


def test_too_little_memory_is_told_with_what_is_needed(scan_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ctuq.linops.memory.available_memory", lambda device="cpu": 10_000)
    assert cli.main(["reconstruct", str(scan_file), "-o", str(tmp_path / "run")]) == 4
    assert "GiB" in told(capsys)
    assert not (tmp_path / "run").exists()


def test_a_geometry_that_misses_the_object_is_refused_in_one_line(scan, tmp_path, capsys):
    path = tmp_path / "scan.h5"
    files.write_scan(replace(scan, truth=None, grid=replace(scan.grid, centre=(500.0, 0.0))), path)
    assert cli.main(["reconstruct", str(path), "-o", str(tmp_path / "run"), "--method", "fbp", "--size", "16"]) == 2
    assert told(capsys)
    assert not (tmp_path / "run").exists()


def test_a_real_run_by_a_classical_method(scan_file, tmp_path, capsys):
    assert cli.main(["reconstruct", str(scan_file), "-o", str(tmp_path), "--method", "fbp", "--size", "24"]) == 0
    result = Result.load(tmp_path / "results.h5")
    assert (result.method, result.mean.shape) == ("fbp", (24, 24))
    assert "PSNR" in (tmp_path / "report.html").read_text()


def test_no_scan_named_is_told(capsys, tmp_path):
    assert cli.main(["reconstruct", "-o", str(tmp_path)]) == 2
    assert "Name a scan file" in told(capsys)


def test_a_folder_without_results_has_no_report(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "results.h5" in told(capsys)


def test_a_truncated_result_has_no_report(pipeline, scan_file, tmp_path, capsys):
    assert cli.main(["reconstruct", str(scan_file), "-o", str(tmp_path)]) == 0
    path = tmp_path / "results.h5"
    path.write_bytes(path.read_bytes()[:3000])
    before = (tmp_path / "report.html").read_bytes()
    capsys.readouterr()
    assert cli.main(["report", str(tmp_path)]) == 2
    assert told(capsys)
    assert (tmp_path / "report.html").read_bytes() == before


def test_info_tells_the_file_and_draws_its_geometry(scan_file, tmp_path, capsys):
    assert cli.main(["info", str(scan_file), "--draw", str(tmp_path / "g.png")]) == 0
    shown = capsys.readouterr().out
    for text in ("20 views of 60 columns", "source to axis 110 mm", "0 to 342 degrees", "licence: CC0", "not given"):
        assert text in shown
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("more", "code"), [("", 0), ("angles: {first: 0, step: 3, count: 60}\npixel: 1\n", 2)])
def test_info_tells_that_values_will_be_refused_and_refuses_a_whole_scan(tmp_path, capsys, more, code):
    np.save(tmp_path / "a.npy", np.tile(1e3 * (1 + np.hanning(64)), (60, 1)))
    (tmp_path / "a.yaml").write_text("kind: parallel\n" + more)
    assert cli.main(["info", str(tmp_path / "a.npy")]) == code
    shown = capsys.readouterr()
    assert "REFUSED  its values go up to" in shown.out and ("MISSING" in shown.out) == (code == 0)
    assert ("which line integrals do not" in shown.err) == (code == 2)


@pytest.mark.parametrize(("noise", "relative"), [("5%", 0.05), ("0.02", 0.02), ("0", 0.0)])
def test_simulate_writes_a_scan_of_the_asked_size_and_noise(tmp_path, noise, relative):
    for name, level in (("noisy", noise), ("clean", "0")):
        words = f"--phantom ellipses --size 24 --angles 7 --noise {level} -o {tmp_path / name}.h5"
        assert cli.main(["simulate", *words.split()]) == 0
    noisy, clean = (files.read(tmp_path / f"{name}.h5") for name in ("noisy", "clean"))
    assert noisy.n_angles == 7 and noisy.truth.shape == (24, 24)
    error = (noisy.projections - clean.projections).std() / np.abs(clean.projections).mean()
    assert error == pytest.approx(relative, rel=0.15, abs=1e-6)


@pytest.mark.parametrize("words", ["--noise 5", "--noise much", "--noise -1%", "--size 0", "--angles 0"])
def test_impossible_simulations_are_told_in_one_line(tmp_path, capsys, words):
    option, value = words.split()
    assert cli.main(["simulate", "-o", str(tmp_path / "s.h5"), f"{option}={value}"]) == 2
    assert told(capsys)
    assert list(tmp_path.iterdir()) == []


def test_the_demo_takes_30_views_of_the_walnut_and_opens_nothing_unless_asked(pipeline, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(slices.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    assert cli.main(["demo", "-o", str(tmp_path / "d"), "--size", "32", "--no-open"]) == 0
    assert (pipeline.scan.n_angles, pipeline.options.size, opened) == (30, 32, [])
    assert cli.main(["demo", "-o", str(tmp_path / "d"), "--overwrite"]) == 0
    assert opened == [(tmp_path / "d" / "report.html").resolve().as_uri()]


@pytest.mark.parametrize("method", ["sirt", "cgls", "tv"])
@pytest.mark.parametrize("what", ["slice", "volume", "stack"])
def test_iterations_are_those_of_the_method(tmp_path, what, method):
    """They were ignored without a word."""
    words = ["--phantom", "shells"] if what != "slice" else []
    scan = str(tmp_path / "scan.h5")
    assert cli.main(["simulate", "--size", "12", "--angles", "10", *words, "-o", scan]) == 0
    kind = [] if what == "slice" else [f"--{what}"]
    means = []
    for number, given in enumerate((["--iterations", "1"], ["--iterations", "7"], [])):
        run = tmp_path / str(number)
        words = ["reconstruct", scan, "-o", str(run), "--method", method, "--size", "12", "--no-uncertainty"]
        assert cli.main([*words, *kind, *given]) == 0
        means.append((Result if what == "slice" else VolumeResult).load(run / "results.h5").mean)
    assert not np.allclose(means[0], means[1]) and not np.allclose(means[0], means[2])


@pytest.mark.parametrize("words", [["--method", "fbp"], ["--volume", "--method", "fdk"], ["--stack", "--method", "fbp"]])
def test_a_method_of_one_step_refuses_iterations(tmp_path, words, capsys):
    scan = str(tmp_path / "scan.h5")
    assert cli.main(["simulate", "--size", "12", "--angles", "10", "--phantom", "shells", "-o", scan]) == 0
    assert cli.main(["reconstruct", scan, "-o", str(tmp_path / "run"), "--iterations", "7", *words]) == 2
    assert "takes no iterations" in capsys.readouterr().err
