"""Every layout of published weights that medgraft knows."""

from typing import Final

from medgraft.sources.layouts.huggingface import from_hf_resnet, from_hf_vit
from medgraft.sources.layouts.pytorch import (
    from_efficientnet_pytorch,
    from_sequential_inception,
    from_sequential_resnet,
    with_biases_in_norms,
)
from medgraft.sources.layouts.tensorflow import from_bit, from_efficientnet, from_haiku_resnet, from_tf_resnet
from medgraft.sources.layouts.value import Layout

__all__ = ["LAYOUTS", "PLAIN", "layout_words"]

PLAIN: Final = "network"
"""The layout of a file that names tensors as the network does, whatever wraps them."""

# The shortest path that does it: none where none is needed.
_ANY: Final = r"(?:[^ ]*?\.)??"
# In a ConvNeXt the last normalisation of the trunk is called a part of the head.
_HEADS: Final = (r"^fc\.", r"^head\.(?!norm\.)", r"^classifier\.", r"^fc_cls\.", r"^head_dist\.")

LAYOUTS: Final[dict[str, Layout]] = {
    "byol-haiku": Layout(
        words="BYOL's Haiku export (online network)",
        marks=(r"res_net\w*/~/block_group_0/~/block_0/", r"initial_conv/w "),
        # Haiku keeps parameters and moving statistics in two trees.
        joins=((r"^[^ ]*?(online|target)_(?:params|state)[./]", r"\1/"),),
        networks=(
            r"online/(?:[^ ]*?/)??res_net\w*/~/",
            r"target/(?:[^ ]*?/)??res_net\w*/~/",
            r"(?:[^ ]*?/)??res_net\w*/~/",
        ),
        drops=(r"/(?:counter|hidden)$",),
        convert=from_haiku_resnet,
        network="resnet50_same",
    ),
    "simclr-tf": Layout(
        words="SimCLR's TensorFlow export",
        marks=(r"(?:^|/)conv2d/kernel \(7, 7, 3, ", r"(?:^|/)batch_normalization/moving_variance "),
        networks=(r"(?:base_model/)", r"(?:ema_model/)", r""),
        drops=(r"^head_", r"/(?:Momentum|ExponentialMovingAverage)$", r"^global_step$"),
        convert=from_tf_resnet,
        network="resnet50_same_pool",
    ),
    "bit": Layout(
        words="Big Transfer",
        marks=(r"resnet/root_block/standardized_conv2d(?:_\d+)?/kernel ",),
        networks=(r"resnet/",),
        renames=((r"(standardized_conv2d|group_norm)_\d+", r"\1"),),
        drops=(r"^head/",),
        convert=from_bit,
    ),
    "efficientnet-tf": Layout(
        words="EfficientNet's TensorFlow export",
        marks=(r"blocks_0/depthwise_conv2d/depthwise_kernel ",),
        networks=(r"(?:[^ ]*?/)?(?=stem/|head/|blocks_)",),
        convert=from_efficientnet,
    ),
    "efficientnet-pytorch": Layout(
        words="EfficientNet-PyTorch or its Lite",
        marks=(r"_conv_stem\.weight ", r"_blocks\.0\._depthwise_conv\.weight "),
        networks=(rf"{_ANY}(?=_conv_stem\.|_bn0\.|_blocks\.|_conv_head\.|_bn1\.|_fc\.)",),
        drops=(r"^_fc\.",),
        convert=from_efficientnet_pytorch,
    ),
    "dino": Layout(
        words="DINO (teacher)",
        marks=(r"^teacher\.(?:module\.)?backbone\.", r"^student\.(?:module\.)?backbone\."),
        networks=(r"teacher\.(?:module\.)?backbone\.", r"student\.(?:module\.)?backbone\."),
        is_family=True,
    ),
    "ark": Layout(
        words="Ark (teacher)",
        marks=(r"omni_heads\.0\.",),
        networks=(
            r"teacher\.(?:module\.)?",
            rf"{_ANY}(?=omni_heads\.|layers\.|stages\.|stem\.|patch_embed\.|norm\.|head\.|projector\.)",
        ),
        drops=(r"^omni_heads\.", r"^projector\.", r"relative_position_index$", r"attn_mask$", *_HEADS),
        is_family=True,
    ),
    "moco": Layout(
        words="MoCo's (encoder of queries)",
        marks=(r"(?:^|\.)encoder_q\.",),
        networks=(rf"{_ANY}encoder_q\.", rf"{_ANY}encoder_k\."),
        drops=_HEADS,
    ),
    "moco-v3": Layout(
        words="MoCo v3's (base encoder)",
        marks=(r"(?:^|\.)base_encoder\.",),
        networks=(rf"{_ANY}base_encoder\.", rf"{_ANY}momentum_encoder\."),
        drops=_HEADS,
        is_family=True,
    ),
    "pycontrast": Layout(
        words="PyContrast's (InsDis, PIRL, InfoMin)",
        marks=(r"^model\.(?:module\.)?encoder\.", r"^model_ema\.|\.head(?:_jig)?\.|\.jigsaw"),
        networks=(r"model\.(?:module\.)?encoder\.", r"model_ema\.(?:module\.)?encoder\."),
        drops=_HEADS,
    ),
    "cmc": Layout(
        words="Contrastive multiview coding's",
        marks=(r"(?:^|\.)encoder1\.(?:module\.)?conv1\.weight ", r"(?:^|\.)encoder2\.(?:module\.)?conv1\.weight "),
        refusal="it holds two networks of half width for the L and ab planes of a Lab image, not one for RGB",
    ),
    "simsiam": Layout(
        words="SimSiam's",
        marks=(r"(?:^|\.)encoder\.conv1\.", r"(?:^|\.)predictor\.\d"),
        networks=(rf"{_ANY}encoder\.",),
        drops=_HEADS,
    ),
    "swav": Layout(
        words="SwAV's, DeepCluster-v2's or SeLa-v2's",
        marks=(r"(?:^|\.)conv1\.weight ", r"(?:^|\.)(?:projection_head|prototypes)\."),
        networks=(rf"{_ANY}(?=(?:conv1|bn1|layer\d|projection_head|prototypes)\.)",),
        drops=(r"^projection_head", r"^prototypes"),
    ),
    "barlow-twins": Layout(
        words="Barlow Twins'",
        marks=(r"backbone\.conv1\.weight ", r"projector\.0\.weight ", r"(?:^|\.)bn\.running_mean "),
        networks=(rf"{_ANY}backbone\.",),
        drops=_HEADS,
    ),
    "vicreg": Layout(
        words="VICReg's",
        marks=(r"backbone\.conv1\.weight ", r"projector\.0\.weight "),
        networks=(rf"{_ANY}backbone\.",),
        drops=_HEADS,
    ),
    "vissl": Layout(
        words="VISSL's",
        marks=(r"(?:^|\.)trunk\._feature_blocks\.",),
        networks=(rf"{_ANY}trunk\._feature_blocks\.", rf"{_ANY}_feature_blocks\."),
        drops=_HEADS,
    ),
    "mmlab": Layout(
        words="OpenMMLab's (backbone)",
        marks=(r"^(?:state_dict\.)?backbone\.", r"^(?:state_dict\.)?(?:neck|head|bbox_head|decode_head|cls_head)\."),
        networks=(r"(?:state_dict\.)?backbone\.",),
        drops=_HEADS,
        is_family=True,
    ),
    "simclr-v2-torch": Layout(
        words="SimCLR v2's, converted",
        marks=(r"net\.0\.0\.weight ", r"net\.1\.blocks\.0\.net\.0\.weight "),
        refusal="its network has padded strided convolutions and a stem that no network here has; convert SimCLR's own "
        "checkpoint to .npz instead",
    ),
    "dinov2-hf": Layout(
        words="DINOv2 of transformers",
        marks=(r"encoder\.layer\.0\.attention\.attention\.query\.weight ", r"layer_scale1\.lambda1 "),
        networks=(rf"{_ANY}(?=embeddings\.|encoder\.layer\.|layernorm\.)",),
        drops=(r"^embeddings\.mask_token$", r"^pooler\.", *_HEADS),
        convert=from_hf_vit,
        is_family=True,
    ),
    "vit-hf": Layout(
        words="ViT or DeiT of transformers",
        marks=(r"encoder\.layer\.0\.attention\.attention\.query\.weight ", r"layernorm_before\."),
        networks=(rf"{_ANY}(?=embeddings\.|encoder\.layer\.|layernorm\.)",),
        drops=(r"^embeddings\.mask_token$", r"^pooler\.", r"^decoder", *_HEADS),
        convert=from_hf_vit,
        is_family=True,
    ),
    "resnet-hf": Layout(
        words="ResNet of transformers",
        marks=(r"encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight ",),
        networks=(rf"{_ANY}(?=embedder\.embedder|encoder\.stages)",),
        convert=from_hf_resnet,
    ),
    "openai-clip": Layout(
        words="OpenAI's CLIP (its image tower)",
        marks=(r"(?:^|\.)visual\.(?:class_embedding|conv1\.weight) ", r"(?:^|\.)transformer\.resblocks\.0\."),
        networks=(rf"{_ANY}(?=visual\.|transformer\.|token_embedding\.|positional_embedding|ln_final\.)",),
        drops=(
            r"^transformer\.",
            r"^token_embedding\.",
            r"^positional_embedding$",
            r"^ln_final\.",
            r"^text_projection",
            r"^logit_scale$",
        ),
        is_family=True,
    ),
    "open-clip": Layout(
        words="open_clip's (image tower of timm)",
        marks=(r"(?:^|\.)visual\.trunk\.",),
        networks=(rf"{_ANY}visual\.trunk\.",),
        drops=_HEADS,
        is_family=True,
    ),
    "eva-x": Layout(
        words="EVA's",
        marks=(
            r"(?:^|\.)blocks\.0\.attn\.(?:q_proj\.weight|q_bias) ",
            r"(?:^|\.)blocks\.0\.mlp\.w(?:1|12|2|3)\.weight |(?:^|\.)blocks\.0\.mlp\.fc1\.weight ",
            r"(?:^|\.)(?:mask_token|rope\.|lm_head\.)",
        ),
        networks=(
            rf"{_ANY}(?=blocks\.|patch_embed\.|pos_embed|cls_token|norm\.|fc_norm\.|head\.|mask_token|rope|lm_head)",
        ),
        # timm's converter of the family reads from the mask token that the last normalisation is another one.
        drops=(r"^rope", r"\.rope\.", r"^lm_head\.", *_HEADS),
        is_family=True,
    ),
    "dinov3": Layout(
        words="DINOv3's",
        marks=(r"(?:^|\.)storage_tokens ",),
        networks=(
            rf"{_ANY}(?=blocks\.|patch_embed\.|cls_token|storage_tokens|norm\.|mask_token|rope_embed|local_cls_norm)",
        ),
        drops=(r"^rope_embed", r"bias_mask$", r"^local_cls_norm"),
        is_family=True,
    ),
    "dinov2": Layout(
        words="DINOv2's",
        marks=(r"(?:^|\.)mask_token ", r"blocks\.(?:\d+\.)?\d+\.ls1\.gamma "),
        networks=(rf"{_ANY}(?=blocks\.|patch_embed\.|pos_embed|cls_token|register_tokens|norm\.|mask_token|head\.)",),
        # timm's converter of the family knows it by its mask token.
        drops=(r"^dino_head", r"^ibot_head", *_HEADS),
        is_family=True,
    ),
    "simmim": Layout(
        words="SimMIM's (encoder)",
        marks=(r"(?:^|\.)encoder\.mask_token ", r"(?:^|\.)decoder\.0\."),
        networks=(rf"{_ANY}encoder\.",),
        drops=(r"^mask_token$", r"relative_position_index$", r"attn_mask$", *_HEADS),
        is_family=True,
    ),
    "mae": Layout(
        words="MAE's (encoder)",
        marks=(r"(?:^|\.)decoder_blocks\.0\.", r"(?:^|\.)mask_token "),
        networks=(rf"{_ANY}(?=blocks\.|patch_embed\.|pos_embed|cls_token|norm\.|decoder|mask_token)",),
        drops=(r"^decoder", r"^mask_token$", *_HEADS),
        is_family=True,
    ),
    "swin-ms": Layout(
        words="Microsoft's Swin",
        marks=(
            r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table ",
            r"layers\.0\.downsample\.reduction\.weight ",
        ),
        networks=(rf"{_ANY}(?=layers\.|patch_embed\.|norm\.|head\.|absolute_pos_embed)",),
        drops=(r"relative_position_index$", r"attn_mask$", *_HEADS),
        is_family=True,
    ),
    "convnext-fb": Layout(
        words="Facebook's ConvNeXt",
        marks=(r"downsample_layers\.0\.0\.weight ", r"stages\.0\.0\.dwconv\.weight "),
        networks=(rf"{_ANY}(?=downsample_layers\.|stages\.|norm\.|head\.)",),
        drops=_HEADS,
        is_family=True,
    ),
    "torchxrayvision": Layout(
        words="torchxrayvision's",
        marks=(r"features\.conv0\.weight \(\d+, 1, 7, 7\)",),
        networks=(rf"{_ANY}(?=features\.|classifier\.|op_threshs)",),
        drops=(r"^op_threshs$", r"^classifier\."),
    ),
    "radimagenet-sequential": Layout(
        words="RadImageNet's ResNet-50 as a Sequential",
        marks=(r"^(?:[^ ]*\.)?backbone\.0\.weight \(64, 3, 7, 7\)", r"backbone\.4\.0\.conv1\.weight "),
        networks=(rf"{_ANY}backbone\.",),
        convert=from_sequential_resnet,
    ),
    "radimagenet-densenet": Layout(
        words="RadImageNet's DenseNet as a Sequential",
        marks=(r"^(?:[^ ]*\.)?backbone\.0\.conv0\.weight \(64, 3, 7, 7\)", r"backbone\.0\.denseblock1\."),
        networks=(rf"{_ANY}backbone\.0\.",),
        renames=((r"^", "features."),),
    ),
    "radimagenet-inception": Layout(
        words="RadImageNet's Inception v3 as a Sequential",
        marks=(r"^(?:[^ ]*\.)?backbone\.0\.conv\.weight \(32, 3, 3, 3\)", r"backbone\.17\.branch"),
        networks=(rf"{_ANY}backbone\.",),
        convert=from_sequential_inception,
    ),
    "radimagenet-keras": Layout(
        words="RadImageNet's ResNet-50 of Keras",
        marks=(r"(?:^|\.)layer1\.0\.conv1\.bias ", r"(?:^|\.)layer1\.0\.bn1\.running_mean "),
        networks=(rf"{_ANY}(?=conv1\.|bn1\.|layer\d|fc\.)",),
        drops=_HEADS,
        convert=with_biases_in_norms,
        network="resnet50_v1",
    ),
    "resnet-children": Layout(
        words="children of a ResNet in a Sequential",
        marks=(
            r"(?:^|\.)0\.weight \(\d+, \d+, 7, 7\)",
            r"(?:^|\.)4\.0\.conv1\.weight ",
            r"(?:^|\.)7\.0\.conv1\.weight ",
        ),
        networks=(rf"{_ANY}(?=[014567]\.)",),
        convert=from_sequential_resnet,
    ),
    "medicalnet": Layout(
        words="MedicalNet's",
        marks=(
            r"(?:^|\.)conv1\.weight \(64, 1, 7, 7, 7\)",
            r"(?:^|\.)layer1\.0\.conv1\.weight \(\d+, \d+, [13], [13], [13]\)",
        ),
        networks=(rf"{_ANY}(?=conv1\.|bn1\.|layer\d|conv_seg|fc\.)",),
        drops=(r"^conv_seg\.", *_HEADS),
    ),
    "swin-unetr-ssl-now": Layout(
        words="SwinUNETR's self-supervised encoder of MONAI 1.5 or newer",
        marks=(r"swin_vit\.layers1\.0\.blocks\.0\.attn\.relative_position_bias_table ",),
        networks=(rf"{_ANY}swin_vit\.",),
        renames=((r"^", "swinViT."),),
    ),
    "swin-unetr-ssl": Layout(
        words="SwinUNETR's self-supervised encoder",
        marks=(r"(?:^|\.)layers1\.0\.blocks\.0\.attn\.relative_position_bias_table ",),
        lacks=(r"swinViT\.",),
        networks=(rf"{_ANY}(?=layers\d\.|patch_embed\.|norm|encoder|decoder|rotation|contrastive)",),
        drops=(r"^(?:rotation|contrastive)_", r"^norm\.", r"^conv\.", r"^encoder\d", r"^decoder\d"),
        renames=((r"^", "swinViT."), (r"\.mlp\.fc(\d)\.", r".mlp.linear\1.")),
        network="monai/swin_unetr_2022",
    ),
    "swin-unetr": Layout(
        words="a whole SwinUNETR",
        marks=(r"swinViT\.layers1\.0\.blocks\.0\.attn\.",),
        networks=(rf"{_ANY}(?=swinViT\.|encoder\d|decoder\d|out\.)",),
        drops=(r"^encoder\d", r"^decoder\d", r"^out\."),
        caution="Was it trained before MONAI 1.5? Then say --backbone monai/swin_unetr_2022, which halves otherwise.",
    ),
    "timm-ema": Layout(
        words="timm's training script (moving average)",
        marks=(r"^state_dict_ema\.", r"^state_dict\."),
        networks=(r"state_dict_ema\.(?:module\.)?", r"state_dict\.(?:module\.)?"),
        is_family=True,
    ),
    "stu-net": Layout(
        words="STU-Net's",
        marks=(r"conv_blocks_context\.0\.",),
        refusal="it is a U-Net of nnU-Net's, which medgraft does not have",
    ),
    "merlin": Layout(
        words="Merlin's",
        marks=(r"encode_image\.i3_resnet\.",),
        refusal="its inflated ResNet-152 of three-fold channels is not among the networks for volumes",
    ),
}
"""By name; a file has the first layout all of whose marks occur in it."""


def layout_words(layout: str) -> str:
    """What a layout is, for people; empty for names of the network's own, and where no file was read.

    Examples:
        >>> layout_words("dino")
        'DINO (teacher)'
        >>> layout_words("network")
        ''
    """
    return LAYOUTS[layout].words if layout in LAYOUTS else ""
