"""Where trials run: in this process, or in several on this machine; the same trials either way."""

import contextlib
import dataclasses
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import torch

from medgraft import errors
from medgraft.as_json import from_json
from medgraft.errors import ConfigError, MedgraftError, RunError
from medgraft.files import read_json, write_text
from medgraft.search.messages import Request, Told, read_message, sent
from medgraft.search.trial import Trial, TrialContext, TrialSpec, is_finished, run_trial
from medgraft.study.study import save_study, study_key
from medgraft.types import TransferPlan

__all__ = ["HERE", "Executor", "Watch", "here", "num_processes", "open_executor"]

HERE: Final = "here"
_PROCESSES: Final = "processes"
_MOST: Final = 64
# Whatever a library prints from its import on goes to the log: it must not come between the messages.
_START: Final = (
    "import os, sys; out = os.dup(1); os.dup2(2, 1); sys.path[:] = sys.argv[2:]; "
    "from medgraft.search.worker import main; main(out)"
)
_LOGGED: Final = 2000
_ERRORS: Final[dict[str, type[MedgraftError]]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, MedgraftError)
}
Asked = queue.SimpleQueue[TrialSpec | None]
Heard = queue.SimpleQueue[tuple[TrialSpec, Told] | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told of trials that run.

    Args:
        on_plan: Called with the specification and the plan of a trial that was not finished before.
        on_epoch: Called with the specification, epochs done, epochs in all.
    """

    on_plan: Callable[[TrialSpec, TransferPlan], None] = lambda _spec, _plan: None
    on_epoch: Callable[[TrialSpec, int, int], None] = lambda _spec, _done, _all: None


class Executor(Protocol):
    """Runs trials of a context that need nothing of one another, and hands them out in the order given."""

    def __call__(self, context: TrialContext, specs: Sequence[TrialSpec], watch: Watch) -> Iterator[Trial]:
        """The finished trials of `specs`."""


def here(context: TrialContext, specs: Sequence[TrialSpec], watch: Watch) -> Iterator[Trial]:
    """The finished trials, one after the other, in this process.

    Args:
        context: Where they run.
        specs: What to train; equal ones are one trial.
        watch: Told how far they are.

    Raises:
        MedgraftError: As `medgraft.search.trial.run_trial`.
    """
    for spec in specs:
        yield run_trial(
            spec,
            context,
            lambda done, total, spec=spec: watch.on_epoch(spec, done, total),  # type: ignore[misc]
            lambda plan, spec=spec: watch.on_plan(spec, plan),  # type: ignore[misc]
        )


def num_processes(name: str) -> int:
    """How many trials run at once.

    Args:
        name: ``here`` or ``processes:N``.

    Raises:
        ConfigError: It is neither, or N is not 1 to 64.

    Examples:
        >>> num_processes("here"), num_processes("processes:4")
        (1, 4)
    """
    kind, _, number = name.partition(":")
    if name == HERE:
        return 1
    if kind != _PROCESSES or not number.isdecimal() or not 1 <= int(number) <= _MOST:
        raise ConfigError(f"expected --executor {HERE} or {_PROCESSES}:N with N from 1 to {_MOST}, got {name!r}.")
    return int(number)


@contextmanager
def open_executor(name: str) -> Iterator[Executor]:
    """The executor of that name; its processes end with the block, and with this process, however that ends.

    Args:
        name: ``here`` or ``processes:N``.

    Raises:
        ConfigError: There is no such executor.
    """
    if num_processes(name) == 1:
        yield here
        return
    pool = _Pool(num_processes(name))
    try:
        yield pool
    finally:
        pool.close()


class _Pool:
    """Worker processes that open a saved study and train what they are sent."""

    def __init__(self, num: int) -> None:
        self.num = num
        self.workers: list[_Worker] = []
        self.threads = ThreadPoolExecutor(num)
        self.saved: set[Path] = set()

    def __call__(self, context: TrialContext, specs: Sequence[TrialSpec], watch: Watch) -> Iterator[Trial]:
        unfinished = {spec.key(): spec for spec in specs if not is_finished(spec, context)}
        left = list(specs)
        # One trial alone would only wait for a worker.
        if len(unfinished) > 1:
            for key in self._train(context, list(unfinished.values()), watch):
                del unfinished[key]
                while left and left[0].key() not in unfinished:
                    yield from here(context, [left.pop(0)], watch)
        yield from here(context, left, watch)

    def _train(self, context: TrialContext, specs: Sequence[TrialSpec], watch: Watch) -> Iterator[str]:
        """Train `specs` in the worker processes; gives their keys as they are done.

        Args:
            context: Where the trials run; the workers open its study from its folder.
            specs: What to train, none of it finished yet.
            watch: Told how far the trials are.
        """
        # Its name tells its content: a worker that has opened one trains on no other.
        study = context.folder.absolute() / f"study_{study_key(context.study)}"
        if study not in self.saved:
            save_study(context.study, study)
            self.saved.add(study)
        while len(self.workers) < min(self.num, len(specs)):
            self.workers.append(_Worker(context.folder / f"worker_{len(self.workers) + 1}.log"))
        asked: Asked = queue.SimpleQueue()
        for item in (*specs, *(None for _ in self.workers)):
            asked.put(item)
        heard: Heard = queue.SimpleQueue()

        def request(spec: TrialSpec) -> Request:
            return Request(folder=str(context.folder.absolute()), study=str(study), engine=context.engine, spec=spec)

        serving = [self.threads.submit(worker.serve, request, asked, heard) for worker in self.workers]
        num_serving = len(serving)
        while num_serving:
            said = heard.get()
            if said is None:
                num_serving -= 1
                continue
            spec, told = said
            if told.event == "done":
                yield spec.key()
            elif told.event == "failed":
                raise _ERRORS.get(told.kind, RunError)(told.error)
            elif told.event == "epoch":
                watch.on_epoch(spec, told.done, told.total)
            else:
                plan: TransferPlan = from_json(TransferPlan, read_json(context.folder / spec.key() / "plan.json"))
                watch.on_plan(spec, plan)
        for thread in serving:
            thread.result()  # raises what nobody foresaw

    def close(self) -> None:
        """End all processes, whatever they do."""
        for worker in self.workers:
            worker.process.kill()
        self.threads.shutdown()
        for worker in self.workers:
            worker.close()


class _Worker:
    """One process; it ends when the pipe to it closes, and so with this process."""

    def __init__(self, log: Path) -> None:
        self.log = write_text(log, "")
        # Not `-m`, which would put the folder of the moment before everything else.
        command = [sys.executable, "-c", _START, str(torch.get_num_threads()), *sys.path]
        with log.open("a", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                encoding="utf-8",
                errors="replace",
                # An interrupt at the terminal is for the process that asks; it ends its workers.
                start_new_session=True,
            )

    def serve(self, request: Callable[[TrialSpec], Request], asked: Asked, heard: Heard) -> None:
        """Have the process train what is `asked` until that is None or something failed, and pass on what it says.

        Args:
            request: What the process is sent for a specification.
            asked: Queue of what to train; None ends the work.
            heard: Queue that takes what is told of every specification, and None when the work ends, however.
        """
        try:
            while (spec := asked.get()) is not None:
                for told in self._answers(request(spec)):
                    heard.put((spec, told))
                    if told.event == "failed":
                        return
        finally:
            heard.put(None)

    def _answers(self, request: Request) -> Iterator[Told]:
        """What the process says of a request, until it is done or failed."""
        with contextlib.suppress(BrokenPipeError):
            sent(self.process.stdin, request)
            while (told := read_message(self.process.stdout, Told)) is not None:
                yield told
                if told.is_last:
                    return
        yield self._obituary()

    def _obituary(self) -> Told:
        code = self.process.wait()
        log = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        last = log.strip()[-_LOGGED:].splitlines()[-1:]
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        said = f"It said last: {last[0]}" if last else "It may have run out of memory"
        error = (
            f"a process that trained ended with {how}. {said}. The same command continues; fewer processes "
            f"(--executor) need less memory. All it said stands in {self.log}."
        )
        return Told(event="failed", kind=RunError.__name__, error=error)

    def close(self) -> None:
        """Wait for the end of the killed process and close the pipes to it."""
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            # What was not written yet is for nobody.
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
