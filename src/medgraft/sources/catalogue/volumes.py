"""What medgraft knows about weights of networks for volumes and videos."""

import dataclasses
from typing import Final

from medgraft.sources.known import Input, KnownSource, Place

__all__ = ["VOLUMES"]

_GITHUB: Final = "https://github.com"
_TORCH: Final = "https://download.pytorch.org/models"
_APACHE: Final = "https://www.apache.org/licenses/LICENSE-2.0"
_SUPERVISED: Final = "supervised"
_KINETICS: Final = "Kinetics-400"

_OWN_INPUT: Final = Input(side=(56, 448, 448), mean=(), std=(), channels="grey")
"""Every volume by its own mean and deviation."""
_R3D_INPUT: Final = Input(side=(16, 112, 112), mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))
_MVIT_INPUT: Final = Input(side=(16, 224, 224), mean=(0.45,) * 3, std=(0.225,) * 3)
_SWIN_INPUT: Final = Input(side=(32, 224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_HARA_INPUT: Final = Input(side=(16, 112, 112), mean=(114.7748 / 255, 107.7354 / 255, 99.475 / 255), std=(1 / 255,) * 3)
"""From 0 to 255 less ActivityNet's mean."""
_WINDOWED: Final = Input(side=(96, 96, 96), mean=(0.0,), std=(1.0,), channels="grey")
"""A window of Hounsfield units, from 0 to 1."""

_MEDICALNET: Final = KnownSource(
    name="medicalnet-resnet10",
    network="medicalnet/resnet10",
    layout="medicalnet",
    data="23 data sets of CT and MR",
    objective="supervised (segmentation)",
    input=_OWN_INPUT,
    size_mb=57.5,
    licence="MIT",
    licence_text=f"{_GITHUB}/Tencent/MedicalNet/blob/HEAD/LICENSE",
    citation="Chen, Ma, Zheng. Med3D: transfer learning for 3D medical image analysis. arXiv 2019.",
    place=Place(
        kind="huggingface",
        name="TencentMedicalNet/MedicalNet-Resnet10/resnet_10_23dataset.pth",
        sha256="afa8055f3e47f4a18239495d92a7abc587902c69c31c743de2b2784653b72605",
    ),
    note="Mean and deviation are those of the voxels above 0. Its network halves in its first convolution and dilates "
    "its last two stages instead of halving; MONAI's resnet10, of the same tensors, does neither.",
)
_R3D: Final = KnownSource(
    name="kinetics-r3d-18",
    network="torchvision/r3d_18",
    layout="network",
    data=_KINETICS,
    objective=_SUPERVISED,
    input=_R3D_INPUT,
    size_mb=127.4,
    licence="BSD-3-Clause",
    licence_text=f"{_GITHUB}/pytorch/vision/blob/HEAD/LICENSE",
    citation="Tran et al. A closer look at spatiotemporal convolutions for action recognition. CVPR 2018.",
    place=Place(kind="url", name=f"{_TORCH}/r3d_18-b3b3357e.pth", sha256="b3b3357e"),
)
_MVIT: Final = dataclasses.replace(
    _R3D,
    name="kinetics-mvit-v1-b",
    network="torchvision/mvit_v1_b",
    input=_MVIT_INPUT,
    size_mb=139.8,
    licence="Apache-2.0",
    licence_text=_APACHE,
    citation="Fan et al. Multiscale vision transformers. ICCV 2021.",
    place=Place(kind="url", name=f"{_TORCH}/mvit_v1_b-dbeb1030.pth", sha256="dbeb1030"),
    note="torchvision's copy of PyTorchVideo's weights.",
)
_SWIN: Final = dataclasses.replace(
    _MVIT,
    name="kinetics-swin3d-t",
    network="torchvision/swin3d_t",
    input=_SWIN_INPUT,
    size_mb=121.5,
    citation="Liu et al. Video Swin Transformer. CVPR 2022.",
    place=Place(kind="url", name=f"{_TORCH}/swin3d_t-7615ae03.pth", sha256="7615ae03"),
    note="torchvision's copy of the authors' weights, which began from ImageNet.",
)
_VOCO: Final = KnownSource(
    name="voco-swin-unetr-b",
    network="monai/swin_unetr_2022",
    args={"use_v2": True},
    layout="swin-unetr",
    data="PreCT-160K (160,000 CT volumes)",
    objective="VoCo",
    input=dataclasses.replace(_WINDOWED, side=(64, 64, 64)),
    size_mb=220,
    licence="Apache-2.0",
    licence_text=_APACHE,
    citation="Wu, Zhuang, Chen. Large-scale 3D medical image pre-training with geometric context priors. arXiv 2024.",
    place=Place(
        kind="huggingface",
        name="Luffy503/VoCo/VoCo_B_SSL_head.pt",
        sha256="06664b629e73a25aacfaf9e0dd3f2df36f93a9f60f0bf8cf4d8b5cc95cd01298",
    ),
    note="It saw -175 to 250 HU as 0 to 1, voxels of 1.5 mm.",
)


def _medicalnet(depth: int, file: str, size_mb: float, sha256: str = "") -> KnownSource:
    """MedicalNet's ResNet of another depth; files without 23 in their names saw fewer data sets."""
    return dataclasses.replace(
        _MEDICALNET,
        name=f"medicalnet-resnet{depth}",
        network=f"medicalnet/resnet{depth}",
        data=_MEDICALNET.data if "23" in file else "3DSeg-8 (CT and MR of eight data sets)",
        size_mb=size_mb,
        place=Place(kind="huggingface", name=f"TencentMedicalNet/MedicalNet-Resnet{depth}/{file}", sha256=sha256),
    )


def _kinetics(source: KnownSource, name: str, file: str, size_mb: float) -> KnownSource:
    """Another network of torchvision that saw what `source` saw; a file's name ends with digits of its hash."""
    digits = file.removesuffix(".pth").rpartition("-")[2]
    return dataclasses.replace(
        source,
        name=f"kinetics-{name.replace('_', '-')}",
        network=f"torchvision/{name}",
        size_mb=size_mb,
        place=Place(kind="url", name=f"{_TORCH}/{file}", sha256=digits),
    )


def _voco(name: str, file: str, width: int, size_mb: float, sha256: str, objective: str) -> KnownSource:
    """Another SwinUNETR of VoCo's authors; `width` is its number of channels behind the first layer."""
    return dataclasses.replace(
        _VOCO,
        name=name,
        args=_VOCO.args if width == 48 else {"embed_dim": width, **_VOCO.args},
        objective=objective,
        size_mb=size_mb,
        place=Place(kind="huggingface", name=f"Luffy503/VoCo/{file}", sha256=sha256),
    )


VOLUMES: Final[tuple[KnownSource, ...]] = (
    _MEDICALNET,
    _medicalnet(18, "resnet_18_23dataset.pth", 132),
    _medicalnet(34, "resnet_34_23dataset.pth", 253, "3ea7188e396774e4ef95b66e5e90a78273bb33f6e58d3d717bf24f5f1aaeaa28"),
    _medicalnet(50, "resnet_50_23dataset.pth", 185, "ff48a62219073fb977fd3f4ddfb8dc1367f0ec156c8d6f6c37e205bd683a246e"),
    _medicalnet(101, "resnet_101.pth", 341, "a26bbcf9b2ad35f048b0fa317234c003f171a4d719760e5c4aff9f793654ebcf"),
    _medicalnet(152, "resnet_152.pth", 470, "e96c459f5317ef2cbb898c91575402da2c78b31a31f55c5d28943683fe0626da"),
    _medicalnet(200, "resnet_200.pth", 507, "df58525b0276117169782617a379480d2cbc75230e84e152c603bf22a1fabfa8"),
    _R3D,
    _kinetics(_R3D, "mc3_18", "mc3_18-a90a0ba3.pth", 44.7),
    _kinetics(_R3D, "r2plus1d_18", "r2plus1d_18-91a641e6.pth", 120.3),
    _MVIT,
    dataclasses.replace(
        _MVIT,
        name="kinetics-mvit-v2-s",
        network="torchvision/mvit_v2_s",
        size_mb=131.9,
        citation="Li et al. MViTv2: improved multiscale vision transformers for classification and detection. "
        "CVPR 2022.",
        place=Place(kind="url", name=f"{_TORCH}/mvit_v2_s-ae3be167.pth", sha256="ae3be167"),
        note="torchvision's copy of PySlowFast's weights.",
    ),
    _SWIN,
    _kinetics(_SWIN, "swin3d_s", "swin3d_s-da41c237.pth", 218.3),
    _kinetics(_SWIN, "swin3d_b", "swin3d_b_1k-24f7c7c6.pth", 364.1),
    dataclasses.replace(
        _kinetics(_SWIN, "swin3d_b", "swin3d_b_22k-7c6ae6fa.pth", 364.1),
        name="kinetics-swin3d-b-22k",
        data=f"ImageNet-22k, then {_KINETICS}",
    ),
    KnownSource(
        name="kinetics-resnext3d-101",
        network="resnext3d_101",
        layout="network",
        data=_KINETICS,
        objective=_SUPERVISED,
        input=_HARA_INPUT,
        size_mb=193,
        licence="MIT",
        licence_text=f"{_GITHUB}/kenshohara/3D-ResNets-PyTorch/blob/HEAD/LICENSE",
        citation="Hara, Kataoka, Satoh. Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet? "
        "CVPR 2018.",
        place=Place(kind="by-hand", name=f"{_GITHUB}/kenshohara/3D-ResNets-PyTorch#pre-trained-models"),
        note="resnext-101-kinetics.pth, among the old models there; the one with 64f in its name saw 64 frames.",
    ),
    KnownSource(
        name="swin-unetr-ssl",
        network="monai/swin_unetr_2022",
        layout="swin-unetr-ssl",
        data="5,050 CT volumes of five public data sets",
        objective="SwinUNETR (inpainting, rotation, contrast)",
        input=_WINDOWED,
        size_mb=392,
        licence="Apache-2.0",
        licence_text=_APACHE,
        citation="Tang et al. Self-supervised pre-training of Swin transformers for 3D medical image analysis. "
        "CVPR 2022.",
        place=Place(
            kind="url",
            name=f"{_GITHUB}/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/model_swinvit.pt",
        ),
        note="It saw -1000 to 1000 HU as 0 to 1, voxels of 1.5 × 1.5 × 2 mm.",
    ),
    _VOCO,
    _voco(
        "voco-swin-unetr-l",
        "VoCo_L_SSL_head.pt",
        96,
        856,
        "47d3646523d93c42d6ed2ada3fc20735af5e414f940b10b910a38ac8db025aec",
        _VOCO.objective,
    ),
    _voco(
        "voco-swin-unetr-h",
        "VoCo_H_SSL_head.pt",
        192,
        3397,
        "a88216d079191bf7c81319ab468e0f45a0c2e7d3eb46f5964f34a3e1e6a6f4a3",
        _VOCO.objective,
    ),
    _voco(
        "vocomni-swin-unetr-b",
        "VoComni_B.pt",
        48,
        299,
        "b3b3e2710eb5c8f08f0e0b54eb0791537f70efc95f725b83d8bb0389ab0dc4a6",
        "VoComni (omni-supervised)",
    ),
    _voco(
        "vocomni-swin-unetr-l",
        "VoComni_L.pt",
        96,
        1170,
        "03c43e26df671b1036cae55d0fc0e09c1d837b1f1e09928ac62f6fdc2672f63a",
        "VoComni (omni-supervised)",
    ),
    _voco(
        "vocomni-swin-unetr-h",
        "VoComni_H.pt",
        192,
        4651,
        "6863af6b5a1f05a2650c867418bb25b30dc951ae63153caa317aac14632bb47a",
        "VoComni (omni-supervised)",
    ),
)
"""Sources for volumes, and those of videos that serve them."""
