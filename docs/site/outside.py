"""Pages and pictures that lie beside ``docs/``: they join the site, and links to them lead there.

The pages are written to be read in the repository, where ``../figures/x.png`` is right. A site holds only what lies in its own
folder, so what is linked is added to it, and its links are turned.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "experiments/README.md")
"""Further pages, at their own place in the repository."""
_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]+)(#[^)\s]*)?\)")
_ENDINGS = (".png", ".csv", ".txt", ".cff", ".md", ".yaml", ".yml", ".toml", "LICENSE", "NOTICE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the further pages, and all that any page links to."""
    own = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    for name in sorted({*PAGES, *(target for page in (*own, *PAGES) for target in _targets(page))}):
        if not name.startswith("docs/") and (ROOT / name).is_file() and name.endswith(_ENDINGS):
            files.append(File.generated(config, _place(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to what lies beside ``docs/``; what is not on the site is named without a link."""
    home = _origin(page.file.src_uri)

    def turned(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        place = _place(_resolved(home, target))
        if files.get_file_from_path(place) is None:
            return text.removeprefix("!")[1:-1]
        return f"{text}({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return _LINK.sub(turned, markdown)


def _targets(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [_resolved(page, link[2]) for link in _LINK.finditer(text) if "://" not in link[2]]


def _resolved(page: str, target: str) -> str:
    """A link's target, from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def _place(name: str) -> str:
    """Where a file of the repository lies on the site."""
    return name.removeprefix("docs/") if name.startswith("docs/") else f"project/{name}"


def _origin(place: str) -> str:
    return place.removeprefix("project/") if place.startswith("project/") else f"docs/{place}"
