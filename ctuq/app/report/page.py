"""One self-contained HTML page about a result: no network, no other file."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ctuq.app.png import drawn
from ctuq.app.report import summary, tables
from ctuq.app.report.catalogue import PICTURES, Picture, pictures_of
from ctuq.app.report.systematics import error_rows
from ctuq.app.report.viewer import viewer_data
from ctuq.errors import InputError
from ctuq.quantities import Quantity
from ctuq.records import write_whole
from ctuq.text import visible
from ctuq.uncertainty.results.image import Result

_SCRIPTS = ("viewer_data.js", "viewer_image.js", "viewer_measure.js", "viewer_controls.js")


def draw_all(result: Result) -> dict[str, bytes]:
    """Every picture that this result has the data for, by name, as the bytes of a PNG file."""
    return {picture.name: drawn(picture.draw, result) for picture in pictures_of(result)}


def write_report(
    result: Result,
    path: str | os.PathLike,
    images: Mapping[str, bytes] | None = None,
    measured: Sequence[Quantity] = (),
) -> None:
    """Write the report of a result; the file appears under its name only when it is complete.

    Parameters
    ----------
    result : Result
    path : path
    images : mapping, optional
        What `draw_all` gave, if it was called before.
    measured : sequence of Quantity
        What was measured of the result, for a table.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    ResourceError
        If the disk is full.
    """
    page = render_report(result, draw_all(result) if images is None else images, measured).encode("utf-8")
    write_whole(path, lambda target: target.write(page))


def write_figures(images: Mapping[str, bytes], folder: str | os.PathLike) -> list[Path]:
    """Write the pictures of `draw_all` into a folder, which is made if needed; pictures that it does not name are removed.

    Raises
    ------
    InputError, ResourceError
        As `write_report`.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture in PICTURES:
            if picture.name not in images:
                (folder / f"{picture.name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write into {folder} ({error.strerror}); choose another output folder.") from error
    written = [folder / f"{name}.png" for name in images]
    for path, data in zip(written, images.values(), strict=True):
        write_whole(path, lambda target, data=data: target.write(data))
    return written


def render_report(result: Result, images: Mapping[str, bytes], measured: Sequence[Quantity] = ()) -> str:
    """The report as HTML text, with the pictures of `draw_all` inside."""
    template = _environment().from_string(_template("report.html.jinja"))
    css, script = _template("report.css"), _viewer_script()
    return template.render(
        result=result,
        summary=summary,
        tables=tables,
        error_rows=error_rows,
        pictures={picture.name: _shown(picture, images[picture.name]) for picture in PICTURES if picture.name in images},
        measured=tables.measured_rows(measured),
        measured_head=tables.MEASURED_HEAD,
        viewer=viewer_data(result),
        data=_as_json,
        css=Markup(css),
        script=Markup(script),
        policy=_policy(css, script),
    )


def page_of(template: str, *, pictures: Sequence[tuple[bytes, str]], script: str = "", **values: object) -> str:
    """A page from a template: ``pictures`` are bytes of PNG files with what they show, ``script`` the name of its script."""
    css, code = _template("report.css"), _template(script) if script else ""
    shown = [{"text": text, "url": _url(image)} for image, text in pictures]
    page = _environment().from_string(_template(template))
    fixed = {"css": Markup(css), "script": Markup(code), "policy": _policy(css, code), "data": _as_json}
    return page.render(pictures=shown, **fixed, **values)


def _viewer_script() -> str:
    """All parts in one function, so that their names are not the window's."""
    return '"use strict";\n(() => {\n' + "".join(map(_template, _SCRIPTS)) + "})();\n"


def _as_json(value: object) -> Markup:
    return Markup(json.dumps(value).replace("<", "\\u003c"))


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown_text)


def _policy(css: str, script: str) -> str:
    """What a browser lets the page do: its own script and style, by their hashes, and pictures that are in it; nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(part.encode("utf-8")).digest()).decode() for part in (script, css)]
    allowed = f"script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _shown_text(value: object) -> object:
    """Text of a file without what a screen would obey; markup that is ours, and numbers, as they are."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _shown(picture: Picture, image: bytes) -> dict[str, str | Markup]:
    return {"title": picture.title, "text": picture.text, "url": _url(image)}


def _url(image: bytes) -> Markup:
    return Markup(f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}")


def _template(name: str) -> str:
    return (resources.files("ctuq.app.report") / "templates" / name).read_text(encoding="utf-8")
