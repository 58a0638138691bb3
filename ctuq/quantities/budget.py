"""What makes up the variance of a linear quantity.

With P the image's covariance given the rays, A the rays and R their noise, the estimate's gain is ``K = P A^T R^-1``. So the
part of ``w P w`` that the rays' noise causes is ``w K R K^T w = w P A^T R^-1 A P w``, never more than the whole, and the rest
is what the rays leave open of the object: missing views. This holds of the directions that a result keeps. What lies beside
them is known by its variance alone, pixel for pixel: through independent pixels the rays would have 4 to 6 times the whole
variance of a disc's mean as noise. It is told as fine detail. Calibration multiplies the whole by the factor that held-out
views ask for, and where these teach a factor of its own for edges, it is what that adds to the variance before.
"""

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Scan
from ctuq.tomo.subpixel import subpixel_variance

NOISE, MISSING, FINE, CALIBRATION = "noise of the rays", "missing views", "fine detail", "calibration"


class VarianceBudget:
    """Splits variances of linear functionals.

    Parameters
    ----------
    scan : Scan
    grid : VolumeGrid
    sigma2 : float
        Noise variance of a ray of weight 1, before calibration.
    subpixel : float
        Beside it each ray has this times `ctuq.tomo.subpixel.subpixel_variance` of ``image``.
    image : array, shape (y, x)
    """

    def __init__(self, scan: Scan, grid: VolumeGrid, *, sigma2: float, subpixel: float = 0.0, image: NDArray | None = None):
        # They take a while, and results are read without.
        import scipy.sparse as sp

        from ctuq.tomo.rays.entries import build_matrix

        matrix = sp.csr_array(build_matrix(grid, scan.geometry))
        weights = np.ones(scan.projections.size) if scan.weights is None else scan.weights.ravel().astype(np.float64)
        used = weights > 0
        variance = np.maximum(sigma2 / np.where(used, weights, 1.0), 1e-300)
        if subpixel and image is not None:
            variance += subpixel * subpixel_variance(image, matrix, scan.geometry).ravel()
        self._rays, self._precision = matrix[used], 1 / variance[used]

    def __call__(self, resolved: NDArray[np.float64], variances: tuple[float, float], calibrated: float) -> dict[str, float]:
        """By source.

        Parameters
        ----------
        resolved : array, shape (y, x)
            ``P w`` by the directions that are kept, before calibration.
        variances : tuple of float
            ``w P w``, of all and of these directions, before calibration.
        calibrated : float
            ``w P w`` of all after it.
        """
        whole, known = (max(v, 0.0) for v in variances)
        seen = self._rays @ resolved.ravel()
        noise = min(float(np.sum(self._precision * seen**2)), known)
        fine = max(whole - known, 0.0)
        return {NOISE: noise, MISSING: known - noise, FINE: fine, CALIBRATION: calibrated - known - fine}
