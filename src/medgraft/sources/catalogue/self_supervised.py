"""What medgraft knows about weights that learned without labels, and about those of iNat2021."""

import dataclasses
from typing import Final

from medgraft.sources.known import IMAGENET, Input, KnownSource, Place

__all__ = ["SELF_SUPERVISED"]

_GITHUB: Final = "https://github.com"
_META: Final = "https://dl.fbaipublicfiles.com"
_SALESFORCE: Final = "https://storage.googleapis.com/sfr-pcl-data-research/PCL_checkpoint"
_NON_COMMERCIAL: Final = "https://creativecommons.org/licenses/by-nc/4.0/legalcode"
_APACHE: Final = "https://www.apache.org/licenses/LICENSE-2.0"
_IMAGENET_1K: Final = "ImageNet-1k"
_TRUNK_MB: Final = 94.0
"""A ResNet-50 without a head."""

_CLIP_INPUT: Final = Input(side=224, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))


def _by_hand(page: str) -> Place:
    return Place(kind="by-hand", name=f"{_GITHUB}/{page}")


def _from_meta(path: str) -> Place:
    return Place(kind="url", name=f"{_META}/{path}")


def _from_timm(name: str) -> Place:
    return Place(kind="timm", name=name)


def _sibling(source: KnownSource, name: str, weights: str, size_mb: float) -> KnownSource:
    """Another network that learned as `source` did and whose weights timm hosts, under their name there."""
    network = weights.partition(".")[0]
    return dataclasses.replace(source, name=name, network=network, size_mb=size_mb, place=_from_timm(weights))


_INSDIS: Final = KnownSource(
    name="insdis-resnet50",
    network="resnet50",
    layout="pycontrast",
    data=_IMAGENET_1K,
    objective="InsDis",
    input=IMAGENET,
    size_mb=95,
    licence="BSD-2-Clause",
    licence_text=f"{_GITHUB}/HobbitLong/PyContrast/blob/HEAD/pycontrast/LICENSE",
    citation="Wu, Xiong, Yu, Lin. Unsupervised feature learning via non-parametric instance discrimination. CVPR 2018.",
    place=_by_hand("HobbitLong/PyContrast/blob/HEAD/pycontrast/docs/MODEL_ZOO.md"),
    note="InsDis.pth: trained by the authors of PyContrast, not by those of the method.",
)
_MOCO_V1: Final = KnownSource(
    name="moco-v1-resnet50",
    network="resnet50",
    layout="moco",
    data=_IMAGENET_1K,
    objective="MoCo v1",
    input=IMAGENET,
    size_mb=319,
    licence="CC-BY-NC-4.0",
    licence_text=_NON_COMMERCIAL,
    acceptance="non-commercial",
    citation="He, Fan, Wu, Xie, Girshick. Momentum contrast for unsupervised visual representation learning. "
    "CVPR 2020.",
    place=_from_meta("moco/moco_checkpoints/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar"),
    note="Its encoder of queries is meant; that of keys is a moving average.",
)
_PCL_V1: Final = KnownSource(
    name="pcl-v1-resnet50",
    network="resnet50",
    layout="moco",
    data=_IMAGENET_1K,
    objective="PCL v1",
    input=IMAGENET,
    size_mb=294,
    licence="MIT",
    licence_text=f"{_GITHUB}/salesforce/PCL/blob/HEAD/LICENSE",
    citation="Li, Zhou, Xiong, Hoi. Prototypical contrastive learning of unsupervised representations. ICLR 2021.",
    place=Place(kind="url", name=f"{_SALESFORCE}/PCL_v1_epoch200.pth.tar"),
)
_SIMCLR_V1: Final = KnownSource(
    name="simclr-v1-resnet50",
    network="resnet50_same_pool",
    layout="simclr-tf",
    data=_IMAGENET_1K,
    objective="SimCLR v1",
    input=Input(side=224, mean=(0.0,) * 3, std=(1.0,) * 3),
    size_mb=102,
    licence="Apache-2.0",
    licence_text=_APACHE,
    citation="Chen, Kornblith, Norouzi, Hinton. A simple framework for contrastive learning of visual representations. "
    "ICML 2020.",
    place=_by_hand("google-research/simclr"),
    note="ResNet50_1x.zip is a TensorFlow checkpoint: save its variables by name with numpy.savez. Its kernels are "
    "about 17 times as large as those of SimCLR v2: a learning rate found for one does not fit the other.",
)
_SWAV: Final = KnownSource(
    name="swav-resnet50",
    network="resnet50",
    layout="swav",
    data=_IMAGENET_1K,
    objective="SwAV",
    # Its authors' own, in training and in evaluation.
    input=Input(side=224, mean=IMAGENET.mean, std=(0.228, 0.224, 0.225)),
    size_mb=114,
    licence="CC-BY-NC-4.0",
    licence_text=_NON_COMMERCIAL,
    acceptance="non-commercial",
    citation="Caron, Misra, Mairal, Goyal, Bojanowski, Joulin. Unsupervised learning of visual features by contrasting "
    "cluster assignments. NeurIPS 2020.",
    place=_from_meta("deepcluster/swav_800ep_pretrain.pth.tar"),
)
_BARLOW_TWINS: Final = KnownSource(
    name="barlow-twins-resnet50",
    network="resnet50",
    layout="network",
    data=_IMAGENET_1K,
    objective="Barlow Twins",
    input=IMAGENET,
    size_mb=_TRUNK_MB,
    licence="MIT",
    licence_text=f"{_GITHUB}/facebookresearch/barlowtwins/blob/HEAD/LICENSE",
    citation="Zbontar, Jing, Misra, LeCun, Deny. Barlow Twins: self-supervised learning via redundancy reduction. "
    "ICML 2021.",
    place=_from_meta("barlowtwins/ep1000_bs2048_lrw0.2_lrb0.0048_lambd0.0051/resnet50.pth"),
)
_MOCO_V3: Final = dataclasses.replace(
    _MOCO_V1,
    name="moco-v3-resnet50",
    layout="moco-v3",
    objective="MoCo v3",
    size_mb=412,
    citation="Chen, Xie, He. An empirical study of training self-supervised vision transformers. ICCV 2021.",
    place=_from_meta("moco-v3/r-50-1000ep/r-50-1000ep.pth.tar"),
    note="Its base encoder is meant; the momentum encoder is a moving average.",
)
_DINO: Final = KnownSource(
    name="dino-vit-s16",
    network="vit_small_patch16_224",
    layout="dino",
    data=_IMAGENET_1K,
    objective="DINO",
    input=IMAGENET,
    size_mb=87,
    licence="Apache-2.0",
    licence_text=_APACHE,
    citation="Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin. Emerging properties in self-supervised vision "
    "transformers. ICCV 2021.",
    place=_from_timm("vit_small_patch16_224.dino"),
)
_DINOV2: Final = KnownSource(
    name="dinov2-vit-s14",
    network="vit_small_patch14_dinov2",
    layout="dinov2",
    data="LVD-142M",
    objective="DINOv2",
    input=dataclasses.replace(IMAGENET, side=518),
    size_mb=88,
    licence="Apache-2.0",
    licence_text=_APACHE,
    citation="Oquab et al. DINOv2: learning robust visual features without supervision. TMLR 2024.",
    place=_from_timm("vit_small_patch14_dinov2.lvd142m"),
    note="An input of 518 px is slow on a CPU; at any other multiple of 14 px its positions are interpolated.",
)
_DINOV2_REG4: Final = dataclasses.replace(
    _DINOV2,
    name="dinov2-reg4-vit-s14",
    network="vit_small_patch14_reg4_dinov2",
    objective="DINOv2 with registers",
    citation=f"{_DINOV2.citation} Darcet, Oquab, Mairal, Bojanowski. Vision transformers need registers. ICLR 2024.",
    place=_from_timm("vit_small_patch14_reg4_dinov2.lvd142m"),
)
_DINOV3: Final = KnownSource(
    name="dinov3-vit-s16",
    network="vit_small_patch16_dinov3",
    layout="dinov3",
    data="LVD-1689M",
    objective="DINOv3",
    input=dataclasses.replace(IMAGENET, side=256),
    size_mb=86,
    licence="DINOv3 License",
    licence_text=f"{_GITHUB}/facebookresearch/dinov3/blob/HEAD/LICENSE.md",
    acceptance="agreement",
    citation="Siméoni et al. DINOv3. arXiv:2508.10104, 2025.",
    place=_from_timm("vit_small_patch16_dinov3.lvd1689m"),
    note="Its authors read the class token, where timm averages the tokens.",
)
_DINOV3_CONVNEXT: Final = dataclasses.replace(
    _DINOV3,
    name="dinov3-convnext-t",
    network="convnext_tiny",
    # The ConvNeXts have none of the tokens that mark the layout of the ViTs.
    layout="convnext-fb",
    input=IMAGENET,
    size_mb=111,
    place=_from_timm("convnext_tiny.dinov3_lvd1689m"),
    note="",
)
_MAE: Final = KnownSource(
    name="mae-vit-b16",
    network="vit_base_patch16_224",
    layout="mae",
    data=_IMAGENET_1K,
    objective="MAE",
    input=IMAGENET,
    size_mb=343,
    licence="CC-BY-NC-4.0",
    licence_text=f"{_GITHUB}/facebookresearch/mae/blob/HEAD/LICENSE",
    acceptance="non-commercial",
    citation="He, Chen, Xie, Li, Dollár, Girshick. Masked autoencoders are scalable vision learners. CVPR 2022.",
    place=_from_timm("vit_base_patch16_224.mae"),
    note="Made to be fine-tuned: its frozen features separate classes worse than those of contrastive methods.",
)
_CLIP_VIT: Final = KnownSource(
    name="clip-vit-b32",
    network="vit_base_patch32_clip_quickgelu_224",
    layout="openai-clip",
    data="400 million images and their captions (OpenAI)",
    objective="CLIP",
    input=_CLIP_INPUT,
    size_mb=351,
    licence="MIT",
    licence_text=f"{_GITHUB}/openai/CLIP/blob/HEAD/LICENSE",
    citation="Radford et al. Learning transferable visual models from natural language supervision. ICML 2021.",
    place=_from_timm("vit_base_patch32_clip_quickgelu_224.openai"),
    note="Trained with QuickGELU: timm's network without it in its name takes the same weights and computes "
    "something else.",
)
_INAT2021: Final = KnownSource(
    name="inat2021-resnet50",
    network="resnet50",
    layout="network",
    data="iNat2021, after ImageNet-1k",
    objective="supervised",
    input=IMAGENET,
    size_mb=176,
    licence="not stated",
    licence_text=f"{_GITHUB}/visipedia/inat_comp/tree/master/2021#terms-of-use",
    acceptance="non-commercial",
    citation="Van Horn, Cole, Beery, Wilber, Belongie, Mac Aodha. Benchmarking representation learning for natural "
    "world image collections. CVPR 2021.",
    place=_by_hand("visipedia/newt/tree/HEAD/benchmark"),
    note="inat2021_supervised_large.pth.tar in an archive of 5.7 GB; the one beside it, …_from_scratch, never saw "
    "ImageNet. The terms are those of the data, which allow no commercial use.",
)

SELF_SUPERVISED: Final[tuple[KnownSource, ...]] = (
    _INSDIS,
    dataclasses.replace(
        _INSDIS,
        name="pirl-resnet50",
        objective="PIRL",
        size_mb=97,
        citation="Misra, van der Maaten. Self-supervised learning of pretext-invariant representations. CVPR 2020.",
        note="PIRL.pth: trained by the authors of PyContrast, not by those of the method.",
    ),
    dataclasses.replace(
        _INSDIS,
        name="infomin-resnet50",
        objective="InfoMin",
        size_mb=260,
        citation="Tian, Sun, Poole, Krishnan, Schmid, Isola. What makes for good views for contrastive learning? "
        "NeurIPS 2020.",
        note="InfoMin_800.pth: its model is meant, which the authors evaluate; model_ema is a moving average.",
    ),
    _MOCO_V1,
    dataclasses.replace(
        _MOCO_V1,
        name="moco-v2-resnet50",
        objective="MoCo v2",
        size_mb=369,
        citation="Chen, Fan, Girshick, He. Improved baselines with momentum contrastive learning. "
        "arXiv:2003.04297, 2020.",
        place=_from_meta("moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar"),
    ),
    _PCL_V1,
    dataclasses.replace(
        _PCL_V1,
        name="pcl-v2-resnet50",
        objective="PCL v2",
        size_mb=344,
        place=Place(kind="url", name=f"{_SALESFORCE}/PCL_v2_epoch200.pth.tar"),
    ),
    _SIMCLR_V1,
    dataclasses.replace(
        _SIMCLR_V1,
        name="simclr-v2-resnet50",
        objective="SimCLR v2",
        size_mb=153,
        citation="Chen, Kornblith, Swersky, Norouzi, Hinton. Big self-supervised models are strong semi-supervised "
        "learners. NeurIPS 2020.",
        note="simclrv2/pretrained/r50_1x_sk0, without selective kernels, is a TensorFlow checkpoint: "
        "save its variables by name with numpy.savez. The ones with them (sk1) are other networks.",
    ),
    KnownSource(
        name="byol-resnet50",
        network="resnet50_same",
        layout="byol-haiku",
        data=_IMAGENET_1K,
        objective="BYOL",
        input=IMAGENET,
        size_mb=570,
        licence="Apache-2.0",
        licence_text=_APACHE,
        citation="Grill et al. Bootstrap your own latent: a new approach to self-supervised learning. NeurIPS 2020.",
        place=_by_hand("google-deepmind/deepmind-research/tree/HEAD/byol"),
        note="pretrain_res50x1.pkl runs code when it is opened: open it where you trust it and save online_params and "
        "online_state of its experiment_state with numpy.savez, under names that begin with these two.",
    ),
    _SWAV,
    dataclasses.replace(
        _SWAV,
        name="deepcluster-v2-resnet50",
        objective="DeepCluster-v2",
        place=_from_meta("deepcluster/deepclusterv2_800ep_pretrain.pth.tar"),
    ),
    dataclasses.replace(
        _SWAV,
        name="sela-v2-resnet50",
        objective="SeLa-v2",
        place=_from_meta("deepcluster/selav2_400ep_pretrain.pth.tar"),
        note="Trained on crops of 160 and 96 px, evaluated at 224 px.",
    ),
    _BARLOW_TWINS,
    dataclasses.replace(
        _MOCO_V1,
        name="simsiam-resnet50",
        layout="simsiam",
        objective="SimSiam",
        size_mb=306,
        citation="Chen, He. Exploring simple Siamese representation learning. CVPR 2021.",
        place=_from_meta("simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar"),
        note="",
    ),
    dataclasses.replace(
        _BARLOW_TWINS,
        name="vicreg-resnet50",
        objective="VICReg",
        licence_text=f"{_GITHUB}/facebookresearch/vicreg/blob/HEAD/LICENSE",
        citation="Bardes, Ponce, LeCun. VICReg: variance-invariance-covariance regularization for self-supervised "
        "learning. ICLR 2022.",
        place=_from_meta("vicreg/resnet50.pth"),
    ),
    KnownSource(
        name="densecl-resnet50",
        network="resnet50",
        layout="mmlab",
        data=_IMAGENET_1K,
        objective="DenseCL",
        input=IMAGENET,
        size_mb=259,
        licence="Apache-2.0",
        licence_text=f"{_GITHUB}/open-mmlab/mmpretrain/blob/HEAD/LICENSE",
        citation="Wang, Zhang, Shen, Kong, Li. Dense contrastive learning for self-supervised visual pre-training. "
        "CVPR 2021.",
        place=Place(
            kind="url",
            name="https://download.openmmlab.com/mmselfsup/1.x/densecl/densecl_resnet50_8xb32-coslr-200e_in1k/"
            "densecl_resnet50_8xb32-coslr-200e_in1k_20220825-3078723b.pth",
            sha256="3078723b",
        ),
        note="Trained anew by OpenMMLab: the server of the authors' own file is gone.",
    ),
    _MOCO_V3,
    dataclasses.replace(
        _MOCO_V3,
        name="moco-v3-vit-s16",
        network="vit_small_patch16_224",
        args={"num_heads": 12},
        size_mb=681,
        place=_from_meta("moco-v3/vit-s-300ep/vit-s-300ep.pth.tar"),
        note="It has 12 heads where timm's ViT-S has 6: the weights fit both and mean 12.",
    ),
    dataclasses.replace(
        _MOCO_V3,
        name="moco-v3-vit-b16",
        network="vit_base_patch16_224",
        size_mb=1728,
        place=_from_meta("moco-v3/vit-b-300ep/vit-b-300ep.pth.tar"),
    ),
    _DINO,
    _sibling(_DINO, "dino-vit-s8", "vit_small_patch8_224.dino", 87),
    _sibling(_DINO, "dino-vit-b16", "vit_base_patch16_224.dino", 343),
    dataclasses.replace(
        _DINO,
        name="dino-resnet50",
        network="resnet50",
        layout="network",
        size_mb=_TRUNK_MB,
        place=_from_meta("dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"),
        note="The teacher's trunk alone, as its authors cut it out of the full checkpoint.",
    ),
    _DINOV2,
    _sibling(_DINOV2, "dinov2-vit-b14", "vit_base_patch14_dinov2.lvd142m", 346),
    _DINOV2_REG4,
    _sibling(_DINOV2_REG4, "dinov2-reg4-vit-b14", "vit_base_patch14_reg4_dinov2.lvd142m", 346),
    _DINOV3,
    _sibling(_DINOV3, "dinov3-vit-b16", "vit_base_patch16_dinov3.lvd1689m", 343),
    _DINOV3_CONVNEXT,
    _sibling(_DINOV3_CONVNEXT, "dinov3-convnext-s", "convnext_small.dinov3_lvd1689m", 198),
    _sibling(_DINOV3_CONVNEXT, "dinov3-convnext-b", "convnext_base.dinov3_lvd1689m", 350),
    _MAE,
    _sibling(_MAE, "mae-vit-l16", "vit_large_patch16_224.mae", 1213),
    KnownSource(
        name="simmim-swin-b",
        network="swin_base_patch4_window7_224",
        args={"window_size": 6},
        layout="simmim",
        data=_IMAGENET_1K,
        objective="SimMIM",
        input=dataclasses.replace(IMAGENET, side=192),
        size_mb=1080,
        licence="MIT",
        licence_text=f"{_GITHUB}/microsoft/SimMIM/blob/HEAD/LICENSE",
        citation="Xie, Zhang, Cao, Lin, Bao, Yao, Dai, Hu. SimMIM: a simple framework for masked image modeling. "
        "CVPR 2022.",
        place=_by_hand("microsoft/SimMIM"),
        note="Swin-Base of 800 epochs: windows of 6 at 192 px. The file also holds an object of the package yacs, "
        "which medgraft does not open: open it where you trust it and save its model alone.",
    ),
    dataclasses.replace(
        _CLIP_VIT,
        name="clip-resnet50",
        network="resnet50_clip_gap",
        size_mb=_TRUNK_MB,
        place=_from_timm("resnet50_clip_gap.openai"),
        note="Without the attention pool that ends CLIP's image tower: that is a head of its own, takes 224 px "
        "only, and belongs to no cut.",
    ),
    _CLIP_VIT,
    _sibling(_CLIP_VIT, "clip-vit-b16", "vit_base_patch16_clip_quickgelu_224.openai", 345),
    _INAT2021,
    dataclasses.replace(
        _INAT2021,
        name="inat2021-mini-resnet50",
        data="iNat2021 mini, after ImageNet-1k",
        note="inat2021_supervised_mini.pth.tar in an archive of 5.7 GB; the one beside it, …_from_scratch, never saw "
        "ImageNet. The terms are those of the data, which allow no commercial use.",
    ),
)
