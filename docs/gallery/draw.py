"""Make every picture of ``docs/gallery.md`` by the script that stands above it: ``python docs/gallery/draw.py``.

Words choose pictures: ``python docs/gallery/draw.py draws.png``.
"""

import os
import re
import sys
from pathlib import Path

import matplotlib as mpl

HERE = Path(__file__).resolve().parent
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def scripts() -> list[str]:
    """The page's scripts, in order."""
    return _BLOCK.findall((HERE.parent / "gallery.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    mpl.use("Agg")
    os.chdir(HERE)
    for script in (each for each in scripts() if not sys.argv[1:] or any(name in each for name in sys.argv[1:])):
        exec(compile(script, "gallery.md", "exec"), {})
