"""A processor of the Core Imaging Library (CIL): AcquisitionData of a slice in, ImageData with error bars out."""

from typing import Any

import numpy as np

from ctuq.pipeline.image.job import reconstruct
from ctuq.tomo.rays.cil import framework, from_cil, to_cil
from ctuq.tomo.scan import Provenance, Scan
from ctuq.uncertainty.results.image import Result

_MM = "CIL says no unit of length: its positions are taken to be mm, its data line integrals."


def scan_of_cil(data: Any) -> Scan:
    """A scan of CIL's ``AcquisitionData`` (angle, horizontal) of line integrals.

    Raises
    ------
    GeometryError
        If it has rows or energy channels, or is no circular scan.
    """
    geometry, is_reversed = from_cil(data.geometry)
    values = np.asarray(data.as_array(), np.float32)
    values = values.T if data.geometry.dimension_labels[0] == "horizontal" else values
    values = np.ascontiguousarray(values[:, ::-1] if is_reversed else values)
    return Scan(values, geometry, provenance=Provenance("AcquisitionData of CIL")).warned(_MM)


def image_data(result: Result, name: str = "mean") -> Any:
    """The mean, or another image of a result by its name, as CIL's ``ImageData``."""
    made = to_cil(result.grid, result.scan.geometry)[0].allocate(None)
    made.fill(np.ascontiguousarray(getattr(result, name)[::-1], np.float32))
    return made


def processor(**settings: Any) -> Any:
    """A ``cil.framework.Processor`` that reconstructs by `ctuq.reconstruct`.

    ``processor.set_input(data)`` and ``processor.get_output()`` give the mean as ``ImageData``; then ``processor.result`` is
    the `ctuq.Result`, and ``image_data(processor.result, "std")`` its error bars.

    Parameters
    ----------
    **settings
        As of `ctuq.reconstruct`, such as ``size=128``.

    Raises
    ------
    BackendError
        If CIL is not installed.
    """
    base: Any = framework().Processor

    class Reconstructor(base):
        """CIL's processors know no attributes but those that they begin with."""

        def __init__(self):
            super().__init__(settings=settings, result=None)

        def check_input(self, dataset: Any) -> bool:
            """Whether it is of a slice; else the reason is raised."""
            from_cil(dataset.geometry)
            return True

        def process(self, out: Any = None) -> Any:
            """Reconstruct."""
            # Written past CIL's own assignment, which would ask for another run.
            self.__dict__["result"] = reconstruct(scan_of_cil(self.get_input()), **self.settings)
            image = image_data(self.result)
            if out is None:
                return image
            out.fill(image.as_array())
            return None

    return Reconstructor()
