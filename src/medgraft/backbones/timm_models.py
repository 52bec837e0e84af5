"""The adapter to timm: names, construction, hub weights, normalisation."""

import contextlib
import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import timm
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT, SAFETENSORS_SINGLE_FILE
from torch import Tensor, nn

from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.reach import demand_reachable
from medgraft.errors import BackboneError, WeightsError

__all__ = [
    "TimmFacts",
    "build_timm",
    "build_timm_from_hub",
    "converter_of",
    "facts_of",
    "hub_file_of",
    "is_timm_name",
    "nearest_names",
]

TimmFacts = dict[str, Any]


def is_timm_name(name: str) -> bool:
    """Whether timm knows an architecture (or architecture.tag) of this name."""
    return bool(timm.is_model(name))


def nearest_names(name: str, count: int = 5) -> list[str]:
    """The architectures whose names look most like `name`."""
    return difflib.get_close_matches(name, timm.list_models(), n=count, cutoff=0.4)


def build_timm(name: str, args: dict[str, Any], size: int | None) -> nn.Module:
    """The architecture without a head and with random weights.

    Args:
        name: An architecture of timm.
        args: Passed on to timm.
        size: Input side in px; given to networks that are built for one size (ViT, Swin).

    Raises:
        BackboneError: timm refuses the arguments.
    """
    return _create(name, _with_size(name, args, size), pretrained=False)


def build_timm_from_hub(
    name: str, args: dict[str, Any], size: int | None, *, is_offline: bool
) -> tuple[nn.Module, LoadReport]:
    """The architecture with the weights timm names for it, from the local hub cache or the hub.

    Args:
        name: An architecture of timm, with or without a tag of published weights.
        args: Passed on to timm.
        size: Input side in px; given to networks that are built for one size (ViT, Swin); None for their own.
        is_offline: Forbid any attempt to reach the hub.

    Raises:
        WeightsError: There are none, they cannot be reached, or `is_offline` and they are not cached.
    """
    config = _config_of(name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"expected an architecture with published weights, got {name}, which has none. "
            "Give --weights PATH, or --weights none to train from scratch."
        )
    if is_offline:
        _require_cached(name, config)
    elif not _is_cached(config):
        demand_reachable(ENDPOINT if config.hf_hub_id else config.url)
    try:
        with _hub_closed() if is_offline else contextlib.nullcontext():
            network = _create(name, _with_size(name, args, size), pretrained=True)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(
            f"expected to load the published weights of {name}, got {type(error).__name__}: {reason}. "
            "Without internet, copy the weights file here and give --weights PATH."
        ) from error
    source = f"hub:{config.hf_hub_id or config.url}"
    matched = len(list(network.parameters()))
    report = LoadReport(source=source, licence=config.license or "", matched=matched, matched_fraction=1.0)
    return network, report


def hub_file_of(name: str) -> tuple[str, str]:
    """The hub's repository and the file in it that hold the weights timm publishes under a name.

    Raises:
        BackboneError: timm publishes none of that name.
    """
    config = _config_of(name)
    if config is None or not config.hf_hub_id:
        raise BackboneError(f"expected weights of timm on the hub, got {name}, of which there are none.")
    return config.hf_hub_id.removesuffix("/"), config.hf_hub_filename or "model.safetensors"


def _is_cached(config: Any) -> bool:
    """Whether the weights that timm names for an architecture lie in the local hub cache."""
    hub_id = (config.hf_hub_id or "").removesuffix("/")
    others = ("pytorch_model.bin", "open_clip_model.safetensors")
    names = (config.hf_hub_filename, SAFETENSORS_SINGLE_FILE, *others)
    return bool(hub_id) and any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in names if name)


def _require_cached(name: str, config: Any) -> None:
    if _is_cached(config):
        return
    raise WeightsError(
        f"expected the weights of {name} in the local hub cache because --offline is set, got none. "
        "Give --weights PATH, or run once online."
    )


@contextlib.contextmanager
def _hub_closed() -> Iterator[None]:
    """No request leaves: timm asks the hub for the newest revision of a cached file unless this says not to."""
    import huggingface_hub.constants as hub

    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _config_of(name: str) -> Any:
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        architecture = name.partition(".")[0]
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise BackboneError(f"expected a tag of timm's {architecture}, got {name!r}. Published: {tags}.") from error


def _create(name: str, args: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """The architecture without a head.

    Args:
        name: An architecture of timm, with or without a tag of published weights.
        args: Passed on to timm.
        pretrained: Whether it gets its published weights.
    """
    _config_of(name)
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **{"num_classes": 0, **args})
    except OSError:
        raise  # the hub's; in some of its versions such an error is a ValueError too
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
        if pretrained and isinstance(error, RuntimeError):
            raise
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise BackboneError(
            f"expected arguments that timm's {name} takes, got {args}: {reason}. See --backbone-arg."
        ) from error
    return network


def _with_size(name: str, args: dict[str, Any], size: int | None) -> dict[str, Any]:
    """`args` with the input size, where the network is built for one size and that is another.

    Args:
        name: An architecture of timm.
        args: Arguments of its constructor.
        size: Input side in px, or None for the network's own.
    """
    config = timm.get_pretrained_cfg(name.partition(".")[0])
    is_fixed = config is not None and config.fixed_input_size
    if size is None or not is_fixed or "img_size" in args or size == config.input_size[-1]:
        return args
    return {**args, "img_size": size}


def facts_of(network: nn.Module) -> TimmFacts:
    """Input size (px) and whether it is the only one, channels, mean and std that timm stores with an architecture."""
    config: dict[str, Any] = getattr(network, "pretrained_cfg", None) or network.default_cfg  # type: ignore[assignment]
    channels, height, _ = config["input_size"]
    return {
        "size": height,
        "is_fixed": bool(config.get("fixed_input_size")),
        "channels": channels,
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
    }


def converter_of(network: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]] | None:
    """The converter of foreign checkpoints that timm has for this family, else None."""
    function = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if function is None:
        return None
    if "model" in inspect.signature(function).parameters:
        return functools.partial(function, model=network)
    return function  # type: ignore[no-any-return]
