"""What is asked of a result, one by one, and what comes of it: a question that is refused stops no other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ctuq.errors import InputError
from ctuq.quantities import Quantity
from ctuq.text import first_of

_MOST_TOLD, _MOST_SHOWN, _MOST_ALONE = 3, 12, 2


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
class Answer:
    """The quantities that a question has for an answer: one, a centre's two, or the many points of a profile."""

    name: str
    quantities: tuple[Quantity, ...]

    @property
    def is_line(self) -> bool:
        """Whether these are the points of a profile."""
        return len(self.quantities) > _MOST_ALONE

    @property
    def shown(self) -> tuple[Quantity, ...]:
        """As many as fit on a screen or a page: every second, third, ... point of a profile."""
        return self.quantities[:: self.step]

    @property
    def step(self) -> int:
        """From one shown point to the next."""
        return -(-len(self.quantities) // _MOST_SHOWN)


@dataclass(frozen=True)
class Answers:
    """What could be told, and what was refused."""

    told: tuple[Answer, ...] = ()
    refused: tuple[Refusal, ...] = ()

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(self.told + other.told, self.refused + other.refused)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All of them, every point of a profile included."""
        return tuple(quantity for answer in self.told for quantity in answer.quantities)

    @property
    def shown(self) -> tuple[Quantity, ...]:
        """Those for a screen or a page."""
        return tuple(quantity for answer in self.told for quantity in answer.shown)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was refused, in a sentence for each reason."""
        by_name: dict[str, list[Refusal]] = {}
        for each in self.refused:
            by_name.setdefault(each.name, []).append(each)
        alike: dict[tuple[tuple[int | None, ...], str], list[str]] = {}
        for name, several in by_name.items():
            alike.setdefault((tuple(each.slice for each in several), several[0].reason), []).append(name)
        return tuple(f"{first_of(names, _MOST_TOLD)}: {_told(slices, reason)}" for (slices, reason), names in alike.items())


def answered(questions: Iterable[Question], number: int | None = None) -> Answers:
    """The answers to questions, of a slice of a stack if it has a number."""
    of = "" if number is None else f", slice {number}"
    told: list[Answer] = []
    refused: list[Refusal] = []
    for question in questions:
        try:
            found = tuple(replace(each, name=f"{each.name}{of}") for each in question.ask())
            told.append(Answer(f"{question.name}{of}", found))
        except InputError as error:
            refused.append(Refusal(question.name, str(error), number))
    return Answers(tuple(told), tuple(refused))


def of_one(ask: Callable[..., Quantity], *of: Any, name: str, **how: Any) -> Question:
    """A question with one quantity for an answer, which has its name."""
    return Question(name, lambda: (ask(*of, name=name, **how),))


def _told(slices: tuple[int | None, ...], reason: str) -> str:
    numbers = [str(number) for number in slices if number is not None]
    if not numbers:
        return reason
    which = ", ".join(numbers[:_MOST_TOLD]) + (" and others" if len(numbers) > _MOST_TOLD else "")
    return f"Slice {which} cannot be measured so, as slice {numbers[0]} says: {reason}"
