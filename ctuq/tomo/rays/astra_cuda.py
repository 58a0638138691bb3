"""The ray transform on a GPU by ASTRA's CUDA kernels, on torch's memory without copies."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import BackendError, InputError
from ctuq.linops.operator import Space
from ctuq.tomo.coverage import require_coverage
from ctuq.tomo.geometry import FanBeam, Geometry, VolumeGrid
from ctuq.tomo.rays.entries import rays_per_pixel
from ctuq.tomo.rays.transform import RayTransform, multiply


def _require_cuda(device: torch.device | str) -> torch.device:
    """The CUDA device, if torch and ASTRA can both use one.

    ASTRA must be asked first: without a GPU its CUDA projectors end the interpreter or leave the output untouched.

    Raises
    ------
    BackendError
        If the device is not a GPU, or torch or ASTRA finds none.
    """
    import astra

    device = torch.device(device)
    if device.type != "cuda":
        raise BackendError(f"backend='astra-cuda' runs on a GPU, not on {device}; pass device='cuda' or use backend='matrix'.")
    if not torch.cuda.is_available():
        raise BackendError("No GPU was found by PyTorch; use device='cpu', or install a CUDA build of torch.")
    if not astra.use_cuda():
        raise BackendError("No GPU was found by ASTRA; use backend='matrix' (`ctuq doctor` says more).")
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


class _CudaPair:
    """ASTRA's forward and back-projection of a stack of slices.

    A parallel beam is one call: the slices are a volume whose detector rows are the slices. Diverging rays would mix slices, so
    a fan is one call a slice. A pixel's rays are projected one by one and averaged here, for ASTRA's own supersampling
    also subdivides rows, which would mix slices.
    """

    def __init__(self, grid: VolumeGrid, geometry: Geometry, device: torch.device):
        self._grid, self._geometry, self._device = grid, geometry, device
        self._rays = rays_per_pixel(grid, geometry)
        self._slices_per_call = 1 if isinstance(geometry, FanBeam) else None

    def multiply(self, x: Tensor, transposed: bool) -> Tensor:
        if x.device != self._device:
            raise InputError(f"The ray transform works on {self._device}; the tensor is on {x.device}.")
        slices = self._slices_per_call or max(len(x), 1)
        parts = [self._call(part, transposed) for part in x.detach().split(slices)]
        return torch.cat(parts) if parts else x.new_empty(0, self._outputs(transposed))

    def _outputs(self, transposed: bool) -> int:
        return self._grid.size if transposed else int(np.prod(self._geometry.shape))

    def _call(self, x: Tensor, transposed: bool) -> Tensor:
        import astra

        k, (angles, columns), rays = len(x), self._geometry.shape, self._rays
        volume = (k, *self._grid.shape)
        projections = (k, angles, columns * rays)
        projector = self._projector(k)
        try:
            if transposed:
                source = x.reshape(k, angles, columns).repeat_interleave(rays, dim=2) / rays
                out = x.new_zeros(volume)
                self._synchronise()
                astra.projector3d.direct_BP(projector, source.contiguous(), out=out)
            else:
                out = x.new_zeros(projections)
                source = x.reshape(volume).contiguous()
                self._synchronise()
                astra.projector3d.direct_FP(projector, source, out=out)
            self._synchronise()
        finally:
            astra.projector3d.delete(projector)
        if not transposed:
            out = out.reshape(k, angles, columns, rays).mean(3)
        return out.reshape(k, -1) * self._grid.voxel

    def _synchronise(self) -> None:
        # ASTRA takes tensors over DLPack without a stream, so it must not overtake torch's own kernels, nor they it.
        torch.cuda.synchronize(self._device)

    def _projector(self, slices: int) -> int:
        import astra

        grid, geometry = self._grid, self._geometry
        # ASTRA's rows go downwards in two dimensions and upwards in three, so it gets the mirror image of our scanner.
        left, right, bottom, top = np.array(grid.extent) / grid.voxel
        volume = astra.create_vol_geom(*grid.shape, slices, left, right, -top, -bottom, -slices / 2, slices / 2)
        vectors = geometry.vectors() / grid.voxel * np.tile([1, -1, 1], 4)
        vectors[:, 6:8] /= self._rays
        vectors[:, 9:12] = 0, 0, 1
        kind = "cone_vec" if isinstance(geometry, FanBeam) else "parallel3d_vec"
        projections = astra.create_proj_geom(kind, slices, geometry.columns * self._rays, vectors)
        return astra.create_projector("cuda3d", projections, volume, {"GPUindex": self._device.index})


class AstraCudaRayTransform(RayTransform):
    """A ray transform that is computed on the fly by ASTRA on a GPU: no matrix, so any size that the images fit.

    Its back-projection interpolates where its projection integrates along rays, so it is not the exact transpose
    (`ctuq.tomo.rays.transform.adjoint_mismatch` measures by how much): right for reconstruction, refused for uncertainty.

    Raises
    ------
    BackendError
        If there is no GPU.
    GeometryError
        If views miss the image.
    """

    exact_transpose = False

    def __init__(self, grid: VolumeGrid, geometry: Geometry, device: torch.device | str = "cuda"):
        require_coverage(grid, geometry)
        device = _require_cuda(device)
        self.grid, self.geometry = grid, geometry
        self.domain = Space(grid.shape, torch.float32, device)
        self.range = Space(geometry.shape, torch.float32, device)
        self._pair = _CudaPair(grid, geometry, device)

    def _apply(self, x: Tensor) -> Tensor:
        return multiply(x.flatten(1), self._pair, transposed=False).reshape(len(x), *self.range.shape)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return multiply(y.flatten(1), self._pair, transposed=True).reshape(len(y), *self.domain.shape)

    def subset(self, indices: Sequence[int] | NDArray) -> "AstraCudaRayTransform":
        return AstraCudaRayTransform(self.grid, self.geometry.subset(indices), self.device)

    def __reduce__(self):
        return AstraCudaRayTransform, (self.grid, self.geometry, str(self.device))
