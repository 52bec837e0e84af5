"""Layers from their definitions, in double precision: weights by name, no modules."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sources.originals.value import Weights

_CONVS = {4: F.conv2d, 5: F.conv3d}


def exact(weights: Mapping[str, Any]) -> Weights:
    """Tensors or arrays as doubles."""
    return {key: torch.as_tensor(value).double() for key, value in weights.items()}


def in_double(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`forward` on doubles, whose result has the type of the input."""

    def rounded(weights: Mapping[str, Any], x: Tensor, *args: Any, **settings: Any) -> Tensor:
        with torch.no_grad():
            return forward(exact(weights), x.double(), *args, **settings).to(x.dtype)

    return rounded


def conv(
    x: Tensor,
    w: Weights,
    name: str,
    stride: int | tuple[int, ...] = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution in two or three dimensions, with a bias where the file has one."""
    weight = w[f"{name}.weight"]
    return _CONVS[weight.ndim](x, weight, w.get(f"{name}.bias"), stride, padding, dilation, groups)


def batch_norm(x: Tensor, w: Weights, name: str, eps: float = 1e-5) -> Tensor:
    """Batch norm with the stored statistics."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, variance = w[f"{name}.running_mean"].view(shape), w[f"{name}.running_var"].view(shape)
    scale, shift = w[f"{name}.weight"].view(shape), w[f"{name}.bias"].view(shape)
    return (x - mean) / (variance + eps).sqrt() * scale + shift


def layer_norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    """Layer norm over the last axis."""
    return standardised(x, eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def standardised(x: Tensor, eps: float) -> Tensor:
    """Mean zero and variance one over the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """Linear map of the last axis, with a bias where the file has one."""
    out = x @ w[f"{name}.weight"].T
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def max_pool(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Greatest of each patch in two or three dimensions."""
    if x.ndim == 4:
        return torch.max_pool2d(x, kernel, stride, padding)
    return torch.max_pool3d(x, kernel, stride, padding)


def same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """TensorFlow's padding SAME of an image: as much as gives ceil(size / stride), the odd one at the end."""
    pads: list[int] = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of (…, N, C) in `heads` parts of the channels; `bias` is added to (…, heads, N, N)."""
    return merged(attend(split(q, heads), split(k, heads), split(v, heads), bias))


def split(x: Tensor, heads: int) -> Tensor:
    """(…, N, heads × D) to (…, heads, N, D)."""
    parts: Tensor = x.unflatten(-1, (heads, -1))
    return parts.transpose(-2, -3)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of (…, heads, N, D)."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def merged(x: Tensor) -> Tensor:
    """(…, heads, N, D) to (…, N, heads × D)."""
    return x.transpose(-2, -3).flatten(-2)


def patches(x: Tensor, w: Weights, name: str) -> Tensor:
    """(B, C, H, W) to one token per patch (B, N, C), row by row."""
    size = w[f"{name}.weight"].shape[-1]
    return conv(x, w, name, stride=size).flatten(2).transpose(1, 2)


def with_prefix(x: Tensor, *tokens: Tensor) -> Tensor:
    """Tokens (1, n, C) before those of `x`."""
    return torch.cat([*(token.expand(len(x), -1, -1) for token in tokens), x], dim=1)


def gelu(x: Tensor) -> Tensor:
    """The exact GELU."""
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation."""
    return x * torch.sigmoid(1.702 * x)


def silu(x: Tensor) -> Tensor:
    """Swish."""
    return x * torch.sigmoid(x)


def block_names(w: Weights, prefix: str) -> Sequence[str]:
    """``prefix.0``, ``prefix.1`` … as far as the file has them."""
    numbers = {int(key[len(prefix) + 1 :].partition(".")[0]) for key in w if key.startswith(f"{prefix}.")}
    return [f"{prefix}.{number}" for number in sorted(numbers)]
