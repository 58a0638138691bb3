"""What a user is told of the package holds: README, metadata, licences, citation."""

import ast
import pkgutil
import re
import runpy
import textwrap
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml

from ctuq.app import cli
from ctuq.files import write_scan
from ctuq.recon.dip import DIPOptions
from ctuq.tomo import ParallelBeam, VolumeGrid, radians
from ctuq.tomo.phantoms import rectangles
from ctuq.tomo.simulate import RelativeNoise, simulate

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, dedented; "" for those without."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(body) for _, name, body in found if name == language]


def python_blocks():
    return [pytest.param(text, id=f"{page.stem}-{i}") for page in PAGES for i, text in enumerate(blocks(page, "python"))]


def commands() -> list[str]:
    """Every command line of ctuq in the pages, comments cut."""
    text = "\n".join(body for page in PAGES for body in blocks(page, "")).replace("\\\n", " ")
    shown = re.findall(r"^(?:.*&& )?(ctuq [a-z][^\n]*)$", text, re.MULTILINE)
    inline = [c for page in PAGES for c in re.findall(r"`(ctuq [a-z]+(?: [^`\n]*)?)`", page.read_text(encoding="utf-8"))]
    return sorted({line.split("#")[0].strip() for line in shown + inline})


def test_the_readme_has_the_two_commands_of_a_new_user():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("pip install . && ctuq demo", "pip install '.[test]' && pytest"):
        assert re.search(rf"^{re.escape(command)}( |$)", text, re.MULTILINE), command


def test_the_five_lines_of_the_readme_run_and_their_file_reads_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = VolumeGrid((12, 12), 2.0)
    geometry = ParallelBeam(angles=radians(np.arange(6) * 30.0), columns=18, pixel=2.0)
    rng = np.random.default_rng(0)
    write_scan(
        simulate(lambda n: rectangles(n, rng), geometry, grid, RelativeNoise(0.05), rng=rng, attenuation=0.05), Path("scan.h5")
    )
    text = blocks(ROOT / "README.md", "python")[0]
    assert len([line for line in text.splitlines() if line.strip()]) == 5
    names: dict = {"quick": DIPOptions(iterations=50)}
    exec(text.replace("size=64", "size=12, dip=quick"), names)
    read_back = names["ctuq"].Result.load("results.h5")
    np.testing.assert_array_equal(read_back.std, names["result"].std)
    assert (read_back.std > 0).all()


def test_the_engine_example_of_the_readme_runs():
    names: dict = {}
    with pytest.warns(UserWarning, match="misses the network's output"):
        exec(blocks(ROOT / "README.md", "python")[1], names)
    assert np.isfinite(names["fit"].log_evidence)
    assert names["posterior"].std(names["x"]).shape == (50, 1)


@pytest.mark.parametrize("text", python_blocks())
def test_every_python_example_imports_names_that_exist(text):
    compile(text, "example", "exec")
    for word, module in {"bluesky": "bluesky_adaptive", "import cuqi": "cuqi", "import svmbir": "svmbir"}.items():
        if word in text:
            pytest.importorskip(module)
    imports = re.findall(r"^ *((?:from [\w.]+ )?import [\w.]+(?:, \w+)*)$", text, re.MULTILINE)
    names: dict = {}
    exec("\n".join(imports), names)
    assert (len(names.keys() - {"__builtins__"}) > 0) == bool(imports)


def test_the_listings_of_the_researchers_tutorial_run_as_one_script_when_small(capsys):
    text = "\n".join(blocks(ROOT / "docs" / "tutorial_researcher.md", "python"))
    smaller = {"32, 32)": "12, 12)", "size=32": "size=12", "columns=46": "columns=18", "0, 180, 9": "0, 180, 30"}
    for large, small in {**smaller, "[0, 5, 10]": "[0, 2, 4]", "iterations=600": "iterations=50"}.items():
        assert large in text, large
        text = text.replace(large, small)
    names: dict = {}
    exec(text, names)
    assert names["samples"].shape == (100, 12, 12)
    assert np.isfinite(names["result"].scores["truth"]["log_likelihood"])


@pytest.mark.parametrize("command", commands())
def test_every_command_in_the_pages_is_understood(command, monkeypatch):
    words = command.split()[1:]
    monkeypatch.setattr(cli, "_run", lambda command: 0)
    assert cli.main(words) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dotted_names_in_the_pages_exist(page):
    lost = []
    for name in sorted(set(re.findall(r"`(ctuq(?:\.\w+)+)", page.read_text(encoding="utf-8")))):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            lost.append(name)
    assert lost == []


def test_the_demo_and_the_report_templates_are_inside_the_package():
    package = files("ctuq")
    for name in ("data/walnut.png", "data/walnut.yaml", "py.typed", "app/report/templates/report.html.jinja"):
        assert package.joinpath(name).is_file(), name


def test_the_citation_names_this_version_and_licence():
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"] == "Apache-2.0"
    told = {i["value"] for reference in CITATION["references"] for i in reference.get("identifiers", ())}
    assert {f"arXiv:{n}" for n in ("2404.19157", "2203.00479", "2206.08900", "2210.04994", "2207.05714")} <= told


def test_the_page_on_pypi_has_no_link_to_a_file_beside_it():
    page_of = runpy.run_path(str(ROOT / "setup.py"))["page_of"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
    own = [target for _, target in links.findall(readme) if not target.startswith("https://")]
    assert len(own) > 20
    there = page_of(readme, {"version": "1.2.3", "urls": {"Repository": "https://example.org/ctuq/"}})
    assert all(target.startswith("https://") for _, target in links.findall(there))
    assert there.count("https://example.org/ctuq/blob/v1.2.3/") + there.count("https://example.org/ctuq/raw/v1.2.3/") == len(
        own
    )
    assert "![" in there and "(https://example.org/ctuq/raw/v1.2.3/figures/" in there
    nowhere = page_of(readme, {"version": "1.2.3"})
    assert [target for _, target in links.findall(nowhere) if not target.startswith("https://")] == []


def test_the_citation_has_a_day_of_release_when_the_list_of_changes_has_one():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (told,) = re.findall(rf"^## {re.escape(PROJECT['version'])} \((.+)\)$", changes, re.MULTILINE)
    assert str(CITATION.get("date-released", "not yet released")) == told
    assert "planned" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_conda_environment_asks_for_what_the_package_asks_for():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [e["pip"] for e in entries if isinstance(e, dict)]
    asked = {
        re.sub(r"[ ><=@].*", "", e): re.sub(r"^[\w.-]+ ?", "", e).split(" ")[0]
        for e in [*(e for e in entries if isinstance(e, str)), *pip]
    }
    renamed = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    for requirement in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)(>=.+)", requirement).groups()
        assert asked[renamed.get(name, name)] == bound, requirement


@pytest.mark.parametrize("path", sorted((ROOT / "ctuq").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_can_be_held_in_the_head(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno >= 80] == []
    assert "TODO" not in text
