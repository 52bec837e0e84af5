"""Choices are written once: what the settings allow is what the rooms do, and nothing is left out on either side."""

import typing
from collections.abc import Iterator
from typing import Any, Final, Literal

import pydantic
import pytest

from medgraft import config
from medgraft.backbones.spec import LIFTS, BackboneSpec
from medgraft.config import RunConfig
from medgraft.data.audit.leaks import LeakPolicy
from medgraft.data.cohort.export import FIELDS, UNITS
from medgraft.io.dicom import Rescale
from medgraft.io.intensity import Scaling
from medgraft.report.words import SEARCHES
from medgraft.search.trial import TrialSpec
from medgraft.train.augment import AUGMENTATIONS, AugmentSettings
from medgraft.train.engine import Engine
from medgraft.train.mask_losses import MASK_LOSSES
from medgraft.train.objectives import IMBALANCE
from medgraft.train.schedule import SCHEDULES
from medgraft.train.settings import OPTIMIZERS, TrainSettings
from medgraft.transfer.decoders import DECODERS
from medgraft.transfer.heads import CLASSICAL, HeadKind
from medgraft.types import Resize


def choices_of(annotation: Any) -> set[Any]:
    """What the literals in an annotation allow; nothing where there are none."""
    if typing.get_origin(annotation) is Literal:
        return set(typing.get_args(annotation))
    return set().union(*(choices_of(part) for part in typing.get_args(annotation)))


def field_choices(owner: type, name: str) -> set[Any]:
    return choices_of(typing.get_type_hints(owner)[name])


# Setting -> what the room that acts on it knows; a word of the settings alone stands beside.
ROOMS: Final[dict[str, set[Any]]] = {
    "backbone.input": field_choices(BackboneSpec, "input"),
    "backbone.proof": field_choices(BackboneSpec, "proof"),
    "backbone.lift": {"auto", *LIFTS},
    "data.key": {"path", *FIELDS},
    "data.leaks": choices_of(LeakPolicy),
    "data.rescale": choices_of(Rescale),
    "data.resize": choices_of(Resize),
    "data.scaling": {"auto", *choices_of(Scaling)},
    "data.unit": {"image", *UNITS},
    "search.method": {"auto", *(name.partition(" from ")[0] for name in SEARCHES)},
    "train.augment": set(AUGMENTATIONS),
    "train.flip": field_choices(AugmentSettings, "flip"),
    "train.imbalance": set(IMBALANCE),
    "train.loss": set(MASK_LOSSES),
    "train.optimizer": set(OPTIMIZERS),
    "train.precision": {"auto", *field_choices(Engine, "precision")},
    "train.schedule": set(SCHEDULES),
    "transfer.decoder": set(DECODERS),
    "transfer.head": choices_of(HeadKind) - set(DECODERS),
    "transfer.solver": field_choices(TrialSpec, "solver"),
    "preset": set(config.PRESETS),
}
# No room has a name for these: they are branches of one function, whose own tests take every one.
OWN: Final = {
    "data.blank",
    "data.channels",
    "data.complex",
    "data.dims",
    "data.frames",
    "data.task",
    "search.start",
    "transfer.rule",
}


def settings(model: type[pydantic.BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, set[Any]]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            yield from settings(kind, f"{prefix}{name}.")
        elif found := choices_of(kind):
            yield f"{prefix}{name}", found


@pytest.mark.parametrize(("name", "choices"), list(settings()))
def test_what_may_be_set_is_what_is_done(name: str, choices: set[Any]) -> None:
    if name not in OWN:
        assert choices == ROOMS[name]


def test_every_pair_is_of_a_setting() -> None:
    assert {name for name, _ in settings()} == OWN | set(ROOMS)


def test_classical_heads_are_heads() -> None:
    assert set(CLASSICAL) < choices_of(HeadKind)


@pytest.mark.parametrize("name", ["optimizer", "schedule", "imbalance", "loss"])
def test_settings_of_a_training_allow_what_it_can(name: str) -> None:
    assert field_choices(TrainSettings, name) == ROOMS[f"train.{name}"]
