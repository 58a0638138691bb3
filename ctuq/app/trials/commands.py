"""What ``ctuq design simulate`` and ``ctuq design compare`` do: trials of strategies, and their comparison."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ctuq import files
from ctuq.app.folder import held_folder
from ctuq.app.png import drawn
from ctuq.app.progress import told_about
from ctuq.app.terminal import cell, give, say
from ctuq.app.trials.figures import draw_angles, draw_comparison
from ctuq.app.trials.options import Compare, Simulate
from ctuq.app.trials.subjects import name_of_subject, phantom_subject, scan_subject
from ctuq.design.trials.compare import Curves, Saving, curves, saving, table
from ctuq.design.trials.contenders import Adaptive, TrialPlan, baselines
from ctuq.design.trials.imaging import METHODS, imaging
from ctuq.design.trials.subject import Subject, goes_round
from ctuq.design.trials.trial import Trial, kept, load_all
from ctuq.errors import InputError
from ctuq.records import write_whole
from ctuq.tomo.phantoms import PHANTOMS

_COMPARISON = "comparison"
_BASELINES = ("equidistant", "golden")
_MOST_POLAR = 12


def simulate(command: Simulate) -> int:
    """Run the trials of one adaptive design and of all that it is compared with, and compare everything in the folder."""
    with held_folder(command.output):
        try:
            return _simulated(command)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted; what was done is kept, and the same command goes on from it.") from None


def _simulated(command: Simulate) -> int:
    adaptive = Adaptive(command.criterion, command.prior, every=command.retrain_every, batch=command.batch)
    plan = TrialPlan(command.pilot, command.total)
    methods = METHODS if command.reconstruct == "both" else (command.reconstruct,)
    imagings = {name: imaging(name, strength=command.strength) for name in methods}
    with told_about(command.debug):
        for subject in _subjects(command):
            if command.total > len(subject.candidates):
                wanted, there = command.total, len(subject.candidates)
                raise InputError(f"{wanted} angles are wanted of {there} candidates; give a smaller --total.")
            half = goes_round(subject.A.geometry) and 2 * command.total <= len(subject.candidates)
            contenders = (*baselines(randoms=command.random, half_turn=half), adaptive)
            for trial in kept(command.output, subject, contenders, plan, imagings, setting=_setting(command)):
                say(_told(trial))
        return _compare([command.output], command.output)


def compare(command: Compare) -> int:
    """Compare all trials in some folders."""
    if not command.folders:
        raise InputError("Name a folder that ctuq design simulate wrote.")
    return _compare(command.folders, command.folders[0] if command.output is None else command.output)


def write_comparison(trials: Sequence[Trial], folder: Path, stem: str, *, rng: np.random.Generator) -> list[str]:
    """Write the table of all qualities, one figure for each, and the chosen angles of the first subject.

    Returns
    -------
    list of str
        One sentence for each quality, strategy and baseline.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, sentences = [], []
    for quality in dict.fromkeys(name for trial in trials for name in trial.qualities):
        found = curves(trials, quality)
        present = [name for name in _BASELINES if name in found.values]
        savings = {b: {n: saving(found, n, b, rng=rng) for n in found.values if n != b} for b in present}
        rows += table(found, savings)
        if present:
            name = f"{stem}_{quality.replace(' ', '_')}.png"
            _write(folder / name, drawn(draw_comparison, found, present[0], savings))
        sentences += _headlines(found, savings)
    first = [trial for trial in trials if trial.subject == trials[0].subject and trial.seed == 0]
    _write(folder / f"{stem}_angles.png", drawn(draw_angles, first[:_MOST_POLAR]))
    _write(folder / f"{stem}.csv", _csv(rows))
    give(folder=folder, comparison=rows)
    return sentences


def _compare(folders: Sequence[Path], output: Path) -> int:
    sentences = write_comparison(load_all(folders), output, _COMPARISON, rng=np.random.default_rng(0))
    say("\n".join([*sentences, f"Written: {output / _COMPARISON}.csv and the figures beside it."]))
    return 0


def _subjects(command: Simulate) -> Iterator[Subject]:
    if not command.object:
        raise InputError(f"Name a scan file or a phantom; phantoms are {', '.join(PHANTOMS)}.")
    first, *more = command.object
    if first in PHANTOMS and not more:
        for seed in range(command.seed, command.seed + command.images):
            yield phantom_subject(first, command.size, command.candidates, noise=command.noise, seed=seed)
        return
    paths = [Path(name) for name in command.object]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise InputError(f"'{absent[0]}' is neither a file nor a phantom; phantoms are {', '.join(PHANTOMS)}.")
    scan = files.read(paths, geometry=command.geometry, truth=command.truth)
    yield scan_subject(name_of_subject(paths[0]), scan, command.size, every=command.every, strength=command.strength)


def _setting(command: Simulate) -> str:
    """What trials must share to be compared."""
    views = f"{command.candidates} candidates, noise {command.noise:g}"
    views = views if command.object[0] in PHANTOMS else f"every {command.every}"
    return (
        f"{command.size} pixels, {views}, {command.pilot} pilot, {command.total} total, "
        f"{command.reconstruct}, TV {command.strength:g}"
    )


def _told(trial: Trial) -> str:
    last = ", ".join(f"{name} {values[-1]:.2f} dB" for name, values in trial.qualities.items())
    cost = f"; {trial.learn.sum():.1f} s to learn, {trial.ask.sum():.1f} s to choose" if trial.ask.size else ""
    return f"{trial.subject}, {trial.strategy}: {last} at {trial.counts[-1]} angles{cost}"


def _headlines(found: Curves, savings: dict[str, dict[str, Saving]]) -> list[str]:
    """Adaptive strategies at the middle count, in words."""
    place = len(found.counts) // 2
    lines = []
    for baseline, of_strategies in savings.items():
        for name, saved in of_strategies.items():
            if " " in name and name != "half turn":
                lines.append(f"{name} {_saved(saved, place)} {baseline} with {found.counts[place]} angles ({found.quality}).")
    return lines


def _saved(found: Saving, place: int) -> str:
    percent, (low, high) = found.percent[place], found.interval
    if not math.isfinite(percent):
        return "is never as good within its angles as"
    if found.subjects == 1:
        return f"saves {percent:.0f} % of the angles for the same error as"
    lowest = f"{low[place]:.0f}" if math.isfinite(low[place]) else "unbounded"
    interval = f"95 % interval {lowest} to {high[place]:.0f}, {found.subjects} subjects"
    return f"saves {percent:.0f} % of the angles ({interval}) for the same error as"


def _csv(rows: Sequence[dict[str, str | float | int]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else cell(v) for k, v in row.items()} for row in rows)
    return text.getvalue().encode()


def _write(path: Path, data: bytes) -> None:
    write_whole(path, lambda target: target.write(data))
