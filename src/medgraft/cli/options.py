"""What several commands take, and how it becomes settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from medgraft.config import MaskFormat, Unit
from medgraft.errors import ConfigError

__all__ = [
    "DATA",
    "EVALUATION",
    "LABELS",
    "NETWORK",
    "RUNNING",
    "STRATEGY",
    "TRAINING",
    "BackboneArgs",
    "Sets",
    "PathColumn",
    "LabelColumn",
    "PatientColumn",
    "PatientRegex",
    "Labels",
    "FormatOfMasks",
    "JudgedBy",
    "Key",
    "Grades",
    "Uncertain",
    "Blank",
    "Cache",
    "Positive",
    "Weights",
    "Lift",
    "Input",
    "Size",
    "TaskOption",
    "Leaks",
    "Decoder",
    "DemoTask",
    "Device",
    "Executor",
    "Observer",
    "Offline",
    "asked",
    "backbone_args",
    "option",
    "cohort_options",
    "data_sets",
    "fraction",
    "network_options",
    "size_of",
]

# Groups of options in every command's help.
DATA: Final = "Data"
LABELS: Final = "Labels"
NETWORK: Final = "Network"
STRATEGY: Final = "Strategy"
TRAINING: Final = "Training"
EVALUATION: Final = "Evaluation"
RUNNING: Final = "Running"


def option(group: str, text: str, *names: str, least: int | None = None) -> Any:
    """An option of a command in its group.

    Args:
        group: One of the headings above.
        text: What the help says.
        names: As they are typed, where they are not the parameter's own.
        least: Smallest value.
    """
    return typer.Option(*names, help=text, rich_help_panel=group, min=least)


BackboneArgs = Annotated[list[str], option(NETWORK, "K=V for the constructor; may be repeated.", "--backbone-arg")]
Sets = Annotated[list[str], option(RUNNING, "Any setting: section.key=value; may be repeated.", "--set")]
PathColumn = Annotated[str | None, option(DATA, "Column of file names.")]
LabelColumn = Annotated[str | None, option(LABELS, "Column of labels; several, comma-separated: multilabel.")]
PatientColumn = Annotated[str | None, option(DATA, "Column of patients; the split keeps patients whole.")]
PatientRegex = Annotated[str | None, option(DATA, "Pattern in the path whose first group is the patient.")]
Labels = Annotated[Path | None, option(LABELS, "Table that labels a PACS export; see --key.")]
JudgedBy = Annotated[
    Unit | None,
    option(LABELS, "Averaged over: image, series, study, patient. Left out: as the model was judged.", "--unit"),
]
FormatOfMasks = Annotated[
    MaskFormat,
    option(RUNNING, "Format of masks: auto (as the images), png, nifti, npy or dicom-seg.", "--format"),
]
Key = Annotated[
    str | None,
    option(LABELS, "path, SOPInstanceUID, SeriesInstanceUID, … AccessionNumber, PatientID."),
]
Uncertain = Annotated[
    str | None,
    option(LABELS, "Labels -1 of several columns: ignore, zeros, ones, soft(a,b); label=… for some."),
]
Blank = Annotated[str | None, option(LABELS, "Blank labels of several columns: ignore or negative.")]
Grades = Annotated[
    str | None,
    option(LABELS, "All classes from the lowest to the highest, where they are grades."),
]
TaskOption = Annotated[str | None, option(LABELS, "classification, or segmentation (masks).", "--task")]
DemoTask = Annotated[
    Literal["classification", "segmentation"],
    option(LABELS, "Kinds of lesions, or where they lie.", "--task"),
]
Observer = Annotated[str | None, option(LABELS, "Whose masks, where there are several; or majority.")]
Decoder = Annotated[str | None, option(STRATEGY, "Decoder of a segmentation: unet, unet++, fpn or upernet.")]
Positive = Annotated[str | None, option(LABELS, "Positive class of a binary task.")]
Weights = Annotated[
    str | None,
    option(NETWORK, "hub, none, a source by name, a finished run, or a file (FILE#key: one of its networks)."),
]
Size = Annotated[
    str | None,
    option(NETWORK, "Input side in px, or depth,height,width in voxels; default the network's own."),
]
Lift = Annotated[
    str | None,
    option(
        NETWORK, "How a network for images reads volumes: slices (auto), acs (auto for masks), i3d; none: it must not."
    ),
]
Input = Annotated[
    str | None,
    option(NETWORK, "How grey images enter a network for colours: replicate (auto), or fold: one channel."),
]
Cache = Annotated[str | None, option(DATA, "Folder of decoded images; default below MEDGRAFT_HOME.")]
Leaks = Annotated[str | None, option(DATA, "stop, drop or allow when a given split leaks.")]
Executor = Annotated[str | None, option(RUNNING, "here, or processes:N: N trainings at once, sharing the cores.")]
Device = Annotated[str | None, option(RUNNING, "auto, cpu, cuda, cuda:1 or mps.")]
Offline = Annotated[bool, option(RUNNING, "Never touch the network.", "--offline")]


def cohort_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options about the cohort, which several commands share, out of those that were given."""
    names = (
        "path_column",
        "label_column",
        "patient_column",
        "patient_regex",
        "positive",
        "leaks",
        "labels",
        "key",
        "uncertain",
        "blank",
        "grades",
        "task",
        "observer",
        "cache",
    )
    return {name: str(arguments[name]) for name in names if arguments.get(name) is not None}


def network_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options about the network, which several commands share, out of those that were given."""
    args = backbone_args(arguments["backbone_arg"])
    return {
        "name": arguments["backbone"],
        "args": args,
        "weights": arguments["weights"],
        "size": size_of(arguments["size"]),
        "lift": arguments["lift"],
        "input": arguments.get("input"),
    }


def size_of(text: str | None) -> int | tuple[int, ...] | None:
    """One side, or depth, height and width, from ``64`` or ``32,64,64``.

    Raises:
        ConfigError: Another form.
    """
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdigit() for part in parts):
        raise ConfigError(f"expected --size as one side or depth,height,width, got {text!r}.")
    sides = tuple(int(part) for part in parts)
    return sides[0] if len(sides) == 1 else sides


def asked(options: Mapping[str, Any]) -> bool:
    """Whether any of these options was given; what is None, empty or off was not."""
    return any(bool(value) for value in options.values())


def data_sets(sets: list[str], command: str) -> list[str]:
    """The settings of a command that reads a cohort and nothing else.

    Args:
        sets: As they were typed.
        command: Its name.

    Raises:
        ConfigError: One of them is about something that the command does not do.
    """
    for text in sets:
        if not text.strip().startswith("data."):
            raise ConfigError(
                f"expected --set data.… for {command}, which does nothing else, got {text!r}. Leave it out."
            )
    return sets


def fraction(text: str) -> float:
    """A share of the training images.

    Raises:
        ConfigError: It is no number.
    """
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"expected fractions such as 0.1,0.25,1, got {text!r}.") from error


def backbone_args(pairs: list[str]) -> dict[str, Any]:
    """Arguments of the network's constructor from ``NAME=VALUE``.

    Raises:
        ConfigError: Another form, or a value that is not plain.
    """
    import yaml

    args: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"expected --backbone-arg NAME=VALUE, got {pair!r}.")
        try:
            args[key] = float(value) if "e" in value.lower() and _is_number(value) else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"expected a plain value after {key}=, got {value!r}.") from error
    return args


def _is_number(text: str) -> bool:
    # YAML 1.1 reads 1e-3 as a string.
    try:
        float(text)
    except ValueError:
        return False
    return True
