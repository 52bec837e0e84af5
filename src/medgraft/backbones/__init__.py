"""Named networks, their weights and their input: timm, the packaged network, a user's own."""

from medgraft.backbones.build import build_backbone
from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.backbones.spec import Backbone, BackboneSpec
from medgraft.backbones.weights import load_weights
from medgraft.backbones.weights_file import read_state_dicts, sha256_of

__all__ = [
    "PACKAGED_NAME",
    "Backbone",
    "BackboneSpec",
    "build_backbone",
    "load_weights",
    "read_state_dicts",
    "sha256_of",
]
