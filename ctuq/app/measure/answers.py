"""What is asked of a result, one by one, and what comes of it: a question that is refused stops no other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ctuq.errors import InputError
from ctuq.quantities import Quantity

_MOST_TOLD = 3


class Question(NamedTuple):
    """What is asked, by its name, and who answers it."""

    name: str
    ask: Callable[[], Iterable[Quantity]]


@dataclass(frozen=True)
class Refusal:
    """A question without an answer.

    Parameters
    ----------
    name : str
        What was asked.
    reason : str
        The sentence that refuses it.
    slice : int, optional
        Of a stack, where it was asked of single slices.
    """

    name: str
    reason: str
    slice: int | None = None


@dataclass(frozen=True)
class Answers:
    """The quantities that could be told, and what was refused."""

    quantities: tuple[Quantity, ...] = ()
    refused: tuple[Refusal, ...] = ()

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(self.quantities + other.quantities, self.refused + other.refused)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was refused, in a sentence for each reason."""
        by_name: dict[str, list[Refusal]] = {}
        for each in self.refused:
            by_name.setdefault(each.name, []).append(each)
        alike: dict[tuple[tuple[int | None, ...], str], list[str]] = {}
        for name, several in by_name.items():
            alike.setdefault((tuple(each.slice for each in several), several[0].reason), []).append(name)
        return tuple(f"{_listed(names)}: {_told(slices, reason)}" for (slices, reason), names in alike.items())


def answered(questions: Iterable[Question], number: int | None = None) -> Answers:
    """The answers to questions, of a slice of a stack if it has a number."""
    found: list[Quantity] = []
    refused: list[Refusal] = []
    for question in questions:
        try:
            found += tuple(question.ask())
        except InputError as error:
            refused.append(Refusal(question.name, str(error), number))
    return Answers(tuple(found), tuple(refused))


def one(ask: Callable[[], Quantity]) -> tuple[Quantity]:
    """The answer of one quantity."""
    return (ask(),)


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_TOLD
    return ", ".join(names[:_MOST_TOLD]) + (f" and {more} more" if more > 0 else "")


def _told(slices: tuple[int | None, ...], reason: str) -> str:
    numbers = [str(number) for number in slices if number is not None]
    if not numbers:
        return reason
    which = ", ".join(numbers[:_MOST_TOLD]) + (" and others" if len(numbers) > _MOST_TOLD else "")
    return f"Slice {which} cannot be measured so, as slice {numbers[0]} says: {reason}"
