"""A result with its error bars: draws, standard deviations, what is kept of the covariance, scores."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from ctuq.pipeline.image.one_material import hardening_told
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.run import Run
from ctuq.scores.gaussian import patch_scores, truth_scores
from ctuq.systematics.block import Block
from ctuq.uncertainty.calibration.edges import EdgePosterior
from ctuq.uncertainty.calibration.unseen import of_all_directions
from ctuq.uncertainty.estimate import ErrorBars
from ctuq.uncertainty.hidden_errors import hidden_alone
from ctuq.uncertainty.model.beside import BesideHidden
from ctuq.uncertainty.model.gaussian import GaussianPosterior
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.kept_covariance import waves_of
from ctuq.uncertainty.systematics import systematics_of

_DENSE_PIXELS = 4096
"""Up to so many pixels a truth is scored against the whole covariance, above against samples."""
_KEPT = 2**26


def with_bars(
    run: Run[ReconstructOptions],
    base: Result,
    image: Tensor,
    found: ErrorBars,
    prior: Mapping[str, float],
    *,
    hidden: tuple[Block, ...] = (),
) -> Result:
    """The result with its error bars, samples and scores.

    Parameters
    ----------
    run, base, image, found
    prior : mapping of str to float
        Hyperparameters by name.
    hidden : tuple of Block
        Errors that no ray tells and that the posterior of a Gaussian prior does not know.
    """
    scale = found.scales.image**0.5
    whole = found.posterior
    if isinstance(whole, GaussianPosterior):
        whole = BesideHidden.of(whole, hidden, found.scales.image)
    posterior = whole
    if found.edges is not None:
        stretched = EdgePosterior(found.posterior, found.edges)
        posterior = whole.around(stretched) if isinstance(whole, BesideHidden) else stretched
    noise = found.scales.noise * found.evidence.sigma2
    posterior, notes = of_all_directions(
        posterior, base.scan.geometry, image, found.scales.image, noise, rng=run.rng, stages=run.stages
    )
    with run.clock("samples"):
        run.tell("Samples", 0, 1)
        raw = whole.std().cpu().numpy().astype(np.float32)
        std = raw if posterior is whole else posterior.std().cpu().numpy()
        count = run.options.samples
        drawn = run.stages.once("drawn", lambda: posterior.joint_deviations(count, rng=run.rng), rng=run.rng)
        deviations, errors = ((scale * draws).cpu().numpy().astype(np.float32) for draws in drawn)
        kept = min(run.options.directions, max(1, _KEPT // (4 * raw.size)))
        waves, directions = waves_of(kept, raw.shape), None
        if kept:
            leading = run.stages.once("directions", lambda: posterior.directions(kept, waves=waves, rng=run.rng), rng=run.rng)
            directions = (scale * leading).cpu().numpy().astype(np.float32)
        run.tell("Samples", 1, 1)
    mean = (image.double() + found.correction).cpu().numpy().astype(np.float32)
    std = (scale * std).astype(np.float32)
    scores = {"leave_one_angle_out": found.leave_one_out}
    if found.calibration is not None:
        scores |= {"held_out": dict(found.calibration.calibrated), "held_out_raw": dict(found.calibration.raw)}
    if base.truth is not None:
        small = raw.size <= _DENSE_PIXELS
        covariance = scale**2 * posterior.covariance().cpu().numpy() if small else None
        scores["truth"] = truth_scores(mean, std, base.truth) | patch_scores(base.truth - mean, covariance, deviations)
        scores["truth_raw"] = truth_scores(mean, raw, base.truth)
    evidence = found.evidence
    effects = (scale * posterior.hidden_images()).cpu().numpy().astype(np.float32)
    if isinstance(whole, ImagePosterior):
        systematics = systematics_of(whole, evidence, found.scales.image, errors, effects)
    else:
        systematics = hidden_alone(posterior.hidden, image, std, errors, effects)
    return replace(
        base,
        mean=mean,
        std=std,
        std_raw=raw,
        std_error=posterior.error,
        samples=mean + deviations,
        directions=directions,
        waves=waves,
        sigma2=(sigma2 := found.scales.noise * evidence.sigma2),
        subpixel=base.subpixel * sigma2,
        prior=prior,
        log_evidence=evidence.value,
        log_evidence_error=evidence.error,
        calibration=found.calibration,
        scores=scores,
        warnings=base.warnings + notes,
        systematics=hardening_told(run, systematics),
    )
