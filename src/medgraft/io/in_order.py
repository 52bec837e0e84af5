"""A function over many items by threads, its results in their order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order"]

In = TypeVar("In")
Out = TypeVar("Out")


def in_order(
    function: Callable[[In], Out], items: Iterable[In], workers: int | None = None
) -> Generator[Out, None, None]:
    """`function` of each item, computed by threads, handed out in order; only a few results wait at a time.

    Args:
        function: Called from several threads.
        items: Its arguments.
        workers: Number of threads; by default one per core, at most 16.

    Examples:
        >>> list(in_order(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    count = workers or min(16, os.cpu_count() or 1)
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="medgraft-decode") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
