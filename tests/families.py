"""One network of every family that strategies are tested on, with the side of its images in px."""

import dataclasses
import functools

import pytest

from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.backbones.load_report import LoadReport
from medgraft.transfer import Source, prepare_source

FAMILIES = {
    "resnet18": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "mobilenetv1_100": 64,
    "inception_v3": 80,
    "vgg11_bn": 32,
    "convnext_atto": 64,
    "swin_tiny_patch4_window7_224": 64,
    "vit_tiny_patch16_224": 64,
    "caffenet": 67,
    "torchvision/squeezenet1_1": 64,
    "torchvision/googlenet": 64,
}
# Narrower than they are published, where that makes them many times as fast.
ARGS = {
    "vgg11_bn": {"mlp_ratio": 0.05},
    "densenet121": {"growth_rate": 8, "block_config": (2, 10, 3, 2)},
    "swin_tiny_patch4_window7_224": {"embed_dim": 48, "window_size": 4},
    "vit_tiny_patch16_224": {"embed_dim": 48, "depth": 6},
}
TRANSFORMERS = ("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224")
EVERY_FAMILY = pytest.mark.parametrize(("name", "size"), FAMILIES.items())


# Tracing is the slow part, and a source is never changed.
@functools.cache
def source_of(name: str, size: int) -> Source:
    """A source by timm name and side, as if its weights came from a file."""
    backbone = build_backbone(BackboneSpec(name=name, args=ARGS.get(name, {}), weights="none", size=size))
    return prepare_source(dataclasses.replace(backbone, report=LoadReport(source="a file")), (size, size))
