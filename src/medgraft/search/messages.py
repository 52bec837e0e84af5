"""What an executor and its worker processes say to one another: one JSON object a line."""

import json
from typing import IO, Any

__all__ = ["read_message", "sent"]


def sent(stream: IO[str] | None, message: dict[str, Any]) -> None:
    """Write a message, at once.

    Args:
        stream: A pipe.
        message: Plain JSON types.

    Raises:
        OSError: Nobody reads at the other end.
    """
    if stream is not None:
        stream.write(json.dumps(message) + "\n")
        stream.flush()


def read_message(stream: IO[str] | None) -> dict[str, Any] | None:
    """The next message, or None when the other end is closed.

    Args:
        stream: A pipe.
    """
    line = stream.readline() if stream is not None else ""
    message: dict[str, Any] | None = json.loads(line) if line else None
    return message
