"""What a user would do with a file, and a hash of what came of it."""

import hashlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctuq import files
from ctuq.app.design.text import log_lines, status_lines
from ctuq.app.report.space import geometry_lines
from ctuq.app.report.summary import sentences
from ctuq.app.report.tables import hyperparameters, input_rows, score_tables, timing_rows
from ctuq.design.session import file as sessionfile
from ctuq.errors import InputError
from ctuq.files.description import description_of
from ctuq.files.reading import opened, scan_of
from ctuq.pipeline.running.checkpoint import Checkpoint
from ctuq.stages import KeptStages
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import VolumeResult

Seen = tuple[str, set[str]]


def scan(path: Path) -> Seen:
    """As ``ctuq info``."""
    found = opened(path)
    described = [description_of(raw, place) for place, raw in found]
    warnings = {text for description in described for text in description.warnings}
    if any(description.missing for description in described):
        return "missing", warnings | {text for description in described for text in description.missing}
    whole = scan_of(found)
    parts = {"projections": whole.projections, "geometry": whole.geometry, "weights": whole.weights}
    return digest(parts | {"truth": whole.truth, "grid": whole.grid, "facts": dict(whole.provenance.facts)}), {*whole.warnings}


def result(path: Path) -> Seen:
    """As the head and the tables of ``ctuq report``."""
    found = Result.load(path)
    told = sentences(found), hyperparameters(found), input_rows(found), score_tables(found), timing_rows(found)
    kept = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "warnings"}
    return digest((kept, told)), {*found.warnings}


def volume_scan(path: Path) -> Seen:
    """As ``ctuq info --volume``."""
    found = files.read_volume(path)
    kept = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "provenance"}
    return digest((kept, geometry_lines(found.geometry), dict(found.provenance.facts))), {*found.warnings}


def volume_result(path: Path) -> Seen:
    """As ``ctuq report`` of a volume."""
    found = VolumeResult.load(path)
    kept = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "warnings"}
    return digest((kept, geometry_lines(found.geometry))), {*found.warnings}


def session(path: Path) -> Seen:
    """As ``ctuq design status``."""
    record = sessionfile.read(path)
    return digest((status_lines(record), log_lines(record), record)), set()


def checkpoint(path: Path) -> Seen:
    """As the beginning of ``ctuq reconstruct --resume``."""
    found = Checkpoint(path, "data", {"size": 4})
    return digest((found.threads, found.way, found._state, found._seconds)), set()


def stage(path: Path) -> Seen:
    """As a run that goes on: what is damaged is made again."""
    again = InputError(f"'{path}' is damaged and made again.")
    found = KeptStages(path.parent, "a").once(path.stem, lambda: again)
    if found is again:
        raise again
    return digest(found), set()


def digest(value: Any) -> str:
    """A hash of nested values."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if is_dataclass(value):
            value = {f.name: getattr(value, f.name) for f in fields(value)}
        if isinstance(value, dict):
            value = [(key, value[key]) for key in sorted(value)]
        if isinstance(value, list | tuple):
            found.update(f"({len(value)}".encode())
            for each in value:
                add(each)
        elif isinstance(value, np.ndarray):
            found.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        else:
            found.update(f"{type(value).__name__}{value!r}".encode("utf-8", "replace"))

    add(value)
    return found.hexdigest()
