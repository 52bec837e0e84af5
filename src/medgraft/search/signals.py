"""What one pass over the images says of every cut: how much of its features fine-tuning left."""

from medgraft.analysis.layers import features_at_cuts
from medgraft.analysis.reuse import Reuse, add_cuts, reuse_of
from medgraft.analysis.similarity import Moments
from medgraft.search.trial import TrialContext
from medgraft.transfer.model import TransferModel

__all__ = ["reuse_at_cuts"]


def reuse_at_cuts(before: TransferModel, after: TransferModel, context: TrialContext) -> dict[int, Reuse]:
    """How much of the features at every cut is kept from before to after transfer, on the training images.

    Features are pooled to one row per image. Both sides keep the principal components of 99 % of their variance, at
    most one per ten images.

    Args:
        before: Untruncated network before transfer.
        after: The network after transfer.
        context: Tells the cuts, the training images and the engine.

    Raises:
        DataError: Too few images for a stable CCA, constant features, or activations that are not finite.

    References:
        Raghu et al. SVCCA. NeurIPS 2017; Peng et al. Rethinking transfer learning for medical image classification.
        BMVC 2023.
    """
    cuts, moments = context.source.cuts, dict[int, Moments]()
    old, new = (features_at_cuts(model, cuts, context.study.train, context.engine) for model in (before, after))
    add_cuts(moments, old, new, {cut.index: cut.name for cut in cuts})
    return {index: reuse_of(pair) for index, pair in moments.items()}
