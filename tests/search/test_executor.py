"""Processes train what this process would train, to the bit; they end with it, and what they did is found again."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.torch import load_file

from medgraft.as_json import from_json, to_json
from medgraft.errors import ConfigError, RunError
from medgraft.search import TrialContext, TrialSpec, Watch, here, open_executor
from medgraft.search.executor import Executor, num_processes
from medgraft.search.trial import is_finished
from medgraft.study import Study, open_study, save_study
from medgraft.study.study import study_key
from medgraft.train.batches import MaskSet
from medgraft.types import TransferPlan


def in_folder(context: TrialContext, folder: Path) -> TrialContext:
    """The same context with images that lie in a file, as those of a run do."""
    return dataclasses.replace(context, folder=folder)


def weights_of(context: TrialContext, spec: TrialSpec) -> dict[str, np.ndarray]:
    stored = load_file(context.folder / spec.key() / "best.safetensors")
    return {name: value.numpy() for name, value in stored.items()}


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """Two processes that import the package once."""
    with open_executor("processes:2") as executor:
        yield executor


def test_two_processes_train_the_same_trials_to_the_bit(context, spec_of, pool: Executor, tmp_path: Path) -> None:
    one, many = in_folder(context, tmp_path / "one"), in_folder(context, tmp_path / "many")
    specs = [spec_of(1), spec_of(2), spec_of(3, strategy="frozen"), spec_of(2)]
    plans: list[str] = []
    epochs: list[tuple[str, int, int]] = []
    watch = Watch(
        on_plan=lambda spec, plan: plans.append(f"{spec.key()} {plan.strategy}"),
        on_epoch=lambda spec, done, total: epochs.append((spec.key(), done, total)),
    )
    alone = list(here(one, specs, Watch()))
    together = list(pool(many, specs, watch))
    # Read back, in the order asked for, by whoever comes.
    assert [trial.spec for trial in pool(many, specs[::-1], watch)] == specs[::-1]
    assert [trial.spec for trial in together] == specs
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first.val_outputs, second.val_outputs)
        assert (first.scores, first.best_epoch, first.train_macs) == (
            second.scores,
            second.best_epoch,
            second.train_macs,
        )
        ours, theirs = weights_of(one, first.spec), weights_of(many, second.spec)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert sorted(plans) == sorted(f"{spec.key()} {spec.strategy}" for spec in specs[:3])
    assert [done for key, done, _ in epochs if key == specs[0].key()] == [1, 2, 3]


def test_one_trial_alone_needs_no_process(context, spec_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with open_executor("processes:2") as executor:
        assert [trial.spec for trial in executor(context, [spec_of(1)], Watch())] == [spec_of(1)]


def test_what_a_process_refuses_is_refused_here_in_the_same_words(context, spec_of) -> None:
    specs = [spec_of(1), dataclasses.replace(spec_of(2), parent="nobody")]
    with open_executor("processes:2") as executor, pytest.raises(RunError, match="weights of the trial to start from"):
        list(executor(context, specs, Watch()))


def test_a_folder_with_two_studies_trains_each_on_its_own(context, spec_of, pool: Executor, tmp_path: Path) -> None:
    train = context.study.train
    other = dataclasses.replace(context.study, train=dataclasses.replace(train, targets=1 - train.targets))
    assert study_key(other) != study_key(context.study) == study_key(dataclasses.replace(context.study))
    retaught = dataclasses.replace(context, study=other)
    alone = list(here(in_folder(retaught, tmp_path / "alone"), [spec_of(1), spec_of(2)], Watch()))
    list(pool(context, [spec_of(1, seed=5), spec_of(2, seed=5)], Watch()))
    together = list(pool(retaught, [spec_of(1), spec_of(2)], Watch()))
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first.val_outputs, second.val_outputs)


def test_what_else_is_printed_does_not_come_between_and_what_is_done_is_handed_out(
    context, spec_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("print('{}', flush=True)\nprint('hello', end='', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    specs = [spec_of(1, epochs=1), spec_of(2, epochs=1)]
    with open_executor("processes:2") as executor:
        assert [trial.spec for trial in executor(context, specs, Watch())] == specs
        # What is done is handed out before all is.
        short, endless = spec_of(1, epochs=1, seed=5), spec_of(2, epochs=20_000)
        assert next(executor(context, [short, endless], Watch())).spec == short
        assert not is_finished(endless, context)


@pytest.mark.usefixtures("writes_always")
def test_a_process_that_dies_is_told_and_the_rest_goes_on_later(context, spec_of, tmp_path: Path) -> None:
    specs = [spec_of(cut, epochs=40) for cut in (1, 2, 3)]
    # Decoders of other tests may run beside.
    others = psutil.Process().children()

    def workers() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if child not in others]

    def kill(_spec: TrialSpec, _done: int, _all: int) -> None:
        # Nor does it matter that somebody cleared its log away.
        for log in context.folder.glob("worker_*.log"):
            log.unlink()
        for child in workers():
            child.send_signal(signal.SIGKILL)

    with (
        open_executor("processes:2") as executor,
        pytest.raises(RunError, match=r"signal 9.*The same command continues"),
    ):
        list(executor(context, specs, Watch(on_epoch=kill)))
    assert not workers()
    # What was trained before goes on where it stood, to the bit.
    trials = list(here(context, specs, Watch()))
    assert [len(trial.history) for trial in trials] == [40, 40, 40]
    whole = list(here(in_folder(context, tmp_path / "whole"), specs, Watch()))
    for one, other in zip(trials, whole, strict=True):
        np.testing.assert_array_equal(one.val_outputs, other.val_outputs)


def test_processes_end_when_the_one_that_asked_is_killed(context, spec_of, tmp_path: Path) -> None:
    save_study(context.study, context.folder)
    specs = [spec_of(cut, epochs=20_000) for cut in (1, 2)]
    (tmp_path / "specs.json").write_text(json.dumps([to_json(spec) for spec in specs]))
    asked = subprocess.Popen(
        [sys.executable, "-c", ASKING, str(context.folder), str(tmp_path / "specs.json")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        children = _wait_for(lambda: _training(asked.pid, context.folder))
    finally:
        asked.kill()
        asked.wait()
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive


ASKING = """
import json, sys
from pathlib import Path
from medgraft.search import TrialContext, TrialSpec, Watch, open_executor
from medgraft.study import open_study
from medgraft.train.engine import Engine
from medgraft.transfer.source import open_source
from medgraft.as_json import from_json
folder = Path(sys.argv[1])
specs = [from_json(TrialSpec, spec) for spec in json.loads(Path(sys.argv[2]).read_text())]
context = TrialContext(
    source=open_source(specs[0].source), study=open_study(folder), engine=Engine(device="cpu"), folder=folder
)
with open_executor("processes:2") as executor:
    list(executor(context, specs, Watch()))
"""


def _training(pid: int, folder: Path) -> list[psutil.Process]:
    """The workers of a process, once both of them train."""
    children = psutil.Process(pid).children()
    return children if len(children) == 2 and len(list(folder.glob("*/plan.json"))) == 2 else []


def _wait_for(event):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if found := event():
            return found
        time.sleep(0.05)
    raise AssertionError("nothing happened within four minutes")


@pytest.mark.parametrize(
    "name", ["", "there", "processes", "processes:", "processes:0", "processes:-1", "processes:99"]
)
def test_another_executor_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="processes:N"):
        num_processes(name)


def test_a_study_is_opened_as_it_was_saved(context, tmp_path: Path) -> None:
    mapped = np.load(_saved(tmp_path / "images.npy", np.asarray(context.study.train.images)), mmap_mode="r")
    parts = {name: dataclasses.replace(getattr(context.study, name), images=mapped[:48]) for name in ("train", "val")}
    study = dataclasses.replace(context.study, **parts, val_units=np.arange(16) // 2)
    save_study(study, tmp_path / "study")
    again = open_study(tmp_path / "study")
    assert same_study(study, again)
    # What is mapped is not copied.
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["study.json", "study.npz"]
    assert not {"path", "patient"} & {*json.loads((tmp_path / "study" / "study.json").read_text())}


def test_a_study_with_masks_is_opened_as_it_was_saved(context, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (64, 8, 8)).astype(np.uint8)
    parts = {
        name: MaskSet(
            images=np.asarray(getattr(context.study, name).images),
            masks=masks,
            rows=getattr(context.study, name).rows,
            targets=np.ones((len(getattr(context.study, name)), 1), np.float32),
            intensity_max=255,
            num_classes=1,
            is_standardised=True,
        )
        for name in ("train", "val")
    }
    study = dataclasses.replace(context.study, **parts, classes=("vessel",))
    save_study(study, tmp_path / "study")
    again = open_study(tmp_path / "study")
    assert same_study(study, again)
    assert isinstance(again.val, MaskSet)
    assert again.val.is_standardised
    # Cases that neither learn nor validate are not written.
    about = np.concatenate([study.train.rows, study.val.rows])
    np.testing.assert_array_equal(again.val.masks[about], masks[about])
    assert len(about) < len(masks)
    assert not np.delete(again.val.masks, about, axis=0).any()


def test_a_study_whose_images_are_gone_is_told(context, tmp_path: Path) -> None:
    save_study(context.study, tmp_path / "study")
    (tmp_path / "study" / "images.npy").unlink()
    with pytest.raises(RunError, match="could not open the study"):
        open_study(tmp_path / "study")


def same_study(one: Study, other: Study) -> bool:
    for name in ("train", "val"):
        first, second = getattr(one, name), getattr(other, name)
        assert type(first) is type(second)
        for field in dataclasses.fields(first):
            before, after = getattr(first, field.name), getattr(second, field.name)
            rows = first.rows if field.name in ("images", "masks") else ...
            np.testing.assert_array_equal(np.asarray(before)[rows], np.asarray(after)[rows], field.name)
    for name in ("train_groups", "val_groups", "val_units"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    return one.classes == other.classes


def _saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_a_stored_plan_is_read_back(context, spec_of) -> None:
    list(here(context, [spec_of(2)], Watch()))
    stored = json.loads((context.folder / spec_of(2).key() / "plan.json").read_text())
    assert to_json(from_json(TransferPlan, stored)) == stored
