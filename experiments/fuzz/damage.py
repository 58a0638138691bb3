"""Ways to damage a file; each is told a generator of random numbers and gives a sentence of what it did."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.fuzz import inside

Rng = np.random.Generator
_EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 1 << 40)
_WORDS = (
    *(
        "",
        "nan",
        "inf",
        "-inf",
        "1e300",
        "-1e300",
        "1e-300",
        "-1",
        "0",
        "12.7",
        "9" * 400,
        "1e12",
        "true",
        "null",
        "~",
        "x" * 5000,
    ),
    *(
        "[1, 2, 3]",
        "{a: 1}",
        "[[[[[[]]]]]]",
        "&a [*a, *a]",
        "!!python/object:os.system {}",
        "\\x00",
        "\\x1b[31m",
        "\u202e",
        "<b>",
        "1,5",
    ),
    *(
        "[" * 3000,
        "- " * 500,
        "0x10",
        "1_000",
        "2026-01-01",
        "search",
        "counts",
        "fan",
        "../../x",
        "-0.0",
        "NaN",
        "[true]",
        "[1e999]",
    ),
)


def by_bytes(content: bytes, rng: Rng) -> tuple[bytes, str]:
    """Flips, cuts, insertions, zeros, numbers at their limits."""
    damaged, size = bytearray(content), len(content)
    at = int(rng.integers(size)) if rng.random() < 0.5 else int(rng.integers(min(size, 600)))
    way = int(rng.integers(10))
    if way <= 3:
        for place in [at, *rng.integers(0, size, int(rng.integers(3)))][: 1 + way // 2]:
            damaged[place] ^= 1 << int(rng.integers(8))
        return bytes(damaged), f"bits flipped at {at}"
    if way == 4:
        damaged[at] = int(rng.integers(256))
        return bytes(damaged), f"byte set at {at}"
    if way == 5:
        return bytes(damaged[:at]), f"cut at {at}"
    if way == 6:
        damaged[at : at + int(rng.integers(1, 64))] = b""
        return bytes(damaged), f"bytes taken out at {at}"
    if way == 7:
        damaged[at:at] = rng.bytes(int(rng.integers(1, 64)))
        return bytes(damaged), f"bytes put in at {at}"
    width = int(rng.choice([1, 2, 4, 8]))
    if way == 8:
        damaged[at : at + 4 * width] = bytes(4 * width)
        return bytes(damaged[:size]), f"zeros at {at}"
    number = _EXTREMES[int(rng.integers(len(_EXTREMES)))] % (1 << 8 * width)
    damaged[at : at + width] = number.to_bytes(width, "little" if rng.random() < 0.7 else "big")
    return bytes(damaged[:size]), f"{number} at {at} in {width} bytes"


def by_lines(content: bytes, rng: Rng) -> tuple[bytes, str]:
    """Values of a text file in place of others, lines left out or twice."""
    lines = content.decode("latin-1").split("\n")
    # A table of numbers has no names: its lines are parted at a blank.
    named = [i for i, line in enumerate(lines) if "=" in line or ":" in line] or [i for i, line in enumerate(lines) if line]
    at, way = named[int(rng.integers(len(named)))], int(rng.integers(8))
    mark = next((sign for sign in "=:" if sign in lines[at]), " ")
    name, _, value = lines[at].partition(mark)
    word = _WORDS[int(rng.integers(len(_WORDS)))]
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(int(rng.integers(len(lines))), lines[at])
    elif way == 2:
        lines[at] = f"{word}{mark}{value}"
    elif way == 3:
        lines.insert(at, word)
    else:
        lines[at] = f"{name}{mark} {word}" + (" ;" if value.rstrip().endswith(";") else "")
    return "\n".join(lines).encode("utf-8", "surrogateescape"), f"line {at} ({name.strip()}), way {way}, {word[:30]!r}"


def damage(path: Path, structure: str, rng: Rng) -> tuple[str, bool]:
    """Damage a file in place.

    Parameters
    ----------
    path : Path
    structure : str
        See `experiments.fuzz.seeds.Format`.
    rng : numpy Generator

    Returns
    -------
    str
        What was done.
    bool
        Whether it was rewritten as a sound file of another content, which no checksum can notice.
    """
    changes: dict[str, Callable[[Path, Rng], str]] = {"hdf5": inside.hdf5, "record": inside.record, "npz": inside.npz}
    if structure in changes and rng.random() < 0.5:
        try:
            return changes[structure](path, rng), True
        except (OSError, ValueError, TypeError, RuntimeError, KeyError, zipfile.BadZipFile) as error:
            return f"nothing, as it could not be changed ({type(error).__name__})", True
    content = path.read_bytes()
    by_text = structure == "text" and rng.random() < 0.7
    damaged, told = (by_lines if by_text else by_bytes)(content, rng)
    path.write_bytes(damaged)
    return told, by_text
