"""One network of every family that strategies are tested on, with the side of its images in px."""

import pytest

FAMILIES = {
    "resnet18": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "mobilenetv1_100": 64,
    "inception_v3": 96,
    "vgg11_bn": 64,
    "convnext_atto": 64,
    "swin_tiny_patch4_window7_224": 224,
    "vit_tiny_patch16_224": 224,
}
TRANSFORMERS = ("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224")
EVERY_FAMILY = pytest.mark.parametrize(("name", "size"), FAMILIES.items())
