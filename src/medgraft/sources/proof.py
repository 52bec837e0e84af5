"""Weights prove their preprocessing: normalisation layers remember the mean and variance of what they saw.

Drawn images with the statistics of photographs go through the network under every usual preprocessing; under the right
one each layer sees what it remembers. The cohort's own images would mislead: ultrasound under a wrong scale can look
more like photographs than under the right one.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from medgraft.backbones.evaluating import evaluating
from medgraft.backbones.spec import Backbone
from medgraft.sources.leaves import dead_leaves

__all__ = ["HYPOTHESES", "Hypothesis", "LayerView", "Proof", "prove", "score_of", "scores_of", "views_of"]

_NUM_IMAGES: Final = 8
_SIDE: Final = 128
_FIRST_LAYERS: Final = 5
"""The first normalisation layers decide: what they saw depends least on what the network learned."""
_SURE: Final = 0.12
"""A score, in nats, that needs no comparison."""
_GOOD: Final = 0.2
"""The worst score of a preprocessing that may prove another one wrong; networks of films have none as good."""
_TIMES: Final = 2.5
_TIMES_OF_ORDER: Final = 1.5
_APART: Final = 0.1
_FEWEST: Final = 12
_BROKEN, _BROKEN_LAST = 4.0, 2.5
"""Standard errors; the last layer sees what the network learned rather than what an image is."""
_TOLD: Final = 5.0
_SCALE: Final = 3.0
"""Logarithm of a ratio of variances: an amplitude 4.5 times as large, which no other kind of image explains."""
_MOST_DAMAGED: Final = 0.5
"""Share of the layers."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """A preprocessing: mean and deviation per channel on the scale 0 to 1, and whether blue comes first."""

    words: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_bgr: bool = False

    @property
    def scale(self) -> tuple[float, ...]:
        """Mean and deviation, whatever colour comes first."""
        return (*self.mean, *self.std)


_SCALES: Final = (
    ("ImageNet's mean and deviation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("-1 to 1", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ("0 to 1", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ("0 to 255", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    ("0 to 255 less ImageNet's mean", (0.485, 0.456, 0.406), (1 / 255, 1 / 255, 1 / 255)),
)
HYPOTHESES: Final = tuple(
    Hypothesis(words=words + (", blue first" if is_bgr else ""), mean=mean, std=std, is_bgr=is_bgr)
    for (words, mean, std), is_bgr in itertools.product(_SCALES, (False, True))
)
"""What networks for images were shown."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerView:
    """What one normalisation layer saw beside what it remembers.

    Args:
        name: Of the layer.
        divergence: Median over channels of the divergence (nats) of what was seen from what is remembered, both taken
            as normal.
        agreement: Of the channels' deviations or means, whichever is closer: its correlation on Fisher's scale, in
            standard errors.
        ratio: Median over channels of the seen variance over the remembered, as a logarithm.
        num_channels: Channels that are not always zero.
    """

    name: str
    divergence: float
    agreement: float
    ratio: float
    num_channels: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What normalisation layers say of a preprocessing.

    Args:
        verdict: ``agrees``, ``contradicts`` (another one fits far better), ``damaged`` (some layers see what they do
            not remember though the others do), or ``unchecked``.
        declared: Score of the declared preprocessing: mean divergence of the first layers, nats; lower is better.
        best: The preprocessing that fits best; empty where none was compared.
        best_score: Its score.
        layers: Layers that are damaged.
        words: The same as a sentence.
    """

    verdict: Literal["agrees", "contradicts", "damaged", "unchecked"]
    words: str
    declared: float | None = None
    best: str = ""
    best_score: float | None = None
    layers: tuple[str, ...] = ()


def prove(backbone: Backbone) -> Proof:
    """What a network's normalisation layers say of the preprocessing that is declared for it.

    Args:
        backbone: For images of three channels, with its weights.
    """
    network = backbone.network
    if backbone.dims != 2 or backbone.in_channels != 3 or backbone.normalisation != "weights":
        return Proof(verdict="unchecked", words="Its preprocessing cannot be checked: it does not read three channels.")
    if not any(_remembers(module) for module in network.modules()):
        return Proof(verdict="unchecked", words="Its preprocessing cannot be checked: no layer remembers what it saw.")
    declared = Hypothesis(words="declared", mean=_three(backbone.mean), std=_three(backbone.std))
    views = views_of(network, _as_seen(declared))
    score = _score(views)
    if not any(view.num_channels for view in views):
        return Proof(verdict="unchecked", words="Its preprocessing cannot be checked: its layers remember nothing yet.")
    if score <= _SURE:
        words = f"Mean and deviation are those its normalising layers remember ({score:.2f} nats apart)."
        agrees = Proof(verdict="agrees", words=words, declared=score)
        return _with_damage(agrees, views)
    if not _is_told(views):
        words = "Its preprocessing cannot be checked: its layers remember nothing that photographs would show them."
        return Proof(verdict="unchecked", words=words, declared=score)
    looked = _views_of_all(network)
    best = _best({hypothesis: _score(seen) for hypothesis, seen in looked.items()})
    proof = _compared(score, best, _score(looked[best]))
    ratio = float(np.median([view.ratio for view in views if view.num_channels][:_FIRST_LAYERS]))
    if proof.verdict == "unchecked" and abs(ratio) > _SCALE:
        words = f"Its first layers see {np.exp(ratio):.3g} times the variance they remember, as declared."
        proof = dataclasses.replace(proof, verdict="contradicts", words=words)
    return _with_damage(proof, looked[best])


def _best(scores: Mapping[Hypothesis, float]) -> Hypothesis:
    """The preprocessing that fits best; blue comes first only where that fits clearly better than red."""
    best = min(scores, key=scores.__getitem__)
    rgb = next(other for other in scores if not other.is_bgr and other.scale == best.scale)
    return rgb if scores[rgb] < _TIMES_OF_ORDER * scores[best] else best


def _with_damage(proof: Proof, views: list[LayerView]) -> Proof:
    """What is known of a preprocessing, or that some layers are damaged.

    Args:
        proof: Of the preprocessing.
        views: Under the one that fits best.
    """
    damaged = _damaged(views)
    # Where nothing fits, nothing was meant to: random numbers, or a network of other things than photographs.
    if not damaged or (proof.verdict != "agrees" and len(damaged) > _MOST_DAMAGED * len(views)):
        return proof
    named = ", ".join(damaged[:3]) + (" …" if len(damaged) > 3 else "")
    words = f"{len(damaged)} of {len(views)} normalising layers do not see what they remember ({named})."
    return dataclasses.replace(proof, verdict="damaged", words=words, layers=damaged)


def _compared(score: float, best: Hypothesis, best_score: float) -> Proof:
    """What the declared preprocessing's score says beside that of the one that fits best.

    Args:
        score: Of the declared one, nats.
        best: The one that fits best.
        best_score: Its score, nats.
    """
    if best_score > _GOOD:
        words = f"Its preprocessing cannot be checked: it saw no photographs (at best {best_score:.2f} nats apart)."
        return Proof(verdict="unchecked", words=words, declared=score, best=best.words, best_score=best_score)
    is_wrong = score > _TIMES * best_score and score > best_score + _APART
    figures = f"{score:.2f} nats apart as declared, {best_score:.2f} with {best.words}"
    return Proof(
        verdict="contradicts" if is_wrong else "agrees",
        words=f"Mean and deviation are {'not ' if is_wrong else ''}those its normalising layers remember ({figures}).",
        declared=score,
        best=best.words,
        best_score=best_score,
    )


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def scores_of(network: nn.Module) -> Mapping[Hypothesis, float]:
    """How far the first layers' memories lie from what they see, nats, under each of `HYPOTHESES` that may be right.

    The order of the colours is tried under the best scale alone: it moves the score far less.

    Args:
        network: For images of three channels, with its weights.
    """
    return {hypothesis: _score(views) for hypothesis, views in _views_of_all(network).items()}


def _views_of_all(network: nn.Module) -> dict[Hypothesis, list[LayerView]]:
    """What the layers see under every scale, and under the best of them with blue first."""
    looked = {hypothesis: views_of(network, _as_seen(hypothesis)) for hypothesis in HYPOTHESES if not hypothesis.is_bgr}
    best = min(looked, key=lambda hypothesis: _score(looked[hypothesis]))
    turned = next(other for other in HYPOTHESES if other.is_bgr and other.scale == best.scale)
    return {**looked, turned: views_of(network, _as_seen(turned))}


def score_of(network: nn.Module, images: Tensor) -> float:
    """How far the first layers' memories lie from what they see of images, nats; infinite where they have none.

    Args:
        network: For images of three channels, with its weights.
        images: (N, 3, H, W), normalised.
    """
    return _score(views_of(network, images))


def _as_seen(hypothesis: Hypothesis) -> Tensor:
    """The drawn images as a network sees them: (N, 3, H, W)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (hypothesis.mean, hypothesis.std))
    images = (dead_leaves(_NUM_IMAGES, _SIDE) - mean) / std
    return images.flip(1) if hypothesis.is_bgr else images


def _score(views: list[LayerView]) -> float:
    divergences = [view.divergence for view in views if view.num_channels][:_FIRST_LAYERS]
    return max(0.0, float(np.mean(divergences))) if divergences else float("inf")


def _is_told(views: list[LayerView]) -> bool:
    """Whether most layers see what they remember up to a scale: those of random weights, or of films, do not."""
    told = [view.agreement for view in views if view.num_channels >= _FEWEST]
    return bool(told) and float(np.median(told)) >= _TOLD


def _damaged(views: list[LayerView]) -> tuple[str, ...]:
    """Layers that see something else than they remember, where most of the others agree; else none.

    A kernel whose channels were exchanged, or that was taken from another layer, leaves no correlation; one that was
    multiplied leaves the correlation and moves the variance.
    """
    if not _is_told(views):
        return ()
    told = [view for view in views if view.num_channels >= _FEWEST]
    odd = [view for view in told if view.agreement < (_BROKEN_LAST if view is views[-1] else _BROKEN)]
    # What is multiplied goes on through the layers behind: those before it tell what is usual.
    ratios = np.array([view.ratio for view in views])
    usual = [float(np.median(ratios[:number] if number else ratios)) for number in range(len(views))]
    odd += [view for view, own in zip(views, usual, strict=True) if abs(view.ratio - own) > _SCALE and view not in odd]
    return tuple(view.name for view in odd)


def views_of(network: nn.Module, images: Tensor) -> list[LayerView]:
    """What every normalisation layer sees of images beside what it remembers, in the order they run.

    Args:
        network: With its weights; its mode is given back as it was.
        images: (N, C, H, W), normalised.
    """
    views: list[LayerView] = []
    with _looking(network, views), evaluating(network):
        getattr(network, "forward_features", network)(images)
    return views


def _remembers(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_var is not None


@contextmanager
def _looking(network: nn.Module, views: list[LayerView]) -> Iterator[None]:
    """Within the block every normalisation layer adds its view to `views`."""
    hooks = []
    for name, module in network.named_modules():
        if _remembers(module):

            def look(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                views.append(_view(name, module, inputs[0]))

            hooks.append(module.register_forward_pre_hook(look))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _view(name: str, module: nn.Module, x: Tensor) -> LayerView:
    """One layer's view.

    Args:
        name: Of the layer.
        module: A batch normalisation.
        x: (N, C, H, W), what goes into it.
    """
    axes = [0, *range(2, x.ndim)]
    mean, var = x.mean(axes).double().cpu().numpy(), x.var(axes).double().cpu().numpy()
    own_mean, own_var = (module.get_buffer(key).double().cpu().numpy() for key in ("running_mean", "running_var"))
    # Channels that never fire remember nothing, nor do layers that were never trained; in damaged or random networks
    # values leave every range.
    is_alive = own_var > 1e-6 * max(float(own_var.max()), 1e-12)
    is_alive &= bool(np.ptp(own_var) or np.ptp(own_mean))
    is_alive &= np.isfinite(mean) & np.isfinite(var) & np.isfinite(own_mean) & np.isfinite(own_var)
    mean, var, own_mean, own_var = (values[is_alive] for values in (mean, var, own_mean, own_var))
    eps = float(module.eps)  # type: ignore[arg-type]
    ratio = np.log((var + eps) / (own_var + eps))
    divergence = 0.5 * ((var + (mean - own_mean) ** 2) / (own_var + eps) - 1 - ratio)
    correlations = (_correlation(np.log(var + eps), np.log(own_var + eps)), _correlation(mean, own_mean))
    return LayerView(
        name=name,
        divergence=float(np.median(divergence)) if len(divergence) else 0.0,
        agreement=float(np.arctanh(min(max(correlations), 0.9999)) * np.sqrt(max(len(mean) - 3, 0))),
        ratio=float(np.median(ratio)) if len(ratio) else 0.0,
        num_channels=len(mean),
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 where either is constant."""
    if len(a) < 2 or a.std() < 1e-12 or b.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
