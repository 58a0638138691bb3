"""Coverage of every quantity and group, beside the band from 90 to 99 %."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def draw(table: Sequence[Mapping]) -> Figure:
    """A dot for each group's coverage in the half that tests, a cross for that of the posterior alone."""
    rows = [row for row in table if row.get("tested_asked")]
    figure = Figure(figsize=(8, 0.21 * len(rows) + 1), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(90, 99, color="0.9")
    axes.axvline(95, color="0.6", lw=0.8)
    places = range(len(rows), 0, -1)
    axes.plot(
        [100 * row["tested_cover_95_posterior_alone"] for row in rows], places, "x", color="tab:red", label="posterior alone"
    )
    axes.plot([100 * row["tested_cover_95"] for row in rows], places, "o", color="tab:blue", label="as told")
    labels = [f"{row['quantity']}, {row['group']} {row['value']}".strip() for row in rows]
    axes.set_yticks(list(places), labels, fontsize=7)
    axes.set_xlabel("95 % intervals that hold the truth, %")
    axes.legend(loc="lower left", fontsize=8)
    return figure
