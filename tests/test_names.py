"""What Python shows of the package: its names, keywords, lines, pictures and bars."""

import inspect
import io
import os
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

import ctuq
from ctuq.errors import InputError
from ctuq.pipeline.running.outlook import Outlook
from ctuq.progress import Progress, ProgressBar, shown


def test_the_package_lists_what_a_user_needs_and_each_name_is_there():
    wanted = {"read", "reconstruct", "simulate", "convert", "measure", "calibrate", "laplace", "design", "Result"}
    assert wanted | {"write_report"} <= set(dir(ctuq))
    for name in dir(ctuq):
        assert getattr(ctuq, name) is not None
    assert ctuq.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="reconstructt"):
        _ = ctuq.reconstructt


def test_every_setting_is_a_keyword_of_reconstruct_with_its_default_and_type():
    parameters = inspect.signature(ctuq.reconstruct).parameters
    for setting in fields(ctuq.ReconstructOptions):
        assert parameters[setting.name].annotation != inspect.Parameter.empty
        assert parameters[setting.name].default == getattr(ctuq.ReconstructOptions(), setting.name)


@pytest.mark.parametrize(
    "ask", [ctuq.Result.fraction, ctuq.Result.area, ctuq.Result.centre, ctuq.VolumeResult.fraction, ctuq.VolumeResult.size]
)
def test_what_lies_beyond_a_level_is_asked_by_keywords_that_a_notebook_completes(ask):
    keywords = [each.name for each in inspect.signature(ask).parameters.values() if each.kind is each.KEYWORD_ONLY]
    assert keywords == ["above", "below", "name", "level", "tolerance", "seed"]


def test_settings_and_options_at_once_are_refused_and_so_is_a_name_that_there_is_not():
    scan = ctuq.simulate(size=16, angles=4)
    with pytest.raises(InputError, match="not both"):
        ctuq.reconstruct(scan, "fbp", size=16, options=ctuq.ReconstructOptions(method="fbp"))
    with pytest.raises(InputError, match="no option 'sizee'") as refused:
        ctuq.reconstruct(scan, "fbp", sizee=16)
    there_are = set(str(refused.value).rstrip(".").split("there are ")[1].split(", "))
    assert there_are == set(inspect.signature(ctuq.reconstruct).parameters) - {"scan", "unknown"}


def test_results_are_read_without_torch_and_nothing_heavy_is_imported_before_it_is_used(tmp_path):
    ctuq.reconstruct(ctuq.simulate(size=16, angles=4), "fbp", size=16).save(tmp_path / "results.h5")
    code = (
        "import sys, ctuq; r = ctuq.Result.load(sys.argv[1]); print(r); "
        "print(sorted({'torch', 'scipy', 'matplotlib', 'skimage'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "results.h5"], capture_output=True, text=True, check=True)
    line, heavy = told.stdout.splitlines()
    assert "fbp from 4 views" in line
    assert heavy == "[]"


def test_the_pipeline_does_without_what_takes_long_to_import_and_changes_no_setting():
    late = ("scipy.stats", "scipy.interpolate", "scipy.ndimage", "skimage", "odl")
    code = (
        "import os, sys; before = dict(os.environ); import ctuq.pipeline; "
        f"print([m for m in {late} if m in sys.modules]); print(sorted(set(os.environ.items()) ^ set(before.items())))"
    )
    # Not what this process has: a setting that an import changed here would be no change there.
    given = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given)
    assert told.stdout.splitlines() == ["[]", "[]"]


def test_commands_that_draw_nothing_import_nothing_that_draws(tmp_path):
    code = (
        "import sys; from ctuq.app.cli import main; "
        "assert main(['simulate', '--size', '16', '--angles', '4', '-o', sys.argv[1]]) == 0; "
        "assert main(['info', sys.argv[1], '--quiet']) == 0; print('matplotlib' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "s.h5"], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "False"


@pytest.fixture(scope="module")
def scan():
    return ctuq.simulate("shepp-logan", size=16, angles=6, seed=1)


def test_a_scan_is_shown_in_a_line_a_table_and_a_picture(scan):
    assert repr(scan).startswith("<ctuq.Scan: 6 views, 0° to 150°; ParallelBeam; 25 columns; line integrals")
    page = scan._repr_html_()
    assert "data:image/png;base64," in page and "with truth" in page
    sinogram = scan.plot().axes[0].images[0].get_array()
    np.testing.assert_array_equal(sinogram, scan.projections)


def test_a_result_is_shown_with_how_sure_it_is(scan):
    held = [1, 4]
    result = ctuq.calibrate(scan.truth, 0.003, scan, held, method="<b>mine</b>")
    line = repr(result)
    assert line.startswith("<ctuq.Result: 16 x 16 pixels of 2.5 mm; <b>mine</b> from 6 views; ")
    assert "± " in line and "on 2 held-out views, rms z" in line and "1 warning" in line
    told = result.calibration
    scales = f"variance of the image × {told.image_scale:.3g}, of the noise × {told.noise_scale:.3g}"
    assert repr(told).startswith(f"<Calibration: 2 held-out views; {scales}; rms z ") and "\n" not in repr(told)
    page = result._repr_html_()
    assert "&lt;b&gt;mine" in page and "<b>mine" not in page
    mean, std = (axes.images[0].get_array() for axes in result.plot().axes[:2])
    np.testing.assert_array_equal(mean, result.mean)
    np.testing.assert_array_equal(std, result.std)


def test_a_volume_shows_its_middle_slice():
    mean = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    geometry = ctuq.Parallel3D(angles=np.zeros(1), rows=3, columns=7, pixel=1.0, row_pixel=1.0)
    result = ctuq.VolumeResult(mean=mean, grid=ctuq.VolumeGrid((3, 4, 5), 1.0), geometry=geometry, method="sirt")
    assert repr(result) == "<ctuq.VolumeResult: 5 x 4 x 3 voxels of 1 mm; sirt from 1 views>"
    np.testing.assert_array_equal(result.plot().axes[0].images[0].get_array(), mean[1])
    scan = ctuq.VolumeScan(np.zeros((3, 1, 7)), geometry)
    assert "3 x 7 pixels" in repr(scan)
    assert "detector row 1" in scan.plot().axes[0].get_title()


def test_simulate_and_convert_do_what_the_commands_do(scan, tmp_path):
    ctuq.write_scan(scan, tmp_path / "scan.h5")
    out = ctuq.convert(tmp_path / "scan.h5", tmp_path / "half.nx", every=2)
    again = ctuq.read(tmp_path / "half.nx")
    assert out.n_angles == 3
    np.testing.assert_allclose(again.projections, scan.projections[::2], rtol=1e-5)
    for target, told in ((tmp_path / "half.nx", "exists"), (tmp_path / "half.txt", "format")):
        with pytest.raises(InputError, match=told):
            ctuq.convert(tmp_path / "scan.h5", target)
    np.testing.assert_allclose(ctuq.simulate(size=16, angles=np.array([0.0, 1.0])).geometry.angles, [0, 1])
    for wrong in ({"phantom": "cube"}, {"angles": 0}, {"noise": -1}, {"angles": [np.nan]}):
        with pytest.raises(InputError):
            ctuq.simulate(size=16, **wrong)


def test_measure_asks_regions_as_the_methods_of_a_result_do(scan, tmp_path):
    result = ctuq.calibrate(scan.truth, 0.003, scan, [1, 4])
    parts = {"core": ctuq.quantities.Circle(0, 0, 8), "rim": ctuq.quantities.Rectangle(10, -4, 16, 4)}
    result.save(tmp_path / "results.h5")
    for given in (result, tmp_path / "results.h5"):
        found = ctuq.measure(given, parts, above=0.01, contrasts=[("core", "rim")], level=0.9)
        names = ["mean of core", "share of core above 0.01", "mean of rim", "share of rim above 0.01", "core less rim"]
        assert list(found) == names
        assert found["mean of rim"].interval == pytest.approx(result.region(parts["rim"], level=0.9).interval)
        assert found["share of core above 0.01"].value == pytest.approx(result.fraction(parts["core"], above=0.01).value)
        assert found["core less rim"].value == pytest.approx(found["mean of core"].value - found["mean of rim"].value)
    assert list(ctuq.measure(result, parts)) == ["mean of core", "mean of rim"]
    with pytest.raises(InputError, match="'rin'"):
        ctuq.measure(result, parts, contrasts=[("core", "rin")])


def test_what_is_left_of_a_run_follows_its_plan_then_its_pace():
    now = [0.0]
    ahead = Outlook({"dip": 10.0, "jacobian": 20.0, "samples": 5.0}, clock=lambda: now[0])
    assert ahead("Deep Image Prior", 0.0) == (0.0, 35.0)
    now[0] = 20.0
    share, left = ahead("Deep Image Prior", 0.5)
    assert left == pytest.approx(0.5 * (0.5 * 40 + 0.5 * 10) + 25)
    assert share == pytest.approx(20 / (20 + left))
    now[0] = 40.0
    assert ahead("Samples", 1.0)[1] == 0.0
    assert np.isnan(ahead("Classical reconstructions", 0.5)[1])


def test_a_fit_that_is_gone_on_with_is_not_taken_for_a_fast_one():
    now = [0.0]
    ahead = Outlook({"dip": 100.0}, clock=lambda: now[0])
    ahead("Deep Image Prior", 0.9)
    now[0] = 5.0
    assert ahead("Deep Image Prior", 0.95)[1] == pytest.approx(5.0, rel=0.1)


def test_the_bar_tells_how_far_the_whole_run_is():
    stream = io.StringIO()
    stream.isatty = lambda: True
    with ProgressBar(stream) as bar:
        bar(Progress("Samples", 1, 2, "", 0.25, 7200.0))
    assert "all 25 %, 2.0 h left" in stream.getvalue()


def test_progress_may_be_true_false_or_a_callable(scan, capsys):
    ctuq.reconstruct(scan, "fbp", size=16, progress=True)
    assert "Classical reconstructions: 100%" in capsys.readouterr().err
    ctuq.reconstruct(scan, "fbp", size=16, progress=False)
    assert capsys.readouterr().err == ""
    told = []
    ctuq.reconstruct(scan, "fbp", size=16, progress=told.append)
    assert told[-1].done == told[-1].total == 1
    with shown(None) as nobody:
        assert nobody is None
