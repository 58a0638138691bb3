"""What error bars of images, slices and volumes have in common: the linear model, and what to know of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctuq.linops.jacobian.network import ProductChoice, jacobian_of
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.recon.dip import Data, Generator
from ctuq.recon.holdout import missing_arc
from ctuq.stages import Stages
from ctuq.systematics.build import missing_in
from ctuq.systematics.catalogue import KINDS, Wish, not_in_bars_of, wishes
from ctuq.systematics.hardened import Hardened
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.estimate import Evidence
from ctuq.uncertainty.model.linear import ImageModel, image_model
from ctuq.uncertainty.restricted import OF_WEIGHTS

UNCALIBRATED = "Not calibrated: the error bars are the model's own, which are too short on real scans."
_WORTH_TELLING, _FEW = 0.1, 8
_NOT_HARDENED = (
    "These error bars do not hold what the scanner does wrong, as those of a slice by the method dip do: a rotation axis "
    "beside its place, gains of detector columns (rings), and beam hardening: if the beam is not monochromatic, attenuation "
    "inside of thick parts may be lower than they say."
)
_HIDDEN_ALONE = (
    "These error bars hold what no ray tells of the scanner ({}). Of what rays would tell, a rotation axis beside its place and"
    " gains of detector columns (rings), they hold nothing; those of a slice by the method dip do."
)
_OF_SLICES = (
    "Error bars of {} hold nothing of what rays would tell of the scanner ({}): it is taken as the scan says. Reconstruct a "
    "single slice to see whether that is right."
)
_HARDENED = (
    "These error bars do not hold how unsure the beam hardening is that was taken out (± {:.3f}), as those of a slice by the "
    "method dip do."
)


def linear_model(
    data: Data,
    generate: Generator,
    best: dict[str, Tensor],
    *,
    prior: str,
    rank: int,
    rng: torch.Generator,
    choice: ProductChoice | None = None,
    progress: Callable[[int, int], None] | None = None,
    stages: Stages | None = None,
    parameters: Sequence[str] | None = None,
) -> ImageModel:
    """The linear model at fitted weights, with every product with the network that it takes.

    Parameters
    ----------
    data : Data
        All views, without a batch axis.
    generate : Generator
    best : dict of str to Tensor
        Weights, with a batch axis of 1.
    prior, rank, rng, progress, stages
        As of `image_model`.
    choice : ProductChoice, optional
        How products are made.
    parameters : sequence of str, optional
        Weights that may be wrong; by default all.
    """
    with torch.no_grad():
        image = generate(best)[0].detach()
    network, inputs = generate.module(best)
    _, jacobian = jacobian_of(network, inputs, parameters=parameters, choice=choice)
    return image_model(
        data.A,
        data.y,
        data.weights,
        image=image,
        jacobian=jacobian,
        scale=float(generate.scale[0]),
        prior=prior,
        rank=rank,
        rng=rng,
        progress=progress,
        stages=stages,
    )


def asked_errors(text: str, scan: Scan) -> tuple[Wish, ...]:
    """The systematic errors that a slice's error bars hold; by default without axis and gains where views are few or of an arc.

    There an axis beside its place is almost an object beside its: of rectangles over 90 degrees one that was right was told as
    off by 0.08 +- 0.04 columns, and the image lost 1.5 dB.
    """
    unsure = scan.n_angles < _FEW or missing_arc(scan.geometry.angles) is not None
    return tuple(w for w in wishes(text, of=scan.provenance) if not (unsure and w.default and w.name in ("axis", "gain")))


def not_possible(options: ReconstructOptions, scan: Scan) -> tuple[str, ...]:
    """A note of the errors that ``all`` asks for and a scan of this geometry cannot have."""
    if options.bars not in OF_WEIGHTS:
        return ()
    asked = (wish for wish in asked_errors(options.systematics, scan) if not wish.needed and not wish.default)
    why = {wish.name: missing_in(wish.name, scan.geometry) for wish in asked}
    left_out = "; ".join(f"{name}, as {reason}" for name, reason in why.items() if reason)
    return (f"Of all systematic errors left out: {left_out}.",) if left_out else ()


def asks_for(name: str, text: str, scan: Scan) -> bool:
    """Whether `asked_errors` have this one."""
    return any(wish.name == name for wish in asked_errors(text, scan))


def considered(name: str) -> str:
    """What is told of a hidden systematic error where results have no table of them."""
    return (
        f"{KINDS[name].what.capitalize()} is held possible, and is in the error bars: this scan does not tell how large it is."
    )


def of_slices_alone(text: str, what: str) -> tuple[str, ...]:
    """What is told of errors that are asked for by default or by ``all`` where only a single slice could tell them.

    Parameters
    ----------
    text : str
        As of `wishes`.
    what : str
        Is reconstructed, in the plural.
    """
    names = not_in_bars_of(text)
    return (_OF_SLICES.format(what, ", ".join(names)),) if names else ()


def not_in_bars(monochromatic: bool, hardened: Hardened | None = None, *, held: Sequence[str] = ()) -> tuple[str, ...]:
    """What error bars do not hold that know no systematic errors but those ``held``, of a scan whose beam may harden."""
    if held:
        return (_HIDDEN_ALONE.format(", ".join(KINDS[name].what for name in held)),)
    if hardened is not None:
        return (_HARDENED.format(hardened.sd),)
    return () if monochromatic else (_NOT_HARDENED,)


def doubts_of_bars(model: ImageModel, evidence: Evidence, error: float) -> tuple[str, ...]:
    """What to know of error bars before they are trusted; ``error`` is their standard deviations' own, relative."""
    notes = ()
    if not evidence.converged:
        notes += ("The evidence did not converge: its hyperparameters are the best that were met.",)
    if evidence.noiseless:
        notes += ("To the linear model the rays have no noise: the error bars are those of its misfit alone.",)
    if error > _WORTH_TELLING:
        share, count = 100 * error, model.factor.rank
        what = "pixel" if model.image.ndim == 2 else "voxel"
        text = f"A {what}'s standard deviation may differ by {share:.0f} % (rms) from that of the network's exact Jacobian: of "
        alone = model.factor.rest is None or model.factor.rest.root is None
        rest = f"counts as independent {what}s" if alone else "as draws tell it of a pixel and its neighbours"
        few = f"this, {count} directions were computed, and the rest {rest}; held-out views scale both."
        notes += (text + few,)
    return notes
