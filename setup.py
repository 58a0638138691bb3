"""The page on PyPI: README with links that lead there, too.

README's links lead to files beside it, which PyPI does not have. `Repository` in `project.urls` of `pyproject.toml` is the one
setting: with it the links lead to the files of this version's tag. Without it their words stand there alone, and pictures are
left out.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)\s]+)\)")


def page_of(readme: str, project: dict) -> str:
    """README with every link beside it turned to the repository's address."""
    base, tag = project.get("urls", {}).get("Repository", "").rstrip("/"), f"v{project['version']}"

    def turned(link: re.Match[str]) -> str:
        mark, text, target = link.groups()
        if base:
            return f"{mark}[{text}]({base}/{'raw' if mark else 'blob'}/{tag}/{target})"
        return "" if mark else text

    return _LINK.sub(turned, readme)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    metadata = tomllib.loads((here / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = page_of((here / "README.md").read_text(encoding="utf-8"), metadata)
    setup(long_description=page, long_description_content_type="text/markdown")
