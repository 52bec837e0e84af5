"""Features at many cuts from one forward pass, pooled or sampled, as rows for the functions of this room."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from medgraft.analysis.rows import finite_rows
from medgraft.errors import CutError
from medgraft.train.batches import ImageSet, evaluation_batch, iterate
from medgraft.train.engine import Engine, forward, running
from medgraft.transfer.heads import pool_features
from medgraft.transfer.model import TransferModel
from medgraft.types import Cut

__all__ = ["CutReader", "features_at_cuts", "sample_positions"]

_SEED: Final = 20_22


class CutReader(nn.Module):
    """What a model computes at each of its cuts, from one forward pass.

    Features are copied where they arise: an activation that works in place would change them afterwards.

    Args:
        model: Whole or truncated; used in evaluation mode.
        cuts: Cuts of its source, up to where it ends.
        num_positions: None pools each feature map to its mean, one row per image; a number samples so many
            positions of each map (all where there are fewer), the same for every image and model, one row each.

    Raises:
        CutError: A cut is not in the model.

    Examples:
        See `tests/analysis/test_layers.py`: equal to truncating the network at every cut in turn.
    """

    def __init__(self, model: TransferModel, cuts: Sequence[Cut], *, num_positions: int | None = None) -> None:
        super().__init__()
        self.model, self.cuts, self.num_positions = model.eval(), tuple(cuts), num_positions
        inside = dict(model.trunk.network.named_modules())
        missing = [cut.name for cut in cuts if cut.tap not in inside or cut.index > model.trunk.cut.index]
        if missing:
            raise CutError(
                f"expected cuts of this model, which ends at {model.trunk.cut.name}, got {', '.join(missing[:3])}. "
                "Compare up to the earlier end of both models."
            )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Cut index to (rows, channels) float32; rows are images, or images × positions.

        Args:
            images: (B, c, *spatial) on the scale 0 to 1, on the model's device.
        """
        rows: dict[int, Tensor] = {}
        with ExitStack() as hooks, torch.inference_mode():
            for cut in self.cuts:
                hooks.callback(self._watch(cut, rows).remove)
            self.model.features(images)
        return rows

    def _watch(self, cut: Cut, rows: dict[int, Tensor]) -> Any:
        module = self.model.trunk.network.get_submodule(cut.tap)

        def keep(features: Tensor) -> None:
            if cut.index in rows:
                return
            if self.num_positions is None:
                rows[cut.index] = pool_features(features, cut.channel_axis)
            else:
                rows[cut.index] = sample_positions(features, cut.channel_axis, self.num_positions)

        def before(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            keep(args[0])

        def after(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
            keep(output)

        # The trunk's own hook at its last cut ends the pass, so ours comes first.
        if cut.tap_side == "input":
            return module.register_forward_pre_hook(before, prepend=True)
        return module.register_forward_hook(after, prepend=True)


def features_at_cuts(
    model: TransferModel, cuts: Sequence[Cut], data: ImageSet, engine: Engine
) -> dict[int, np.ndarray]:
    """Cut index to (n, channels) float32 pooled features of `data`, in its order, from one pass over the images.

    Args:
        model: Whole or truncated; moved to the engine's device.
        cuts: Cuts of its source, up to where it ends.
        data: Images; targets are not used.
        engine: Device and arithmetic.

    Raises:
        DataError: An activation is not finite.
    """
    reader = CutReader(model.to(engine.device), cuts)
    parts: list[dict[int, np.ndarray]] = []
    with running(engine):
        size = evaluation_batch(data.images.shape[2:])
        for images, _, _ in iterate(data, np.arange(len(data)), size, torch.device(engine.device)):
            parts.append({index: rows.cpu().numpy() for index, rows in forward(reader, images, engine).items()})
    features = {cut.index: np.concatenate([part[cut.index] for part in parts]) for cut in cuts}
    for cut in cuts:
        finite_rows(features[cut.index], cut.name)
    return features


def sample_positions(features: Tensor, channel_axis: int, num: int) -> Tensor:
    """(B × s, C) float32: `num` positions of each feature map, all where there are fewer.

    Which ones is fixed by the number of positions alone, so two models of one architecture are sampled alike.

    Args:
        features: (B, C, *spatial), or (B, …, C) with the channels last.
        channel_axis: 1 or -1.
        num: At least 1.

    Examples:
        >>> sample_positions(torch.arange(8.0).view(1, 2, 2, 2), 1, 4).tolist()
        [[0.0, 4.0], [1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]
    """
    rows = features.flatten(1, -2) if channel_axis == -1 else features.flatten(2).transpose(1, 2)
    total = rows.shape[1]
    order = np.random.default_rng([_SEED, total]).permutation(total)[: min(num, total)]
    picked = torch.from_numpy(np.sort(order)).to(rows.device)
    return rows.index_select(1, picked).flatten(0, 1).float()
