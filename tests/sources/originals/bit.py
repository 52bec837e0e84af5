"""BiT as its authors save it: flat names, standardised weights, group norms before the convolutions.

References:
    Kolesnikov et al. Big Transfer (BiT): general visual representation learning. ECCV 2020.
"""

import functools
from typing import Any, Final

from torch import Tensor
from torch.nn import functional as F

from sources.originals.draw import Draw
from sources.originals.flat import Arrays, arrays, bottlenecks, hwio_conv, kernel, over_channels
from sources.originals.layers import in_double, max_pool
from sources.originals.value import Original, Weights

_WIDTHS: Final = (128, 256, 512, 1024)  # half of the published network's
_GROUPS: Final = 32
_LAST: Final = 0.05


def _bit(seed: int, *, suffix: str = "") -> Arrays:
    draw = Draw(seed)
    conv = f"standardized_conv2d{suffix}"

    def standardised(out: int, into: int, side: int) -> Tensor:
        # The scale and the mean of a kernel do not matter, so these are far from one and zero.
        return draw.normal(side, side, into, out, std=0.3) + 0.1

    weights: Weights = {"resnet/root_block/standardized_conv2d/kernel": standardised(64, 3, 7)}

    def norm(name: str, channels: int, gain: float = 1.0) -> None:
        drawn = draw.norm(channels)
        weights[f"{name}/gamma"], weights[f"{name}/beta"] = drawn["weight"] * gain, drawn["bias"] * gain

    into = 64
    for (stage, block, _), out in ((key, _WIDTHS[key[0]]) for key in bottlenecks()):
        name = f"resnet/block{stage + 1}/unit{block + 1:02d}"
        inner = out // 4
        for part, wide, seen, side in (("a", inner, into, 1), ("b", inner, inner, 3), ("c", out, inner, 1)):
            # Standardised kernels cannot be small, so a block's last norm keeps its branch below the shortcut.
            norm(f"{name}/{part}/group_norm", seen, _LAST if part == "c" else 1.0)
            weights[f"{name}/{part}/{conv}/kernel"] = standardised(wide, seen, side)
        if block == 0:
            weights[f"{name}/a/proj/{conv}/kernel"] = standardised(out, into, 1)
        into = out
    norm("resnet/group_norm", into, 0.5)
    weights["resnet/head/conv2d/kernel"] = kernel(draw, 10, into, 1)
    weights["resnet/head/conv2d/bias"] = draw.normal(10)
    return arrays(weights)


@in_double
def _bit_features(w: Weights, x: Tensor, suffix: str = "") -> Tensor:
    """The last feature map after the last norm and ReLU (B, C, H, W)."""
    conv = f"standardized_conv2d{suffix}"

    def standard(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = w[f"{name}/kernel"]
        centred = weight - weight.mean((0, 1, 2), keepdim=True)
        weight = centred / (centred.square().mean((0, 1, 2), keepdim=True) + 1e-10).sqrt()
        return hwio_conv(x, weight, stride, weight.shape[0] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        groups: Tensor = x.unflatten(1, (_GROUPS, -1)).flatten(2)
        centred = groups - groups.mean(-1, keepdim=True)
        out: Tensor = (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).view_as(x)
        return (out * over_channels(w[f"{name}/gamma"]) + over_channels(w[f"{name}/beta"])).relu()

    x = max_pool(F.pad(standard(x, "resnet/root_block/standardized_conv2d", 2), (1, 1, 1, 1)), 3, 2, 0)
    for stage, block, _ in bottlenecks():
        name, stride = f"resnet/block{stage + 1}/unit{block + 1:02d}", 2 if stage and block == 0 else 1
        out = norm(x, f"{name}/a/group_norm")
        if block == 0:
            x = standard(out, f"{name}/a/proj/{conv}", stride)
        out = standard(out, f"{name}/a/{conv}")
        out = standard(norm(out, f"{name}/b/group_norm"), f"{name}/b/{conv}", stride)
        x = x + standard(norm(out, f"{name}/c/group_norm"), f"{name}/c/{conv}")
    return norm(x, "resnet/group_norm")


_SMALL: Final[dict[str, Any]] = {
    "network": "resnetv2_50x1_bit",
    "args": {"channels": _WIDTHS},
    "layout": "bit",
    "suffix": ".npz",
    "shape": (3, 64, 64),
}

BITS: Final = (
    Original(name="BiT", content=_bit, features=_bit_features, **_SMALL),
    Original(
        name="BiT of another program, which numbered its layers",
        content=functools.partial(_bit, suffix="_17"),
        features=functools.partial(_bit_features, suffix="_17"),
        **_SMALL,
    ),
)
