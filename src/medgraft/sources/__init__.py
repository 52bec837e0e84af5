"""What is transferred: published weights by name, how their files are read, and what a network got from them."""

from medgraft.sources.load import load_weights
from medgraft.sources.open import open_backbone
from medgraft.sources.weights_file import read_state_dicts, sha256_of

__all__ = ["load_weights", "open_backbone", "read_state_dicts", "sha256_of"]
