"""The tutorials on other programs, block by block, where these are installed, here or in an environment of their own.

``CTUQ_PEERS=PEERS/bin/python`` names a Python that has them.
"""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ctuq.app.cli import main
from ctuq.uncertainty.results.image import Result

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def python_with(module: str) -> str | None:
    if find_spec(module) is not None:
        return sys.executable
    other = os.environ.get("CTUQ_PEERS")
    has_it = other and subprocess.run([other, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0
    return other if has_it else None


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / page).read_text())


@pytest.mark.parametrize("page, module", [("tutorial_cuqipy.md", "cuqi"), ("tutorial_svmbir.md", "svmbir")])
def test_the_tutorial_runs_as_it_stands(page, module, tmp_path, monkeypatch):
    other = python_with(module)
    if other is None:
        pytest.skip(f"{module} is not installed")
    monkeypatch.chdir(tmp_path)
    for kind, text in blocks(page):
        if kind == "python" and "environment" not in text.splitlines()[0]:
            if other != sys.executable:
                pytest.skip(f"{module} and ctuq are not in one environment")
            exec(compile(text, page, "exec"), {})
        elif kind == "python" and "ctuq's environment" in text:
            exec(compile(text, page, "exec"), {})
        elif kind == "python":
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            subprocess.run([other, "-c", text], check=True, env=environment, capture_output=True)
        else:
            for line in text.splitlines():
                if line.startswith("ctuq "):
                    assert main(shlex.split(line)[1:]) == 0
    folder = tmp_path / page.removeprefix("tutorial_").removesuffix(".md")
    found = Result.load(folder / "results.h5")
    assert 0.6 < found.calibration.calibrated["rms_z"] < 1.5
    assert found.scores["truth"]["psnr"] > 15


def test_the_tutorials_have_blocks_of_every_kind():
    for page, scripts in (("tutorial_cuqipy.md", 1), ("tutorial_svmbir.md", 2)):
        kinds = [kind for kind, _ in blocks(page)]
        assert kinds.count("python") == scripts and kinds.count("sh") == 4
        for kind, text in blocks(page):
            if kind == "python":
                compile(text, page, "exec")
