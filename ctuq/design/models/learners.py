"""Sums of models, and all learners by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ctuq.design.algebra.covariance import Covariance, DenseCovariance, Hold
from ctuq.design.algebra.rows import ViewRows
from ctuq.design.models.classical import Isotropic, Matern, project
from ctuq.design.models.displacement import DisplacedEdges
from ctuq.design.models.edges import Edges
from ctuq.design.models.evidence import learn_variances
from ctuq.design.models.lindip import LinDIPOptions, LinearisedDIP
from ctuq.design.models.model import Every, GaussianModel, Learn, Measurements
from ctuq.errors import InputError

PRIORS = ("lindip", "gprior", "isotropic", "matern", "edges", "displaced", "lindip+edges")
_HOLD = Hold(2000, 0)


@dataclass(frozen=True)
class Sum:
    """The sum of independent models of the image: their covariances with a factor each, by evidence, and their means.

    Parameters
    ----------
    learners : tuple of callable
        Each is learned by itself first, as often as it likes; then the factors and the noise from all measured views.
    hold : Hold
        Of a sum of covariances that are not all dense.
    """

    learners: tuple[Learn, ...]
    hold: Hold = _HOLD

    def __call__(self, measured: Measurements) -> GaussianModel:
        models = [learn(measured) for learn in self.learners]
        measured = measured.thinned()
        M, t = measured.matrix(), measured.target()
        means = [model.mean for model in models if model.mean is not None]
        for mean in means:
            t = t - torch.from_numpy(M @ mean.double().cpu().numpy().ravel())
        rows = ViewRows(M, 1).view(0)
        parts = [project(M, model.covariance.row(rows)) for model in models]
        names = tuple(f"factor {i + 1}" for i in range(len(models)))
        found = learn_variances(parts, names, t, measured.noise())
        factors = found.psi.exp().tolist()
        covariance, note = self._sum([model.covariance for model in models], factors)
        named = [(f"{i + 1} {name}", v) for i, m in enumerate(models) for name, v in m.hyperparameters.items()]
        values = {name: v for name, v in named if not name.endswith("sigma2")}
        values |= dict(zip(names, factors, strict=True)) | {"sigma2": found.sigma2}
        image = next((model.image for model in models if model.image is not None), None)
        return GaussianModel(
            covariance, found.sigma2, image, torch.stack(means).sum(0) if means else None, hyperparameters=values, note=note
        )

    def _sum(self, parts: Sequence[Covariance], factors: Sequence[float]) -> tuple[Covariance, str]:
        whole = [part.matrix for part in parts if isinstance(part, DenseCovariance)]

        def times(x: Tensor) -> Tensor:
            return sum((f * part.times(x) for f, part in zip(factors, parts, strict=True)), torch.zeros_like(x))

        def matrix() -> Tensor:
            return sum((f * S for f, S in zip(factors, whole, strict=True)), torch.zeros_like(whole[0]))

        d = parts[0].size
        hold = replace(self.hold, dense_pixels=d if len(whole) == len(parts) else 0)
        covariance, note = hold(d, times, matrix)
        return covariance, f"sum of {len(parts)}, {note}"


def learner(prior: str, *, every: int = 0, dip: LinDIPOptions | None = None, folder: Path | None = None) -> Learn:
    """How the model of a named prior is learned.

    Parameters
    ----------
    prior : str
        One of `PRIORS`: the network's ("gprior" with the g-prior over its weights), classical ones, or a sum. The edge and
        displacement priors are made anew after every view; everything else is learned again after ``every`` further views.
    every : int
        0 learns once.
    dip : LinDIPOptions, optional
    folder : Path, optional
        Where a network's fit is kept while it is made.

    Raises
    ------
    InputError
        If there is no such prior.
    """
    options = LinDIPOptions() if dip is None else dip
    made: dict[str, Callable[[], Learn]] = {
        "lindip": lambda: Every(LinearisedDIP(options, folder=folder), every),
        "gprior": lambda: Every(LinearisedDIP(options.with_prior("g"), folder=folder), every),
        "isotropic": lambda: Every(Isotropic(), every),
        "matern": lambda: Every(Matern(), every),
        "edges": Edges,
        "displaced": DisplacedEdges,
        "lindip+edges": lambda: Sum((Every(LinearisedDIP(options, folder=folder), every), Edges())),
    }
    if prior in made:
        return made[prior]()
    raise InputError(f"There is no prior {prior!r}; choose one of {', '.join(PRIORS)}.")
