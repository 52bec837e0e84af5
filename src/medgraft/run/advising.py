"""What to start with and why: facts that take minutes to measure, and what the literature makes of them."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from medgraft.config import RunConfig
from medgraft.listener import Listener
from medgraft.run.prepare import Prepared, prepared
from medgraft.run.refusals import refuse_early
from medgraft.run.trials import engine_for, trial_context, trial_spec
from medgraft.search.rule import choose
from medgraft.search.trial import Trial, TrialContext, run_trial
from medgraft.search.two_stage import stage_ends
from medgraft.train.batches import iterate
from medgraft.transfer.blocks import own_blocks
from medgraft.transfer.model import Normalise

__all__ = ["advice_from", "advise", "domain_distance"]

KIM: Final = "Kim et al., BMC Med Imaging 2022"
PENG: Final = "Peng et al., BMVC 2023"
MATSOUKAS: Final = "Matsoukas et al., CVPR 2022"
_SMALL: Final = 1000
_FAR: Final = 1.0
_SAMPLE: Final = 256


def advise(config: RunConfig, *, listener: Listener | None = None) -> dict[str, Any]:
    """Facts, probes and advice for a cohort; nothing is trained but linear probes, and the test set stays shut.

    Args:
        config: As for `medgraft.run.fit.fit`.
        listener: Told how things go.

    Returns:
        ``facts`` (sentences), ``probes`` (validation AUPRC per stage end), ``domain_distance`` or None, and
        ``advice``: strategy, cut, why and source, the first first.
    """
    told = listener or Listener()
    refuse_early(config, "advise")
    with tempfile.TemporaryDirectory(prefix="medgraft-advise-") as place:
        folder = Path(place)
        found = prepared(config, told)
        context = trial_context(folder, found, engine_for(config, folder, found, told))
        return advice_from(config, found, context, told)


def advice_from(config: RunConfig, found: Prepared, context: TrialContext, told: Listener) -> dict[str, Any]:
    """The advice for a cohort that is prepared already; see `advise`."""
    probes = _probes(config, found, context, told)
    distance = domain_distance(found, context)
    cuts = found.source.cuts
    by_index = {index: trial.score for index, trial in probes.items()}
    choice = choose(
        {index: [context.val_predictions(trial.val_outputs)] for index, trial in probes.items()},
        cuts,
        {index: cuts[index - 1].num_params for index in probes},
        "compact",
        replicates=config.evaluate.replicates,
        seed=config.seed,
    )
    facts = _facts(found, by_index, distance)
    return {
        "facts": facts,
        "probes": [{"cut": i, "name": cuts[i - 1].name, "val_auprc": value} for i, value in by_index.items()],
        "domain_distance": distance,
        "advice": _advice(found, choice.chosen, choice.best, distance),
    }


def domain_distance(found: Prepared, context: TrialContext) -> float | None:
    """How far the cohort lies from the source, in standard deviations of the source's own channels.

    Batch normalisation remembers mean and variance of every channel over the source's images. The cohort's training
    images give their own; the distance is that of two Gaussians (2-Wasserstein), per channel, divided by the source's
    deviation, averaged over channels and layers up to the last pretrained cut. None where nothing is remembered
    (transformers, random weights).
    """
    if found.source.backbone.report.source == "none":
        return None
    network = found.source.backbone.network.eval()
    pretrained = {cut.index for cut in found.source.cuts if cut.is_pretrained}
    layers = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and pretrained.issuperset(own_blocks(found.source, path, module))
    }
    backbone = found.source.backbone
    normalise = Normalise(backbone.in_channels, backbone.normalisation, backbone.mean, backbone.std)
    sums: dict[str, list[torch.Tensor]] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].float().transpose(0, 1).flatten(1)
            sums.setdefault(name, []).append(torch.stack([x.mean(1), x.square().mean(1)]))

        return hook

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in layers.items()]
    try:
        rows = np.random.default_rng(0).permutation(len(context.train))[:_SAMPLE]
        with torch.inference_mode():
            for images, _, _ in iterate(context.train, rows, 32, torch.device("cpu")):
                network(normalise(images))
    finally:
        for handle in handles:
            handle.remove()
    gaps = []
    for name, parts in sums.items():
        module = layers[name]
        mean, square = torch.stack(parts).mean(0)
        spread = (square - mean.square()).clamp_min(0).sqrt()
        remembered = dict(module.named_buffers())
        source_spread = (remembered["running_var"] + module.eps).sqrt()
        gap = ((mean - remembered["running_mean"]).square() + (spread - source_spread).square()).sqrt() / source_spread
        gaps.append(float(gap.mean()))
    return float(np.mean(gaps)) if gaps else None


def _probes(config: RunConfig, found: Prepared, context: TrialContext, told: Listener) -> dict[int, Trial]:
    probes = {}
    for cut in stage_ends(found.source.cuts):
        usual = trial_spec(config, found, "frozen", cut, config.seed)
        spec = dataclasses.replace(usual, solver="exact", head=dataclasses.replace(usual.head, kind="pooled"))
        probes[cut.index] = run_trial(spec, context)
        told.say(f"  frozen probe at cut {cut.index} {cut.name}: val AUPRC {probes[cut.index].score:.4f}")
    return probes


def _facts(found: Prepared, probes: dict[int, float], distance: float | None) -> list[str]:
    cohort, cuts = found.cohort, found.source.cuts
    num_train = len(cohort.rows("train"))
    targets = cohort.targets[cohort.rows("train")]
    shares = (
        np.nanmean(targets, 0) if targets.ndim == 2 else np.bincount(targets, minlength=len(cohort.classes)) / num_train
    )
    rarest = int(np.argmin(shares))
    best = max(probes, key=lambda index: probes[index])
    if found.source.backbone.report.source == "none":
        far = "none, the weights are random"
    else:
        far = "not measurable: the network keeps no statistics of it" if distance is None else f"{distance:.2f} SD"
    return [
        f"{num_train} training images, {len(cohort.classes)} classes, rarest {cohort.classes[rarest]} "
        f"({shares[rarest]:.0%}).",
        f"Frozen features are best at cut {best} of {len(cuts)} ({cuts[best - 1].name}), validation AUPRC "
        f"{probes[best]:.3f}; at the last cut {probes[cuts[-1].index]:.3f}.",
        f"Distance of the images from the source's: {far}.",
    ]


def _advice(found: Prepared, compact: int, best: int, distance: float | None) -> list[dict[str, Any]]:
    cuts = found.source.cuts
    num_train = len(found.cohort.rows("train"))
    is_transformer = cuts[-1].channel_axis == -1
    here = {"index": cuts[compact - 1].index, "name": cuts[compact - 1].name}

    def item(strategy: str, why: str, source: str, cut: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"strategy": strategy, "cut": cut, "why": why, "source": source}

    if found.source.backbone.report.source == "none":
        return [item("scratch", "There are no pretrained weights; every other strategy needs them.", MATSOUKAS)]
    advice = []
    if best < len(cuts) or compact < len(cuts):
        why = "Features below the top serve at least as well; what lies above is specific to the source."
        advice.append(item("ttl", why, PENG, here))
    else:
        advice.append(item("ftl", "Features improve up to the top: all of the network is of use.", MATSOUKAS))
    if num_train < _SMALL:
        why = f"With {num_train} images begin with frozen features, and unfreeze only if that is not enough."
        advice.append(item("frozen", why, KIM, {"index": best, "name": cuts[best - 1].name}))
        advice.append(item("gradual", "The step after frozen: from the top down at a low learning rate.", KIM))
    if distance is not None and distance > _FAR:
        why = "The images lie far from the source: early layers carry over, later ones have to learn anew."
        advice.append(item("tf", why, MATSOUKAS, here))
    if is_transformer:
        why = "Transformers have few built-in assumptions and gain most from transfer, in their early layers."
        advice.append(item("discriminative", why, MATSOUKAS))
    advice.append(item("ftl", "The baseline that everything is measured against.", PENG))
    first: dict[str, dict[str, Any]] = {}
    for entry in advice:
        first.setdefault(entry["strategy"], entry)
    return list(first.values())
