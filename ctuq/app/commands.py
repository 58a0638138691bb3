"""What each command does: read, call the library, write. Imported only when a command runs."""

import logging
import os
import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

import ctuq.files as files
from ctuq.app import cli, info as describing
from ctuq.app.doctor import FAIL, OK, WARN, examine, usable
from ctuq.app.drawing import draw_geometry
from ctuq.app.progress import BarSafeHandler, ProgressBar
from ctuq.app.report import png_bytes, write_figures, write_report
from ctuq.app.summary import sentences
from ctuq.app.views import selected
from ctuq.errors import CtuqError, InputError
from ctuq.pipeline import ReconstructOptions, reconstruct as reconstruct_scan
from ctuq.records import write_whole
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, default_grid, radians
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate as simulate_scan
from ctuq.uncertainty.result import Result
