"""What can be known to fail later, refused before an image is read: for every job alike."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from medgraft.config import DataConfig, RunConfig
from medgraft.errors import ConfigError
from medgraft.evaluate.operating_point import parse_operating_point
from medgraft.search.executor import num_processes
from medgraft.search.plan import AFTER_FTL
from medgraft.setup.plan import method_of, usual_head
from medgraft.train.engine import pick_device
from medgraft.transfer.heads import CLASSICAL
from medgraft.transfer.strategies import STRATEGIES, WITH_DECODER

__all__ = ["Job", "refuse_early"]

Job = Literal["fit", "compare", "analyze", "advise"]
_ON_MASKS: Final = ("fit",)
_WITH_DEPTH: Final = ("fit",)
_WITHOUT_RUN: Final = ("advise", "analyze")


def refuse_early(config: RunConfig, job: Job) -> None:
    """Refuse a call that is known to fail, or to ignore what it was given, before an image is read.

    Args:
        config: Settings of the call.
        job: What was asked for.

    Raises:
        ConfigError: The message names the setting and what to do instead.
    """
    _refuse_processes(job)
    pick_device(config.device)
    num_processes(config.executor)
    parse_operating_point(config.evaluate.operating_point)
    name, head = config.transfer.strategy, config.transfer.head
    if name not in STRATEGIES:
        raise ConfigError(f"expected a strategy among {', '.join(STRATEGIES)}, got {name!r}.")
    if config.data.task != "segmentation":
        _refuse_for_labels(config)
    elif job not in _ON_MASKS:
        raise ConfigError(f"{job} understands labels alone, got --task segmentation. Use fit, check or evaluate.")
    else:
        _refuse_for_masks(config)
    if config.data.folds == 2:
        raise ConfigError(
            "expected --folds 1 (one division) or 3 to 20, got 2: one fold tests and another one chooses."
        )
    if job in _WITHOUT_RUN:
        _refuse_for_a_look(config, job)
    if job == "compare":
        _refuse_comparison(config)
    elif head in CLASSICAL and name != "hybrid":
        raise ConfigError(f"--head {head} is a head of hybrid, got --strategy {name}. Use --strategy hybrid.")
    _refuse_search(config)
    if job in _WITH_DEPTH and not STRATEGIES[name].has_depth and config.transfer.cut != "auto":
        raise ConfigError(f"{name} has no depth and takes no --cut, got {config.transfer.cut!r}. Use ttl to keep less.")
    if config.budget_minutes is not None and config.deterministic:
        raise ConfigError("--budget measures this machine and --deterministic measures nothing: give --epochs instead.")


def _refuse_processes(job: Job) -> None:
    num_processes = int(os.environ.get("WORLD_SIZE") or 1)
    if num_processes > 1:
        raise ConfigError(
            f"expected {job} to run in one process, got {num_processes} (WORLD_SIZE). Start it without a launcher; "
            "--device cuda:1 picks a device."
        )


def _refuse_for_labels(config: RunConfig) -> None:
    """Settings that mean nothing without masks."""
    settings = (
        ("data", "observer"), ("data", "mask_classes"), ("data", "mask_ignore"), ("data", "longest"),
        ("transfer", "decoder"), ("train", "loss"), ("train", "patches"), ("train", "foreground"),
        ("evaluate", "tolerance_mm"),
    )  # fmt: skip
    for name, value in _given(config, settings):
        raise ConfigError(f"{name} is about masks, got {value} without them. Give --task segmentation.")


def _refuse_for_masks(config: RunConfig) -> None:
    """Settings that mean nothing for masks."""
    settings = (
        ("transfer", "head"), ("transfer", "dropout"), ("train", "imbalance"), ("train", "label_smoothing"),
        ("evaluate", "operating_point"),
    )  # fmt: skip
    for name, value in _given(config, settings):
        raise ConfigError(f"{name} is about labels, got {value} for a segmentation. Leave it out.")
    if config.train.batch_size == 1 and config.transfer.decoder == "upernet":
        raise ConfigError(
            "expected train.batch_size of 2 or more for upernet, whose batch normalisation sees one value."
        )
    if config.transfer.strategy not in WITH_DECODER:
        raise ConfigError(
            f"expected a strategy among {', '.join(WITH_DECODER)} for a segmentation, got {config.transfer.strategy!r}."
        )
    if config.backbone.lift == "slices":
        raise ConfigError("--lift slices keeps no maps of volumes for a decoder. Use --lift acs or i3d.")


def _given(config: RunConfig, settings: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """Name and value of those (section, name) that are not as usual."""
    usual = RunConfig(data=DataConfig(source=config.data.source))
    for section, name in settings:
        value = getattr(getattr(config, section), name)
        if value != getattr(getattr(usual, section), name):
            yield f"{section}.{name}", value


def _refuse_for_a_look(config: RunConfig, job: Job) -> None:
    """Settings that mean nothing where a cohort is looked at once and no model is made.

    Args:
        config: Settings of the call.
        job: What was asked for.
    """
    if config.data.folds > 1:
        raise ConfigError(f"{job} divides once, got --folds {config.data.folds}. Leave it out.")
    if config.budget_minutes is not None:
        raise ConfigError(f"{job} takes no budget: it trains no network. Leave it out.")
    if job == "analyze" and num_processes(config.executor) > 1:
        raise ConfigError(f"analyze trains nothing of a cohort, got --executor {config.executor}. Leave it out.")


def _refuse_comparison(config: RunConfig) -> None:
    if config.compare is None:
        raise ConfigError("expected what to compare, got nothing. Give --strategies all or a list.")
    if config.data.folds > 1 or config.transfer.cut != "auto":
        raise ConfigError("compare takes neither --folds nor --cut: it divides once and tries depths itself.")
    if config.transfer.strategy != "ttl":
        raise ConfigError(
            f"compare takes --strategies, got transfer.strategy={config.transfer.strategy}. Name it there."
        )
    if config.budget_minutes is not None:
        raise ConfigError("compare takes no budget: it counts trainings. Give --trials, --seeds or --epochs.")
    for what in ("fractions", "uncertain", "strategies"):
        values = getattr(config.compare, what)
        if len(set(values)) < len(values):
            raise ConfigError(f"expected {what} to compare that differ, got {', '.join(map(str, values))}.")
    names = config.compare.strategies
    if config.transfer.head in CLASSICAL and not {"all", "hybrid"} & set(names):
        raise ConfigError(f"--head {config.transfer.head} is a head of hybrid: add hybrid to --strategies.")
    unknown = [name for name in names if name not in STRATEGIES] if names != ("all",) else []
    if unknown:
        raise ConfigError(f"expected strategies among {', '.join(STRATEGIES)} or all, got {', '.join(unknown)}.")


def _refuse_search(config: RunConfig) -> None:
    """A search that is meant for another strategy, or whose start suits neither search, division nor head."""
    name, method = config.transfer.strategy, config.search.method
    if config.data.task == "segmentation" and (method in AFTER_FTL or config.search.start == "ftl"):
        asked = f"--search {method}" if method in AFTER_FTL else "search.start=ftl"
        raise ConfigError(
            f"{asked} judges cuts by pooled features, which masks have none of. Use --search two-stage without it."
        )
    meant = {"incremental": "lwft", "guided": "ttl", "svcca": "ttl"}.get(method, name)
    if name != meant:
        raise ConfigError(f"--search {method} is a search for {meant}, got --strategy {name}. Use --search two-stage.")
    if config.search.start != "ftl":
        return
    if config.transfer.cut != "auto":
        raise ConfigError(
            f"search.start=ftl is about a search, got --cut {config.transfer.cut}. Leave one of them out."
        )
    if method_of(config) != "guided":
        raise ConfigError(f"search.start=ftl belongs to --search guided, got {method_of(config)}.")
    head = config.transfer.head or usual_head(config.backbone.lift)
    if config.data.folds > 1 or head in ("flattened", "attention"):
        raise ConfigError(
            f"search.start=ftl needs one division and a pooled head, got --folds or --head {head}. "
            "Leave search.start=source."
        )
