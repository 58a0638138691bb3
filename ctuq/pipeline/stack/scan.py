"""A stack made ready: rows that were chosen, the plane they share, who teaches, and blocks of neighbours."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.linops.memory import require_memory
from ctuq.pipeline.bars import considered, not_in_bars, of_slices_alone
from ctuq.pipeline.counted import growth_in
from ctuq.pipeline.enough import told_of_air, told_of_rays
from ctuq.pipeline.image.agreement import Agreement
from ctuq.pipeline.image.edges import EdgeWay, way_of_edges
from ctuq.pipeline.running.devices import device_of
from ctuq.pipeline.running.options import DEFAULT_BARS, ReconstructOptions
from ctuq.pipeline.running.plan import route_of
from ctuq.pipeline.stack.work import Product, Setting, Slice
from ctuq.pipeline.views import split_views
from ctuq.recon.unet import UNet
from ctuq.records import Blocks
from ctuq.systematics.catalogue import ANY, Wish, hidden_wishes
from ctuq.tomo.count_noise import told_of
from ctuq.tomo.field import choose_grid, doubts_of_field
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.stack import slice_of
from ctuq.tomo.resample import resample
from ctuq.tomo.scan import Scan, binned_rays, require_scan
from ctuq.tomo.slices import chosen_rows, row_beam, row_of_stack
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.calibration.directions import UnseenDirections
from ctuq.uncertainty.model.route import Route

_TEACHERS, BLOCK = 4, 8
COVARIANCE = 1.0
"""GiB that the covariances of all slices may take."""
_FEWEST_KEPT = 32
"""Images: of a slice of ellipses at 48 x 48 by tv, the standard deviations of means over discs of 4, 8 and 12 pixels were 1.21,
1.31 and 1.32 times what the whole covariance tells by 16 images, 1.09, 1.05 and 1.01 times by 32, 0.96 to 0.97 by 192."""
_ONE, _LESS = "A slice of this size", "choose a smaller --size"
_OCCUPIED = 0.1
"""A slice whose rays' rms is below this share of the largest one's shows too little to teach the others."""
_FEWEST, _RAYS_A_DIRECTION = 128, 6
"""Of a scan of 3,680 rays at 64 x 64, one direction for 7 rays left 0.3 of the noise unresolved and scored unseen views as half
as many did (rms z 1.14 and 1.15); one for 14 left 1.6, and a std 1.9 times too large."""


@dataclass(frozen=True, eq=False)
class Stack:
    """A scan made ready: rows that were chosen, the plane they share, what to know of them, and how views agree with them."""

    scan: VolumeScan
    options: ReconstructOptions
    plane: VolumeGrid
    factor: int
    told: tuple[str, ...]
    judge: VolumeScan | None = None
    covariance: float = COVARIANCE
    agreement: Agreement | None = None

    @classmethod
    def of(
        cls,
        scan: VolumeScan,
        rows: range | None,
        options: ReconstructOptions,
        judge: VolumeScan | None = None,
        *,
        covariance: float = COVARIANCE,
    ) -> "Stack":
        """Choose the rows, and the plane that the coarsest of some occupied slices asks for."""
        require_scan(scan, VolumeScan)
        if judge is not None and judge.geometry.shape[::2] != scan.geometry.shape[::2]:
            raise InputError("The views that judge are of another detector than the scan's; give views of the same scan.")
        if not 0 <= covariance < math.inf:
            raise InputError(f"The covariance of a stack's slices takes 0 GiB or more, such as 1, got {covariance}.")
        if options.material != ANY:
            raise InputError("--material uniform is of single slices so far; leave it out of stacks.")
        if options.bars not in (None, DEFAULT_BARS.get(options.method)):
            raise InputError(
                f"Error bars {options.bars!r} are of single slices; of stacks the method dip has laplace, tv has edges, and "
                "the others have none."
            )
        if rows is not None:
            scan, judge = chosen_rows(scan, rows), None if judge is None else chosen_rows(judge, rows)
        row_beam(scan.geometry)
        some = _spread(_occupied(scan), _TEACHERS)
        parts = [row_of_stack(scan, int(row)) for row in some]
        planes = [choose_grid(part, options.size, options.field) for part in parts]
        plane = max(planes, key=lambda grid: grid.voxel)
        if scan.grid is not None and options.field is None:
            plane = choose_grid(replace(parts[0], grid=slice_of(scan.grid)), options.size)
        told = [*told_of_rays(scan), *told_of_air(scan)]
        told += [doubt for part in parts for doubt in doubts_of_field(part, plane)]
        told += [considered(wish.name) for wish in _hidden(scan, options)]
        told += of_slices_alone(options.systematics, "stacks") if options.bars in ("laplace", "edges") else ()
        if options.bars:
            unseen = UnseenDirections.of(parts[0].geometry, (plane.shape[0], plane.shape[1]), torch.device("cpu"))
            told += [] if unseen is None else [unseen.told]
            told += split_views(options, parts[0]).notes
            none = options.bars == "edges" and not _hidden(scan, options)
            told += not_in_bars(scan.provenance.monochromatic) if none else ()
        stack = cls(scan, options, plane, parts[0].geometry.binning(plane), tuple(dict.fromkeys(told)), judge, covariance)
        return replace(stack, told=(*stack.told, *stack._doubts_of_covariance()))

    def __len__(self) -> int:
        return self.scan.geometry.rows

    def row(self, number: int) -> Scan:
        """A slice's scan, its columns averaged for the plane."""
        return row_of_stack(self.scan, number).binned(self.factor)

    def slice(self, number: int, fitted: Product | None = None) -> Slice:
        """What a worker needs of a slice; a row without rays goes as it is, and fails there."""
        judge = None if self.judge is None else _rays_of(self.judge, number, self.factor)
        kept = None if fitted is None else fitted["fit"]
        projections, weights = _rays_of(self.scan, number, self.factor)
        if self.agreement is not None and self.agreement.far.any():
            all_alike = np.ones_like(projections) if weights is None else weights
            weights = (all_alike * self.agreement.factors(self._held)).astype(np.float32)
        return Slice(number, projections, weights, kept, judge)

    @cached_property
    def _held(self) -> NDArray[np.int64]:
        """Views that slices hold out."""
        return split_views(self.options, self.row(self.teachers[0])).held

    def weighed(self, agreement: Agreement) -> "Stack":
        """The stack whose views count as much as they agree in all slices."""
        return replace(self, agreement=agreement, told=(*self.told, *agreement.told))

    def growth(self) -> float:
        """How the noise of rays without weights grows with attenuation, by the slice in the middle of those that teach."""
        middle = self.row(self.teachers[len(self.teachers) // 2])
        return growth_in(middle, self.options.size, device_of(self.options.device))

    def grown(self, growth: float) -> "Stack":
        """The stack of which it is told that noise grows so, if it does."""
        told = (told_of(self.row(self.teachers[len(self.teachers) // 2]).projections, growth),) if growth else ()
        return replace(self, told=(*self.told, *told))

    @property
    def numbers(self) -> range:
        """What the slices are called: their numbers among all rows of the file, as ``--slices`` counts them."""
        return self.scan.provenance.numbers(len(self))

    def setting(self) -> Setting:
        judging = None if self.judge is None else row_beam(self.judge.geometry).binned(self.factor)
        geometry = row_beam(self.scan.geometry).binned(self.factor)
        return Setting(
            self.options,
            self.plane,
            geometry,
            judging=judging,
            hidden=_hidden(self.scan, self.options),
            kept=self.kept,
            numbers=self.numbers,
        )

    @property
    def kept(self) -> int:
        """In how many images each slice keeps its covariance: by the sizes of the stack alone, as all workers must agree."""
        if not self.options.bars:
            return 0
        wanted = min(self.options.directions, self.plane.size)
        count = min(wanted, int(self.covariance * 2**30) // (4 * self.plane.size * len(self)))
        return count if count >= min(_FEWEST_KEPT, wanted) else 0

    @property
    def kept_bytes(self) -> int:
        """Of all slices' covariances together."""
        return 4 * self.kept * self.plane.size * len(self)

    def _doubts_of_covariance(self) -> tuple[str, ...]:
        if self.kept or not (self.options.bars and self.options.directions and self.covariance):
            return ()
        needed = 4 * _FEWEST_KEPT * self.plane.size * len(self) / 2**30
        return (
            f"No slice keeps its covariance, which ctuq measure goes by: the fewest images that are of use, {_FEWEST_KEPT} a "
            f"slice, take {needed:.2g} GiB in all, and {self.covariance:g} are allowed; raise --covariance or choose fewer "
            "--slices.",
        )

    def truth(self) -> Blocks | None:
        """The known slices on the plane, if the scan has as many as rows."""
        known, grid = self.scan.truth, self.scan.grid
        if known is None or grid is None or len(known) != len(self):
            return None
        own = slice_of(grid)
        return Blocks((len(self), self.plane.shape[0], self.plane.shape[1]), lambda z: resample(known[z], own, self.plane))

    @cached_property
    def teachers(self) -> list[int]:
        """Slices that are fitted first, spread over those that show something."""
        return [int(row) for row in _spread(_occupied(self.scan), _TEACHERS)]

    @property
    def blocks(self) -> list[list[int]]:
        """Neighbours that are made one after the other: only a network begins with the one before."""
        count, block = len(self), BLOCK if self.options.method == "dip" else 1
        return [list(range(start, min(start + block, count))) for start in range(0, count, block)]

    def way(self) -> Route | str:
        """Of the error bars, by size alone, never by the memory that is left: every worker must take the same."""
        if self.options.method == "dip":
            return self.route()
        way = self.edges()
        require_memory(way.bytes, _ONE, _LESS)
        return way.route

    def edges(self) -> EdgeWay:
        """The way of the edge prior's error bars."""
        return way_of_edges(self.plane.size, self.plane.shape[-1], rays_used(self.row(self.teachers[0])))

    def route(self) -> Route:
        """The way of a network's error bars."""
        scan = self.row(self.teachers[0])
        views = split_views(self.options, scan)
        weights = torch.ones(scan.projections.shape) if scan.weights is None else torch.tensor(scan.weights)
        network = UNet(self.options.dip.network, torch.Generator().manual_seed(0))
        chosen = route_of(weights, views.fitted, self.plane.size, network, prior=self.options.prior, memory=None)
        fewer = max(_FEWEST, chosen.rays // _RAYS_A_DIRECTION)
        route = replace(chosen, rank=fewer) if fewer < chosen.rank < chosen.pixels else chosen
        require_memory(route.bytes, _ONE, _LESS)
        return route


def _occupied(scan: VolumeScan) -> NDArray[np.int64]:
    """Rows that show something; the strongest where that cannot be told."""
    sizes = np.zeros(scan.geometry.rows)
    for row in range(scan.geometry.rows):
        weights = 1.0 if scan.weights is None else scan.weights[row] > 0
        sizes[row] = float(np.sqrt(np.mean(weights * np.square(scan.projections[row], dtype=np.float64))))
    return np.flatnonzero(sizes >= _OCCUPIED * sizes.max()) if sizes.max() > 0 else np.arange(min(1, scan.geometry.rows))


def rays_used(scan: Scan) -> int:
    """Rays of positive weight."""
    return scan.projections.size if scan.weights is None else int((scan.weights > 0).sum())


def _spread(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of them at most, the middle ones of as many equal parts."""
    count = min(count, len(numbers))
    return numbers[((np.arange(count) + 0.5) * len(numbers) / count).astype(int)]


def _hidden(scan: VolumeScan, options: ReconstructOptions) -> tuple[Wish, ...]:
    """The systematic errors that error bars of slices hold."""
    asked = hidden_wishes(options.systematics, "stacks", of=scan.provenance)
    return asked if options.bars in ("laplace", "edges") else ()


def _rays_of(scan: VolumeScan, row: int, factor: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Projections and weights of a row, columns averaged."""
    weights = None if scan.weights is None else scan.weights[row]
    projections = scan.projections[row]
    if factor > 1:
        projections, weights = binned_rays(projections, weights, factor)
    return np.ascontiguousarray(projections, np.float32), None if weights is None else np.asarray(weights, np.float32)
