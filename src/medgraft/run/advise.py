"""What to start with and why: facts that take minutes to measure, and what the literature makes of them."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.analysis.remembered import domain_distance
from medgraft.config import RunConfig
from medgraft.listener import Listener
from medgraft.prepare.material import Material
from medgraft.result.advice import Advice, NamedCut, Probe, Recommendation
from medgraft.search.cross_fit import choosing_judged
from medgraft.search.executor import open_executor
from medgraft.search.plan import Recipe
from medgraft.search.rule import choose
from medgraft.search.run_engine import engine_for
from medgraft.search.trainer import Trainer
from medgraft.search.trial import Trial
from medgraft.search.two_stage import stage_ends
from medgraft.setup.plan import context_of, material_of, recipe_of, wish_of
from medgraft.setup.refusals import refuse_early

__all__ = ["advice_from", "advise"]

KIM: Final = "Kim et al., BMC Med Imaging 2022"
PENG: Final = "Peng et al., BMVC 2023"
MATSOUKAS: Final = "Matsoukas et al., CVPR 2022"
_SMALL: Final = 1000
_FAR: Final = 1.0


def advise(config: RunConfig, *, listener: Listener | None = None) -> Advice:
    """Facts, probes and advice for a cohort; nothing is trained but linear probes, and the test set stays shut.

    Args:
        config: Settings, as `medgraft.run.fit.fit` takes them.
        listener: Told how things go.

    Raises:
        MedgraftError: Whatever is wrong with data, weights or options.
    """
    listener = listener or Listener()
    refuse_early(config, "advise")
    with (
        tempfile.TemporaryDirectory(prefix="medgraft-advise-") as temporary,
        open_executor(config.executor) as executor,
    ):
        folder = Path(temporary)
        material = material_of(config, listener)
        recipe = recipe_of(config, material)
        source, dataset = material.source, material.dataset
        engine = engine_for(wish_of(config), recipe, source, dataset, folder / "engine.json", listener)
        trainer = Trainer(context_of(material, engine, folder), listener, executor=executor)
        return advice_from(material, recipe, trainer, config.evaluate.replicates)


def advice_from(material: Material, recipe: Recipe, trainer: Trainer, replicates: int) -> Advice:
    """The advice for a cohort that is prepared already; see `advise`.

    Args:
        material: Cohort and network.
        recipe: Recipe of the probes.
        trainer: Solves them.
        replicates: Replicates of the rule's bootstrap.
    """
    probes = _probes(recipe, trainer)
    study, cuts = trainer.context.study, material.source.cuts
    distance = domain_distance(material.source, study.train)
    choice = choose(
        {index: [choosing_judged(trial, trainer.context)] for index, trial in probes.items()},
        cuts,
        {index: cuts[index - 1].num_params for index in probes},
        "compact",
        replicates=replicates,
        seed=recipe.train.seed,
    )
    by_index = {candidate.cut: candidate.score for candidate in choice.candidates}
    return Advice(
        facts=_facts(material, by_index, distance),
        probes=tuple(Probe(cut=index, name=cuts[index - 1].name, val_auprc=score) for index, score in by_index.items()),
        domain_distance=distance,
        advice=_advice(material, choice.chosen, choice.best, distance),
    )


def _probes(recipe: Recipe, trainer: Trainer) -> dict[int, Trial]:
    """Linear probes at the ends of the stages, by index of the cut."""
    specs = []
    for cut in stage_ends(trainer.context.source.cuts):
        usual = recipe.spec("frozen", cut.index, recipe.train.seed)
        specs.append(dataclasses.replace(usual, solver="exact", head=dataclasses.replace(usual.head, kind="pooled")))
    return {trial.cut.index: trial for trial in trainer.run([(spec, "probe") for spec in specs])}


def _facts(material: Material, probes: dict[int, float], distance: float | None) -> tuple[str, ...]:
    """What was measured, in sentences.

    Args:
        material: Cohort and network.
        probes: Cut index to the AUPRC of its probe on images that it did not learn from.
        distance: Distance from the source, in standard deviations; None where it cannot be measured.
    """
    cohort, cuts = material.dataset.cohort, material.source.cuts
    num_train = len(cohort.rows("train"))
    targets = cohort.targets[cohort.rows("train")]
    shares = (
        np.nanmean(targets, 0) if targets.ndim == 2 else np.bincount(targets, minlength=len(cohort.classes)) / num_train
    )
    rarest = int(np.argmin(shares))
    best = max(probes, key=lambda index: probes[index])
    if material.source.backbone.report.source == "none":
        far = "none, the weights are random"
    else:
        far = "not measurable: the network keeps no statistics of it" if distance is None else f"{distance:.2f} SD"
    return (
        f"{num_train} training images, {len(cohort.classes)} classes, rarest {cohort.classes[rarest]} "
        f"({shares[rarest]:.0%}).",
        f"Frozen features are best at cut {best} of {len(cuts)} ({cuts[best - 1].name}), AUPRC "
        f"{probes[best]:.3f} on images that its head did not learn from; at the last cut {probes[cuts[-1].index]:.3f}.",
        f"Distance of the images from the source's: {far}.",
    )


def _advice(material: Material, compact: int, best: int, distance: float | None) -> tuple[Recommendation, ...]:
    """Strategies to try, the most advised first, and why.

    Args:
        material: Cohort and network.
        compact: Index of the cut that the rule ``compact`` picks among the probes.
        best: Index of the cut with the best probe.
        distance: Distance from the source, in standard deviations; None where it cannot be measured.
    """
    cuts = material.source.cuts
    num_train = len(material.dataset.cohort.rows("train"))
    is_transformer = cuts[-1].channel_axis == -1
    here, most = (NamedCut(index=index, name=cuts[index - 1].name) for index in (compact, best))
    if material.source.backbone.report.source == "none":
        why = "There are no pretrained weights; every other strategy needs them."
        return (Recommendation(strategy="scratch", why=why, source=MATSOUKAS),)
    advice = []
    if best < len(cuts) or compact < len(cuts):
        why = "Features below the top serve at least as well; what lies above is specific to the source."
        advice.append(Recommendation(strategy="ttl", why=why, source=PENG, cut=here))
    else:
        why = "Features improve up to the top: all of the network is of use."
        advice.append(Recommendation(strategy="ftl", why=why, source=MATSOUKAS))
    if num_train < _SMALL:
        why = f"With {num_train} images begin with frozen features, and unfreeze only if that is not enough."
        advice.append(Recommendation(strategy="frozen", why=why, source=KIM, cut=most))
        why = "The step after frozen: from the top down at a low learning rate."
        advice.append(Recommendation(strategy="gradual", why=why, source=KIM))
    if distance is not None and distance > _FAR:
        why = "The images lie far from the source: early layers carry over, later ones have to learn anew."
        advice.append(Recommendation(strategy="tf", why=why, source=MATSOUKAS, cut=here))
    if is_transformer:
        why = "Transformers have few built-in assumptions and gain most from transfer, in their early layers."
        advice.append(Recommendation(strategy="discriminative", why=why, source=MATSOUKAS))
    why = "The baseline that everything is measured against."
    advice.append(Recommendation(strategy="ftl", why=why, source=PENG))
    # A strategy that is named twice keeps its first place.
    first: dict[str, Recommendation] = {}
    for item in advice:
        first.setdefault(item.strategy, item)
    return tuple(first.values())
