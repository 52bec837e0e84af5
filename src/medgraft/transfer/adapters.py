"""Low-rank adapters: put beside a transformer's linear layers, and merged into them at the end."""

import warnings
from collections.abc import Container

from torch import nn

from medgraft.errors import BackboneError, ConfigError

__all__ = ["add_lora", "base_weights", "merge_lora"]


def add_lora(network: nn.Module, name: str, rank: int, called: Container[str]) -> None:
    """Put low-rank adapters beside the linear layers of the attentions of `network`, in place.

    Args:
        network: A transformer.
        name: Name of the network, for messages.
        rank: Rank of the adapters, at least 1.
        called: Paths of the modules that a forward pass calls. Attention of torch and of torchvision's Swin reads the
            weights of its layers instead: an adapter beside these would learn nothing.

    Raises:
        ConfigError: The library peft is not installed.
        BackboneError: The network has no attention whose linear layers are called.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("lora needs the library peft, which is missing: pip install 'medgraft[lora]'.") from error
    targets = [
        f"{path}.{child}"
        for path, module in network.named_modules()
        for child in ("qkv", "q", "k", "v", "q_proj", "k_proj", "v_proj", "proj", "out_proj")
        if isinstance(getattr(module, child, None), nn.Linear) and _is_attention(module) and f"{path}.{child}" in called
    ]
    if not targets:
        raise BackboneError(
            f"lora needs a transformer's attention layers (linear ones that are called), {name} has none. "
            "Use ftl or discriminative."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, lora_dropout=0.0, bias="none")
        inject_adapter_in_model(config, network)


def _is_attention(module: nn.Module) -> bool:
    return any(hasattr(module, name) for name in ("num_heads", "n_heads", "heads"))


def base_weights(network: nn.Module) -> list[str]:
    """Names of the parameters of `network` that adapters stand beside; all but the adapters when there are any."""
    names = [name for name, _ in network.named_parameters()]
    has_adapters = any(".lora_" in name for name in names)
    return [name for name in names if ".lora_" not in name] if has_adapters else []


def merge_lora(network: nn.Module) -> None:
    """Add the adapters to the weights beside them and remove them, in place; without adapters nothing happens."""
    for path, module in list(network.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            module.merge()
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, module.get_base_layer())
