"""What a scan file holds and what is missing from it, as lines of text."""

from ctuq.files import Description

Lines = list[tuple[str, str]]
_PHRASES = ("source", "format", "data", "values", "beam", "angles", "detector", "weights", "truth")


def description_lines(description: Description) -> Lines:
    """Name and phrase of everything that a file says, then what was assumed and what is missing."""
    lines = [(name, getattr(description, name)) for name in _PHRASES]
    lines.insert(_PHRASES.index("weights"), ("rotation axis", description.axis))
    lines += [("", fact) for fact in description.facts]
    lines += [("note", text) for text in description.assumed]
    lines += [("MISSING", text) for text in description.missing]
    return [line for line in lines if line[1]] + _unsaid(description)


def _unsaid(description: Description) -> Lines:
    """What is not needed, but changes how the result is to be judged."""
    gaps = []
    if not description.weights and "counts" not in description.values:
        gaps.append(("not given", "counts or weights of the rays: all are taken as equally precise"))
    if not description.truth:
        gaps.append(("not given", "truth: a result is judged by held-out views"))
    return gaps
