"""One self-contained HTML page about a result: no network, no other file."""

import base64
import io
import json
import os
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ctuq.app import summary, tables
from ctuq.app.pictures import Picture, pictures_of
from ctuq.app.viewer import viewer_data
from ctuq.errors import InputError
from ctuq.records import write_whole
from ctuq.uncertainty.result import Result

_DPI = 110


def write_report(result: Result, path: str | os.PathLike) -> None:
    """Write the report of a result; the file appears under its name only when it is complete.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    ResourceError
        If the disk is full.
    """
    page = render_report(result).encode("utf-8")
    write_whole(path, lambda target: target.write(page))


def write_figures(result: Result, folder: str | os.PathLike) -> list[Path]:
    """Write each picture of a result as a PNG into a folder, which is made if needed.

    Raises
    ------
    InputError, ResourceError
        As `write_report`.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {folder} ({error.strerror}); choose another output folder.") from error
    written = []
    for picture in pictures_of(result):
        path = folder / f"{picture.name}.png"
        data = png_bytes(picture.draw(result))
        write_whole(path, lambda target, data=data: target.write(data))
        written.append(path)
    return written


def render_report(result: Result) -> str:
    """The report as HTML text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_template("report.html.jinja"))
    return template.render(
        result=result,
        summary=summary,
        tables=tables,
        pictures={picture.name: _shown(picture, result) for picture in pictures_of(result)},
        viewer=viewer_data(result),
        data=lambda value: Markup(json.dumps(value).replace("<", "\\u003c")),
        css=Markup(_template("report.css")),
        script=Markup(_template("report.js")),
    )


def png_bytes(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _shown(picture: Picture, result: Result) -> dict[str, str]:
    data = base64.b64encode(png_bytes(picture.draw(result))).decode("ascii")
    return {"title": picture.title, "text": picture.text, "url": f"data:image/png;base64,{data}"}


def _template(name: str) -> str:
    return (resources.files("ctuq.app") / "templates" / name).read_text(encoding="utf-8")
