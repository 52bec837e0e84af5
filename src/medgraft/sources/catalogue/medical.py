"""What medgraft knows about weights that learned from medical images."""

import dataclasses
from typing import Final

from medgraft.sources.known import IMAGENET, PLUS_MINUS_ONE, Input, KnownSource, Place

__all__ = ["MEDICAL"]

_GITHUB: Final = "https://github.com"
_HUB: Final = "https://huggingface.co"
_XRV: Final = f"{_GITHUB}/mlmed/torchxrayvision/releases/download/v1"
_SUPERVISED: Final = "supervised"
_CHEST: Final = "films of the chest"

_CLIP_INPUT: Final = Input(side=224, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
_KERAS_INPUT: Final = Input(
    side=224, mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1.0, 1.0, 1.0), channels="bgr"
)
"""Keras's Caffe style after a division by 255; the mean stands in RGB order."""
_XRV_INPUT: Final = Input(side=224, mean=(0.5,), std=(1 / 2048,), channels="grey")
"""From -1024 to 1024."""
_RAD_DINO_INPUT: Final = Input(side=518, mean=(0.5307,) * 3, std=(0.2583,) * 3)
_CHEXZERO_INPUT: Final = Input(side=224, mean=(101.48761 / 255,) * 3, std=(83.43944 / 255,) * 3)
_EVA_X_INPUT: Final = Input(side=224, mean=(0.49185243,) * 3, std=(0.28509309,) * 3)

_ADAPTED: Final = KnownSource(
    name="imagenet-chestxray14-resnet50",
    network="resnet50",
    layout="network",
    data="ImageNet-1k, then ChestX-ray14",
    objective=_SUPERVISED,
    input=IMAGENET,
    size_mb=94,
    licence="ASU GitHub Project License",
    licence_text=f"{_GITHUB}/MR-HosseinzadehTaher/BenchmarkTransferLearning/blob/HEAD/LICENSE",
    acceptance="agreement",
    citation="Hosseinzadeh Taher, Haghighi, Feng, Gotway, Liang. A systematic benchmarking analysis of transfer "
    "learning for medical image analysis. MICCAI workshop DART 2021.",
    place=Place(kind="url", name="https://zenodo.org/record/5205234/files/ImageNet_chestxray14.pth.tar"),
    note="The licence allows academic and other non-commercial research alone.",
)
_ADAPTED_2025: Final = dataclasses.replace(
    _ADAPTED,
    name="imagenet-mimic-cxr-resnet50",
    data="ImageNet-1k, then MIMIC-CXR",
    citation="Hosseinzadeh Taher, Haghighi, Gotway, Liang. Large-scale benchmarking and boosting transfer learning for "
    "medical image analysis. Medical Image Analysis 2025.",
    place=Place(
        kind="url",
        name="https://zenodo.org/records/17627332/files/domain_adapted_resnet50_imagenet_mimic_checkpoint.pth.tar",
    ),
)
_RADIMAGENET: Final = KnownSource(
    name="radimagenet-resnet50",
    network="resnet50",
    layout="radimagenet-sequential",
    data="RadImageNet (1.35 million CT, MR and ultrasound images)",
    objective=_SUPERVISED,
    input=dataclasses.replace(PLUS_MINUS_ONE, channels="bgr"),
    size_mb=94.3,
    licence="not stated",
    acceptance="non-commercial",
    citation="Mei et al. RadImageNet: an open radiologic deep learning research dataset for effective transfer "
    "learning. Radiology: Artificial Intelligence 2022.",
    place=Place(
        kind="huggingface",
        name="Lab-Rasool/RadImageNet/ResNet50.pt",
        sha256="08629f7e7bd3e29b8ee9522ca3f65ce4d010a7ddf74f0ea3c7e3f3d0bbab0734",
    ),
    note="The input is that of the authors' PyTorch example; the card of this copy says ImageNet's mean and deviation "
    "and the licence MIT, the authors say neither of the weights.",
)
_TORCHXRAYVISION: Final = KnownSource(
    name="torchxrayvision-densenet121-all",
    network="densenet121",
    args={"in_chans": 1},
    layout="torchxrayvision",
    data=f"{_CHEST}: NIH, PadChest, CheXpert, MIMIC-CXR, Google, OpenI, RSNA",
    objective=_SUPERVISED,
    input=_XRV_INPUT,
    size_mb=28.3,
    licence="Apache-2.0",
    licence_text=f"{_GITHUB}/mlmed/torchxrayvision/blob/HEAD/LICENSE",
    citation="Cohen, Hashir, Brooks, Bertrand. On the limits of cross-domain generalization in automated X-ray "
    "prediction. MIDL 2020.",
    place=Place(
        kind="url",
        name=f"{_XRV}/nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
    ),
    note="The file is a pickled module of torchxrayvision, not a dictionary of tensors.",
)
_RAD_DINO: Final = KnownSource(
    name="rad-dino",
    network="vit_base_patch14_dinov2",
    layout="dinov2-hf",
    data=f"{_CHEST}: BRAX, CheXpert, MIMIC-CXR, NIH, PadChest",
    objective="DINOv2",
    input=_RAD_DINO_INPUT,
    size_mb=346,
    licence="MIT",
    licence_text=f"{_HUB}/microsoft/rad-dino/blob/main/LICENSE",
    citation="Pérez-García et al. Exploring scalable medical image encoders beyond text supervision. "
    "Nature Machine Intelligence 2025.",
    place=Place(kind="huggingface", name="microsoft/rad-dino/model.safetensors"),
    note="Shared for research, not for clinical use; copies from before 2025 carry Microsoft's research licence.",
)
_ARK: Final = KnownSource(
    name="ark-6-swin-base",
    network="swin_base_patch4_window7_224",
    layout="ark",
    data=f"{_CHEST}: MIMIC-CXR, CheXpert, ChestX-ray14, RSNA, VinDr-CXR, Shenzhen",
    objective=_SUPERVISED,
    input=IMAGENET,
    size_mb=355,
    licence="ASU GitHub Project License",
    licence_text=f"{_GITHUB}/jlianglab/Ark/blob/HEAD/Ark_Plus/LICENSE",
    acceptance="agreement",
    citation="Ma, Pang, Gotway, Liang. Foundation Ark: accruing and reusing knowledge for superior and robust "
    "performance. MICCAI 2023.",
    place=Place(kind="by-hand", name="https://forms.gle/qkoDGXNiKRPTDdCe8"),
    note="The teacher is meant. The licence allows non-commercial research alone; patents are pending.",
)
_EVA_X: Final = KnownSource(
    name="eva-x-base",
    network="eva02_base_patch14_224",
    args={"patch_size": 16, "ref_feat_shape": (14, 14)},
    layout="eva-x",
    data=f"{_CHEST}: 520,000 of ChestX-ray14, CheXpert, MIMIC-CXR",
    objective="EVA-X (masked image modelling)",
    input=_EVA_X_INPUT,
    size_mb=1210,
    licence="MIT",
    licence_text=f"{_HUB}/MapleF/eva_x",
    citation="Yao et al. EVA-X: a foundation model for general chest X-ray analysis with self-supervised learning. "
    "arXiv 2024.",
    place=Place(
        kind="huggingface",
        name="MapleF/eva_x/eva_x_base_patch16_merged520k_mim.pt",
        sha256="35dc7012c1a49cba01f5a31a8d777db39258078c85cfad3f3c9a41deb172e1b4",
    ),
    note="The last norm is that of the objective; timm puts it behind its pooling.",
)


def _xrv(name: str, prefix: str, data: str) -> KnownSource:
    """A DenseNet-121 of torchxrayvision that saw one data set; `prefix` begins its file's name."""
    file = f"{prefix}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    return dataclasses.replace(
        _TORCHXRAYVISION,
        name=f"torchxrayvision-densenet121-{name}",
        data=data,
        place=Place(kind="url", name=f"{_XRV}/{file}"),
    )


MEDICAL: Final[tuple[KnownSource, ...]] = (
    _ADAPTED,
    dataclasses.replace(
        _ADAPTED,
        name="imagenet-chexpert-resnet50",
        data="ImageNet-1k, then CheXpert",
        place=Place(kind="url", name="https://zenodo.org/record/5205234/files/ImageNet_chexpert.pth.tar"),
    ),
    _ADAPTED_2025,
    dataclasses.replace(
        _ADAPTED_2025,
        name="imagenet-mimic-cxr-convnext-base",
        network="convnext_base",
        size_mb=350,
        place=Place(
            kind="url",
            name="https://zenodo.org/records/17627332/files/"
            "domain_adapted_convnext_base_imagenet_mimic_checkpoint.pth.tar",
        ),
    ),
    _RADIMAGENET,
    dataclasses.replace(
        _RADIMAGENET,
        name="radimagenet-resnet50-keras",
        network="resnet50_v1",
        layout="radimagenet-keras",
        input=_KERAS_INPUT,
        size_mb=94.5,
        place=Place(
            kind="huggingface",
            name="MONAI/checkpoints/RadImageNet-ResNet50_notop.pth",
            sha256="2457479b254569e5a81ba48fee6c5b2b84b7a729e507aaa2466101aedb8e5c37",
        ),
        note="Converted from Keras: convolutions with biases, stride in the first 1 × 1. The input is that of the "
        "authors' Keras examples; what the pretraining itself saw is not published.",
    ),
    dataclasses.replace(
        _RADIMAGENET,
        name="radimagenet-densenet121",
        network="densenet121",
        layout="radimagenet-densenet",
        size_mb=28.4,
        place=Place(
            kind="huggingface",
            name="Lab-Rasool/RadImageNet/DenseNet121.pt",
            sha256="5011b427acf483b3c05d9d4ac6ea4ff0baf5714c23937c0fcdc7c446226d0a14",
        ),
        note="Users report running variances up to 56,000 in its last block (BMEII-AI/RadImageNet, issue 20).",
    ),
    dataclasses.replace(
        _RADIMAGENET,
        name="radimagenet-inception-v3",
        network="inception_v3",
        layout="radimagenet-inception",
        size_mb=87.5,
        place=Place(
            kind="huggingface",
            name="Lab-Rasool/RadImageNet/InceptionV3.pt",
            sha256="f00ee7bc89c4652fdc454fa349ae2e2f4272a3c182762929b3112657ba381f96",
        ),
        note="The side it saw in its own training is not published; 224 is that of the authors' example.",
    ),
    _TORCHXRAYVISION,
    _xrv("nih", "nih", "ChestX-ray14"),
    _xrv("chex", "chex", "CheXpert"),
    _xrv("mimic-ch", "mimic_ch", "MIMIC-CXR (labels of CheXpert's labeller)"),
    _xrv("mimic-nb", "mimic_nb", "MIMIC-CXR (labels of NegBio)"),
    _xrv("pc", "pc", "PadChest"),
    _xrv("rsna", "kaggle", "RSNA pneumonia challenge"),
    dataclasses.replace(
        _TORCHXRAYVISION,
        name="torchxrayvision-resnet50-512",
        network="resnet50",
        layout="network",
        data=f"{_CHEST}: PadChest, NIH, RSNA, SIIM, VinBigData",
        input=dataclasses.replace(_XRV_INPUT, side=512),
        size_mb=94.4,
        citation="Cohen et al. TorchXRayVision: a library of chest X-ray datasets and models. MIDL 2022.",
        place=Place(kind="url", name=f"{_XRV}/pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt"),
        note="",
    ),
    _RAD_DINO,
    dataclasses.replace(
        _RAD_DINO,
        name="rad-dino-original",
        layout="dinov2",
        place=Place(
            kind="huggingface",
            name="microsoft/rad-dino/backbone_compatible.safetensors",
            sha256="1eac0464b2a00d368aa3eea1dc029964b10320fbabc59a8a4e768c43a23d26f4",
        ),
        note=f"The weights of rad-dino under DINOv2's own names. {_RAD_DINO.note}",
    ),
    KnownSource(
        name="chexzero",
        network="vit_base_patch32_clip_quickgelu_224",
        layout="openai-clip",
        data="MIMIC-CXR, films with impressions of reports; begun from OpenAI's CLIP",
        objective="CLIP",
        input=_CHEXZERO_INPUT,
        size_mb=605,
        licence="MIT",
        licence_text=f"{_GITHUB}/rajpurkarlab/CheXzero/blob/HEAD/LICENSE",
        citation="Tiu, Talius, Patel, Langlotz, Ng, Rajpurkar. Expert-level detection of pathologies from unannotated "
        "chest X-ray images via self-supervised learning. Nature Biomedical Engineering 2022.",
        place=Place(kind="by-hand", name=f"{_GITHUB}/rajpurkarlab/CheXzero#model-checkpoints"),
        note="Its activation is OpenAI's quick GELU. There are several checkpoints, meant as an ensemble; take one.",
    ),
    KnownSource(
        name="biomedclip",
        network="vit_base_patch16_224",
        layout="open-clip",
        data="PMC-15M (15 million figures and captions)",
        objective="CLIP",
        input=_CLIP_INPUT,
        size_mb=784,
        licence="MIT",
        licence_text=f"{_HUB}/microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224/blob/main/LICENSE.md",
        citation="Zhang et al. BiomedCLIP: a multimodal biomedical foundation model pretrained from fifteen million "
        "scientific image-text pairs. arXiv 2023.",
        place=Place(
            kind="huggingface",
            name="microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224/open_clip_pytorch_model.bin",
            sha256="52cc993c5c5ff962bd0c60931874bc001e7e9b41666a385530f4a036294576be",
        ),
    ),
    _ARK,
    dataclasses.replace(
        _ARK,
        name="ark-plus-swin-large",
        network="swin_large_patch4_window12_384",
        input=dataclasses.replace(IMAGENET, side=768),
        size_mb=787,
        citation="Ma, Pang, Gotway, Liang. A fully open AI foundation model applied to chest radiography. Nature 2025.",
        place=Place(kind="by-hand", name=f"{_GITHUB}/jlianglab/Ark"),
    ),
    dataclasses.replace(
        _EVA_X,
        name="eva-x-tiny",
        network="eva02_tiny_patch14_224",
        size_mb=79.5,
        place=Place(kind="huggingface", name="MapleF/eva_x/eva_x_tiny_patch16_merged520k_mim.pt"),
    ),
    dataclasses.replace(
        _EVA_X,
        name="eva-x-small",
        network="eva02_small_patch14_224",
        size_mb=308,
        place=Place(
            kind="huggingface",
            name="MapleF/eva_x/eva_x_small_patch16_merged520k_mim.pt",
            sha256="135d70a6988b5aacfe4848e1c2a0d524b2c076536fcaccdce88b636d302316c2",
        ),
    ),
    _EVA_X,
)
"""Sources of radiology and biomedicine."""
