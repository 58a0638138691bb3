"""What a reconstruction leaves behind: the image, how sure it is, and everything needed to judge and repeat it."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.tomo.arrays import as_numbers
from ctuq.uncertainty.results import storage
from ctuq.uncertainty.results.elsewhere import LayerData, as_dataset, as_layers, axes_of
from ctuq.uncertainty.results.shown import Shown
from ctuq.uncertainty.results.with_covariance import Measured


@dataclass(frozen=True, eq=False, repr=False)
class Result(Shown, Measured):
    """A reconstruction with its uncertainty.

    Parameters
    ----------
    mean : array of float32, shape (y, x)
        Attenuation in 1/mm.
    scan : Scan
        The views that were used, with geometry, weights, truth if there is one, and provenance.
    grid : VolumeGrid
        The grid of ``mean``.
    method : str
        "dip", "fbp", "sirt", "cgls" or "tv".
    std : array of float32, shape (y, x), optional
        Standard deviation of each pixel in 1/mm, calibrated where ``calibration`` is given; None without uncertainty.
    std_raw : array of float32, shape (y, x), optional
        The same before calibration.
    std_error : float
        Relative error of ``std`` by its draws, rms over the pixels; 0 where it is exact.
    samples : array of float32, shape (sample, y, x), optional
        Draws from the posterior, calibrated as ``std``.
    directions : array of float32, shape (k, y, x), optional
        The image's covariance in few images, calibrated as ``std``; see `covariance`. None without uncertainty, and where none
        were asked for.
    waves : int
        Smooth images along each axis whose covariance ``directions`` hold exactly.
    sigma2 : float
        Noise variance of a ray of weight 1, calibrated.
    subpixel : float
        Beside it a ray has this times `ctuq.tomo.subpixel.subpixel_variance` of ``mean``: what pixels cannot draw, calibrated.
    prior : mapping of str to float
        Prior hyperparameters.
    log_evidence, log_evidence_error : float
        Of the fitted views' rays (of 3,072 spread evenly, where there are more), nats, and its standard error (0 if exact); NaN
        without uncertainty.
    calibration : Calibration, optional
        None when no view was held out.
    scores : mapping of str to mapping of str to float
        Trust figures by name: "truth" (against the truth), "held_out" (rays of unseen views), "leave_one_angle_out".
    comparisons : mapping of str to array of float32 (y, x)
        Classical reconstructions of the same views.
    truth : array of float32, shape (y, x), optional
        The scan's truth on ``grid``.
    history : mapping of str to array
        What the fit logged: "iteration", "loss", "held_out_loss".
    timings : mapping of str to float
        Wall seconds of each stage.
    plan : mapping of str to str, float or int
        Which way was taken, and what it was estimated to take (`ctuq.pipeline.running.plan.Plan`).
    settings : mapping of str to str, float or int
        Every option of the run.
    versions : mapping of str to str
        Of ctuq and the libraries.
    warnings : tuple of str
        One sentence each: what the user should know before trusting the figures, beginning with those of the scan.
    systematics : mapping of str to Systematic
        What the scanner does wrong, by name (`ctuq.systematics.catalogue`): those that were a part of the model.
    removed : array of float32, shape (angle, column), optional
        What systematic errors have done to the rays, as it was taken out of them before the fit; None for nothing.
    """

    def to_napari(self) -> list[LayerData]:
        """Layer data tuples for napari, in mm: ``viewer.add_layer(napari.layers.Layer.create(*layer))`` for each.

        Samples are a stack to flip through. napari's y runs downwards: its positions are those of -y.
        """
        return as_layers(self._images(), axes_of(self.grid, (self.grid.voxel,) * len(self.grid.shape)), self._about())

    def to_xarray(self) -> Any:
        """An ``xarray.Dataset``: mean, std, truth and samples in 1/mm along coordinates in mm; y falls with the row.

        Raises
        ------
        BackendError
            If xarray is not installed.
        """
        return as_dataset(self._images(), axes_of(self.grid, (self.grid.voxel,) * len(self.grid.shape)), self._about())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        """The mean, for NumPy."""
        return np.array(self.mean, dtype=dtype, copy=copy)

    def _images(self) -> dict[str, NDArray]:
        given = {name: getattr(self, name) for name in ("mean", "std", "truth", "samples")}
        return {name: values for name, values in given.items() if values is not None}

    def _about(self) -> dict[str, Any]:
        return {"method": self.method, "source": self.scan.provenance.source, "ctuq": self.versions.get("ctuq")}

    def covariance(self, functionals: NDArray) -> NDArray[np.float64]:
        """Joint covariance of linear functionals of the image, such as means over regions or profiles, without the network.

        The image's covariance is kept as ``sum_i l_i l_i^T`` over ``directions``, which is exact for smooth functionals, plus
        pixels that are independent but for having no smooth part, which makes up ``std``
        (`ctuq.uncertainty.results.kept_covariance`).
        Standard deviations of means over regions of all sizes are right to some 10 %, and less so where a few pixels of a sharp
        object are far less certain than their neighbours.

        Parameters
        ----------
        functionals : array, shape (n, y, x)
            Weight of each pixel in each functional.

        Returns
        -------
        array of float64, shape (n, n)
            In 1/mm squared, for weights that sum to 1.

        Raises
        ------
        InputError
            If the result has no uncertainty, or the shapes differ.
        """
        weights = np.asarray(as_numbers(functionals, "The functionals hold"), np.float64)
        if weights.ndim != self.mean.ndim + 1 or weights.shape[1:] != self.mean.shape:
            raise InputError(f"The functionals have shape {weights.shape}; give (n, {', '.join(map(str, self.mean.shape))}).")
        if not np.isfinite(weights).all():
            raise InputError("The functionals hold values that are NaN or infinite; give the weight of each pixel.")
        return self._kept(weights.reshape(len(weights), -1))

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one HDF5 file, see `ctuq.uncertainty.results.storage.save`."""
        storage.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Result":
        """Read what `save` wrote, see `ctuq.uncertainty.results.storage.load`."""
        return storage.load(path, cls)
