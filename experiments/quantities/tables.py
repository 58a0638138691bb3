"""What the experiments of this folder have in common: whom they ask."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from experiments.quantities.objects import HALVES, Subject, subjects

LARGEST = {"tv": 64, "dip": 32}
"""Pixels along a side, of objects that are asked about by each method."""


def asked(answers: Callable[[Subject, str], Iterable[dict]], counts: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Answers about so many objects by each method, half of them of each half."""
    for method, count in counts.items():
        for half in HALVES:
            small = (subject for subject in subjects() if subject.half == half and subject.size <= LARGEST[method])
            for subject in islice(small, count // 2):
                yield from answers(subject, method)
                print(f"asked: {subject.name}, {method}", flush=True)
