"""What is asked of an image, from files and the command line; no image is needed for it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ctuq
from ctuq.app.cli import main
from ctuq.app.measure.command import GUESSED
from ctuq.app.measure.images import questions
from ctuq.app.measure.options import Measure
from ctuq.app.measure.sources import asked
from ctuq.errors import InputError
from ctuq.quantities import Circle
from ctuq.tomo import VolumeGrid

GRID = VolumeGrid((24, 24), 1.0)


def wanted(tmp_path, text, *more):
    (tmp_path / "r.yaml").write_text(text)
    return asked(Measure(results=Path("results.h5"), regions=tmp_path / "r.yaml", region=more), GRID)


@pytest.mark.parametrize("name", ["grain:1", "a=b", "mask:x", "a = b : c", "1"])
def test_a_region_of_a_file_may_have_any_name(tmp_path, name):
    found = wanted(tmp_path, f'regions:\n  "{name}": circle:2,1,5\n', "circle:0,0,3", "b=circle:0,0,4").regions
    assert found == {name: Circle(2, 1, 5), "a": Circle(0, 0, 3), "b": Circle(0, 0, 4)}


def test_names_of_regions_are_given_once_in_file_and_command_line(tmp_path):
    with pytest.raises(InputError, match="stands twice"):
        wanted(tmp_path, "regions:\n  a: circle:2,1,5\n", "a=circle:0,0,3")
    for text in ('" a": circle:0,0,2\n  a: circle:0,0,3', '"": circle:0,0,3'):
        with pytest.raises(InputError, match="empty or stands twice"):
            wanted(tmp_path, f"regions:\n  {text}\n")
    assert list(wanted(tmp_path, "regions:\n  a: circle:2,1,5\n", "circle:0,0,3").regions) == ["a", "b"]


@pytest.mark.parametrize("name", ["scan.h5", "mean.tif", "README"])
def test_a_table_is_not_written_over_a_file_of_another_kind(tmp_path, name, capsys):
    (tmp_path / name).write_text("a scan")
    assert main(["measure", str(tmp_path / "results.h5"), "--region", "circle:0,0,2", "--csv", str(tmp_path / name)]) == 2
    assert "does not write over it" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "a scan"


@pytest.mark.parametrize("mode", ["P", "LA", "RGB"])
def test_a_mask_in_colours_is_told_what_a_mask_may_be(tmp_path, mode):
    Image.fromarray(np.eye(24, dtype=np.uint8) * 255).convert(mode).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="a mask has no palette, colours or transparency") as told:
        wanted(tmp_path, f"regions:\n  a: 'mask:{tmp_path / 'm.png'}'\n")
    assert "detector" not in str(told.value)


def test_thicknesses_of_one_line_at_two_levels_have_two_names(tmp_path):
    class Result:
        def thickness(self, p, q, at, *, name, level):
            return name

    found = wanted(tmp_path, "thickness: ['-5,0,5,0', '-5,0,5,0,0.02', '-5,0,5,0,0.03']\n")
    names = [name for question in questions(Result(), found, {}, None, 0.95) for name in question.ask()]
    assert names == ["thickness -5,0 to 5,0", "thickness -5,0 to 5,0 at 0.02", "thickness -5,0 to 5,0 at 0.03"]


@pytest.mark.parametrize(("step", "arc"), [(10.0, True), (20.0, False)])
def test_what_holds_over_arcs_is_told_where_views_leave_directions_out(tmp_path, capsys, step, arc):
    scan = ctuq.simulate("ellipses", size=12, angles=np.deg2rad(np.arange(9) * step), noise=0.02)
    ctuq.reconstruct(scan, "tv", size=12).save(tmp_path / "results.h5")
    assert main(["measure", str(tmp_path / "results.h5"), "--region", "circle:0,0,3"]) == 0
    told = capsys.readouterr()
    assert (GUESSED in told.out + told.err) == arc
    assert ("of areas and 87 % of thicknesses" in " ".join((told.out + told.err).split())) == arc
