"""A name means one thing: classes and functions that other modules may use are called alike only where they do alike."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1] / "ctuq"
ALIKE = {
    # What a command does is called as the command, and so is the function of `ctuq` that does it in Python.
    **dict.fromkeys(("convert", "measure", "reconstruct", "simulate", "run", "table"), "a command and its work"),
    "Simulate": "`ctuq simulate` and `ctuq design simulate`: what is typed is the class's name",
    # The same of slices, of stacks and of volumes.
    **dict.fromkeys(
        ("kept_agreement", "made_by", "placed", "sentences", "weighed_by_counts", "with_bars", "from_tomosipo", "to_tomosipo"),
        "of slices, stacks and volumes",
    ),
    # The same question of an image and of a solid.
    **dict.fromkeys(("contrast", "fraction", "mean_of", "probability_of_mean"), "of an image and through slices"),
    "difference": "of two images, and of two curves",
    # A file of any format, ctuq's own record, a session.
    **dict.fromkeys(("read", "write"), "by what is in the file"),
}


def test_public_names_of_modules_mean_one_thing():
    places = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                module = str(path.relative_to(ROOT))
                if module not in places[node.name]:  # overloads stand in one module
                    places[node.name].append(module)
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert set(twice) == set(ALIKE), {name: twice.get(name) for name in set(twice) ^ set(ALIKE)}
