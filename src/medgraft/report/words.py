"""What each strategy is called in a sentence, what its depth means, and whom to cite."""

import dataclasses
from typing import Final

from medgraft.as_json import to_json
from medgraft.result.run import Chosen
from medgraft.transfer.decoders import DECODERS

__all__ = ["SEARCHES", "SURFACE_UNITS", "WORDINGS", "Wording", "chosen_name", "depth_sentence", "strategy_words"]

SURFACE_UNITS: Final = {"px": "pixels", "mm": "mm", "mm_at_detector": "mm at the detector"}
"""What distances between surfaces are measured in, by `medgraft.evaluate.results.MaskReference.unit`."""
# How each search goes on after "The depth was chosen on validation alone by average precision, " (svcca: "from training
# images alone, "); whom to cite.
SEARCHES: Final[dict[str, tuple[str, str]]] = {
    "two-stage": ("first among the ends of stages, then among their neighbours", "peng"),
    "incremental": (
        "tuning one more block, each time from the original weights, until the wished level was reached",
        "tajbakhsh",
    ),
    "exhaustive": ("every cut being trained", ""),
    "svcca": (
        "where canonical correlations between the features before and after full fine-tuning "
        "overlap those of random features by half",
        "peng",
    ),
    "guided": (
        "a linear probe on the fully fine-tuned features at every cut naming what was truncated and trained, as far as "
        "a budget in units of full fine-tuning went",
        "",
    ),
    "guided from ftl": (
        "a linear probe on the fully fine-tuned features at every cut naming a few, which were truncated, started from "
        "the fine-tuned weights and trained in two rungs, the better ones twice",
        "",
    ),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How to speak of a strategy.

    Args:
        words: Name and definition; fields of `StrategySettings`, ``head`` and ``solved`` may stand in braces.
        references: Keys of `medgraft.report.prose.REFERENCES`.
        depth: What its depth does, with ``cut`` in braces; empty where it has none.
        nothing: What depth 0 does, in the same form as `depth`.
    """

    words: str
    references: tuple[str, ...] = ()
    depth: str = ""
    nothing: str = ""


WORDINGS: Final[dict[str, Wording]] = {
    "ttl": Wording(
        words="truncated transfer learning: the pretrained layers up to a cut and a new head are trained, "
        "all later layers are removed",
        references=("peng",),
        depth="The network was cut at {cut}",
    ),
    "ftl": Wording(words="full transfer learning: all pretrained layers and a new head are trained"),
    "scratch": Wording(words="training of all layers from random weights"),
    "frozen": Wording(
        words="feature extraction: the pretrained layers up to a cut stay frozen, all later layers are removed, and a "
        "{new_head} is {solved}",
        references=("kim",),
        depth="Features were taken from {cut}",
    ),
    "hybrid": Wording(
        words="hybrid feature extraction: a classical classifier ({head}, with logistic calibration) on pooled "
        "features of the frozen pretrained layers",
        references=("kim",),
        depth="Features were taken from {cut}",
    ),
    "lwft": Wording(
        words="layer-wise fine-tuning: the lower layers stay frozen, the upper ones are trained at {low_lr:g} of the "
        "head's learning rate",
        references=("tajbakhsh", "peng"),
        depth="Everything up to {cut} stayed frozen",
        nothing="Nothing stayed frozen",
    ),
    "tf": Wording(
        words="TransFusion: pretrained layers up to a depth, above it layers of {width:g} of their width with random "
        "weights",
        references=("raghu",),
        depth="The network is pretrained up to {cut} and slimmed above",
        nothing="All of the network was slimmed and nothing is pretrained",
    ),
    "wtst": Wording(
        words="weight transfer up to a depth, above it random weights with the mean and deviation of the pretrained "
        "tensors",
        references=("matsoukas",),
        depth="Weights were transferred up to {cut}, above it their statistics",
        nothing="Only the statistics of the weights were transferred",
    ),
    "gradual": Wording(
        words="gradual unfreezing: the head first, then block after block from the top down, at {low_lr:g} of the "
        "head's learning rate",
        references=("kim", "howard"),
        depth="Everything up to {cut} stayed frozen",
        nothing="Everything was unfrozen in the end",
    ),
    "lp-ft": Wording(
        words="linear probing for {probe_share:.0%} of the epochs, then fine-tuning of all layers",
        references=("kumar",),
    ),
    "discriminative": Wording(
        words="discriminative fine-tuning: each block is trained at {layer_decay:g} of the learning rate of the block "
        "above it",
        references=("howard",),
    ),
    "l2sp": Wording(
        words="fine-tuning of all layers with an L2 penalty towards the pretrained weights instead of towards zero",
        references=("li",),
    ),
    "lora": Wording(
        words="low-rank adaptation: adapters of rank {lora_rank} beside the frozen linear layers of the attention, "
        "merged afterwards",
        references=("hu",),
    ),
}


def strategy_words(chosen: Chosen) -> str:
    """Name and definition of the strategy, with the settings of the run.

    Examples:
        >>> from medgraft.result.run import CutFacts
        >>> from medgraft.transfer.strategies import StrategySettings
        >>> cut = CutFacts(index=3, name="layer1.1", num_params=1, macs=1)
        >>> strategy_words(Chosen(strategy="lora", cut=cut, settings=StrategySettings(lora_rank=4)))[:42]
        'low-rank adaptation: adapters of rank 4 be'
    """
    if chosen.strategy not in WORDINGS:
        return chosen.strategy
    exact = "solved to convergence (logistic regression, penalty by grouped cross-validation)"
    return WORDINGS[chosen.strategy].words.format_map(
        {
            **to_json(chosen.settings),
            "head": chosen.head,
            "solved": exact if chosen.is_solved else "trained by gradient",
            "new_head": "decoder" if chosen.head in DECODERS else "linear head",
        }
    )


def chosen_name(chosen: Chosen) -> str:
    """Strategy and, where it says something, depth of the chosen model, for a label.

    Examples:
        >>> from medgraft.result.run import CutFacts
        >>> cut = CutFacts(index=3, name="layer1.1", num_params=1, macs=1)
        >>> chosen_name(Chosen(strategy="ttl", cut=cut)), chosen_name(Chosen(strategy="ftl", cut=cut))
        ('ttl at layer1.1', 'ftl')
    """
    wording = WORDINGS.get(chosen.strategy)
    has_place = wording is not None and wording.depth and chosen.cut.index
    return f"{chosen.strategy} at {chosen.cut.name}" if has_place else chosen.strategy


def depth_sentence(chosen: Chosen, *, is_searched: bool) -> str:
    """What the chosen depth did to the network and who chose it; without a full stop.

    Args:
        chosen: The run's chosen model.
        is_searched: Whether several depths were tried.

    Examples:
        >>> from medgraft.result.run import CutFacts
        >>> cut = CutFacts(index=3, name="layer1.1", num_params=1, macs=1)
        >>> depth_sentence(Chosen(strategy="lwft", cut=cut), is_searched=False)
        'Everything up to layer1.1 (cut 3) stayed frozen, as fixed beforehand'
        >>> depth_sentence(Chosen(strategy="l2sp", cut=cut), is_searched=False)
        'The strategy l2sp has no depth: all of the network was kept'
        >>> depth_sentence(Chosen(strategy="ftl", cut=cut), is_searched=True)
        'All of the network was kept, chosen on validation alone'
    """
    name, cut = chosen.strategy, chosen.cut
    judge = "training data" if chosen.rule == "overlap" else "validation"
    if is_searched and name == "ftl":
        return f"All of the network was kept, chosen on {judge} alone"
    wording = WORDINGS.get(name)
    if wording is None or not wording.depth:
        return f"The strategy {name} has no depth: all of the network was kept"
    text = wording.nothing if cut.index == 0 else wording.depth.format(cut=f"{cut.name} (cut {cut.index})")
    return f"{text}, chosen on {judge} alone" if is_searched else f"{text}, as fixed beforehand"
