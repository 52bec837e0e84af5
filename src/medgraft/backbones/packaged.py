"""The small pretrained network that travels inside the package, so that nothing needs a hub.

It was pretrained by `recipes/pretrain_shapes` on drawn figures, has never seen a medical image, and reads
one grey channel, normalised by the z-score of each image. The file holds the trunk in half precision, which
halves the package and moves the source accuracy by less than its noise.
"""

import hashlib
import importlib.resources
import json
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from medgraft.errors import WeightsError

__all__ = ["PACKAGED_NAME", "build_packaged", "packaged_manifest", "packaged_state", "packaged_weights"]

PACKAGED_NAME: Final = "shapes_resnet18"


def build_packaged() -> nn.Module:
    """A quarter-width ResNet-18 trunk with random weights: (B, 1, H, W) to pooled features (B, 128).

    The deep stem is asked for because timm's plain one has 64 channels whatever `stem_width` says.

    References:
        He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016.
        He, Zhang, Zhang, Zhang, Xie, Li. Bag of tricks for image classification with convolutional neural
        networks. CVPR 2019 (deep stem, average-pooled shortcut).

    Examples:
        >>> import torch
        >>> trunk = build_packaged()
        >>> trunk.eval()(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 128])
    """
    trunk: nn.Module = ResNet(
        BasicBlock,
        [2, 2, 2, 2],
        channels=(16, 32, 64, 128),
        stem_width=16,
        stem_type="deep",
        avg_down=True,
        in_chans=1,
        num_classes=0,
    )
    return trunk


def packaged_weights() -> Path:
    """Path of the trunk's safetensors file inside the installed package.

    Raises:
        WeightsError: The file is not there: the installation is incomplete.

    Examples:
        >>> packaged_weights().name
        'shapes_resnet18.safetensors'
    """
    return _packaged_file(f"{PACKAGED_NAME}.safetensors")


def packaged_manifest() -> dict[str, Any]:
    """What is known of the packaged weights: sha256, licence, seed, recipe, steps, input, source accuracy.

    Raises:
        WeightsError: The manifest is not there or is no JSON object.

    Examples:
        >>> packaged_manifest()["licence"]
        'Apache-2.0'
    """
    path = _packaged_file(f"{PACKAGED_NAME}.json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(
            f"Expected JSON in {path}, got {error}. Install medgraft again; the package file is damaged."
        ) from error
    if not isinstance(manifest, dict):
        raise WeightsError(f"Expected a JSON object in {path}, got {type(manifest).__name__}. Install medgraft again.")
    return manifest


def packaged_state() -> dict[str, Tensor]:
    """The trunk's tensors by name, in float32 (counters stay integers), after the file's sha256 was checked.

    Raises:
        WeightsError: A file is missing or is not the one the manifest describes.

    Examples:
        >>> build_packaged().load_state_dict(packaged_state())
        <All keys matched successfully>
    """
    path, expected = packaged_weights(), packaged_manifest()["sha256"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != expected:
        raise WeightsError(
            f"Expected sha256 {expected}, got {digest} ({path}). Install medgraft again; the file was changed."
        )
    state: dict[str, Tensor] = load_file(path)
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _packaged_file(name: str) -> Path:
    # A wheel is always unpacked on installation, so the resource is a real file and needs no copy.
    path = Path(str(importlib.resources.files("medgraft.backbones"))) / "packaged_weights" / name
    if not path.is_file():
        raise WeightsError(f"Expected the packaged file {name}, got nothing at {path}. Install medgraft again.")
    return path
