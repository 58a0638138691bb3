"""A volume's reconstruction and its file: HDF5 in the manner of NXtomoproc that reads back equal, whole or slice by slice."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from ctuq import records
from ctuq.errors import InputError
from ctuq.files.formats.ownscan import grid_tree
from ctuq.files.formats.ownvolume import RESULT, space_from_tree, space_tree
from ctuq.guard import reading
from ctuq.systematics.catalogue import KINDS
from ctuq.text import shortened
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Provenance
from ctuq.tomo.space import VolumeGeometry
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.elsewhere import LayerData, as_dataset, as_layers, axes_of
from ctuq.uncertainty.results.shown import Shown
from ctuq.uncertainty.results.volume_questions import MeasuredVolume

KIND = RESULT
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
_IMAGES = ("mean", "std", "truth", "samples")
_KEPT = ("directions", "effects")
"""What a stack's slices keep of their covariance."""
_STORED = {"mean": "data"}
_Made = TypeVar("_Made")


def slices_of(box: Box | None) -> tuple[slice, ...]:
    """The slices along z, y and x of a box of voxels; all of a volume if None."""
    return (slice(None),) * 3 if box is None else tuple(slice(*ends) for ends in box)


def require_box(box: Box, shape: tuple[int, ...]) -> None:
    """Refuse a box that does not lie in a volume.

    Raises
    ------
    InputError
    """
    for name, (first, last), n in zip("zyx", box, shape, strict=True):
        if not 0 <= first < last <= n:
            raise InputError(f"The region of interest takes the voxels {first}:{last} along {name}, and there are 0:{n}.")


@dataclass(frozen=True, eq=False, repr=False)
class VolumeResult(Shown, MeasuredVolume):
    """A reconstructed volume.

    Parameters
    ----------
    mean : array of float32, shape (z, y, x)
        Attenuation in 1/mm; slice 0 is the lowest, row 0 at the largest y. NaN in slices that could not be made.
    grid : VolumeGrid
    geometry : ConeBeam, Parallel3D or FreeBeam
        Of the views that were used.
    method : str
    provenance : Provenance
        Of the scan.
    std : array of float32, same shape, optional
        Calibrated standard deviation of each voxel in 1/mm, NaN outside of ``roi``; None without error bars.
    slice_pitch : float, optional
        From slice to slice, mm, where that is not the grid's voxel.
    truth : array of float32, same shape, optional
    scores : mapping of str to float
        Against the truth, and trust figures of the error bars.
    slices : mapping of str to array, shape (z,)
        Of a stack: what each slice's own job told, by name.
    timings : mapping of str to float
        Wall seconds of each stage.
    settings, versions : mapping
    warnings : tuple of str
        What the user should know before trusting the figures, beginning with those of the scan.
    history : mapping of str to array
        Of a deep image prior's fit: "iteration", "loss" and "held_out_loss" (weighted mean squared residuals) at each look.
    held_views : array of int, optional
        Indices of the views that were kept out of the fit and stopped it.
    rays : str
        A hash of the scan's rays, weights and geometry.
    samples : array of float32, shape (sample, z, y, x), optional
        Draws of ``roi`` from the posterior, calibrated as ``std``.
    roi : tuple of tuple of int, optional
        Voxels with error bars along z, y and x, each from the first to one behind the last; None for all.
    std_error : float
        Relative error of ``std`` by its draws and by the network's directions that were left out, rms over the voxels.
    sigma2, prior, log_evidence
        As of `ctuq.Result`.
    calibration : Calibration, optional
        None when no view was held out.
    trust : mapping of str to mapping of str to float
        Scores of the error bars: "truth", "held_out", "held_out_raw" and "leave_one_angle_out".
    directions : array of float32, shape (z, k, y, x), optional
        Of a stack: the covariance of each slice in few images, calibrated as ``std``; see `MeasuredVolume.slice`.
    waves : int
        Smooth images along each axis whose covariance ``directions`` hold exactly.
    hidden : tuple of str
        Of a stack: systematic errors that no ray tells and that the error bars hold.
    effects : array of float32, shape (z, hidden, y, x), optional
        What a standard deviation of each of them does to each slice, 1/mm.
    alike : array of float64, shape (z,), optional
        Of a stack: correlation of the errors of slices 0, 1, 2, ... apart, by their held-out rays
        (`ctuq.quantities.through.likeness`); None where no rays tell.
    plan : mapping
        What the error bars were estimated to take (`ctuq.pipeline.running.plan.Plan.record`).
    """

    mean: NDArray[np.float32]
    grid: VolumeGrid
    geometry: VolumeGeometry
    method: str
    provenance: Provenance = field(default_factory=Provenance)
    std: NDArray[np.float32] | None = None
    slice_pitch: float | None = None
    truth: NDArray[np.float32] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    slices: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str | float | int | bool | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    history: Mapping[str, NDArray] = field(default_factory=dict)
    held_views: NDArray[np.int64] | None = None
    rays: str = ""
    samples: NDArray[np.float32] | None = None
    roi: Box | None = None
    std_error: float = 0.0
    sigma2: float = float("nan")
    prior: Mapping[str, float] = field(default_factory=dict)
    log_evidence: float = float("nan")
    calibration: Calibration | None = None
    trust: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    plan: Mapping[str, str | float | int | bool] = field(default_factory=dict)
    directions: NDArray[np.float32] | None = None
    waves: int = 0
    hidden: tuple[str, ...] = ()
    effects: NDArray[np.float32] | None = None
    alike: NDArray[np.float64] | None = None

    def to_napari(self) -> list[LayerData]:
        """Layer data tuples for napari, in mm: ``viewer.add_layer(napari.layers.Layer.create(*layer))`` for each.

        Samples are a stack to flip through. napari's y runs downwards: its positions are those of -y.
        """
        return as_layers(self._whole_images(), axes_of(self.grid, self.pitches), self._about())

    def to_xarray(self) -> Any:
        """An ``xarray.Dataset``: mean, std, truth and samples in 1/mm along coordinates in mm; y falls with the row.

        Raises
        ------
        BackendError
            If xarray is not installed.
        """
        return as_dataset(self._whole_images(), axes_of(self.grid, self.pitches), self._about())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        """The mean, for NumPy."""
        return np.array(self.mean, dtype=dtype, copy=copy)

    def _whole_images(self) -> dict[str, NDArray]:
        """Those on the whole grid: samples of a region are not."""
        return {name: values for name, values in self.images.items() if name != "samples" or self.roi is None}

    def _about(self) -> dict[str, Any]:
        return {"method": self.method, "source": self.provenance.source, "ctuq": self.versions.get("ctuq")}

    @property
    def held_out_misfit(self) -> float | None:
        """Weighted mean squared residual of the rays that the fit has not seen; None of other methods."""
        return float(self.history["held_out_loss"].min()) if "held_out_loss" in self.history else None

    @property
    def images(self) -> dict[str, NDArray[np.float32]]:
        """The volumes that there are, by name."""
        return {name: getattr(self, name) for name in _IMAGES if getattr(self, name) is not None}

    @property
    def kept(self) -> dict[str, NDArray[np.float32]]:
        """What slices of a stack keep of their covariance, by name."""
        return {name: getattr(self, name) for name in _KEPT if getattr(self, name) is not None}

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one HDF5 file, whole or not at all; the volume is chunked, so that slices can be read alone.

        Volumes that are `ctuq.records.Blocks` are written slice by slice, and never are in memory.

        Raises
        ------
        InputError, ResourceError
            If the file cannot be written.
        """
        images = {_STORED.get(name, name): volume for name, volume in (self.images | self.kept).items()}
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in (*_IMAGES, *_KEPT)}
        found = self.calibration
        rest |= {
            "calibration": None if found is None else {f.name: getattr(found, f.name) for f in fields(Calibration)},
            "grid": grid_tree(self.grid),
            "geometry": space_tree(self.geometry),
            "provenance": {f.name: getattr(self.provenance, f.name) for f in fields(Provenance)},
        }
        entry = {
            "title": f"{self.method} reconstruction of {self.provenance.source}",
            "definition": "NXtomoproc",
            "reconstruction": {
                "program": "ctuq",
                "version": self.versions.get("ctuq", "unknown"),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "parameters": {"raw_file": self.provenance.source, "raw_file_sha256": self.provenance.sha256, **self.settings},
            },
            "data": {**images, **axes_of(self.grid, self.pitches)},
            "ctuq": rest,
        }
        records.write(path, {"entry": entry}, kind=KIND, attributes=_attributes(images))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "VolumeResult":
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, truncated or foreign.
        """
        data = records.read(path, kind=KIND)
        with reading(path, "a volume of ctuq"):
            return _checked(path, lambda: _volume(data["entry"]["ctuq"], data["entry"]["data"]))

    @classmethod
    @contextmanager
    def open(cls, path: str | os.PathLike) -> "Iterator[VolumeResult]":
        """As `load`, but the volumes stay in the file: ``result.mean[4]`` reads one slice, for as long as the block runs.

        Raises
        ------
        InputError
            As `load`.
        """
        with records.opened_record(path, kind=KIND) as file:
            with reading(path, "a volume of ctuq"):
                rest = _checked(path, lambda: records.tree_in(file["entry"], Path(path), ("ctuq",))["ctuq"])
                result = _checked(path, lambda: _volume(rest, _stored(file["entry/data"])))
            yield result


def _checked(path: str | os.PathLike, make: Callable[[], _Made]) -> _Made:
    try:
        return make()
    except (InputError, KeyError, TypeError) as error:
        why = shortened(error, 300)
        raise InputError(f"'{path}' is a volume of ours with parts missing or wrong ({why}); make it again.") from error


def _stored(group: Any) -> dict[str, Any]:
    """The volumes of a file, unread: each one of its own, in chunks that are in the file."""
    found = {}
    for name in (_STORED.get(name, name) for name in (*_IMAGES, *_KEPT)):
        if name not in group:
            continue
        node = group[name]
        plain = isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(node, h5py.Dataset)
        if not plain or node.is_virtual or node.external or node.dtype != np.float32:
            raise InputError(f"'{name}' is no volume of float32 in the file itself")
        found[name] = node
    return found


def _volume(rest: Mapping[str, Any], data: Mapping[str, Any]) -> VolumeResult:
    parts = {
        "grid": records.made(VolumeGrid, rest["grid"]),
        "geometry": space_from_tree(rest["geometry"]),
        "provenance": records.made(Provenance, rest["provenance"]),
    }
    calibration = rest.get("calibration")
    parts["calibration"] = None if calibration is None else records.made(Calibration, calibration)
    volumes = {name: data.get(_STORED.get(name, name)) for name in (*_IMAGES, *_KEPT)}
    if volumes["mean"] is None:
        raise InputError("the volume itself is missing")
    _refuse_other_shapes({name: volumes[name] for name in _IMAGES}, parts["grid"].shape, rest.get("roi"))
    _refuse_other_covariances({name: volumes[name] for name in _KEPT}, parts["grid"].shape, rest)
    kept = {name: volume for name, volume in volumes.items() if isinstance(volume, h5py.Dataset)}
    held = {name: np.zeros(0, np.float32) if name in kept else volume for name, volume in volumes.items()}
    return replace(records.made(VolumeResult, {**rest, **parts, **held}), **kept)


def _refuse_other_shapes(volumes: Mapping[str, Any], shape: tuple[int, ...], roi: Any) -> None:
    """Refuse volumes that are not on the grid, and samples that are not of the region of interest."""
    if roi is not None:
        require_box(roi, shape)
    part = shape if roi is None else tuple(int(last - first) for first, last in roi)
    for name, volume in volumes.items():
        found = getattr(volume, "shape", None)
        wanted = shape if name != "samples" else (*(found or ())[:1], *part)
        if volume is not None and found != wanted:
            raise InputError(f"'{name}' has shape {found}, not {wanted}")


def _refuse_other_covariances(kept: Mapping[str, Any], shape: tuple[int, ...], rest: Mapping[str, Any]) -> None:
    """Refuse covariances that are not of the grid's slices."""
    hidden, waves, alike = rest.get("hidden", ()), rest.get("waves", 0), rest.get("alike")
    counts = {"directions": None, "effects": len(hidden)}
    for name, volume in kept.items():
        found = getattr(volume, "shape", None)
        if volume is not None and not (found is not None and len(found) == 4 and (found[0], *found[2:]) == shape):
            raise InputError(f"'{name}' has shape {found}, and the slices {shape}")
        if volume is not None and counts[name] not in (None, volume.shape[1]):
            raise InputError(f"'{name}' has shape {found}, and there are {counts[name]} of them")
    if (kept["effects"] is None) != (not hidden) or not all(name in KINDS for name in hidden):
        raise InputError("the effects of hidden errors are not those that are named")
    if not 0 <= waves <= min(shape[1:]):
        raise InputError(f"there are {waves} waves along each axis")
    if alike is not None and not (np.shape(alike) == shape[:1] and bool(np.all((alike >= 0) & (alike <= 1)))):
        raise InputError("how alike slices err is no correlation for each distance of slices")


def _attributes(images: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    classes = {
        "entry": "NXentry",
        "entry/reconstruction": "NXprocess",
        "entry/reconstruction/parameters": "NXparameters",
        "entry/data": "NXdata",
        "entry/ctuq": "NXcollection",
    }
    attributes = {node: {"NX_class": name} for node, name in classes.items()}
    attributes["entry"]["default"] = "data"
    attributes["entry/data"] |= {"signal": "data", "axes": "z:y:x"}
    attributes |= {f"entry/data/{name}": {"units": "1/mm"} for name in images}
    return attributes | {f"entry/data/{axis}": {"units": "mm"} for axis in "zyx"}
