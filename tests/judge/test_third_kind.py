"""A third kind of truth is a third key: numbers are taught, searched, resampled and judged by the flow of the others."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medgraft import as_json, types
from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.deploy.artefact import Artefact, Judging, load_artefact
from medgraft.evaluate import replicates
from medgraft.evaluate.replicates import in_one_stratum
from medgraft.judge import judges
from medgraft.judge.judges import Judge
from medgraft.judge.plan import JudgePlan
from medgraft.judge.test import open_test_set
from medgraft.listener import Listener
from medgraft.metrics import measures
from medgraft.metrics.measures import Measure
from medgraft.result.pictures import Pictures
from medgraft.search import Recipe, SearchPlan, Trainer, TrialContext, search_cut
from medgraft.study import Dataset, Study
from medgraft.study import study as study_room
from medgraft.train import Engine, ImageSet, TrainSettings, teaching
from medgraft.train.batches import epoch_order, iterate
from medgraft.train.engine import forward, running
from medgraft.train.teaching import Share, Teaching, steps_of_an_epoch
from medgraft.transfer import HeadSettings, prepare_source
from medgraft.types import Cohort, Preprocessing

NETWORK = """
from torch import nn


def block(before, after, stride):
    return nn.Sequential(nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.ReLU())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.middle, self.top = block(1, 4, 1), block(4, 8, 2), block(8, 8, 1)
        self.fc = nn.Linear(8, 10)

    def forward(self, images):
        return self.fc(self.top(self.middle(self.stem(images))).mean((2, 3)))
"""
NUM_IMAGES = {"train": 48, "val": 24, "test": 30}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbers:
    """A number for every case beside the true one."""

    values: np.ndarray
    targets: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    kind: ClassVar[str] = "numbers"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NumberSet(ImageSet):
    """Images with a number each."""

    kind: ClassVar[Any] = "numbers"

    @property
    def num_outputs(self) -> int:
        return 1


def closeness(judged: Numbers, _metric: str, weights: np.ndarray) -> np.ndarray:
    """Share of the spread of the truth that is explained, one for each row of weights."""
    off, spread = (judged.values - judged.targets) ** 2, (judged.targets - judged.targets.mean()) ** 2
    return np.asarray(1 - (weights @ off) / (weights @ spread))


def teach_numbers(train: NumberSet, val: NumberSet, settings: TrainSettings, engine: Engine) -> Teaching:
    def batches(epoch: int, _share: Share) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = epoch_order(train, settings.seed, epoch, is_balanced=False)
        for images, targets, _ in iterate(train, order, settings.batch_size, torch.device("cpu"), drop_single=True):
            yield images, targets

    return Teaching(
        num_items=len(train),
        num_steps=lambda num: steps_of_an_epoch(len(train), settings, num),
        batches=batches,
        objective=lambda outputs, targets: (outputs[:, 0] - targets.float()).square().mean(),
        outputs=lambda model: called(model, val, engine),
        scores=lambda values: measures.scores_of(as_numbers(values, val.targets, np.arange(len(val)))),
    )


def as_numbers(values: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> Any:
    return Numbers(values=values, targets=targets, groups=groups, classes=("size",))


def called(model: nn.Module, data: ImageSet, engine: Engine) -> np.ndarray:
    model.eval()
    with running(engine), torch.inference_mode():
        parts = [forward(model, images, engine)[:, 0] for images, _, _ in
                 iterate(data, np.arange(len(data)), 16, torch.device("cpu"))]  # fmt: skip
    return torch.cat(parts).double().numpy()


def judge_numbers(
    model: nn.Module, dataset: Dataset, rows: np.ndarray, _plan: JudgePlan, engine: Engine, _on: Callable[[int], None]
) -> Any:
    targets = dataset.cohort.targets[rows]
    return as_numbers(called(model, number_set(dataset.decoded.images, dataset.rows[rows], targets), engine), targets,
                      dataset.groups[rows])  # fmt: skip


def number_set(images: np.ndarray, rows: np.ndarray, targets: np.ndarray) -> NumberSet:
    return NumberSet(
        images=images, rows=rows, targets=targets, intensity_max=255, task="regression", positive=None, num_classes=1
    )  # type: ignore[arg-type]


@pytest.fixture
def _numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One key in every literal, and nothing else."""
    for literal, key, value in (
        (types.KINDS, "regression", "numbers"),
        (teaching.TEACHINGS, "numbers", teach_numbers),
        (study_room.VAL_JUDGED, "numbers",
         lambda study, values: as_numbers(values, study.val.targets, study.val_groups)),
        (replicates.RESAMPLED, "numbers", in_one_stratum),
        (measures.MEASURES, "numbers", Measure(
            chooses="closeness", judges="closeness", kept=("closeness",), compared=("closeness",),
            metrics=lambda _judged: ("closeness",), weighted=closeness, classes=lambda _judged: iter(()),
            truth=lambda judged: judged.targets,
        )),
        (judges.JUDGES, "numbers", Judge(
            call=judge_numbers,
            table=lambda dataset, rows, judged: pd.DataFrame({"path": dataset.cohort.table["path"].iloc[rows],
                                                              "called": judged.values, "true": judged.targets}),
            from_table=lambda told, dataset, rows: as_numbers(told["called"].to_numpy(), dataset.cohort.targets[rows],
                                                              dataset.groups[rows]),
            finished=lambda result, *_: result,
            judging_of=lambda *_: Judging(),
            pictures=lambda *_: Pictures(),
        )),
    ):  # fmt: skip
        monkeypatch.setitem(literal, key, value)  # type: ignore[arg-type]
    # `Task` names a fourth word.
    monkeypatch.setattr(Artefact.__dataclass_fields__["task"], "type", str)
    as_json._adapter.cache_clear()
    yield
    as_json._adapter.cache_clear()


@pytest.mark.usefixtures("_numbers")
def test_numbers_go_all_the_way_by_one_key_in_every_room(tmp_path: Path) -> None:
    dataset, study = cohort_of_numbers()
    (tmp_path / "net.py").write_text(NETWORK)
    source = prepare_source(
        build_backbone(BackboneSpec(name=f"{tmp_path / 'net.py'}:Net", weights="none", size=8)), (8, 8)
    )
    context = TrialContext(
        source=source, study=study, engine=Engine(device="cpu", is_deterministic=True), folder=tmp_path / "checkpoints"
    )
    head = HeadSettings(num_outputs=1)
    train = TrainSettings(epochs=12, batch_size=16)
    recipe = Recipe(source=source.spec, num_cuts=3, lr=0.02, weight_decay=0.0, head=head, hybrid_head=head, train=train)
    plan = SearchPlan(recipe=recipe, strategy="ttl", method="exhaustive", depths=(1, 2, 3), replicates=100)
    searched = search_cut(plan, Trainer(context, Listener()))
    assert len(searched.explored.choice.candidates) == 3
    tested = open_test_set(
        JudgePlan(replicates=200, margin=0.1), tmp_path, dataset, context, searched.by_role, Listener()
    )
    found = tested.test.chosen.scores["closeness"]
    assert found.value is not None
    assert found.ci95 is not None
    assert found.ci95[0] <= found.value <= found.ci95[1]
    assert found.value > 0.5, "the brightness of noise is easily learned"
    assert tested.test.comparison.verdict in ("better", "non-inferior", "worse", "inconclusive")
    assert set(tested.test.comparison.difference) == {"closeness"}
    table = pd.read_csv(tmp_path / "predictions.csv")
    np.testing.assert_allclose(
        called(load_artefact(tmp_path).network, number_set(dataset.decoded.images, dataset.rows[-30:], table["true"].to_numpy()),
               context.engine), table["called"], atol=1e-5,
    )  # fmt: skip


def cohort_of_numbers() -> tuple[Dataset, Study]:
    """Films as bright as their number says."""
    rng, total = np.random.default_rng(0), sum(NUM_IMAGES.values())
    targets = rng.uniform(0, 1, total)
    images = (rng.integers(0, 60, (total, 1, 8, 8)) + 150 * targets[:, None, None, None]).astype(np.uint8)
    table = pd.DataFrame({"path": [f"{row}.png" for row in range(total)], "label": None, "patient": None, "site": None,
                          "split": np.repeat(list(NUM_IMAGES), list(NUM_IMAGES.values())), "mask": None, "unit": None},
                         dtype=object)  # fmt: skip
    cohort = Cohort(
        root=Path(), layout="table", task="regression", classes=("size",), positive=None, table=table, targets=targets
    )  # type: ignore[arg-type]
    dataset = Dataset(
        cohort=cohort,
        decoded=SimpleNamespace(images=images),  # type: ignore[arg-type]
        rows=np.arange(total),
        groups=np.arange(total),
        preprocessing=Preprocessing(sides=(8, 8), channels=1, intensity_max=255, mean=(0.5,), std=(0.5,)),
    )
    rows = {split: cohort.rows(split) for split in ("train", "val")}
    study = Study(
        train=number_set(images, rows["train"], targets[rows["train"]]),
        val=number_set(images, rows["val"], targets[rows["val"]]),
        train_groups=rows["train"],
        val_groups=rows["val"],
        classes=("size",),
    )
    return dataset, study
