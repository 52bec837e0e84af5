"""What an executor and its worker processes say to one another: one JSON object a line."""

import dataclasses
import json
from typing import IO, Final, Literal, TypeVar

from medgraft.as_json import from_json, to_json
from medgraft.search.trial import TrialSpec
from medgraft.train.engine import Engine

__all__ = ["Request", "Told", "read_message", "sent"]

_MARK: Final = "medgraft "
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a worker process is asked for.

    Args:
        folder: Folder of the trials.
        study: Folder of the study.
        engine: Device and arithmetic.
        spec: What to train.
    """

    folder: str
    study: str
    engine: Engine
    spec: TrialSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a worker process says of a training.

    Args:
        event: ``plan`` is made and stored, an ``epoch`` is done, all is ``done``, or it has ``failed``.
        done: Epochs done.
        total: Epochs in all.
        error: Why it failed, for the user.
        kind: Name of the error's class in `medgraft.errors`.
    """

    event: Literal["plan", "epoch", "done", "failed"]
    done: int = 0
    total: int = 0
    error: str = ""
    kind: str = ""

    @property
    def is_last(self) -> bool:
        """Whether nothing more will be said of this training."""
        return self.event in ("done", "failed")


def sent(stream: IO[str] | None, message: Request | Told) -> None:
    """Write a message, at once.

    Args:
        stream: A pipe.
        message: What is said.

    Raises:
        OSError: Nobody reads at the other end.
    """
    if stream is not None:
        stream.write(f"{_MARK}{json.dumps(to_json(message))}\n")
        stream.flush()


def read_message(stream: IO[str] | None, kind: type[T]) -> T | None:
    """The next message, or None when the other end is closed.

    Lines that are none are passed over: what Python prints when it starts, and what a killed process left unfinished.

    Args:
        stream: A pipe.
        kind: `Request` or `Told`.
    """
    for line in stream or ():
        if line.startswith(_MARK) and line.endswith("\n"):
            message: T = from_json(kind, json.loads(line.removeprefix(_MARK)))
            return message
    return None
