"""Attention in shifted windows, in any number of dimensions.

References:
    Liu et al. Swin transformer: hierarchical vision transformer using shifted windows. ICCV 2021.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sources.originals.draw import Draw
from sources.originals.layers import attend, gelu, layer_norm, linear, merged, split
from sources.originals.value import Weights, under

_EPS = 1e-5


def position_index(window: Sequence[int]) -> Tensor:
    """The row of the table of biases for each pair of places in a window (n, n)."""
    places = _coordinates(window)
    index = torch.zeros(len(places), len(places), dtype=torch.long)
    for axis, side in enumerate(window):
        index = index * (2 * side - 1) + places[:, None, axis] - places[None, :, axis] + side - 1
    return index


def shift_mask(sizes: Sequence[int], window: Sequence[int], shifts: Sequence[int]) -> Tensor:
    """What is added to the scores of each window (windows, n, n): −100 between parts that only the shift joins."""
    part = torch.zeros(math.prod(sizes), dtype=torch.long)
    order, _ = _windows(sizes, window)
    for axis, (size, side, shift) in enumerate(zip(sizes, window, shifts, strict=True)):
        place = _coordinates(sizes)[:, axis]
        part = part * 3 + (place >= size - side).long() + (place >= size - shift).long() * (shift > 0)
    part = part[order].view(-1, math.prod(window))
    return (part[:, :, None] != part[:, None, :]) * -100.0


def block_weights(draw: Draw, channels: int, heads: int, window: Sequence[int], mlp: tuple[str, str]) -> Weights:
    """One block; `mlp` names its two linear maps."""
    weights = under("norm1", draw.norm(channels))
    weights["attn.relative_position_bias_table"] = draw.normal(math.prod(2 * side - 1 for side in window), heads)
    weights["attn.relative_position_index"] = position_index(window)
    weights |= under("attn.qkv", draw.linear(3 * channels, channels))
    weights |= under("attn.proj", draw.linear(channels, channels, gain=0.5)) | under("norm2", draw.norm(channels))
    weights |= under(f"mlp.{mlp[0]}", draw.linear(4 * channels, channels))
    return weights | under(f"mlp.{mlp[1]}", draw.linear(channels, 4 * channels, gain=0.5))


def block(
    x: Tensor, w: Weights, name: str, window: Sequence[int], shifts: Sequence[int], mlp: tuple[str, str]
) -> Tensor:
    """One block on (B, …, C); an axis that is no longer than the window has one window, unshifted."""
    sizes = x.shape[1:-1]
    used = [min(side, size) for side, size in zip(window, sizes, strict=True)]
    moved = [0 if size <= side else shift for size, side, shift in zip(sizes, window, shifts, strict=True)]
    x = x + _attended(layer_norm(x, w, f"{name}.norm1", _EPS), w, f"{name}.attn", used, moved)
    inner = gelu(linear(layer_norm(x, w, f"{name}.norm2", _EPS), w, f"{name}.mlp.{mlp[0]}"))
    return x + linear(inner, w, f"{name}.mlp.{mlp[1]}")


def _attended(x: Tensor, w: Weights, name: str, window: Sequence[int], shifts: Sequence[int]) -> Tensor:
    sizes, axes = x.shape[1:-1], tuple(range(1, x.ndim - 1))
    pads = [-size % side for size, side in zip(sizes, window, strict=True)]
    x = F.pad(x, (0, 0, *(number for pad in reversed(pads) for number in (0, pad))))
    padded = x.shape[1:-1]
    x = torch.roll(x, [-shift for shift in shifts], axes)

    order, back = _windows(padded, window)
    count = math.prod(window)
    table = w[f"{name}.relative_position_bias_table"]
    # A window that was cut short counts its places as the first ones of the whole window.
    index = w[f"{name}.relative_position_index"].long()[:count, :count]
    bias = table[index].permute(2, 0, 1)
    tokens = x.flatten(1, -2)[:, order].unflatten(1, (-1, count))
    heads = table.shape[1]
    q, k, v = (split(part, heads) for part in linear(tokens, w, f"{name}.qkv").chunk(3, -1))
    bias = bias + shift_mask(padded, window, shifts)[:, None].double() if any(shifts) else bias
    out = linear(merged(attend(q, k, v, bias)), w, f"{name}.proj").flatten(1, 2)[:, back]

    out = torch.roll(out.unflatten(1, padded), list(shifts), axes)
    return out[(slice(None), *(slice(size) for size in sizes))]


def _coordinates(sizes: Sequence[int]) -> Tensor:
    """Of every place in a grid, row by row (places, axes)."""
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes)).view(-1, len(sizes))


def _windows(sizes: Sequence[int], window: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The order of places that puts window after window, and the way back."""
    places = _coordinates(sizes)
    number = torch.zeros(len(places), dtype=torch.long)
    for axis, (size, side) in enumerate(zip(sizes, window, strict=True)):
        number = number * (size // side) + places[:, axis] // side
    order = torch.argsort(number, stable=True)
    return order, torch.argsort(order)
