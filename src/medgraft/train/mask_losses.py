"""Losses of masks by name, from MONAI; each takes logits (B, K, *spatial) and class numbers (B, *spatial).

Pixels of the class number `medgraft.types.VOID` take no part.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medgraft.errors import ConfigError
from medgraft.types import VOID

__all__ = ["MASK_LOSSES", "MaskLoss", "make_mask_loss"]

MaskLoss = Literal["dice-ce", "dice-bce", "dice", "focal", "tversky"]
MASK_LOSSES: Final = get_args(MaskLoss)
_SURE: Final = 30.0
_FOCAL_GAMMA: Final = 2.0
_TVERSKY: Final = (0.3, 0.7)
"""What a pixel marked wrongly and a pixel missed count: Salehi et al., MLMI 2017."""


class _Sum(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        return torch.stack([part(logits, masks) for part in self.parts]).sum()


class _BinaryCrossEntropy(nn.Module):
    """Cross-entropy of each class against the rest; probabilities are a sigmoid of one output, else a softmax."""

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return F.binary_cross_entropy_with_logits(logits, masks)
        # In logits throughout: a clamped probability has no gradient where the model is surely wrong.
        total = logits.logsumexp(1, keepdim=True)
        rest = [torch.cat((logits[:, :k], logits[:, k + 1 :]), 1).logsumexp(1) for k in range(logits.shape[1])]
        return (total - torch.where(masks > 0, logits, torch.stack(rest, 1))).mean()


def _sure(logits: Tensor) -> Tensor:
    """Logits of the same shape that say background, without a gradient."""
    sure = torch.full_like(logits, -_SURE)
    if logits.shape[1] > 1:
        sure[:, 0] = _SURE
    return sure


def make_mask_loss(name: str, num_outputs: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name.

    Args:
        name: ``dice-ce`` (Dice and cross-entropy, of one output binary), ``dice-bce`` (Dice and the binary
            cross-entropy of each class against the rest; of one output the same), ``dice``, ``focal`` (Dice and focal
            loss) or ``tversky``.
        num_outputs: K: one output for one class, else one for each class and the background, which Dice leaves out.

    Raises:
        ConfigError: No such loss.

    References:
        Milletari et al. V-Net. 3DV 2016. Lin et al. Focal loss. ICCV 2017. Salehi et al. Tversky loss. MLMI 2017.
    """
    if name not in MASK_LOSSES:
        raise ConfigError(f"expected a loss among {', '.join(MASK_LOSSES)}, got {name!r}.")
    from monai import losses

    is_binary = num_outputs == 1
    usual: dict[str, Any] = {"include_background": is_binary, "batch": True}
    shape = {"sigmoid": is_binary, "softmax": not is_binary}
    # Unlike Dice, it has to learn what is background, too.
    focal: dict[str, Any] = {"gamma": _FOCAL_GAMMA, "use_softmax": not is_binary}
    makers: dict[str, Callable[[], Any]] = {
        "dice-ce": lambda: losses.DiceCELoss(**usual, **shape),
        "dice-bce": lambda: _Sum(losses.DiceLoss(**usual, **shape), _BinaryCrossEntropy()),
        "dice": lambda: losses.DiceLoss(**usual, **shape),
        "focal": lambda: _Sum(losses.DiceLoss(**usual, **shape), losses.FocalLoss(**focal)),
        "tversky": lambda: losses.TverskyLoss(**usual, **shape, alpha=_TVERSKY[0], beta=_TVERSKY[1]),
    }
    loss = makers[name]()

    def objective(logits: Tensor, masks: Tensor) -> Tensor:
        is_void = masks == VOID
        if is_void.any():
            # Surely and rightly background: nothing is lost or learned there.
            logits = torch.where(is_void[:, None], _sure(logits), logits)
            masks = masks.masked_fill(is_void, 0)
        # One-hot also where a loss would take numbers: of those torch has no deterministic one on CUDA.
        truth = masks[:, None] if is_binary else F.one_hot(masks, num_outputs).movedim(-1, 1)
        value: Tensor = loss(logits.float(), truth.to(torch.float32))
        return value

    return objective
