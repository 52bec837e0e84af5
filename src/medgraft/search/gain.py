"""What pretrained weights bring, depth by depth: trainings with the weights up to a cut and their statistics above."""

from medgraft.listener import Listener
from medgraft.result.analysis import DepthGain
from medgraft.search.plan import Recipe
from medgraft.search.trainer import Trainer
from medgraft.search.trial import TrialContext, TrialSpec, forget_weights
from medgraft.search.two_stage import stage_ends
from medgraft.transfer.source import BELOW_STEM

__all__ = ["gain_by_depth"]


def gain_by_depth(recipe: Recipe, seed: int, context: TrialContext, listener: Listener) -> tuple[DepthGain, ...]:
    """Validation scores with the weights of the first blocks, at the ends of the stages; random ones are depth 0.

    Args:
        recipe: What all trainings have in common.
        seed: Seeds every training.
        context: Where they run.
        listener: Told how far they are.

    Raises:
        MedgraftError: A training failed.

    References:
        Matsoukas et al. What makes transfer learning work for medical images. CVPR 2022 (WT-ST).
    """
    depths = (BELOW_STEM, *stage_ends(context.source.cuts))
    trainer = Trainer(context, listener, label=_label)
    trials = trainer.run([(recipe.spec("wtst", depth.index, seed), "gain") for depth in depths])
    for trial in trials:
        forget_weights(trial)
    return tuple(
        DepthGain(
            depth=depth.index,
            name=depth.name,
            val_auprc=trial.score,
            val_auroc=trial.scores["auroc"],
            gain=trial.score - trials[0].score,
        )
        for depth, trial in zip(depths, trials, strict=True)
    )


def _label(spec: TrialSpec, _context: TrialContext) -> str:
    return f"weights up to cut {spec.cut}, statistics above"
