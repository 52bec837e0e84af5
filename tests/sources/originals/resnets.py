"""ResNets as torchvision, timm and training scripts save them."""

import argparse
import dataclasses
import functools
from typing import Any, Final

from torch import Tensor

from sources.originals.draw import Draw
from sources.originals.resnet import (
    BASIC,
    BOTTLENECK,
    RESNET18,
    RESNET50,
    TORCHVISION,
    Plan,
    Size,
    resnet_features,
    resnet_weights,
    width,
)
from sources.originals.value import Original, Weights, stack, turned, under, within

SMALL_BASIC: Final = {"layers": (1, 2, 1, 1), "channels": (64, 96, 128, 160)}
SMALL_BOTTLENECK: Final = {"layers": (1, 2, 1, 1), "channels": (24, 32, 40, 48)}
_CHILDREN: Final = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def classifier(draw: Draw, size: Size, classes: int = 10) -> Weights:
    """A ResNet with the linear head of a classifier."""
    return {**resnet_weights(draw, size), **under("fc", draw.linear(classes, width(size)))}


def _bare(seed: int, size: Size) -> Weights:
    return classifier(Draw(seed), size)


def _image_net(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    state = under("module", classifier(draw, BOTTLENECK))
    return {"epoch": 90, "arch": "resnet26", "state_dict": state, "best_acc1": 76.1, "optimizer": draw.optimizer()}


def _lightning(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    return {
        "epoch": 3,
        "global_step": 400,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": under("model", classifier(draw, BASIC)),
        "loops": {},
        "callbacks": {},
        "optimizer_states": [draw.optimizer()],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.001},
    }


def _timm_training(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    return {
        "epoch": 12,
        "arch": "resnet18",
        "state_dict": classifier(draw, BASIC),
        "optimizer": draw.optimizer(),
        "version": 2,
        "args": argparse.Namespace(model="resnet18", lr=0.1),
        "state_dict_ema": classifier(draw, BASIC),
        "metric": 77.2,
    }


def children(weights: Weights) -> Weights:
    """The weights as ``nn.Sequential(*list(network.children()))`` names them."""
    renamed = ((key.partition("."), value) for key, value in weights.items())
    return {f"{_CHILDREN[head]}.{rest}": value for (head, _, rest), value in renamed if head in _CHILDREN}


CHILDREN: Final = Plan(stem="0", stem_norm="1", stages=("4", "5", "6", "7"))


def _radimagenet_sequential(seed: int) -> Weights:
    return under("backbone", children(resnet_weights(Draw(seed), BOTTLENECK)))


_KERAS: Final = Plan(strided=1, eps=1.001e-5)


def _radimagenet_keras(seed: int) -> Weights:
    # Keras's convolutions have biases although batch norms follow them.
    return resnet_weights(Draw(seed), dataclasses.replace(RESNET50, bias=True))


def of_state(content: Any, x: Tensor, *, entry: str = "", prefix: str = "", plan: Plan = TORCHVISION) -> Tensor:
    """Features of the ResNet under `prefix` in `entry` of a file."""
    return resnet_features(within(prefix, content[entry] if entry else content), x, plan)


def of(entry: str = "", prefix: str = "", plan: Plan = TORCHVISION) -> functools.partial[Tensor]:
    """`of_state` of one place in a file."""
    return functools.partial(of_state, entry=entry, prefix=prefix, plan=plan)


_TIMM: Final[dict[str, Any]] = {
    "network": "resnet18",
    "args": SMALL_BASIC,
    "layout": "network",
    "features": of("state_dict_ema"),
    "shape": (3, 64, 64),
}

RESNETS: Final = (
    Original(
        name="torchvision ResNet, bare",
        network="resnet18",
        layout="network",
        content=functools.partial(_bare, size=RESNET18),
        features=of(),
        shape=(3, 64, 64),
    ),
    Original(
        name="timm ResNet with bottlenecks, bare, safetensors",
        network="resnet26",
        args=SMALL_BOTTLENECK,
        layout="network",
        suffix=".safetensors",
        content=functools.partial(_bare, size=BOTTLENECK),
        features=of(),
        shape=(3, 64, 64),
    ),
    Original(
        name="state_dict of a wrapped network (torchvision's ImageNet script)",
        network="resnet26",
        args=SMALL_BOTTLENECK,
        layout="network",
        content=_image_net,
        features=of("state_dict", "module."),
        shape=(3, 64, 64),
    ),
    Original(
        name="state_dict of a Lightning module that calls its network model",
        network="resnet18",
        args=SMALL_BASIC,
        layout="network",
        suffix=".pt",
        content=_lightning,
        features=of("state_dict", "model."),
        shape=(3, 64, 64),
    ),
    Original(name="timm's training script: weights, then their average", content=_timm_training, **_TIMM),
    Original(
        name="timm's training script: average, then the weights",
        content=lambda seed: turned(_timm_training(seed)),
        **_TIMM,
    ),
    Original(
        name="children of a ResNet in a row",
        network="resnet18",
        args=SMALL_BASIC,
        layout="network",
        content=lambda seed: children(_bare(seed, BASIC)),
        features=of(plan=CHILDREN),
        shape=(3, 64, 64),
    ),
    Original(
        name="children of a ResNet with bottlenecks in a row, then a head",
        network="resnet26",
        args=SMALL_BOTTLENECK,
        layout="network",
        content=lambda seed: {
            **stack(children(resnet_weights(Draw(seed), BOTTLENECK))),
            **under("1", stack(None, Draw(seed + 1).linear(3, width(BOTTLENECK)))),
        },
        features=of(prefix="0.", plan=CHILDREN),
        shape=(3, 64, 64),
    ),
    Original(
        name="RadImageNet of 2023: children of a ResNet in a row, called backbone",
        network="resnet26",
        args=SMALL_BOTTLENECK,
        layout="radimagenet-sequential",
        suffix=".pt",
        content=_radimagenet_sequential,
        features=of(prefix="backbone.", plan=CHILDREN),
        shape=(3, 64, 64),
    ),
    Original(
        name="RadImageNet of 2022: Keras's ResNet under torchvision's names",
        network="resnet50_v1",
        layout="radimagenet-keras",
        content=_radimagenet_keras,
        features=of(plan=_KERAS),
        shape=(3, 72, 72),
    ),
)
