"""An original as a file."""

import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from sources.originals.value import Original


def save(original: Original, seed: int, folder: Path) -> Path:
    """The file that the authors of `original` would have published, with the weights of `seed`."""
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', original.name.lower()).strip('-')}-{seed}{original.suffix}"
    content = original.content(seed)
    if original.suffix == ".npz":
        np.savez(path, **content)
    elif original.suffix == ".safetensors":
        save_file({key: value.contiguous().clone() for key, value in content.items()}, path)
    else:
        torch.save(content, path)
    return path
