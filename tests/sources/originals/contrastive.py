"""ResNets as the authors of self-supervised methods save them, with their heads, queues and second networks."""

import functools
import itertools
from typing import Any, Final

import torch
from torch import Tensor

from sources.originals.draw import Draw
from sources.originals.resnet import BASIC, BOTTLENECK, Size, resnet_weights, width
from sources.originals.resnets import SMALL_BASIC, SMALL_BOTTLENECK, classifier, of
from sources.originals.value import Original, Weights, stack, turned, under

_WIDE: Final = width(BOTTLENECK)
_PROJECTED: Final = 16


def perceptron(draw: Draw, *widths: int, bias: bool = False, ends_in_norm: bool = False) -> Weights:
    """Linear maps with batch norms and ReLUs between them; after the last, nothing or a batch norm without scale."""
    parts: list[Weights | None] = []
    for into, out in itertools.pairwise(widths[:-1]):
        parts += [draw.linear(out, into, bias=bias), draw.batch_norm(out), None]
    last = draw.linear(widths[-1], widths[-2], bias=False)
    return stack(*parts, last, draw.batch_norm(widths[-1], affine=False) if ends_in_norm else None)


def _moco(seed: int, *, is_v2: bool, keys_first: bool) -> dict[str, Any]:
    draw = Draw(seed)

    def encoder() -> Weights:
        head = draw.linear(_PROJECTED, _WIDE)
        mlp = stack(draw.linear(_WIDE, _WIDE), None, head)
        return {**resnet_weights(draw, BOTTLENECK), **under("fc", mlp if is_v2 else head)}

    encoders = {"encoder_q": encoder(), "encoder_k": encoder()}
    state = {"queue": draw.normal(_PROJECTED, 32), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    for name, weights in (turned(encoders) if keys_first else encoders).items():
        state |= under(name, weights)
    return {"epoch": 200, "arch": "resnet50", "state_dict": under("module", state), "optimizer": draw.optimizer()}


def _moco_v3(seed: int, *, momentum_first: bool = False) -> dict[str, Any]:
    draw = Draw(seed)

    def encoder() -> Weights:
        head = perceptron(draw, _WIDE, 32, _PROJECTED, ends_in_norm=True)
        return {**resnet_weights(draw, BOTTLENECK), **under("fc", head)}

    state = {"base_encoder": encoder(), "momentum_encoder": encoder()}
    state = turned(state) if momentum_first else state
    state["predictor"] = perceptron(draw, _PROJECTED, 32, _PROJECTED, ends_in_norm=True)
    weights = {key: value for name, part in state.items() for key, value in under(f"module.{name}", part).items()}
    return {"epoch": 100, "arch": "resnet50", "state_dict": weights, "optimizer": draw.optimizer(), "scaler": {}}


def _swav(seed: int, *, is_bare: bool) -> dict[str, Any]:
    draw = Draw(seed)
    head = stack(draw.linear(32, _WIDE), draw.batch_norm(32), None, draw.linear(_PROJECTED, 32))
    state = {**resnet_weights(draw, BOTTLENECK), **under("projection_head", head)}
    state = under("module", {**state, **under("prototypes", draw.linear(30, _PROJECTED, bias=False))})
    return state if is_bare else {"epoch": 400, "state_dict": state, "optimizer": draw.optimizer()}


def _pycontrast(seed: int, *, average_first: bool = False) -> dict[str, Any]:
    draw = Draw(seed)

    def network() -> Weights:
        head = stack(draw.linear(_WIDE, _WIDE), None, draw.linear(_PROJECTED, _WIDE), None)
        jigsaw = under("fc1", draw.linear(_PROJECTED, _WIDE)) | under("fc2", draw.linear(_PROJECTED, 9 * _PROJECTED))
        encoder = under("encoder", resnet_weights(draw, BOTTLENECK))
        return encoder | under("head", head) | under("head_jig", jigsaw)

    content = {
        "model": under("module", network()),
        "contrast": {"memory": draw.normal(64, _PROJECTED)},
        "optimizer": draw.optimizer(),
        "epoch": 200,
        "model_ema": network(),
    }
    return turned(content) if average_first else content


def _without_average(seed: int) -> dict[str, Any]:
    return {key: value for key, value in _pycontrast(seed).items() if key != "model_ema"}


def _cmc(seed: int) -> dict[str, Any]:
    draw, state = Draw(seed), dict[str, Tensor]()
    for number, into in ((1, 1), (2, 2)):
        half = Size(blocks=(3, 4, 6, 3), channels=(32, 64, 128, 256), stem=32, into=into)
        state |= under(f"encoder{number}", resnet_weights(draw, half))
        state |= under(f"head{number}", stack(draw.linear(_PROJECTED, width(half)), None))
    return {"model": under("module", state), "contrast": {}, "optimizer": draw.optimizer(), "epoch": 240}


def _simsiam(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    projector = stack(
        draw.linear(_WIDE, _WIDE, bias=False),
        draw.batch_norm(_WIDE),
        None,
        draw.linear(_WIDE, _WIDE, bias=False),
        draw.batch_norm(_WIDE),
        None,
        draw.linear(_WIDE, _WIDE),
        draw.batch_norm(_WIDE, affine=False),
    )
    predictor = stack(draw.linear(32, _WIDE, bias=False), draw.batch_norm(32), None, draw.linear(_WIDE, 32))
    state = under("encoder", {**resnet_weights(draw, BOTTLENECK), **under("fc", projector)})
    state = under("module", {**state, **under("predictor", predictor)})
    return {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": draw.optimizer()}


def _two_views(seed: int, *, is_whole: bool, norm: bool) -> dict[str, Any]:
    """Barlow Twins and VICReg: the backbone alone, or with its projector in a checkpoint."""
    draw = Draw(seed)
    backbone = resnet_weights(draw, BOTTLENECK)
    if not is_whole:
        return backbone
    state = {**under("backbone", backbone), **under("projector", perceptron(draw, _WIDE, 64, 64, 64, bias=not norm))}
    if norm:
        state |= under("bn", draw.batch_norm(64, affine=False))
    return {"epoch": 1000, "model": under("module", state), "optimizer": draw.optimizer()}


def _mmlab(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    neck = stack(draw.linear(_WIDE, _WIDE), None, draw.linear(_PROJECTED, _WIDE))
    state = {**under("backbone", resnet_weights(draw, BOTTLENECK)), **under("neck.mlp", neck)}
    state |= under("head.fc_cls", draw.linear(10, _WIDE))
    meta = {"epoch": 200, "iter": 1000, "config": "model = dict(type='DenseCL')", "mmcls_version": "0.20.0"}
    return {"meta": meta, "state_dict": state, "optimizer": draw.optimizer()}


def _open_self_sup(seed: int) -> dict[str, Any]:
    """A whole DenseCL: queries, keys, and the backbone, which is the first part of the queries."""
    draw = Draw(seed)

    def encoder() -> tuple[Weights, Weights]:
        mlp = under("mlp", stack(draw.linear(_WIDE, _WIDE), None, draw.linear(_PROJECTED, _WIDE)))
        return resnet_weights(draw, BOTTLENECK), mlp

    keys, queries = encoder(), encoder()
    state = {"queue": draw.normal(_PROJECTED, 32), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    state |= under("encoder_k", stack(*keys)) | under("encoder_q", stack(*queries)) | under("backbone", queries[0])
    return {"meta": {"epoch": 200}, "state_dict": state, "optimizer": draw.optimizer()}


def _vissl(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    heads = under("0.clf", stack(draw.linear(_WIDE, _WIDE))) | under("1.clf", stack(draw.linear(_PROJECTED, _WIDE)))
    trunk = under("_feature_blocks", resnet_weights(draw, BOTTLENECK))
    state = {
        "train": True,
        "base_model": {"model": {"trunk": trunk, "heads": heads}, "meters": {}},
        "optimizer": {"optim": draw.optimizer()},
        "losses": [],
    }
    return {"phase_idx": 999, "iteration": 1000, "loss": {}, "type": "checkpoint", "classy_state_dict": state}


def _of_vissl(content: Any, x: Tensor) -> Tensor:
    return of(prefix="_feature_blocks.")(content["classy_state_dict"]["base_model"]["model"]["trunk"], x)


def _dino(seed: int, *, teacher_first: bool = False) -> dict[str, Any]:
    draw = Draw(seed)

    def network() -> Weights:
        return {**under("backbone", resnet_weights(draw, BASIC)), **under("head", dino_head(draw, width(BASIC)))}

    # With batch norms both networks are wrapped for training on several devices.
    networks = {name: under("module", network()) for name in ("student", "teacher")}
    networks = turned(networks) if teacher_first else networks
    return {**networks, "optimizer": draw.optimizer(), "epoch": 100, "dino_loss": {"center": draw.normal(1, 32)}}


def dino_head(draw: Draw, into: int) -> Weights:
    """DINO's head: three linear maps and one that is normalised."""
    mlp = stack(draw.linear(32, into), None, draw.linear(32, 32), None, draw.linear(_PROJECTED, 32))
    return {
        **under("mlp", mlp),
        "last_layer.weight_g": torch.ones(32, 1),
        "last_layer.weight_v": draw.normal(32, _PROJECTED),
    }


def _tonylins(seed: int) -> dict[str, Any]:
    """SimCLR's weights in torch: its batch norms, converted and never trained, have counted nothing."""
    weights = classifier(Draw(seed), BOTTLENECK)
    counts = {key: torch.tensor(0) for key in weights if key.endswith("num_batches_tracked")}
    return {"state_dict": {**weights, **counts}}


def _small(*, name: str, layout: str, content: Any, features: Any, suffix: str = ".pth") -> Original:
    return Original(
        name=name,
        network="resnet26",
        args=SMALL_BOTTLENECK,
        layout=layout,
        suffix=suffix,
        content=content,
        features=features,
        shape=(3, 64, 64),
    )


_QUERIES: Final = of("state_dict", "module.encoder_q.")
_V1, _V2 = functools.partial(_moco, is_v2=False), functools.partial(_moco, is_v2=True)
_BASE: Final = of("state_dict", "module.base_encoder.")
_TEACHER: Final[dict[str, Any]] = {
    "network": "resnet18",
    "args": SMALL_BASIC,
    "layout": "dino",
    "features": of("teacher", "module.backbone."),
    "shape": (3, 64, 64),
}
_BARLOW, _VICREG = functools.partial(_two_views, norm=True), functools.partial(_two_views, norm=False)
_WHOLE: Final = of("model", "module.backbone.")
_PYCONTRAST: Final = of("model", "module.encoder.")

CONTRASTIVE: Final = (
    _small(name="MoCo v1", layout="moco", content=functools.partial(_V1, keys_first=False), features=_QUERIES),
    _small(name="MoCo v2", layout="moco", content=functools.partial(_V2, keys_first=False), features=_QUERIES),
    _small(
        name="MoCo v2 with encoder_k stored first",
        layout="moco",
        content=functools.partial(_V2, keys_first=True),
        features=_QUERIES,
    ),
    _small(name="MoCo v3 ResNet", layout="moco-v3", content=_moco_v3, features=_BASE),
    _small(
        name="MoCo v3 ResNet with momentum_encoder stored first",
        layout="moco-v3",
        content=functools.partial(_moco_v3, momentum_first=True),
        features=_BASE,
    ),
    _small(
        name="SwAV, published weights",
        layout="swav",
        content=functools.partial(_swav, is_bare=True),
        features=of(prefix="module."),
    ),
    _small(
        name="SwAV, checkpoint of its training",
        layout="swav",
        content=functools.partial(_swav, is_bare=False),
        features=of("state_dict", "module."),
    ),
    _small(
        name="PyContrast with a memory bank (InsDis, PIRL)",
        layout="pycontrast",
        content=_without_average,
        features=_PYCONTRAST,
    ),
    _small(
        name="PyContrast with an average (MoCo, InfoMin)",
        layout="pycontrast",
        content=_pycontrast,
        features=_PYCONTRAST,
    ),
    _small(
        name="PyContrast with its average stored first",
        layout="pycontrast",
        content=functools.partial(_pycontrast, average_first=True),
        features=_PYCONTRAST,
    ),
    Original(
        name="PyContrast CMC",
        network="resnet50",
        layout="pycontrast",
        content=_cmc,
        shape=(3, 64, 64),
        refused="two networks of half the width that read L and ab of a Lab image, not one that reads RGB",
    ),
    _small(name="SimSiam", layout="simsiam", content=_simsiam, features=of("state_dict", "module.encoder.")),
    _small(
        name="Barlow Twins, published backbone",
        layout="barlow-twins",
        content=functools.partial(_BARLOW, is_whole=False),
        features=of(),
    ),
    _small(
        name="Barlow Twins, checkpoint of its training",
        layout="barlow-twins",
        content=functools.partial(_BARLOW, is_whole=True),
        features=_WHOLE,
    ),
    _small(
        name="VICReg, published backbone",
        layout="vicreg",
        content=functools.partial(_VICREG, is_whole=False),
        features=of(),
    ),
    _small(
        name="VICReg, checkpoint of its training",
        layout="vicreg",
        content=functools.partial(_VICREG, is_whole=True),
        features=_WHOLE,
    ),
    _small(name="OpenMMLab with neck and head", layout="mmlab", content=_mmlab, features=of("state_dict", "backbone.")),
    _small(
        name="OpenSelfSup, a whole DenseCL with the keys first",
        layout="mmlab",
        content=_open_self_sup,
        features=of("state_dict", "backbone."),
    ),
    _small(name="VISSL", layout="vissl", content=_vissl, features=_of_vissl),
    Original(name="DINO ResNet", content=_dino, **_TEACHER),
    Original(
        name="DINO ResNet with the teacher stored first",
        content=functools.partial(_dino, teacher_first=True),
        **_TEACHER,
    ),
    _small(
        name="SimCLR as converted by tonylins",
        layout="simclr-tonylins",
        content=_tonylins,
        features=of("state_dict"),
    ),
)
