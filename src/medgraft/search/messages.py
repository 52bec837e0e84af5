"""What an executor and its worker processes say to one another: one JSON object a line."""

import json
from typing import IO, Any, Final

__all__ = ["read_message", "sent"]

_MARK: Final = "medgraft "


def sent(stream: IO[str] | None, message: dict[str, Any]) -> None:
    """Write a message, at once.

    Args:
        stream: A pipe.
        message: Plain JSON types.

    Raises:
        OSError: Nobody reads at the other end.
    """
    if stream is not None:
        stream.write(f"{_MARK}{json.dumps(message)}\n")
        stream.flush()


def read_message(stream: IO[str] | None) -> dict[str, Any] | None:
    """The next message, or None when the other end is closed.

    Lines that are none are passed over: what Python prints when it starts, and what a killed process left unfinished.

    Args:
        stream: A pipe.
    """
    for line in stream or ():
        if line.startswith(_MARK) and line.endswith("\n"):
            message: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            return message
    return None
