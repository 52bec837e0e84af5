"""How surely normalisation layers tell what a network was shown: every scale folded into every real network at hand.

    python benchmarks/preprocessing_proof.py ../shared/weights

Reads the weights in the folder and, where they are installed, the packages of EfficientNet-Lite0 to 2.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch

from medgraft.backbones import Backbone, BackboneSpec
from medgraft.errors import WeightsError
from medgraft.sources import open_backbone
from medgraft.sources.leaves import dead_leaves
from medgraft.sources.proof import HYPOTHESES, Hypothesis, score_of

EXAMPLE = Path(__file__).parents[1] / "examples" / "cifar_resnet.py"
CLIP = Hypothesis(words="CLIP's", mean=(0.4815, 0.4578, 0.4082), std=(0.2686, 0.2613, 0.2758))
SCALES = (*(hypothesis for hypothesis in HYPOTHESES if not hypothesis.is_bgr), CLIP)
FILES = {
    "mobilenetv1_100_imagenet_trunk.safetensors": ("mobilenetv1_100", {"pad_type": "same", "bn_eps": 1e-3}),
    "cifar10_resnet20.th": (f"{EXAMPLE}:resnet20", {}),
    "cifar10_resnet56.th": (f"{EXAMPLE}:resnet56", {}),
}


def networks(folder: Path) -> Iterator[tuple[str, Backbone]]:
    """Real networks with batch normalisation, by name."""
    for number in range(3):
        name = f"efficientnet-lite{number}-imagenet"
        try:
            yield name, open_backbone(BackboneSpec(name=f"tf_efficientnet_lite{number}", weights=name))
        except WeightsError as error:
            print(f"left out: {error}")
    for file, (name, args) in FILES.items():
        yield file, open_backbone(BackboneSpec(name=name, args=args, weights=str(folder / file)))


def as_folded(was: Hypothesis, now: Hypothesis, guess: Hypothesis) -> torch.Tensor:
    """What the first layer sees where a network of `was` expects `now` by folding, and is shown `guess`."""
    values = [torch.tensor(v).view(1, 3, 1, 1) for h in (was, now, guess) for v in (h.mean, h.std)]
    own_mean, own_std, mean, std, guess_mean, guess_std = values
    x = (dead_leaves(8, 128) - guess_mean) / guess_std
    return ((x.flip(1) if guess.is_bgr else x) * std + mean - own_mean) / own_std


def main() -> None:
    """Print how often scale, and scale with the order of the colours, are told right."""
    parser = argparse.ArgumentParser()
    parser.add_argument("weights", type=Path)
    folder = parser.parse_args().weights
    scale = both = total = 0
    for name, backbone in networks(folder):
        was = Hypothesis(words="published", mean=backbone.mean, std=backbone.std)  # type: ignore[arg-type]
        for now in SCALES:
            guesses = [
                dataclasses.replace(guess, is_bgr=is_bgr) for guess, is_bgr in itertools.product(SCALES, (False, True))
            ]
            scores = {guess: score_of(backbone.network, as_folded(was, now, guess)) for guess in guesses}
            best = min(scores, key=scores.__getitem__)
            is_right = (best.mean, best.std) == (now.mean, now.std)
            right, wrong = scores[now], min(s for g, s in scores.items() if (g.mean, g.std) != (now.mean, now.std))
            scale, both, total = scale + is_right, both + (is_right and not best.is_bgr), total + 1
            found = "" if is_right else f"  taken for {best.words}"
            print(f"{name:46s} {now.words:32s} {right:8.3f} nats, nearest wrong scale {wrong:8.3f}{found}")
    print(f"scale {scale} of {total}, scale and order of the colours {both} of {total}")


if __name__ == "__main__":
    main()
