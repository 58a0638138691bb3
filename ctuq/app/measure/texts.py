"""How regions, limits and lines are written, on the command line and in a YAML file alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import TypedDict

from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.masks import read_mask
from ctuq.quantities import Box, Circle, Cylinder, Polygon, Rectangle, Sphere
from ctuq.quantities.lines import Point

Shape = Circle | Rectangle | Polygon | Sphere | Box | Cylinder | NDArray
SOLIDS = (Sphere, Box, Cylinder)
Limit = Mapping[str, float]


class Sides(TypedDict):
    """Arguments of a probability."""

    above: float | None
    below: float | None
    at_least: float | None


_SHAPES = (
    "circle:x,y,r or rectangle:x0,y0,x1,y1 or polygon:x,y,x,y,... of a slice, sphere:x,y,z,r or box:x0,y0,z0,x1,y1,z1 or "
    "cylinder:x,y,r,z0,z1 of a volume, in mm, or mask:FILE of either"
)


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Parameters
    ----------
    regions : mapping of str to region
    contrasts : tuple of pairs of names
    probabilities : tuple of {"above": x} or {"below": x}, with "at_least" where a part is asked for
    fractions, centres : tuple of {"above": x} or {"below": x}
    profiles : tuple of pairs of points
    walls : tuple of two points and a level or None
    """

    regions: Mapping[str, Shape] = field(default_factory=dict)
    contrasts: tuple[tuple[str, str], ...] = ()
    probabilities: tuple[Limit, ...] = ()
    fractions: tuple[Limit, ...] = ()
    centres: tuple[Limit, ...] = ()
    profiles: tuple[tuple[Point, Point], ...] = ()
    walls: tuple[tuple[Point, Point, float | None], ...] = ()


def regions(texts: Sequence[str], taken: Mapping[str, Shape] | None = None) -> dict[str, Shape]:
    """Regions by name; those without one are a, b, c, ..., of what is not taken.

    Raises
    ------
    InputError
        If a text is no region, or a name stands twice.
    """
    known, found = dict(taken or {}), dict[str, Shape]()
    for text in texts:
        head, mark, rest = text.partition("=")
        # The name of a mask's file may have an equals sign.
        mark = mark if ":" not in head else ""
        name = new_name(head, known) if mark else _free(known)
        known[name] = found[name] = shape(rest if mark else text)
    return found


def new_name(text: str, taken: Mapping[str, Shape]) -> str:
    """The name of a region without spaces around it.

    Raises
    ------
    InputError
        If it is empty or taken.
    """
    name = text.strip()
    if not name or name in taken:
        raise InputError(f"The region's name {name!r} is empty or stands twice; give each region a name of its own.")
    return name


def shape(text: str) -> Shape:  # noqa: PLR0911
    """The region that a text such as ``circle:0,0,5`` names."""
    kind, mark, numbers = text.strip().partition(":")
    if mark and kind.strip().lower() == "mask":
        return read_mask(numbers.strip())
    values = _numbers(numbers, text, _SHAPES) if mark else []
    match kind.strip().lower(), len(values):
        case "circle", 3:
            return Circle(*values)
        case "rectangle" | "rect", 4:
            return Rectangle(*values)
        case "polygon", n if n >= 6 and n % 2 == 0:
            return Polygon(list(zip(values[::2], values[1::2], strict=True)))
        case "sphere", 4:
            return Sphere(*values)
        case "box", 6:
            return Box(*values)
        case "cylinder", 5:
            return Cylinder(*values)
    raise InputError(f"A region is {_SHAPES}, not {text!r}.")


def limit(text: str, option: str) -> dict[str, float]:
    """``above=X`` or ``below=X``."""
    side, mark, number = text.partition("=")
    what = f"{option} takes above=X or below=X with X in 1/mm, such as above=0.02"
    if side.strip() not in ("above", "below") or not mark:
        raise InputError(f"{what}, not {text!r}.")
    values = _numbers(number, text, what, subject="")
    if len(values) != 1:
        raise InputError(f"{what}, not {text!r}.")
    return {side.strip(): values[0]}


def sides(limit: Limit) -> Sides:
    """A limit as the arguments of a quantity."""
    return {"above": limit.get("above"), "below": limit.get("below"), "at_least": limit.get("at_least")}


def limit_in_words(limit: Limit) -> str:
    """Such as "above 0.02"."""
    return " ".join(f"{side} {value:g}" for side, value in limit.items())


def chance(text: str) -> dict[str, float]:
    """``above=X`` or ``below=X``, and maybe ``,at_least=A``."""
    head, mark, tail = text.partition(",")
    what = "--probability takes above=X or below=X in 1/mm, and for a part of a size in mm^2 or mm^3 after it ,at_least=A"
    name, equals, size = tail.partition("=")
    if not mark:
        return limit(head, "--probability")
    values = _numbers(size, text, what, subject="")
    if name.strip() != "at_least" or not equals or len(values) != 1:
        raise InputError(f"{what}, not {text!r}.")
    return limit(head, "--probability") | {"at_least": values[0]}


def segment(text: str, option: str) -> tuple[Point, Point]:
    """Two points of ``X0,Y0,X1,Y1``."""
    what = f"{option} takes a line of two points x0,y0,x1,y1 in mm, such as -5,0,5,0"
    values = _numbers(text, text, what, subject="")
    if len(values) != 4:
        raise InputError(f"{what}, not {text!r}.")
    return (values[0], values[1]), (values[2], values[3])


def wall(text: str) -> tuple[Point, Point, float | None]:
    """Two points and, maybe, a level of ``X0,Y0,X1,Y1[,X]``."""
    what = "--thickness takes a line x0,y0,x1,y1 in mm, and after a comma the level in 1/mm if it is not to be half way"
    values = _numbers(text, text, what, subject="")
    if len(values) not in (4, 5):
        raise InputError(f"{what}, not {text!r}.")
    return (values[0], values[1]), (values[2], values[3]), values[4] if len(values) == 5 else None


def pair(text: str, known: Mapping[str, Shape]) -> tuple[str, str]:
    """Two names of regions, ``A,B``."""
    names = [part.strip() for part in text.split(",")]
    if len(names) != 2 or not set(names) <= set(known):
        told = ", ".join(known) or "none"
        raise InputError(f"--contrast takes the names of two regions such as a,b, not {text!r}; the regions are: {told}.")
    return names[0], names[1]


def _free(taken: Mapping[str, Shape]) -> str:
    return next(name for n in range(len(taken) + 1) if (name := _letters(n)) not in taken)


def _letters(n: int) -> str:
    return (_letters(n // 26 - 1) if n >= 26 else "") + ascii_lowercase[n % 26]


def _numbers(text: str, whole: str, what: str, subject: str = "A region is ") -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{subject}{what}, not {whole!r}.") from None
