"""Networks by name and what they read: timm, MONAI, torchvision, the packaged one, a user's own."""

from medgraft.backbones.build import build_backbone
from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.backbones.spec import Backbone, BackboneSpec

__all__ = ["PACKAGED_NAME", "Backbone", "BackboneSpec", "build_backbone"]
