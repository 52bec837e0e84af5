"""The engine of a run is measured once, and shares cores and memory with the trainings beside it."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medgraft.listener import Listener
from medgraft.search import Recipe, run_engine
from medgraft.search.run_engine import EngineWish, engine_for, kept_engine
from medgraft.train.engine import Engine
from medgraft.train.settings import TrainSettings
from medgraft.transfer.heads import HeadSettings


@pytest.mark.parametrize(
    ("chosen", "num_first", "num_then", "expected"),
    [
        (0, 1, 4, 2),  # shared anew
        (0, 1, 1, 0),
        (2, 4, 1, 0),  # all cores again
        (1, 1, 4, 1),  # one thread was the fastest
        (1, 4, 1, 1),
        (1, 8, 2, 4),  # one thread was all there was
    ],
)
def test_a_run_that_goes_on_with_more_at_once_shares_the_cores_anew(
    chosen: int, num_first: int, num_then: int, expected: int, context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(run_engine, "choose_engine", lambda *_, **__: Engine(device="cpu", num_threads=chosen))
    monkeypatch.setattr(run_engine, "refuse_memory", lambda *_, num_at_once, **__: asked.append(num_at_once))
    head = HeadSettings(num_outputs=1)
    recipe = Recipe(
        source=context.source.spec, num_cuts=3, lr=0.02, weight_decay=0.0, head=head, hybrid_head=head,
        train=TrainSettings(epochs=1, batch_size=16),
    )  # fmt: skip
    dataset: Any = SimpleNamespace(
        preprocessing=SimpleNamespace(channels=1), cohort=SimpleNamespace(rows=lambda _: range(32), noun="images")
    )

    def engine(num: int) -> Engine:
        wish = EngineWish(device="cpu", num_at_once=num)
        return engine_for(wish, recipe, context.source, dataset, tmp_path / "engine.json", Listener())

    assert engine(num_first).num_threads == chosen
    assert engine(num_then) == kept_engine(tmp_path / "engine.json") == Engine(device="cpu", num_threads=expected)
    # What is more at once must fit into memory, too; the same again is not asked.
    assert asked == list(dict.fromkeys([num_first, num_then]))


def test_bits_that_are_promised_keep_their_threads(context) -> None:
    kept = run_engine._Kept(engine=Engine(device="cpu", is_deterministic=True), num_at_once=1)
    assert run_engine._shared_anew(kept, 4) == kept.engine
    assert run_engine._shared_anew(dataclasses.replace(kept, num_at_once=4), 1) == kept.engine
