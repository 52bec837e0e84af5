"""How searches speak: each proposes a batch of trainings, is told what came of them, and ends with what it found."""

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

__all__ = ["Search", "drive"]

Proposal = TypeVar("Proposal")
Answer = TypeVar("Answer")
Found = TypeVar("Found")

Search = Generator[Sequence[Proposal], Answer, Found]
"""Yields the trainings that it wants next, which may run at once; is sent what came of them; returns what it found."""


def drive(search: Search[Proposal, Answer, Found], answer: Callable[[Sequence[Proposal]], Answer]) -> Found:
    """What a search finds when each of its batches is answered.

    Args:
        search: Not begun yet.
        answer: Trains a batch, in any order or all at once, and says what came of it.

    Examples:
        >>> def search():
        ...     scores = yield [1, 2, 3]
        ...     again = yield [max(scores)]
        ...     return again[0]
        >>> drive(search(), lambda batch: [10 * number for number in batch])
        300
    """
    try:
        batch = next(search)
        while True:
            batch = search.send(answer(batch))
    except StopIteration as end:
        result: Found = end.value
        return result
