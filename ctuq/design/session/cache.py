"""What a suggestion needs, kept in a folder beside the session so that a new process need not compute it: it can be deleted.

Everything is named by a hash of what it depends on and appears under its name only when it is complete, so that a killed
process leaves nothing wrong behind. Arrays are mapped from the disk, not read.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.covariance import Covariance, DenseCovariance, FactorCovariance
from ctuq.design.algebra.rows import ViewRows
from ctuq.design.models.model import GaussianModel
from ctuq.design.session.file import digest
from ctuq.design.state import DesignState
from ctuq.linops.local import LocalCovariance
from ctuq.versions import version_of

_log = logging.getLogger(__name__)
_PARTIAL = "partial-"
_HASH = 20


class ModelCache:
    """The folder.

    Parameters
    ----------
    folder : Path
        Made when something is kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def learning(self) -> Path:
        """A folder for what is done of a model that is being learned; `forget` removes it."""
        return self.folder / "learning"

    def keep_model(self, key: str, model: GaussianModel) -> None:
        """Keep a model under the hash of what it was learned from; one of an unknown kind is not kept."""
        covariance = model.covariance
        if isinstance(covariance, DenseCovariance):
            arrays, missed = {"matrix": covariance.matrix}, 0.0
        elif isinstance(covariance, FactorCovariance):
            arrays, missed = {"factor": covariance.factor, **covariance.beside.arrays()}, covariance.missed
        else:
            return
        arrays |= {name: value for name, value in (("image", model.image), ("mean", model.mean)) if value is not None}
        about = {"sigma2": model.sigma2, "note": model.note, "missed": missed}
        self._write(f"{key[:_HASH]}-model", arrays, about | {"hyperparameters": dict(model.hyperparameters)})

    def model(self, key: str) -> GaussianModel | None:
        """The model of this hash, or None."""
        found = self._read(f"{key[:_HASH]}-model")
        if found is None:
            return None
        a, about = found
        covariance: Covariance
        if "matrix" in a:
            covariance = DenseCovariance(a["matrix"])
        else:
            # Kept before pixels had neighbours: their variances alone.
            beside = LocalCovariance(a["white"]) if "white" in a else LocalCovariance.of_arrays(a)
            covariance = FactorCovariance(a["factor"], beside, about["missed"])
        image, mean = a.get("image"), a.get("mean")
        return GaussianModel(covariance, about["sigma2"], image, mean, about["hyperparameters"], about["note"])

    def keep_conditioned(self, steps: Sequence[str], given: GivenViews) -> None:
        """Keep a conditioned model; ``steps`` are those of `steps_of` up to its views."""
        for step, rows in zip(steps[1:], given.factors, strict=True):
            self._write(f"{step}-rows", {"rows": rows}, {})
        squared = {} if given.squared is None else {"squared": given.squared}
        arrays = {"blocks": given.blocks, "variance": given.variance, "precision": given.precision}
        self._write(f"{steps[-1]}-blocks", arrays | squared, {})

    def conditioned(
        self, steps: Sequence[str], views: Sequence[int], rows: ViewRows, prior: Covariance, region: Tensor | None
    ) -> GivenViews | None:
        """The model given the most of the views that is kept.

        Parameters
        ----------
        steps : sequence of str
            Of `steps_of`, for all views.
        views : sequence of int
            The measured views, in order.
        rows, prior, region
            As in `GivenViews`.
        """
        for count in range(len(views), -1, -1):
            found = self._read(f"{steps[count]}-blocks")
            parts = [self._read(f"{step}-rows") for step in steps[1 : count + 1]] if found else []
            if found is None or any(part is None for part in parts):
                continue
            a = found[0]
            factors = tuple(part[0]["rows"] for part in parts if part is not None)
            return GivenViews(
                rows, prior, a["precision"], region, a["blocks"], a.get("squared"), a["variance"], factors, tuple(views[:count])
            )
        return None

    def forget(self, models: Sequence[str], steps: Sequence[str]) -> None:
        """Remove all but these models and the conditioned one of all these steps; also what killed processes left."""
        kept = {f"{key[:_HASH]}-model" for key in models} | {f"{step}-rows" for step in steps[1:]} | {f"{steps[-1]}-blocks"}
        for entry in self._entries():
            if entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)

    def forget_steps(self, steps: Sequence[str]) -> None:
        """Remove earlier conditioned states of the same model."""
        kept = {f"{step}-rows" for step in steps[1:]} | {f"{steps[-1]}-blocks"}
        group = steps[0].partition("-")[0]
        for entry in self._entries():
            if entry.name.startswith(f"{group}-") and not entry.name.endswith("-model") and entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)

    def _entries(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []

    def _write(self, name: str, arrays: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
        """A folder of arrays; whatever hinders it is no error, only a slower next time."""
        place, partial = self.folder / name, self.folder / f"{_PARTIAL}{os.getpid()}-{name}"
        if place.is_dir():
            return
        try:
            partial.mkdir(parents=True, exist_ok=True)
            for key, value in arrays.items():
                np.save(partial / f"{key}.npy", value.detach().cpu().numpy())
            (partial / "about.json").write_text(json.dumps(about), encoding="utf-8")
            partial.rename(place)
        except OSError as error:
            _log.warning("The cache in '%s' cannot be written (%s); the next suggestion will take longer.", self.folder, error)
        finally:
            with suppress(OSError):
                shutil.rmtree(partial)

    def _read(self, name: str) -> tuple[dict[str, Tensor], dict] | None:
        place = self.folder / name
        if not place.is_dir():
            return None
        try:
            about = json.loads((place / "about.json").read_text(encoding="utf-8"))
            return {file.stem: torch.from_numpy(_mapped(file)) for file in place.glob("*.npy")}, about
        except (OSError, ValueError) as error:
            _log.warning("The cache '%s' cannot be read (%s); it is made again.", place, error)
            shutil.rmtree(place, ignore_errors=True)
            return None


def steps_of(model: str, state: DesignState, region: NDArray | None) -> list[str]:
    """A name for the model given none, the first, the first two, ... of the measured views with their weights.

    Parameters
    ----------
    model : str
        Hash of the model.
    state : DesignState
    region : array, optional
        Where the criterion counts the variance.
    """
    found = [digest((version_of("ctuq"), model, None if region is None else np.asarray(region)))]
    for view, weights in zip(state.views, state.weights, strict=True):
        found.append(digest((found[-1], int(view), weights)))
    return [f"{model[:_HASH]}-{name[:_HASH]}" for name in found]


def _mapped(file: Path) -> NDArray:
    # Copy on write: torch wants arrays that it may write to, the file stays as it is.
    return np.load(file, mmap_mode="c", allow_pickle=False)
