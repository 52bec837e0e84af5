"""Who is told how a job goes: lines of text, and how far it is."""

import dataclasses
from collections.abc import Callable

__all__ = ["Listener"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told how things go.

    Args:
        say: Called with a line of text.
        step: Called with (what, done, all).
    """

    say: Callable[[str], None] = lambda _text: None
    step: Callable[[str, int, int], None] = lambda _what, _done, _all: None
