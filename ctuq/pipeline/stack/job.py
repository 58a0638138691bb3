"""Stacks: the detector rows of a parallel scan as independent slices, each with calibrated error bars.

A few slices, spread over those that show something, are fitted first and teach hyperparameters and scales. Then all slices are
made in blocks of eight neighbours, one after the other inside a block, blocks side by side. Blocks are fixed by the stack, not
by who works on it, so one worker and a hundred give the same bits. Every slice is kept when it is done; the results file is
written from these, slice by slice, so that a stack may be larger than memory.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import CtuqError, InputError
from ctuq.pipeline.image.agreement import Agreement
from ctuq.pipeline.running.checkpoint import Checkpoint, digest_of
from ctuq.pipeline.running.options import Progress, ReconstructOptions, flat_settings, options_from, versions_of_libraries
from ctuq.pipeline.stack.agreement import stack_agreement
from ctuq.pipeline.stack.products import Products
from ctuq.pipeline.stack.scan import COVARIANCE, Stack
from ctuq.pipeline.stack.scores import against_truth, scores_of
from ctuq.pipeline.stack.slices import learn_slice, make_slice
from ctuq.pipeline.stack.taught import HOLDS
from ctuq.pipeline.stack.work import Lesson, Setting, Slice
from ctuq.progress import shown
from ctuq.scale import chained
from ctuq.surroundings import undisturbed
from ctuq.tomo.slices import slice_pitch, stack_grid
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.calibration.scales import Scales, learn_scales
from ctuq.uncertainty.calibration.turns import Turns
from ctuq.uncertainty.results.kept_covariance import waves_of
from ctuq.uncertainty.results.volume import VolumeResult

_MOST_TOLD = 3
_log = logging.getLogger(__name__)


@undisturbed()
def reconstruct_stack(
    scan: VolumeScan,
    method: str = "dip",
    *,
    rows: range | None = None,
    judge: VolumeScan | None = None,
    options: ReconstructOptions | None = None,
    covariance: float = COVARIANCE,
    executor: Executor | None = None,
    progress: bool | Callable[[Progress], None] | None = None,
    checkpoint: Path | str | None = None,
    output: Path | str | None = None,
    **settings,
) -> VolumeResult:
    """The slices of a parallel scan, each reconstructed by itself with calibrated error bars.

    Parameters
    ----------
    scan : VolumeScan
        Of parallel rays square to the axis, or of a cone that hardly opens.
    method : str
        Of `ctuq.pipeline.ReconstructOptions`; ignored if ``options`` are given.
    rows : range, optional
        Slices to make, counted from the lowest; by default all.
    judge : VolumeScan, optional
        Other views of all rows, used for nothing but scores of each slice: "judged_rms_z" and others in its ``slices``.
    options : ReconstructOptions, optional
        Of every slice; ``samples`` and ``threads`` are of single images.
    covariance : float
        GiB that the covariances of all slices may take in the results, for questions to come (`VolumeResult.slice`,
        `VolumeResult.region`): as many images a slice as fit, the options' ``directions`` at most, and none below 32; 0 keeps
        none.
    executor : concurrent.futures.Executor, optional
        Who works on blocks of slices side by side, such as `ctuq.scale.cluster` gives; by default this process.
    progress : bool or callable, optional
        True shows a bar; a callable is given a `Progress` after each slice.
    checkpoint : path, optional
        As of `ctuq.reconstruct`: every slice is kept when it is done.
    output : path, optional
        Results file that is written slice by slice; the result then is the file's, whose volumes are `ctuq.records.Blocks`.
    **settings
        Fields of `ReconstructOptions`, for example ``size=96``.

    Returns
    -------
    VolumeResult
        NaN in slices that failed, with a warning each; ``slices`` tells of every one.

    Raises
    ------
    GeometryError
        If the rows are no slices.
    CtuqError
        If no slice can be made, or as `ctuq.reconstruct`.
    """
    options = options or options_from(method, settings)
    if options.dip.module is not None:
        raise InputError("A network of one's own is for single slices; leave it out of stacks.")
    stack = Stack.of(scan, rows, options, judge, covariance=covariance)
    views = [part for part in (stack.scan, stack.judge) if part is not None]
    digest = "+".join(map(digest_of, views)) if checkpoint else ""
    kept = Checkpoint(checkpoint, digest, _settings(options, covariance))
    kept.begin()
    products = Products(kept.stages)
    began = time.perf_counter()
    try:
        with shown(progress) as tell:
            return _Run(stack, products, executor, tell, began).result(output)
    except CtuqError:
        if not products.any:
            kept.clear_if_new()
        raise


def made_by(result: VolumeResult, scan: VolumeScan, options: ReconstructOptions, covariance: float = COVARIANCE) -> bool:
    """Whether a result is what `reconstruct_stack` makes of all slices of a scan with these options."""
    settings = _settings(options, covariance)
    same = all(result.settings.get(name) == value for name, value in settings.items() if name != "threads")
    return same and result.rays == digest_of(scan)


def _settings(options: ReconstructOptions, covariance: float) -> dict[str, str | float | int]:
    return flat_settings(replace(options, threads=None)) | {"covariance": float(covariance)}


class _Run:
    """The stages of a stack in their order."""

    def __init__(
        self,
        stack: Stack,
        products: "Products",
        executor: Executor | None,
        progress: Callable[[Progress], None] | None,
        began: float,
    ):
        self.stack, self.products, self._executor, self._progress = stack, products, executor, progress
        self._began, self._timings = began, dict[str, float]()

    def result(self, output: Path | str | None) -> VolumeResult:
        setting = self.stack.setting()
        if self.stack.options.bars or self.stack.options.method != "fbp":
            self.stack = self.stack.weighed(self._agreement(setting))
            growth = float(self.products.stages.once("noise growth", self.stack.growth))
            self.stack, setting = self.stack.grown(growth), replace(setting, growth=growth)
        if self.stack.options.bars:
            setting = replace(setting, way=self.stack.way())
            setting = replace(setting, lesson=self._lesson(setting))
        self._slices(setting)
        return self._written(setting, output)

    def _agreement(self, setting: Setting) -> Agreement:
        """Of the views with the slices that will teach: what is wrong with a view is wrong in all rows."""
        began = time.perf_counter()
        times = self.products.stages.once("agreement", lambda: stack_agreement(self.stack, setting))
        self._timings["agreement"] = time.perf_counter() - began
        return Agreement(times, setting.geometry.angles)

    def _lesson(self, setting: Setting) -> Lesson:
        """Hyperparameters in the middle of those of the teachers, scales of all their held-out rays together."""
        began = time.perf_counter()
        numbers = self.stack.teachers
        self._do(learn_slice, setting, [[number] for number in numbers], "teacher", "Slices that teach")
        self._timings["teachers"] = time.perf_counter() - began
        found = [self.products[f"teacher {number}"] for number in numbers]
        good = [product for product in found if "failed" not in product]
        if not good:
            called = [str(self.stack.numbers[number]) for number in numbers]
            which = f"None of the slices {', '.join(called)} can" if len(called) > 1 else f"Slice {called[0]} cannot"
            raise InputError(f"{which} be fitted: {found[0]['failed']}")
        psi = torch.stack([product["psi"] for product in good]).quantile(0.5, dim=0)
        sigma2 = float(np.exp(np.median(np.log([product["sigma2"] for product in good]))))
        image, noise = 1.0, 1.0
        if "residual" in good[0]:
            scales = _scales_of(good)
            image, noise = scales.image, scales.noise
        _log.info("Scales %.2f and %.2f, taught by slice %s.", image, noise, ", ".join(map(str, numbers)))
        return Lesson(tuple(psi.tolist()), sigma2, image, noise)

    def _slices(self, setting: Setting) -> None:
        began = time.perf_counter()
        self._do(make_slice, setting, self.stack.blocks, "slice", "Slices")
        self._timings["slices"] = time.perf_counter() - began

    def _do(self, work: Callable, setting: Setting, blocks: list[list[int]], name: str, stage: str) -> None:
        """What is not there yet of every block, from where it stands."""
        total, left, first = sum(map(len, blocks)), [], []
        for block in blocks:
            done = next((i for i, number in enumerate(block) if f"{name} {number}" not in self.products), len(block))
            left.append(_Items(self, block[done:]))
            first.append(self.products[f"{name} {block[done - 1]}"] if 0 < done < len(block) else None)
        count = total - sum(map(len, left))
        self._tell(stage, count, total)
        for _, item, product in chained(work, left, setting, self._executor, first=first):
            self.products[f"{name} {item.number}"] = product
            count += 1
            self._tell(stage, count, total, product.get("failed", ""))

    def item(self, number: int) -> Slice:
        """A slice with the fit that it taught by, if it did."""
        name = f"teacher {number}"
        if name not in self.products:
            return self.stack.slice(number)
        taught = self.products[name]
        return self.stack.slice(number, None if "failed" in taught else taught)

    def _written(self, setting: Setting, output: Path | str | None) -> VolumeResult:
        stack, count = self.stack, len(self.stack)
        told = [self.products.facts(number) for number in range(count)]
        failed = [(number, text) for number, (_, text) in zip(stack.numbers, told, strict=True) if text]
        if len(failed) == count:
            raise InputError(f"None of the {count} slices can be made; the first one says: {failed[0][1]}")
        names = list(dict.fromkeys(name for facts, _ in told for name in facts))
        table = {name: np.array([facts.get(name, np.nan) for facts, _ in told]) for name in names}
        table["number"] = np.array(stack.numbers, dtype=float)
        table["failed"] = np.array([float(bool(text)) for _, text in told])
        grid, pitch = stack_grid(stack.plane, stack.scan.geometry), slice_pitch(stack.scan.geometry)  # pyright: ignore[reportArgumentType]
        timings = {**self._timings, "all": time.perf_counter() - self._began}
        mean, std = self.products.volume("mean", grid.shape), None
        covariance: dict[str, Any] = {}
        if stack.options.bars:
            std, covariance = self.products.volume("std", grid.shape), self._covariance(setting)
        truth = stack.truth()
        if truth is not None:
            table |= against_truth(mean, std, truth)
        result = VolumeResult(
            mean=mean,  # pyright: ignore[reportArgumentType]
            std=std,  # pyright: ignore[reportArgumentType]
            grid=grid,
            geometry=stack.scan.geometry,
            method=stack.options.method,
            provenance=stack.scan.provenance,
            slice_pitch=None if np.isclose(pitch, grid.voxel, rtol=1e-9) else pitch,
            truth=truth,  # pyright: ignore[reportArgumentType]
            scores=scores_of(table),
            slices=table,
            timings=timings,
            settings={**_settings(stack.options, stack.covariance), "stack": 1, **_lesson_settings(setting.lesson)},
            versions=versions_of_libraries(),
            rays=digest_of(stack.scan),
            warnings=tuple(dict.fromkeys((*stack.scan.warnings, *stack.told, *_doubts(table, failed)))),
            **covariance,
        )
        if output is not None:
            result.save(output)
            return result
        whole = {name: np.stack([volume[z] for z in range(count)]) for name, volume in (result.images | result.kept).items()}
        return replace(result, **whole)

    def _covariance(self, setting: Setting) -> dict[str, Any]:
        """What slices keep of it, and how alike they err."""
        count, plane, kept = len(self.stack), self.stack.plane.shape, setting.kept
        if not kept:
            return {}
        told = {
            "directions": self.products.volume("directions", (count, kept, *plane)),
            "waves": waves_of(kept, plane),
            "alike": self.products.alike(count),
        }
        if setting.hidden:
            told["hidden"] = tuple(wish.name for wish in setting.hidden)
            told["effects"] = self.products.volume("effects", (count, len(setting.hidden), *plane))
        return told

    def _tell(self, stage: str, done: int, total: int, message: str = "") -> None:
        if self._progress is not None:
            self._progress(Progress(stage, done, total, message))


class _Items(Sequence[Slice]):
    """The slices of a block, each taken from the scan when its turn comes."""

    def __init__(self, run: _Run, numbers: list[int]):
        self._run, self._numbers = run, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: Any) -> Any:
        return self._run.item(self._numbers[place])


def _scales_of(teachers: list[dict[str, Any]]) -> Scales:
    """From the held-out rays of several slices together."""

    def together(name: str, axis: int) -> NDArray:
        return np.concatenate([np.asarray(teacher[name]) for teacher in teachers], axis)

    turns = None
    if all("turn_residual" in teacher for teacher in teachers):
        turns = Turns(together("turn_residual", 1), together("turn_variance", 1))
    return learn_scales(together("residual", 0), together("signal", 0), together("noise", 0), turns)


def _lesson_settings(lesson: Lesson | None) -> dict[str, float]:
    if lesson is None:
        return {}
    values = {name: value for name, value in asdict(lesson).items() if name != "psi"}
    return {f"lesson.{name}": value for name, value in values.items()}


def _doubts(table: dict[str, NDArray], failed: list[tuple[int, str]]) -> list[str]:
    """What to know of single slices, one sentence a kind."""
    told = [f"Slice {number} could not be made and holds no numbers: {text}" for number, text in failed[:_MOST_TOLD]]
    if len(failed) > _MOST_TOLD:
        told.append(f"{len(failed)} slices in all could not be made; 'slices/failed' in the results names them.")
    anew = np.flatnonzero(table.get("learned_anew", np.zeros(0)) > 0)
    if len(anew):
        shown = ", ".join(f"{number:.0f}" for number in table["number"][anew[:20]]) + (" and more" if len(anew) > 20 else "")
        which = f"In slice {shown}" if len(anew) == 1 else f"In {len(anew)} slices ({shown})"
        told.append(
            f"{which} the error bars that others taught did not fit the held-out views (rms z outside of {1 / HOLDS:.2f} to "
            f"{HOLDS:.2f}), and were learned anew there."
        )
    return told
