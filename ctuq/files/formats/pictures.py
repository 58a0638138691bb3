"""Pictures (TIFF, PNG, FITS): bare numbers that a geometry file makes a scan of."""

import io
import re
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.io import imread

from ctuq.errors import CtuqError, InputError
from ctuq.files.formats import fitspicture
from ctuq.files.formats.raw import TURNED, Pictures, Raw, as_sinogram
from ctuq.files.formats.sizes import refuse_bomb
from ctuq.memory import require_room

_PNG = b"\x89PNG\r\n\x1a\n"
SUFFIXES = (".tif", ".tiff", ".png", *fitspicture.SUFFIXES)
_TIFFS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_JPEG, _JPEGS = b"\xff\xd8\xff", (".jpg", ".jpeg")
_WROTE = "give what the detector wrote, as grey TIFF, PNG or FITS"


class ColouredError(InputError):
    """A picture in colours where grey values are needed."""

    def __init__(self, path: Path):
        super().__init__(f"'{path}' is a colour picture, as a screen shows it; grey values are needed: {_WROTE}.")


def read_pictures(path: Path, row: int | None, told: Pictures = Pictures()) -> Raw:  # noqa: B008
    """Read one sinogram, a multi-page stack of projections or sinograms, or a folder of these.

    Raises
    ------
    InputError
        If a picture is damaged, coloured or of another size than the others, or the folder has none.
    """
    stack = load_pictures(path, told)
    values, row, rows = as_sinogram(stack, row, str(path), stack=told.stack)
    name = "folder of pictures" if path.is_dir() else "picture"
    known, turned = stack.ndim == 2 or told.stack is not None, stack.ndim == 3 and told.stack == TURNED
    raw = Raw(name, values, "log", {}, row=row, rows=rows, order_known=known, turned=turned)
    return raw.warned(*_gap(path, told)) if path.is_dir() else raw


def load_pictures(path: Path, told: Pictures = Pictures()) -> NDArray:  # noqa: B008
    """The numbers of a picture (2 axes), of a stack, or of a folder or a pattern of pictures (3 axes: angle, row, column).

    Pictures of a folder or a pattern ("flat_*.tif") are taken in the natural order of their names.

    Raises
    ------
    InputError
        As `read_pictures`.
    """
    if path.is_dir():
        return _stacked(_names(path, told))
    if alike := matching(path):
        return _stacked(alike)
    values = load_picture(path)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InputError(f"'{path}' has shape {values.shape}; one picture or one stack of pictures is needed.")
    return values


def load_picture(path: Path) -> NDArray:
    """The grey values of a picture, of a multi-page TIFF or of a FITS file.

    Raises
    ------
    InputError
        If it is damaged, coloured or missing.
    BackendError
        If it is FITS and astropy is not installed.
    """
    start = _start(path)
    refuse_jpeg(path, start)
    if fitspicture.is_fits(start) or (not start and path.suffix.lower() in fitspicture.SUFFIXES):
        return fitspicture.load_fits(path)
    tiff = start[:4] in _TIFFS if start else path.suffix.lower() in (".tif", ".tiff")
    try:
        values = _tiff(path) if tiff else _png(path)
    except CtuqError:
        raise
    except Exception as error:  # each decoder raises its own types on damaged files
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"'{path}' cannot be read ({error.strerror.lower()}); name a picture.") from error
        raise InputError(f"'{path}' is not a whole {'TIFF' if tiff else 'PNG'} picture; copy it again.") from error
    if values.ndim == 3 and not tiff:
        raise ColouredError(path)
    return values


def refuse_jpeg(path: Path, start: bytes) -> None:
    """Refuse a JPEG picture: its packing changes values as much as noise does, and not alike from ray to ray.

    Raises
    ------
    InputError
        If the file begins as one.
    """
    if start.startswith(_JPEG):
        raise InputError(f"'{path}' is a JPEG picture, whose values were changed to make it small; {_WROTE}.")


def _start(path: Path) -> bytes:
    """The first bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(fitspicture.MAGIC))
    except OSError:
        return b""


def _tiff(path: Path) -> NDArray:
    """All pages of a TIFF, which must be grey and of one size."""
    with tifffile.TiffFile(path) as file:
        declared = sum(series.size * series.dtype.itemsize for series in file.series)
        refuse_bomb(declared, path.stat().st_size, f"'{path}'")
        require_room((declared,), 1, f"'{path}'", "save its pages one by one in a folder")
        coloured = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.YCBCR)
        if file.pages.first.samplesperpixel > 1 or file.pages.first.photometric in coloured:
            raise ColouredError(path)
        if len(file.series) > 1:
            sizes = " and ".join(str(series.shape) for series in file.series[:2])
            raise InputError(f"'{path}' holds pictures of several sizes, {sizes}; give a file of one size.")
        _refuse_beyond(file, path)
        packed = tifffile.COMPRESSION(file.pages.first.compression).name
        try:
            return np.asarray(file.asarray())
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
        return _unpacked(path, file.series[0].shape, file.series[0].dtype, packed)


def _unpacked(path: Path, shape: tuple[int, ...], dtype: np.dtype, packed: str) -> NDArray:
    """A TIFF in a compression that tifffile does not know by itself, such as LZW (OpenCV's own), as Pillow reads it."""
    from PIL import Image

    with Image.open(path) as picture:
        pages = []
        for n in range(getattr(picture, "n_frames", 1)):
            picture.seek(n)
            pages.append(np.array(picture))
    values = pages[0] if len(pages) == 1 else np.stack(pages)
    kept = values.astype(dtype)
    if values.size != np.prod(shape) or not np.array_equal(kept, values, equal_nan=dtype.kind == "f"):
        raise InputError(f"'{path}' is a TIFF of {dtype} in {packed} compression, which is not read; save it uncompressed.")
    return kept.reshape(shape)


def _refuse_beyond(file: tifffile.TiffFile, path: Path) -> None:
    """Refuse packed parts that would go on beyond the end of the file: room for all of them is made before they are read."""
    size = path.stat().st_size
    for page in file.pages:
        parts = zip(page.dataoffsets, page.databytecounts, strict=False)
        if page.compression != tifffile.COMPRESSION.NONE and any(start + count > size for start, count in parts):
            raise InputError(f"'{path}' is not a whole TIFF picture: its parts go on beyond its end; copy it again.")


def _png(path: Path) -> NDArray:
    """A PNG picture, whose checksums are compared first, as decoders do not with those of the values."""
    content = path.read_bytes()
    if content and not content.startswith(_PNG):
        raise InputError(f"'{path}' is no TIFF, PNG or FITS picture, or its first bytes are damaged; give one of these.")
    at, names = len(_PNG), []
    while at + 12 <= len(content) and names[-1:] != [b"IEND"]:
        size = int.from_bytes(content[at : at + 4], "big")
        chunk, check = content[at + 4 : at + 8 + size], content[at + 8 + size : at + 12 + size]
        if len(check) < 4 or zlib.crc32(chunk) != int.from_bytes(check, "big"):
            break
        names.append(chunk[:4])
        at += 12 + size
    if not content or names[:1] != [b"IHDR"] or names[-1:] != [b"IEND"]:
        raise InputError(f"'{path}' is not a whole PNG picture: its checksums do not match; copy it again.")
    width, height = struct.unpack(">II", content[16:24])
    refuse_bomb(8 * width * height, len(content), f"'{path}'")
    require_room((height, width), 8, f"'{path}'", "cut it to the columns that are needed")
    return np.asarray(imread(io.BytesIO(path.read_bytes())))


def _names(path: Path, told: Pictures) -> list[Path]:
    """The pictures of a folder in natural order, without flats and darks; all must be named alike, or be told by a pattern."""
    names = sorted((p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."), key=_natural)
    if not names:
        others = Counter(p.suffix.lower() for p in path.iterdir() if p.suffix and p.is_file() and p.name[0] != ".")
        kind, count = (others.most_common(1) or [("", 0)])[0]
        hint = _WROTE if kind in _JPEGS else "save them as grey values in one of these"
        there = f" but {count} {kind}; {hint}" if count else ""
        raise InputError(f"The folder '{path}' holds no TIFF, PNG or FITS picture{there}.")
    aside = {each.resolve() for level in told.aside for each in (level, *matching(level))}
    names = [p for p in names if fnmatch(p.name, told.files or "*") and p.resolve() not in aside]
    if not names:
        raise InputError(f"No picture in '{path}' is named like '{told.files or '*'}'; check 'files' in the geometry file.")
    alike = Counter(_NUMBER.sub("#", p.name.lower()) for p in names)
    if len(alike) > 1 and told.files is None:
        kinds = ", ".join(f"{count} like {name}" for name, count in alike.most_common(4))
        raise InputError(
            f"The folder '{path}' holds pictures of several kinds ({kinds}); name the flats and darks as 'flat' and 'dark' in "
            "its geometry file, or its projections by 'files: \"proj_*.tif\"'."
        )
    return names


def matching(path: Path) -> list[Path]:
    """The pictures that a pattern such as "flat_*.tif" names, in natural order; none of a path that exists or is no pattern."""
    if not set("*?") & set(path.name) or path.exists():
        return []
    return sorted((p for p in path.parent.glob(path.name) if p.suffix.lower() in SUFFIXES), key=_natural)


def _stacked(names: Sequence[Path]) -> NDArray:
    pictures = [load_picture(name) for name in names]
    odd = next((n for n, p in zip(names, pictures, strict=True) if p.ndim != 2 or p.shape != pictures[0].shape), None)
    if odd is not None:
        raise InputError(f"'{odd}' has another size than '{names[0].name}'; all projections must have one.")
    refuse_other_types([(name, picture.dtype) for name, picture in zip(names, pictures, strict=True)])
    return np.stack(pictures)


def refuse_other_types(found: Sequence[tuple[Path, np.dtype]]) -> None:
    """Refuse pictures whose numbers are of several types: they were scaled differently when they were saved.

    Raises
    ------
    InputError
        Naming the first of another type.
    """
    first, kind = found[0]
    other = next(((path, dtype) for path, dtype in found if dtype != kind), None)
    if other is not None:
        raise InputError(f"'{other[0]}' holds {other[1]}, but '{first.name}' {kind}: one of them was scaled; save all alike.")


# A sign is one only after something that is no letter and no digit: "view_-30" is negative, "scan-030" is not.
_NUMBER = re.compile(r"((?:(?<![^\W_])-)?\d+(?:\.\d+)?)")


def _natural(path: Path) -> list[float | str]:
    return [float(part) if n % 2 else part.lower() for n, part in enumerate(_NUMBER.split(path.name))]


def _gap(path: Path, told: Pictures) -> tuple[str, ...]:
    """A warning where one of evenly numbered pictures seems to be missing, as all later angles would be wrong then."""
    names = _names(path, told)
    numbers = np.array([numbers[-1] if (numbers := _natural(name)[1::2]) else np.nan for name in names], dtype=np.float64)
    steps = np.diff(numbers)
    if steps.size < 3 or not np.all(steps > 0):
        return ()
    wide = np.flatnonzero(steps > 1.5 * np.median(steps))
    if not 0 < wide.size <= steps.size // 4:
        return ()
    first, last = names[wide[0]].name, names[wide[0] + 1].name
    more = f", and so {wide.size - 1} times more" if wide.size > 1 else ""
    return (f"Between {first} and {last} a picture seems to be missing{more}: the angles must be those of the others.",)
