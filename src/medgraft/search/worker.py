"""A process that trains what it is sent: a folder with a study, an engine and a specification, as JSON by line.

Nothing but these messages and the folder reaches it, so it may
run wherever the folder, the decoded images and the weights are to be had.
"""

import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from medgraft.as_json import to_json
from medgraft.errors import MedgraftError
from medgraft.search.messages import Request, Told, read_message, sent
from medgraft.search.trial import TrialContext, run_trial
from medgraft.study.study import Study, open_study
from medgraft.transfer.source import Source, SourceSpec, open_source

__all__ = ["main"]


def main(descriptor: int) -> None:
    """Answer requests until the other end closes; then end at once, whatever is being trained.

    Args:
        descriptor: Where answers are written; nothing else writes there.
    """
    out = os.fdopen(descriptor, "w", encoding="utf-8")
    # What was printed before, on starting Python, may have left its line open.
    out.write("\n")
    torch.set_num_threads(int(sys.argv[1]))
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    opened = _Opened()
    while True:
        request = requests.get()
        try:
            _train(request, opened, lambda message: sent(out, message))
        except MedgraftError as error:
            sent(out, Told(event="failed", error=str(error), kind=type(error).__name__))


def _listen(requests: "queue.SimpleQueue[Request]") -> None:
    """Hand on what arrives; when the other end is gone nobody wants the rest of a training."""
    try:
        while (message := read_message(sys.stdin, Request)) is not None:
            requests.put(message)
    finally:
        os._exit(0)


class _Opened:
    """Sources and studies that were opened already."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.studies: dict[Path, Study] = {}

    def source(self, spec: SourceSpec) -> Source:
        # Arguments of a network may be lists, which cannot be hashed.
        key = str(to_json(spec))
        if key not in self.sources:
            self.sources[key] = open_source(spec)
        return self.sources[key]

    def study(self, folder: Path) -> Study:
        if folder not in self.studies:
            self.studies[folder] = open_study(folder)
        return self.studies[folder]


def _train(request: Request, opened: _Opened, tell: Callable[[Told], None]) -> None:
    """Train what a request asks for.

    Args:
        request: What to train, and where.
        opened: Sources and studies that are open already.
        tell: Called with every message: the plan, epochs done, the end.
    """
    context = TrialContext(
        source=opened.source(request.spec.source),
        study=opened.study(Path(request.study)),
        engine=request.engine,
        folder=Path(request.folder),
    )
    run_trial(
        request.spec,
        context,
        lambda done, total: tell(Told(event="epoch", done=done, total=total)),
        lambda _plan: tell(Told(event="plan")),
    )
    tell(Told(event="done"))
