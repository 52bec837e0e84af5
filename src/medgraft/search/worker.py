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
from typing import Any

import torch

from medgraft.errors import MedgraftError
from medgraft.search.messages import read_message, sent
from medgraft.search.trial import TrialContext, TrialSpec, run_trial
from medgraft.study.study import Study, open_study
from medgraft.train.engine import Engine
from medgraft.transfer.source import Source, SourceSpec, open_source
from medgraft.types import from_json, to_json

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
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    opened = _Opened()
    while True:
        request = requests.get()
        try:
            _train(request, opened, lambda message: sent(out, message))
        except MedgraftError as error:
            sent(out, {"error": str(error), "kind": type(error).__name__})


def _listen(requests: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Hand on what arrives; when the other end is gone nobody wants the rest of a training."""
    try:
        while (message := read_message(sys.stdin)) is not None:
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


def _train(request: dict[str, Any], opened: _Opened, tell: Callable[[dict[str, Any]], None]) -> None:
    """Train what a request asks for.

    Args:
        request: Folder of the trials, folder of the study, engine and specification, in plain JSON types.
        opened: Sources and studies that are open already.
        tell: Called with every message: the plan, epochs done, the end.
    """
    spec: TrialSpec = from_json(TrialSpec, request["spec"])
    engine: Engine = from_json(Engine, request["engine"])
    folder = Path(request["folder"])
    context = TrialContext(
        source=opened.source(spec.source), study=opened.study(Path(request["study"])), engine=engine, folder=folder
    )
    run_trial(
        spec,
        context,
        lambda done, total: tell({"epoch": done, "epochs": total}),
        lambda _plan: tell({"plan": spec.key()}),
    )
    tell({"done": spec.key()})
