"""Figures that pages quote are those of the tables that experiments wrote."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ctuq.systematics.build import told_in
from ctuq.systematics.catalogue import STRONG
from experiments.count_noise import table as count_noise_table
from experiments.engine.rows import Rows
from experiments.htc import table as htc_table
from experiments.peers.drawing import table_of as peers_table
from experiments.strangers import table as strangers_table
from experiments.strangers_volumes import table as volumes_table

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, str]


def table_of(page: str, first: str) -> list[list[str]]:
    """Cells of the one table of a page whose head begins with this cell, without head and rule."""
    lines = (ROOT / page).read_text().splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith(f"| {first} |")]
    assert len(heads) == 1, f"{page} has {len(heads)} tables that begin with {first!r}"
    return list(_rows(lines[heads[0] + 2 :]))


def _rows(lines: list[str]) -> Iterator[list[str]]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip()[1:-1].split("|")]


def written(name: str) -> list[Row]:
    with (ROOT / "figures" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def told(cell: str) -> list[tuple[float, float]]:
    """Numbers of a cell, and half of the last digit of each."""
    found = re.findall(r"-?\d+(?:\.\d+)?", cell.replace(",", ", "))
    return [(float(text), 0.5 * 10.0 ** -len(text.partition(".")[2])) for text in found]


def check(cell: str, *values: float) -> None:
    numbers = told(cell)
    assert len(numbers) == len(values), cell
    for (number, half), value in zip(numbers, values, strict=True):
        assert abs(number - value) <= 1.02 * half, f"{cell!r} where the table has {value}"


def test_scores_of_unseen_views_are_those_of_the_experiment() -> None:
    kept = {row["scan"]: row for row in written("unseen_views.csv")}
    rows = table_of("README.md", "scan | views used of all")
    assert len(rows) == 3
    for scan, views, pixels, rms, low, high, likelihood, constant, neighbours in rows:
        row = kept[scan.removeprefix("HTC 2022 ")]
        check(views.partition(" of ")[0], float(row["views"]))
        check(pixels.removesuffix("²"), float(row["size"]))
        check(rms, float(row["rms_z"]))
        check(low, 100 * float(row["cover_68"]))
        check(high, 100 * float(row["cover_95"]))
        check(likelihood, float(row["log_likelihood"]))
        check(constant, float(row["constant_log_likelihood"]))
        check(neighbours, float(row["neighbours_log_likelihood"]))


def test_times_and_memory_are_those_of_the_jobs() -> None:
    kept = {row["job"]: row for row in written("jobs.csv")}
    rows = table_of("README.md", "scan, views")
    assert len(rows) >= 8
    for scan, pixels, cpu, memory, scores in rows:
        job = f"{scan.split(',')[0].removeprefix('HTC 2022 ')}-{told(pixels)[0][0]:.0f}" + "-all" * ("all" in scan)
        row = kept[job]
        seconds = float(row["cpu_seconds"])
        check(cpu, seconds / 60 if cpu.endswith("min") else seconds)
        check(memory, float(row["gib"]))
        kind = "held_out" if scores.startswith("held out") else "unseen"
        check(scores.removeprefix("held out: "), float(row[f"{kind}_log_likelihood"]), float(row[f"{kind}_rms_z"]))


METHODS = {
    "network": "map",
    "ensemble": "ensemble",
    "dropout": "dropout",
    "diagonal (laplace-torch)": "diagonal",
    "KFAC (laplace-torch)": "kfac",
    "last layer": "last layer",
    "Laplace, g-prior": "laplace",
    "Laplace, shared precision": "laplace, shared",
    "Laplace, g-prior, held-out precision": "laplace, held-out",
}


CLASSES = ["engine_digits_digits", "engine_digits_mnist_half", "engine_lenet_mnist_half"]


@pytest.mark.parametrize(("at", "name"), list(enumerate(CLASSES)))
def test_scores_of_classes_are_those_of_the_experiment(at: int, name: str) -> None:
    lines = (ROOT / "docs/engine.md").read_text().splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith("| method | log lik.")]
    kept = written(f"{name}.csv")

    def mean(method: str, angle: int, column: str) -> float:
        values = [float(r[column]) for r in kept if r["method"] == method and int(r["angle"]) == angle]
        assert values, (method, angle)
        return float(np.mean(values))

    for method, *cells in _rows(lines[heads[at] + 2 :]):
        key = METHODS[method]
        straight = [(0, "log_likelihood"), (0, "ece"), (0, "joint_5")]
        turned = [(90, "log_likelihood"), (90, "ece"), (90, "auroc")]
        for cell, (angle, column) in zip(cells, [*straight, *turned, (0, "cpu_seconds")], strict=True):
            check(cell, mean(key, angle, column))


def test_scores_of_gaussian_processes_are_those_of_the_experiment() -> None:
    kept = {(row["set"], row["solver"]): row for row in written("uci.csv")}
    for name, _, rmse, nll, cpu in table_of("docs/engine.md", "set (training rows)"):
        ours, peer = (kept[name.split()[0], solver] for solver in ("auto", "gpytorch"))
        check(rmse, float(ours["rmse"]), float(peer["rmse"]))
        check(nll, float(ours["nll"]), float(peer["nll"]))
        check(cpu, float(ours["cpu_seconds"]), float(peer["cpu_seconds"]))


def test_regrets_of_thompson_sampling_are_those_of_the_experiment() -> None:
    rows = [row for row in written("engine_thompson.csv") if row["round"] == "5"]
    told_of = table_of("docs/engine.md", "solver | regret: median")
    assert {solver for solver, *_ in told_of} == {row["solver"] for row in rows}
    for solver, *cells in told_of:
        own = [row for row in rows if row["solver"] == solver]
        regret = [float(row["regret"]) for row in own]
        assert len(regret) == 5
        values = (np.median(regret), np.mean(regret), max(regret), np.mean([float(row["cpu_seconds"]) for row in own]))
        for cell, value in zip(cells, values, strict=True):
            check(cell, float(value))


def test_distances_from_tangent_models_are_those_of_the_experiment() -> None:
    kept = written("engine_tangent_deep.csv")
    told_of = table_of("docs/engine.md", "network, prior")
    assert {row[0] for row in told_of} == {f"{row['network']}, {row['prior']}" for row in kept}
    for name, *cells in told_of:
        own = [row for row in kept if f"{row['network']}, {row['prior']}" == name]
        values = [float(row["distance"]) for row in own if row["moved"] == "all"]
        last = [row for row in own if float(row["scale"]) == 1 and row["moved"] != "all"]
        values.append(max(float(row["distance"]) for row in last if not row["moved"].startswith("up to")))
        for cell, value in zip(cells, np.log10(values), strict=True):
            check(cell, float(value))


def test_sampled_posteriors_are_those_of_the_experiment() -> None:
    em, kept = written("engine_sampled_em.csv"), written("engine_sampled.csv")
    for network, samples, *cells in table_of("docs/engine.md", "network | samples"):
        (search,) = [r for r in em if (r["network"], r["samples"]) == (network, samples) and float(r["start"]) == 0]
        row = {r["kind"]: r for r in kept if (r["network"], r["samples"]) == (network, samples)}
        values = [search["nats_below"], search["cpu_seconds"], row["draws"]["std_error"], row["em"]["std_error"]]
        values += [row["draws"][key] for key in ("log_likelihood", "joint_5")] if network == "LeNet" else []
        for cell, value in zip([cell for cell in cells if cell], values, strict=True):
            check(cell, float(value))


def test_what_rescaled_weights_do_is_that_of_the_experiment() -> None:
    kept = {(row["prior"], float(row["factor"])): row for row in written("engine_rescaled.csv")}
    for prior, *cells in table_of("docs/engine.md", "prior | log evidence: x 0.1"):
        keys = [(key, factor) for key in ("log_evidence", "std_over_image") for factor in (0.1, 1.0, 10.0)]
        for cell, (key, factor) in zip(cells, keys, strict=True):
            check(cell, float(kept[prior, factor][key]))


def test_scores_on_small_regression_sets_are_those_of_the_experiment() -> None:
    kept = written("engine_regression.csv")
    told_of = table_of("docs/engine.md", "method | diabetes")
    assert [row[0] for row in told_of] == list(dict.fromkeys(row["method"] for row in kept))

    def mean(method: str, name: str, column: str) -> float:
        found = [float(row[column]) for row in kept if (row["method"], row["set"]) == (method, name)]
        assert len(found) == 5
        return float(np.mean(found))

    for method, *cells, seconds in told_of:
        for cell, name in zip(cells, ("diabetes", "yacht", "autompg"), strict=True):
            check(cell, mean(method, name, "rmse"), mean(method, name, "nll"), 100 * mean(method, name, "cover_95"))
        check(seconds, mean(method, "diabetes", "cpu_seconds"))
    same = [float(row["std_difference"]) for row in kept if row["method"] == "ctuq, as laplace-torch"]
    assert max(same) < 1e-6


def test_scores_of_methods_for_volumes_are_those_of_the_experiment() -> None:
    kept = {(row["size"], row["method"]): row for row in written("volume_methods.csv")}
    lines = (ROOT / "docs/how_it_works.md").read_text().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| | 24³: seconds"))
    for method, *cells in _rows(lines[head + 2 :]):
        key = {"deep image prior": "dip", "noise alone": "fdk"}.get(method, method.lower())
        for size, (seconds, unseen, psnr) in (("24", cells[:3]), ("40", cells[3:])):
            row = kept[size, key]
            if method == "noise alone":
                check(unseen, float(row["noise"]))
                continue
            check(seconds, float(row["seconds"]))
            check(unseen, float(row["unseen"]))
            check(psnr, float(row["psnr"]))


def test_every_experiment_is_listed_and_every_listed_one_is_there() -> None:
    text = (ROOT / "experiments/README.md").read_text()
    named = set()
    for command in re.findall(r"`[^`]*`(?:, `[^`]*`)*", text):
        parts = re.findall(r"experiments((?:\.\w+)+)|`(\.\w+)", command)
        home = ""
        for whole, short in parts:
            home = whole.rpartition(".")[0] if whole else home
            named.add(whole or home + short)
    scripts = {
        "." + ".".join(path.relative_to(ROOT / "experiments").with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "experiments").rglob("*.py")
        if "if __name__ == " in path.read_text() or path.name == "__main__.py"
    }
    assert named - scripts == set()
    assert scripts - named == set()


def test_every_page_has_its_place_on_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not re.search(rf"^ *- {re.escape(page)}$", site, re.MULTILINE)] == []


def test_rows_of_other_programs_are_those_of_the_experiment() -> None:
    page = (ROOT / "docs" / "peers.md").read_text()
    assert peers_table(ROOT / "figures" / "peers.csv") in page


def test_rows_of_strangers_are_those_of_the_experiment() -> None:
    assert strangers_table(Rows(ROOT / "figures" / "strangers.csv")) in (ROOT / "README.md").read_text()


def test_rows_of_real_discs_are_those_of_the_experiment() -> None:
    assert htc_table(Rows(ROOT / "figures" / "htc.csv"), 64) in (ROOT / "README.md").read_text()


def test_rows_of_strangers_volumes_are_those_of_the_experiment() -> None:
    assert volumes_table(Rows(ROOT / "figures" / "strangers_volumes.csv")) in (ROOT / "README.md").read_text()


def test_what_weights_by_counts_are_worth_is_that_of_the_experiment() -> None:
    assert count_noise_table(Rows(ROOT / "figures" / "count_noise.csv")) in (ROOT / "docs" / "how_it_works.md").read_text()


def test_coverage_of_quantities_is_that_of_the_experiment() -> None:
    rows = written("quantities.csv")
    kept = {row["quantity"]: row for row in rows if row["group"] == "all"}
    real = {row["quantity"]: row for row in rows if row["group"] == "real discs"}
    told_of = table_of("docs/quantities.md", "quantity")
    assert {row[0] for row in told_of} == set(kept)
    for name, *cells in told_of:
        row, disc = kept[name], real.get(name, {})
        names = ("chosen_asked", "chosen_cover_95", "tested_asked", "tested_cover_95", "tested_rms_z")
        values = [row[each] for each in (*names, "tested_cover_95_posterior_alone")]
        values += [disc.get(each, "") for each in ("tested_asked", "tested_cover_95")]
        for cell, value in zip(cells, values, strict=True):
            if cell:
                check(cell, float(value) * (100 if cell.endswith("%") else 1))


def test_means_along_edges_are_those_of_the_experiment() -> None:
    kept = {f"{row['method']}: {row['region']}": row for row in written("outlines.csv") if row["half"] == "tested"}
    told = table_of("docs/quantities.md", "region")
    assert {row[0] for row in told} == set(kept)
    names = ("asked", "cover_95", "rms_z", "cover_95_without", "rms_z_without", "median_error", "median_u")
    for name, *cells in told:
        for cell, key in zip(cells, names, strict=True):
            check(cell, float(kept[name][key]) * (100 if cell.endswith("%") else 1))


def test_probabilities_of_parts_are_those_of_the_experiment() -> None:
    kept = [row for row in written("parts.csv") if (row["method"], row["half"]) == ("tv", "tested")]
    told = table_of("docs/quantities.md", "parts")
    assert {row[0] for row in told} == {row["size"] for row in kept}
    for size, cells in told:
        rows = [row for row in kept if row["size"] == size]
        for cell, row in zip(cells.split(", "), rows, strict=True):
            said, true = cell.split(": ")
            share, asked = true.split(" of ")
            check(said, 100 * float(row["told"]))
            check(share, 100 * float(row["true"]))
            check(asked, float(row["asked"]))


def test_what_taking_errors_out_is_worth_is_that_of_the_experiment() -> None:
    kept: dict[tuple[str, float], list[Row]] = {}
    for row in written("systematics.csv"):
        if row["blocks"].endswith(" taken out"):
            kept.setdefault((row["defect"], float(row["level"])), []).append(row)
    rows = table_of("docs/systematics.md", "defect")
    assert {(name, float(level)) for name, level, *_ in rows} == set(kept)
    for name, level, *cells in rows:
        found = kept[name, float(level)]
        scans, before, after, held, covered = cells
        means = {key: np.mean([float(row[key]) for row in found]) for key in ("fit_rmse", "corrected_rmse", "held", "cover_95")}
        check(scans, len(found))
        check(before, 1000 * means["fit_rmse"])
        check(after, 1000 * means["corrected_rmse"])
        check(held, 100 * means["held"])
        check(covered, 100 * means["cover_95"])


def test_what_is_told_of_single_views_is_that_of_the_experiment() -> None:
    kept: dict[tuple[str, ...], list[Row]] = {}
    for row in written("systematics_views.csv"):
        kept.setdefault((row["defect"], row["level"], row["object"]), []).append(row)
    rows = table_of("docs/systematics.md", "error of each view")
    assert {tuple(cells[:3]) for cells in rows} == set(kept)
    for name, level, phantom, scans, *cells in rows:
        found, unit = kept[name, level, phantom], told_in(name)
        check(scans, len(found))
        check(cells.pop(3), float(np.mean([float(row["z"]) ** 2 for row in found])) ** 0.5)
        keys = ("true_rms", "error_rms", "sd_rms", "held", "fit_rmse", "corrected_rmse", "cover_95")
        units = (unit, unit, unit, 0.01, 1e-3, 1e-3, 0.01)
        for cell, key, of in zip(cells, keys, units, strict=True):
            check(cell, float(np.mean([float(row[key]) for row in found])) / of)


def test_what_a_cubic_term_of_hardening_is_worth_is_that_of_the_experiment() -> None:
    kept: dict[tuple[str, str], dict[str, Row]] = {}
    for row in written("systematics_cubic.csv"):
        kept.setdefault((f"{row['c']}, {row['longest']}", row["way"]), {})[row["object"]] = row
    rows = table_of("docs/systematics.md", "η, and the longest p")
    assert {(beam, way) for beam, way, *_ in rows} == set(kept)
    for beam, way, nats, over, held, z in rows:
        here, square = kept[beam, way], kept[beam, "square"]
        gain = np.array([float(row["log_likelihood"]) - float(square[name]["log_likelihood"]) for name, row in here.items()])
        assert len(gain) == 8
        means = {key: float(np.mean([float(r[key]) for r in here.values()])) for key in ("log_likelihood", "cover_95", "rms_z")}
        check(nats.replace("−", "-"), means["log_likelihood"])
        if over:
            check(over.replace("−", "-"), float(gain.mean()), float(gain.std(ddof=1)) / len(gain) ** 0.5)
        check(held, 100 * means["cover_95"])
        check(z, means["rms_z"])


def test_what_is_told_of_rings_is_that_of_the_experiment() -> None:
    kept: dict[tuple[str, int], list[Row]] = {}
    for row in written("systematics_rings.csv"):
        kept.setdefault((row["scan"], int(row["level"])), []).append(row)
    rows = table_of("docs/systematics.md", "object")
    assert len(rows) >= 8
    for name, level, *cells in rows:
        found = kept[name, int(level)]

        def mean(key: str, found: list[Row] = found) -> float:
            return float(np.mean([float(row[key]) for row in found]))

        scans, out, held, off, image, freed, exact = cells
        check(scans, len(found))
        check(out, sum(float(row["log_odds"]) >= STRONG for row in found))
        check(held, 100 * mean("held"))
        if off:
            check(off, mean("told_error") / mean("true"))
        for cell, key in ((image, "image"), (freed, "image_freed"), (exact, "image_exact")):
            if cell:
                check(cell, mean(key))


def test_what_an_axis_beside_its_place_does_is_that_of_the_experiment() -> None:
    rows = written("axis.csv")
    for beam, *cells in table_of("docs/systematics.md", "beam"):
        mean = {
            (off, asked, key): np.mean(
                [float(r[key]) for r in rows if (r["beam"], float(r["columns_off"]), r["asked"]) == (beam, off, asked)]
            )
            for off in (0.0, 0.5)
            for asked in ("none", "axis")
            for key in ("psnr", "cover_95_object")
        }
        for cell, (off, asked) in zip(cells[:4], ((0.0, "none"), (0.0, "axis"), (0.5, "none"), (0.5, "axis")), strict=True):
            check(cell, mean[off, asked, "psnr"])
        for cell, asked in zip(cells[4:], ("none", "axis"), strict=True):
            check(cell, 100 * mean[0.5, asked, "cover_95_object"])


def test_what_broken_rays_do_is_that_of_the_experiment() -> None:
    kept = {row["fault"]: row for row in written("broken.csv")}
    rows = table_of("docs/formats.md", "fault")
    assert [row[0] for row in rows] == list(kept)
    for fault, *cells in rows:
        row = kept[fault]
        check(cells[0], float(row["psnr_unchecked"]))
        check(cells[1], float(row["psnr_checked"]))
        check(cells[2], 100 * float(row["cover_95_object_unchecked"]))
        check(cells[3], 100 * float(row["cover_95_object_checked"]))


def test_what_the_noise_of_flats_is_worth_is_that_of_the_experiment() -> None:
    kept: dict[tuple[str, str, str], list[Row]] = {}
    for row in written("flats.csv"):
        kept.setdefault((row["beam"], row["method"], row["choice"]), []).append(row)
    names = {"their counts": "counts", "the law learned": "law", "the true law": "true"}
    names |= {"whitened in bands": "band", "the same, blur in A": "band and blur"}
    table = table_of("docs/how_it_works.md", "scan and method")
    assert len(table) >= 8
    for scan, weights, scans, *cells in table:
        beam, _, method = scan.partition(", ")
        found = kept[beam, method, names[weights]]
        check(scans, len(found))
        keys = ("rmse", "unseen_log_likelihood", "unseen_cover_95", "object_cover_95")
        for cell, key, times in zip(cells, keys, (100, 1, 100, 100), strict=True):
            check(cell, times * np.mean([float(row[key]) for row in found]))


def test_coverage_of_stacks_is_that_of_the_experiment() -> None:
    kept = {
        (row["method"], row["what"], row["value"] or "all"): row
        for row in written("quantities_stacks.csv")
        if row["group"] != "noise"
    }
    rows = table_of("docs/quantities.md", "through slices")
    assert len(rows) >= 7
    for what, objects, *figures in rows:
        row = kept[(*what.split(": "), objects)]
        for cell, name, unit in zip(
            figures,
            ("asked", "cover_95", "rms_z", "independent_cover_95", "independent_rms_z"),
            (1, 100, 1, 100, 1),
            strict=True,
        ):
            check(cell, unit * float(row[name]))


def test_gains_of_real_scans_are_those_of_the_experiment() -> None:
    kept = {(row["scan"], row["size"]): row for row in written("systematics_rings_unseen.csv")}
    rows = table_of("docs/systematics.md", "real scan")
    assert len(rows) == len(kept)
    for scan, size, taken, odds, plain, freed in rows:
        row = kept[scan, size]
        assert taken == row["taken_out"]
        check(odds, float(row["log_odds"]))
        check(plain, 1e3 * float(row["unseen_rmse"]))
        check(freed, 1e3 * float(row["unseen_rmse_freed"]))


def of_page(page: str) -> dict[str, dict[str, float]]:
    """Values of a tutorial by what they are of and their name, as `experiments.tutorials` wrote them."""
    kept: dict[str, dict[str, float]] = {}
    for row in written("tutorials.csv"):
        if row["page"] == page:
            kept.setdefault(row["what"], {})[row["name"]] = float(row["value"])
    return kept


def test_the_operators_table_is_what_its_commands_make() -> None:
    kept = of_page("operator")
    rows = table_of("docs/tutorial_operator.md", "choice")
    for (_, *cells), folder in zip(rows, ("run10", "run7", "run7side"), strict=True):
        found = kept[folder]
        covers = (100 * found["cover_68"], 100 * found["cover_95"])
        for cell, values in zip(cells, ((found["rmse"],), (found["rms_z"],), covers), strict=False):
            check(cell, *values)
        check(cells[3], found["psnr"])
        check(cells[4], found["typical_std"])
    text = (ROOT / "docs" / "tutorial_operator.md").read_text()
    (longer,) = re.findall(r"error bars are ([\d.]+) times as long", text)
    check(longer, kept["run7side"]["typical_std"] / kept["run7"]["typical_std"])


def test_the_scientists_report_is_what_its_command_says() -> None:
    kept = of_page("scientist")["report"]
    quote = " ".join((ROOT / "docs" / "tutorial_scientist.md").read_text().replace("\n> ", "\n").split())
    shown = (
        r"known to ± ([\d.]+) 1/mm, [\d.]+ % of its attenuation of ([\d.]+) 1/mm .* between ([\d.]+) and ([\d.]+)\)\. "
        r".*prediction by ([\d.]+) predicted .*calibration it was ([\d.]+)\. .*rays cover between (\d+) and (\d+) %, the 68 % "
        r"intervals between (\d+) and (\d+) % .*taken: ([\d.]+) ± ([\d.]+) mm"
    )
    names = ("typical_std", "level", "low", "high", "rms_z", "rms_z_raw", "cover_95_low", "cover_95_high")
    names += ("cover_68_low", "cover_68_high", "axis", "axis_std")
    found = re.search(shown, quote)
    assert found is not None
    for cell, name in zip(found.groups(), names, strict=True):
        check(cell, kept[name] * (100 if name.startswith("cover") else 1))


def test_the_researchers_tables_are_what_its_listings_print() -> None:
    kept = of_page("researcher")
    names = (("evidence",), ("scale",), ("log_likelihood",), ("cover_68", "cover_95"), ("patches",), ("rank_correlation",))
    for prior, *cells in table_of("docs/tutorial_researcher.md", "prior"):
        for cell, keys in zip(cells, names, strict=True):
            check(cell, *(kept[prior][key] * (100 if key.startswith("cover") else 1) for key in keys))
    text = (ROOT / "docs" / "tutorial_researcher.md").read_text()
    shown = r"^(\w+) {'psnr': ([\d.]+)\.\.\., 'ssim': ([\d.]+)\.\.\., 'rmse': ([\d.]+)\.\.\.}"
    for method, psnr, ssim, rmse in re.findall(shown, text, re.MULTILINE):
        for cell, key in ((psnr, "psnr"), (ssim, "ssim"), (rmse, "rmse")):
            assert f"{kept[method][key]:.9f}".startswith(cell), (method, key)
    (network,) = re.findall(r"better image \(([\d.]+) dB, from 18 of the 20 views, against ([\d.]+) dB by TV\)", text)
    check(network[0], kept["dip"]["psnr"])
    check(network[1], kept["tv"]["psnr"])
