"""What is asked of an image, from files and the command line; no image is needed for it."""

from pathlib import Path

import pytest

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
