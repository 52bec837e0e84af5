"""New heads: linear layers, and classical classifiers as plain tensors."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medgraft.errors import ConfigError
from medgraft.transfer.decoders import MaskHead
from medgraft.types import Cut, Task

__all__ = [
    "CLASSICAL",
    "AttentionHead",
    "ClassicalHead",
    "FlattenedHead",
    "HeadKind",
    "HeadSettings",
    "PooledHead",
    "build_head",
    "empty_classical",
    "head_macs",
    "pool_features",
]

HeadKind = Literal[
    "pooled", "flattened", "attention", "svm", "random-forest", "logistic", "knn", "gradient-boosting",
    "unet", "unet++", "fpn", "upernet",
]  # fmt: skip
_ATTENTION: Final = 64
CLASSICAL: Final = ("svm", "random-forest", "logistic", "knn", "gradient-boosting")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """The new head: `num_outputs` logits (of a decoder per pixel); its kind; dropout of the linear ones, 0 to 1."""

    num_outputs: int
    kind: HeadKind = "pooled"
    dropout: float = 0.0


def pool_features(features: Tensor, channel_axis: int) -> Tensor:
    """(B, channels), the mean over positions in float32."""
    if channel_axis == -1:
        return features.float().flatten(1, -2).mean(1)
    return features.float().flatten(2).mean(2)


class PooledHead(nn.Module):
    """Mean over all positions, then a linear layer: features at a cut to logits (B, num_outputs).

    Features with the channels last (transformers) pass a LayerNorm first: inside a pre-norm network they
    carry none.
    """

    def __init__(self, cut: Cut, num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.channel_axis = cut.channel_axis
        self.norm = nn.LayerNorm(cut.channels) if cut.channel_axis == -1 else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(cut.channels, num_outputs)

    def pool(self, features: Tensor) -> Tensor:
        """(B, channels), the mean over positions in float32."""
        return pool_features(features, self.channel_axis)

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """Logits of pooled features."""
        logits: Tensor = self.linear(self.dropout(self.norm(pooled)))
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, num_outputs)."""
        return self.from_pooled(self.pool(features))


class FlattenedHead(nn.Module):
    """All positions and channels into one linear layer: features at a cut to logits (B, num_outputs)."""

    def __init__(self, cut: Cut, num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(math.prod(cut.shape), num_outputs)

    def pool(self, features: Tensor) -> Tensor:
        """(B, positions × channels): nothing is lost."""
        return features.float().flatten(1)

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """Logits of flattened features."""
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, num_outputs)."""
        return self.from_pooled(self.pool(features))


class AttentionHead(nn.Module):
    """Mean over every slice, then over the slices with learned weights: features of volumes to logits (B, num_outputs).

    The weights of a slice come from its own features; at first all are equal, which is the plain mean.

    Args:
        cut: Where the features come from; of volumes.
        num_outputs: Logits.
        dropout: Before the linear layer, 0 to 1.

    Raises:
        ConfigError: The features at `cut` have no slices.

    References:
        Ilse, Tomczak, Welling. Attention-based deep multiple instance learning. ICML 2018.
    """

    def __init__(self, cut: Cut, num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        if len(cut.shape) != 4:
            raise ConfigError(f"expected features of volumes for --head attention, got {cut.shape}. Use --head pooled.")
        self.channel_axis = cut.channel_axis
        self.num_slices = cut.shape[1] if cut.channel_axis == 1 else cut.shape[0]
        self.norm = nn.Identity()
        self.inner = nn.Linear(cut.channels, _ATTENTION)
        self.score = nn.Linear(_ATTENTION, 1)
        nn.init.zeros_(self.score.weight)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(cut.channels, num_outputs)

    def pool(self, features: Tensor) -> Tensor:
        """(B, slices × channels), the mean over every slice in float32."""
        if self.channel_axis == -1:
            return features.float().flatten(2, 3).mean(2).flatten(1)
        return features.float().flatten(3).mean(3).transpose(1, 2).flatten(1)

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """Logits of the means of all slices."""
        slices = pooled.view(len(pooled), self.num_slices, -1)
        weights = self.score(torch.tanh(self.inner(slices))).softmax(1)
        logits: Tensor = self.linear(self.dropout((weights * slices).sum(1)))
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, num_outputs)."""
        return self.from_pooled(self.pool(features))


class ClassicalHead(nn.Module):
    """A classical classifier on pooled features, stored as plain tensors: no pickle, the same numbers anywhere.

    One-vs-rest: every class (binary: the positive one) has a raw score, a logistic calibration of it, and a
    probability; in a multiclass task these are divided by their sum. The outputs are logits like any other head's.

    Args:
        kind: ``svm`` (RBF kernel), ``random-forest``, ``logistic``, ``knn`` (cosine) or ``gradient-boosting``.
        task: Task of the cohort.
        channel_axis: Where the channels of the features lie: 1 or -1.
        tensors: As `medgraft.train.classical.fit_classical` fills them; all start with the same names.
    """

    def __init__(self, kind: str, task: Task, channel_axis: int, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.kind = kind
        self.task = task
        self.channel_axis = channel_axis
        for name, value in tensors.items():
            self.register_buffer(name, value)

    def pool(self, features: Tensor) -> Tensor:
        """(B, channels), the mean over positions in float32."""
        return pool_features(features, self.channel_axis)

    def scores(self, pooled: Tensor) -> Tensor:
        """(B, outputs) raw scores, not calibrated."""
        tensors: dict[str, Tensor] = dict(self.named_buffers())
        return _SCORES[self.kind]((pooled - tensors["mean"]) / tensors["scale"], tensors)

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """Logits of pooled features."""
        tensors: dict[str, Tensor] = dict(self.named_buffers())
        calibrated = tensors["slope"] * self.scores(pooled) + tensors["offset"]
        # In a multiclass task: probabilities divided by their sum, as logits of a softmax.
        return F.logsigmoid(calibrated) if self.task == "multiclass" else calibrated

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, outputs)."""
        return self.from_pooled(self.pool(features))


def empty_classical(head: HeadSettings, task: Task, cut: Cut, weights: Mapping[str, Tensor]) -> ClassicalHead:
    """A classical head of the shapes in `weights` (names as in a `TransferModel`), to be filled from them.

    Args:
        head: Its kind is one of `CLASSICAL`.
        task: Task of the cohort.
        cut: Where the features come from.
        weights: Tensors by name; those under ``head.`` give the shapes.
    """
    tensors = {
        name.removeprefix("head."): torch.empty_like(value)
        for name, value in weights.items()
        if name.startswith("head.")
    }
    return ClassicalHead(head.kind, task, cut.channel_axis, tensors)


def _kernel(x: Tensor, t: dict[str, Tensor]) -> Tensor:
    distances = torch.cdist(x, t["support"], compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.exp(-t["gamma"] * distances) @ t["dual"].T + t["intercept"]


def _linear(x: Tensor, t: dict[str, Tensor]) -> Tensor:
    return x @ t["weight"].T + t["intercept"]


def _neighbours(x: Tensor, t: dict[str, Tensor]) -> Tensor:
    similarity = F.normalize(x, dim=1) @ t["neighbours"].T
    nearest = similarity.topk(int(t["num_neighbours"]), dim=1).indices
    return t["truth"][nearest].mean(1)


def _trees(x: Tensor, t: dict[str, Tensor]) -> Tensor:
    """Sum over trees of the value of the leaf that each row reaches."""
    num_trees = t["feature"].shape[0]
    tree = torch.arange(num_trees, device=x.device)
    node = torch.zeros(len(x), num_trees, dtype=torch.long, device=x.device)
    for _ in range(int(t["depth"])):
        feature = t["feature"][tree, node]
        value = x.gather(1, feature.clamp_min(0))
        below = value <= t["threshold"][tree, node]
        step = torch.where(below, t["left"][tree, node], t["right"][tree, node])
        node = torch.where(feature < 0, node, step)
    leaves = t["leaf"][tree, node]
    outputs = torch.zeros(len(x), len(t["base"]), dtype=leaves.dtype, device=x.device)
    outputs.index_add_(1, t["output"], leaves)
    return (outputs + t["base"]).float()


_SCORES: Final = {
    "svm": _kernel,
    "logistic": _linear,
    "knn": _neighbours,
    "random-forest": _trees,
    "gradient-boosting": _trees,
}


def build_head(cut: Cut, head: HeadSettings) -> PooledHead | FlattenedHead | AttentionHead:
    """A new linear head with random weights for the features at `cut`."""
    kinds: dict[str, type[PooledHead] | type[FlattenedHead] | type[AttentionHead]] = {
        "pooled": PooledHead,
        "flattened": FlattenedHead,
        "attention": AttentionHead,
    }
    return kinds[head.kind](cut, head.num_outputs, head.dropout)


def head_macs(head: nn.Module) -> int:
    """Multiply-accumulates of a head for one image: its matrices, or a decoder; trees compare and multiply nothing."""
    if isinstance(head, MaskHead):
        return head.macs()
    if isinstance(head, ClassicalHead) and head.kind in ("random-forest", "gradient-boosting"):
        return 0
    tensors = head.buffers() if isinstance(head, ClassicalHead) else head.parameters()
    return sum(tensor.numel() for tensor in tensors if tensor.ndim > 1)
