"""Scans and results as facts for ``--json``: what a program asks for, without the images, which are in the files."""

from typing import Any

import numpy as np

from ctuq.app.report.systematics import error_facts, held_facts
from ctuq.tomo.scan import Scan
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import VolumeResult


def facts_of_scan(scan: Scan | VolumeScan) -> dict[str, Any]:
    """Source, geometry in degrees and mm, what is known beside the projections, and warnings."""
    geometry, told = scan.geometry, scan.provenance
    lengths = ("pixel", "source_to_axis", "source_to_detector", "detector_offset", "axis_offset")
    return {
        "source": told.source,
        "sha256": told.sha256,
        "beam": type(geometry).__name__,
        "views": scan.n_angles,
        "shape": geometry.shape,
        "angles_deg": np.round(np.rad2deg(geometry.angles), 9),
        "lengths_mm": {name: getattr(geometry, name) for name in lengths if hasattr(geometry, name)},
        "has_weights": scan.weights is not None,
        "has_truth": scan.truth is not None,
        "steps": told.steps,
        "warnings": scan.warnings,
    }


def facts_of_result(result: Result) -> dict[str, Any]:
    """Grid, scores, scales, timings, settings and warnings of an image."""
    return {
        "views": result.scan.n_angles,
        "scores": result.scores,
        "systematics": error_facts(result),
        **_shared(result),
    }


def facts_of_volume(result: VolumeResult) -> dict[str, Any]:
    """As `facts_of_result`, of a volume or a stack."""
    return {
        "views": len(result.geometry.angles),
        "scores": {**result.trust, "volume": result.scores},
        "systematics": held_facts(result),
        **_shared(result),
    }


def _shared(result: Result | VolumeResult) -> dict[str, Any]:
    return {
        "method": result.method,
        "grid": _grid(result),
        "has_uncertainty": result.std is not None,
        "std_error": result.std_error,
        "sigma2": result.sigma2,
        "log_evidence": result.log_evidence,
        "calibration": _scales(result.calibration),
        "seconds": result.timings,
        "settings": result.settings,
        "versions": result.versions,
        "warnings": result.warnings,
    }


def _grid(result: Result | VolumeResult) -> dict[str, Any]:
    return {"shape": result.grid.shape, "voxel_mm": result.grid.voxel, "centre_mm": result.grid.centre}


def _scales(found: Calibration | None) -> dict[str, Any] | None:
    """All but the rays."""
    if found is None:
        return None
    return {name: getattr(found, name) for name in Calibration.__dataclass_fields__ if name != "predictions"}
