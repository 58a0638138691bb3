"""Scripts over the public API: what the figures and tables of the documentation are made with."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FIGURES = Path(os.environ.get("CTUQ_FIGURES") or ROOT / "figures")
"""Where tables and figures go; the environment's variable CTUQ_FIGURES names another folder, so that a trial spoils none."""
