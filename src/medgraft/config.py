"""Every setting of a run as one checked, frozen value; presets; `--set a.b=c`; YAML."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from medgraft.errors import ConfigError, RunError

__all__ = [
    "PRESETS",
    "Blank",
    "BackboneConfig",
    "CompareConfig",
    "DataConfig",
    "EvaluateConfig",
    "Key",
    "Preset",
    "RunConfig",
    "SearchConfig",
    "TrainConfig",
    "TransferConfig",
    "Unit",
    "make_config",
    "parse_minutes",
    "read_config",
    "to_yaml",
    "MAX_MASK_CLASSES",
    "MAX_MASK_NUMBER",
    "MaskFormat",
]

Head = Literal["pooled", "flattened", "attention", "svm", "random-forest", "logistic", "knn", "gradient-boosting"]
Blank = Literal["refuse", "ignore", "negative"]
Unit = Literal["image", "series", "study", "patient"]
Key = Literal["path", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID"]
MaskFormat = Literal["auto", "png", "nifti", "npy", "dicom-seg"]
Preset = Literal["fast", "balanced", "thorough", "paper"]
MAX_MASK_CLASSES: Final = 64
"""More different numbers than these are no classes, but a mask that was smoothed."""
MAX_MASK_NUMBER: Final = 65535
"""Largest number in the file of a mask: what 16 bits hold."""


class _Frozen(BaseModel):
    # `--set transfer.cut=5` is YAML for the number 5, but a name for us.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


class DataConfig(_Frozen):
    """Where the images are and how they are read."""

    source: str = Field(description="Folder, table or .npz")
    labels: str | None = Field(None, description="Table that labels the images of a folder by an identifier")
    key: Key = Field("path", description="Identifier by which --labels names them")
    unit: Unit = Field(
        "image", description="What is judged as one where --labels is given; probabilities are averaged within it"
    )
    task: Literal["classification", "segmentation"] = Field(
        "classification", description="segmentation: the truth is a mask for every image"
    )
    observer: str | None = Field(None, description="Whose masks, where an image has several; majority: of all")
    mask_classes: dict[str, int] = Field(
        default_factory=dict,
        description="Classes of masks and the numbers that stand for them (vessel=255,lesion=128); a mask with another "
        "number is named and left out. Empty: every number is a class",
    )
    mask_ignore: int | None = Field(
        None, ge=1, le=MAX_MASK_NUMBER, description="Number in masks that counts for nothing, in loss and scores"
    )
    longest: int = Field(
        0, ge=0, le=4096, description="Largest side of images with masks; 0: 1024 px, of volumes 192 voxels"
    )
    path_column: str | None = None
    label_column: str | None = Field(None, description="Several, comma-separated, for multilabel")
    patient_column: str | None = None
    patient_regex: str | None = Field(None, description="First group (or the match) names the patient")
    positive: str | None = Field(None, description="Positive class of a binary task")
    uncertain: str | None = Field(
        None,
        description="What a training is told of labels -1 (several 0/1 columns): ignore, zeros, ones, soft(a,b), and "
        "label=… for some; None: they are refused",
    )
    blank: Blank = Field("refuse", description="What a blank label is (several 0/1 columns)")
    grades: tuple[str, ...] = Field((), description="The classes from the lowest to the highest grade, where they are")
    leaks: Literal["stop", "drop", "allow"] = "stop"
    folds: int = Field(1, ge=1, le=20, description="1: one split; else grouped nested cross-validation")
    channels: Literal[1, 3] | None = Field(None, description="None: grey unless images are coloured")
    dims: Literal["auto", 2, 3] = Field(
        "auto", description="2: images; 3: volumes; auto: what the network reads, or else what the files are"
    )
    resize: Literal["squash", "pad", "crop"] = Field(
        "squash", description="pad keeps the aspect, crop the scale (around the centre)"
    )
    spacing_mm: tuple[float, ...] = Field(
        (), description="Slices, rows, columns (or one number), to which volumes are resampled; empty: theirs"
    )
    rescale: Literal["auto", "always", "never"] = Field(
        "auto", description="DICOM's modality transform without a window; auto: not of angiography"
    )
    windows: tuple[str, ...] = Field(("file",), description="file (DICOM's own), none, or one or three names for CT")
    scaling: Literal["auto", "range", "percentile", "z-score"] = Field(
        "auto", description="Where there is no window; auto: percentile for MR and PET, -1024 to 3071 HU for CT"
    )

    frames: Literal["one", "first", "middle", "all"] = Field(
        "one", description="Which frame of a DICOM film is the image; one: films are refused; all: judged together"
    )
    complex: Literal["refuse", "magnitude"] = Field("refuse", description="What complex voxels become")

    cache: str | None = Field(None, description="Folder of decoded images; None: below MEDGRAFT_HOME")
    cache_gb: float = Field(20.0, gt=0, description="Size of that folder; what was not used for longest makes room")

    @field_validator("grades", mode="before")
    @classmethod
    def _as_grades(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value

    @field_validator("mask_classes", mode="before")
    @classmethod
    def _as_numbers(cls, value: Any) -> Any:
        if isinstance(value, str):
            parts = [part.partition("=") for part in value.split(",") if part.strip()]
            pairs = [(name.strip(), number.strip()) for name, _, number in parts]
        else:
            pairs = [(str(name).strip(), str(number)) for name, number in dict(value).items()]
        numbers = {name: int(number) for name, number in pairs if name and number.isdigit()}
        is_sound = len(numbers) == len(pairs) == len(set(numbers.values())) and len(numbers) <= MAX_MASK_CLASSES
        if not is_sound or not all(0 < number <= MAX_MASK_NUMBER for number in numbers.values()):
            raise ValueError("expected different names with different numbers from 1, such as vessel=255,lesion=128")
        return numbers

    @field_validator("spacing_mm", mode="before")
    @classmethod
    def _as_spacing(cls, value: Any) -> Any:
        values = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
        try:
            spacing = tuple(float(number) for number in values)
        except TypeError as error:
            raise ValueError("expected one or three distances in mm (slices, rows, columns)") from error
        if len(spacing) not in (0, 1, 3) or not all(0 < number < 1000 for number in spacing):
            raise ValueError("expected one or three distances in mm (slices, rows, columns)")
        return spacing * 3 if len(spacing) == 1 else spacing

    @field_validator("windows", mode="before")
    @classmethod
    def _as_names(cls, value: Any) -> Any:
        names = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return () if list(names) == ["none"] else tuple(names)


class BackboneConfig(_Frozen):
    """The pretrained network."""

    name: str | None = Field(
        None,
        description="None: the one that the weights belong to; without any, ImageNet's where its package is installed",
    )
    args: dict[str, Any] = {}
    weights: str | None = Field(
        None, description="hub, none, packaged, a source by name, or a file; None: the network's"
    )
    size: int | tuple[int, int, int] | None = Field(
        None, description="Input side in px, or depth, height, width in voxels; None: the network's own"
    )
    lift: Literal["auto", "none", "i3d", "acs", "slices"] = Field(
        "auto", description="How a network for images reads volumes; auto: slices, for masks acs"
    )
    input: Literal["replicate", "fold"] = Field(
        "replicate", description="How grey images enter a network for colours; fold: its first layer reads one channel"
    )
    proof: Literal["stop", "say"] = Field(
        "stop", description="Where layers contradict the declared preprocessing, or each other"
    )
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @field_validator("size", mode="plain")
    @classmethod
    def _as_size(cls, value: Any) -> Any:
        sides = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        is_whole = all(isinstance(side, int) and not isinstance(side, bool) and 8 <= side <= 4096 for side in sides)
        if value is not None and not (is_whole and len(sides) in (1, 3)):
            raise ValueError("expected one side, or depth, height and width, each from 8 to 4096")
        return value if value is None or isinstance(value, int) else sides

    @field_serializer("size")
    def _plain_size(self, value: Any) -> Any:
        # Left to itself pydantic warns of every tuple in a union.
        return list(value) if isinstance(value, tuple) else value


class TransferConfig(_Frozen):
    """What is kept and which rule decides it."""

    strategy: str = "ttl"
    cut: str = Field("auto", description="auto, an index from 1, or a name")
    rule: Literal["compact", "best"] = "compact"
    tolerance: float = Field(0.01, ge=0, lt=0.5, description="Validation AUPRC, or Dice, that compact may give up")
    head: Head | None = Field(
        None, description="None: pooled; for hybrid svm; for volumes read by slices attention across them"
    )
    decoder: Literal["unet", "unet++", "fpn", "upernet"] = Field("unet", description="The head of a segmentation")
    solver: Literal["exact", "gradient"] = Field(
        "exact", description="How frozen finds its head; gradient trains with augmentation"
    )
    low_lr: float = Field(0.1, gt=0, le=1, description="Share of the LR for carefully tuned blocks (lwft, gradual)")
    layer_decay: float = Field(0.75, gt=0, le=1, description="LR of a block over that of the next one (discriminative)")
    probe_share: float = Field(0.3, gt=0, lt=1, description="Share of the epochs for the head alone (lp-ft)")
    unfreeze_share: float = Field(0.75, gt=0, le=1, description="Share of the epochs until all is unfrozen (gradual)")
    width: float = Field(0.5, gt=0, lt=1, description="Share of the channels above the cut (tf)")
    l2sp: tuple[float, float] = Field((0.1, 0.01), description="Pull to the source weights; of the head to zero (l2sp)")
    lora_rank: int = Field(8, ge=1, le=1024)
    dropout: float = Field(0.0, ge=0, lt=1)


class TrainConfig(_Frozen):
    """How every model of the run is trained."""

    epochs: int = Field(30, ge=1, le=10_000)
    batch_size: int = Field(
        0,
        ge=0,
        le=4096,
        description="0: 16 below 400 training images, 32 below 2 000, else 64; of masks 8 patches, in volumes 2",
    )
    lr: float | None = Field(None, gt=0, le=10, description="None: 3e-3 for the small packaged network, else 1e-3")
    weight_decay: float = Field(0.05, ge=0, le=10)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    patience: int = Field(10, ge=0)
    clip_norm: float = Field(1.0, ge=0)
    imbalance: Literal["none", "weights", "sampler", "focal", "logit-adjust"] = "none"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    augment: Literal["none", "paper", "light", "standard", "strong"] = "standard"
    flip: Literal["none", "horizontal", "all"] = "none"
    average: float = Field(0.1, ge=0, lt=1, description="Share of the training over which weights are averaged")
    precision: Literal["auto", "float32", "bf16"] = "auto"
    loss: Literal["dice-ce", "dice-bce", "dice", "focal", "tversky"] = Field(
        "dice-ce", description="What masks are taught by"
    )
    patches: int = Field(
        0, ge=0, le=1000, description="Taken of an image with a mask, per epoch; 0: half of what covers it"
    )
    foreground: float = Field(0.5, ge=0, le=1, description="Share of the patches around what is marked")


class SearchConfig(_Frozen):
    """How the cut is searched."""

    method: Literal["auto", "two-stage", "guided", "svcca", "exhaustive", "incremental"] = Field(
        "auto",
        description="auto: guided for ttl on labels, two-stage for masks, others and where its own settings (seeds, "
        "epochs, max_trials) are given; guided and svcca: ttl alone; incremental: lwft alone",
    )
    start: Literal["source", "ftl"] = Field(
        "source",
        description="Where guided begins: train from the source's weights, or by halving from the fine-tuned trunk",
    )
    extra: float = Field(
        1.0, gt=0, le=10, description="What guided may spend beyond full fine-tuning, in units of its training"
    )
    level: float | None = Field(None, gt=0, le=1, description="Validation AUPRC that ends incremental; None: ftl's")
    seeds: int = Field(
        0, ge=0, le=20, description="Seeds per cut, whose mean is the score; 0: 3 if validation is small"
    )
    epochs: int = Field(
        0, ge=0, le=10_000, description="Per seed and cut; 0: those of the training, shared by the seeds"
    )
    max_trials: int = Field(0, ge=0, description="0: no limit beyond the two stages")


class CompareConfig(_Frozen):
    """What `medgraft compare` compares."""

    strategies: tuple[str, ...] = Field(("all",), min_length=1)
    fractions: tuple[float, ...] = Field((1.0,), min_length=1, description="Shares of the training groups")
    uncertain: tuple[str, ...] = Field(
        (), description="Policies for uncertain labels, each with every strategy; the first is the baseline's"
    )
    trials: int = Field(4, ge=1, le=7, description="Trainings per strategy and fraction over depth and LR")


class EvaluateConfig(_Frozen):
    """How the result is judged; fixed before the test set is opened."""

    margin: float = Field(0.02, gt=0, lt=0.5, description="Non-inferiority margin: AUROC, of masks mean Dice")
    tolerance_mm: float = Field(
        2.0, ge=0, le=1000, description="Tolerance of surface Dice; in px where the spacing is unknown"
    )
    operating_point: str = "youden"
    replicates: int = Field(2000, ge=100, le=100_000)
    thumbnails: bool = Field(True, description="Pictures in the report (names can be burnt into images)")


class RunConfig(_Frozen):
    """Everything that decides a run's result."""

    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    transfer: TransferConfig = TransferConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    compare: CompareConfig | None = None
    preset: Preset = "balanced"
    seed: int = Field(0, ge=0, le=2**31)
    seeds: int = Field(1, ge=1, le=50)
    deterministic: bool = False
    device: str = "auto"
    offline: bool = False
    budget_minutes: float | None = Field(None, gt=0)
    executor: str = Field("here", description="here, or processes:N: N trainings at once on this machine")


# `paper` is Peng 2022's protocol where it is stated: Adam, LR 1e-4, batch 64, plateau on validation AUPRC with
# factor 0.5, stop under 1e-7, crop and slight rotation. Not stated there: the cap of 100 epochs, patience 10.
PRESETS: Final[dict[Preset, dict[str, Any]]] = {
    "fast": {"train": {"epochs": 12}, "search": {"seeds": 1}},
    "balanced": {"train": {"epochs": 30}},
    "thorough": {"train": {"epochs": 60}, "search": {"seeds": 3, "epochs": 60}, "seeds": 3},
    "paper": {
        "train": {
            "epochs": 100,
            "batch_size": 64,
            "lr": 1e-4,
            "weight_decay": 0.0,
            "optimizer": "adam",
            "schedule": "plateau",
            "patience": 10,
            "clip_norm": 0.0,
            "augment": "paper",
            "average": 0.0,
        },
        "transfer": {"rule": "best"},
        "search": {"method": "two-stage", "seeds": 1},
        "seeds": 3,
    },
}


def make_config(
    source: str, *, preset: str = "balanced", options: Mapping[str, Any] | None = None, sets: Sequence[str] = ()
) -> RunConfig:
    """The checked configuration: defaults, then the preset, then `options`, then `sets`.

    Args:
        source: Folder, table or npz.
        preset: A key of `PRESETS`.
        options: Nested like `RunConfig`; None values mean "not given".
        sets: ``section.key=value`` with a YAML value, e.g. ``train.lr=3e-4``.

    Raises:
        ConfigError: An unknown key (the nearest are named) or an impossible value.

    Examples:
        >>> make_config("images", preset="fast", sets=["train.lr=0.01"]).train.lr
        0.01
    """
    if preset not in PRESETS:
        raise ConfigError(f"expected a preset among {', '.join(get_args(Preset))}, got {preset!r}.")
    values: dict[str, Any] = {"data": {"source": source}, "preset": preset}
    _merge(values, PRESETS[preset])
    _merge(values, options or {})
    for text in sets:
        _merge(values, _parse_set(text))
    if values["preset"] != preset:
        raise ConfigError(f"expected the preset as --preset, got {values['preset']!r} as a setting beside {preset!r}.")
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def read_config(path: Path) -> RunConfig:
    """The configuration that a run was made with.

    Args:
        path: Its ``config.yaml``.

    Raises:
        RunError: It is missing or damaged, or a version with other settings wrote it.
    """
    try:
        return RunConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"could not read {path}: {error}. Is this the folder of a run?") from error
    except ValidationError as error:
        raise RunError(
            f"expected the settings of a run of this version in {path}, got others ({_explain(error)}) Fit again with "
            "this version, or analyse it with the one that made it."
        ) from error


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML.

    Raises:
        ConfigError: The network has arguments that cannot be written down.
    """
    try:
        plain = config.model_dump(mode="json")
    except ValueError as error:
        raise ConfigError(
            f"expected arguments of the network that can be written down (numbers, words, lists), got {error}. Build "
            "it in a Python file of your own and name FILE.py:FUNCTION as the network."
        ) from error
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def parse_minutes(text: str) -> float:
    """Minutes of ``30m``, ``2h``, ``90s`` or ``1.5h``.

    Raises:
        ConfigError: Another form.

    Examples:
        >>> parse_minutes("30m"), parse_minutes("2h"), parse_minutes("90s")
        (30.0, 120.0, 1.5)
    """
    units = {"s": 1 / 60, "m": 1.0, "h": 60.0}
    body, unit = text.strip()[:-1], text.strip()[-1:]
    try:
        minutes = float(body) * units[unit]
    except (ValueError, KeyError):
        minutes = -1.0
    if not 0 < minutes < 1e6:
        raise ConfigError(f"expected a duration such as 30m, 2h or 90s, got {text!r}.")
    return minutes


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and key == "args":
            # The network's own arguments: here None is a value.
            base[key] = {**base.get(key, {}), **value}
        elif isinstance(value, Mapping):
            inner = base.get(key)
            base[key] = inner if isinstance(inner, dict) else {}
            _merge(base[key], value)
        elif value is not None:
            base[key] = value


def _parse_set(text: str) -> dict[str, Any]:
    path, equals, raw = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"expected --set section.key=value, got {text!r}.")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"expected a YAML value after {path}=, got {raw!r}.") from error
    if isinstance(value, str):
        value = _number(value)
    nested: Any = value
    for part in reversed(path.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _number(text: str) -> str | float:
    # YAML 1.1 reads 3e-4 as a string because it has no decimal point.
    try:
        return float(text)
    except ValueError:
        return text


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        setting = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near = _nearest(setting)
            advice = f" Nearest: {', '.join(near)}." if near else ""
            lines.append(f"unknown setting {setting}.{advice}")
        else:
            lines.append(f"{setting}: {item['msg']}, got {item['input']!r}.")
    return " ".join(lines)


def _nearest(setting: str) -> list[str]:
    keys = _all_keys(RunConfig)
    same = [key for key in keys if key.rpartition(".")[2] == setting.rpartition(".")[2]]
    close = difflib.get_close_matches(setting, [*RunConfig.model_fields, *keys], n=3)
    return list(dict.fromkeys([*same, *close]))[:3]


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += _all_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
