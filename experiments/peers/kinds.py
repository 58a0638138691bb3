"""Kinds of error bars that are set beside each other, by the name in tables: the method, and `--uncertainty`."""

OURS = {
    "tv, edge prior": ("tv", "edges"),
    "tv, bootstrap": ("tv", "bootstrap"),
    "tv, noise": ("tv", "noise"),
    "tv, constant": ("tv", "constant"),
    "Markov field": ("tv", "gmrf"),
    "Matern process": ("tv", "matern"),
    "dip, laplace": ("dip", "laplace"),
    "dip, plug-in": ("dip", "plug-in"),
    "dip, last-layer": ("dip", "last-layer"),
    "dip, diagonal": ("dip", "diagonal"),
    "dip, constant": ("dip", "constant"),
    "dip, noise": ("dip", "noise"),
    "dip, bootstrap": ("dip", "bootstrap"),
    "dip, ensemble": ("dip", "ensemble"),
    "dip, dropout": ("dip", "dropout"),
    "dip, sgld": ("dip", "sgld"),
}


def chosen(only: str | None) -> list[str]:
    """Names with semicolons between them; None is all of ours.

    Raises
    ------
    SystemExit
        For a name that is none of ours.
    """
    names = list(OURS) if only is None else [name.strip() for name in only.split(";")]
    unknown = [name for name in names if name not in OURS]
    if unknown:
        raise SystemExit(f"There is no kind {unknown[0]!r}; there are {'; '.join(OURS)}.")
    return names
