"""The foreign layouts that each kind of module can be loaded from and saved to: one explicit table."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from backbones.cnn.convnext import ConvNeXt, ConvNeXtWithTokens
from backbones.cnn.cspnet import CSPNet
from backbones.cnn.efficientnet import EfficientNet
from backbones.cnn.googlenet import GoogLeNet
from backbones.cnn.mobilenet import MobileNetV3
from backbones.cnn.mobilenet_v4 import MobileNetV4
from backbones.cnn.resnet import ResNet
from backbones.cnn.vgg import VGG
from backbones.cnn.yolo import YOLO
from backbones.heads.deeplabv3 import DeepLabV3Head
from backbones.heads.faster_rcnn import FasterRCNN
from backbones.heads.fcos import FCOS
from backbones.heads.retinanet import RetinaNet
from backbones.heads.segmentation import FCNHead
from backbones.heads.yolo import YOLOHead
from backbones.model import Model
from backbones.pretrained.keymaps import (
    convnext,
    cspnet,
    detection,
    dinov3,
    efficientnet,
    eva,
    faster_rcnn,
    googlenet,
    hiera,
    mobilenet,
    mobilenet_v4,
    resnet,
    segmentation,
    swin,
    text,
    vgg,
    vit,
    vit_big_vision,
    vit_transformers,
    yolo,
)
from backbones.pretrained.keymaps.rules import Line
from backbones.text.encoder import TextEncoder
from backbones.vit.hiera import Hiera
from backbones.vit.swin import SwinTransformer
from backbones.vit.vit import VisionTransformer


def _either(*keymaps: Callable[[Any], list[Line]]) -> Callable[[Any], list[Line]]:
    """The one of these key maps that knows the variant of the module; none where none does."""
    return lambda module: next((lines for keymap in keymaps if (lines := keymap(module))), [])


# Kind of module → layout → its key map. Where two layouts are identical, the first is reported.
TABLE: dict[type[nn.Module], dict[str, Callable[[Any], list[Line]]]] = {
    VGG: {'torchvision': vgg.torchvision, 'timm': vgg.timm},
    GoogLeNet: {'torchvision': googlenet.torchvision},
    ResNet: {'torchvision': resnet.torchvision, 'timm': resnet.torchvision, 'transformers': resnet.transformers},
    CSPNet: {'timm': cspnet.timm},
    YOLO: {'ultralytics': yolo.ultralytics, 'ultralytics_fused': yolo.ultralytics_fused},
    EfficientNet: {
        'torchvision': efficientnet.torchvision,
        'timm': efficientnet.timm,
        'lukemelas': efficientnet.lukemelas,
        'transformers': efficientnet.transformers,
    },
    MobileNetV3: {'torchvision': mobilenet.torchvision, 'timm': mobilenet.timm},
    MobileNetV4: {'timm': mobilenet_v4.timm},
    ConvNeXt: {
        'torchvision': convnext.torchvision,
        'timm': convnext.timm,
        'transformers': convnext.transformers,
        'facebook': convnext.facebook,
    },
    ConvNeXtWithTokens: {
        'timm': convnext.timm,
        'transformers': convnext.transformers_dinov3,
        'facebook': convnext.facebook_dinov3,
    },
    SwinTransformer: {
        'torchvision': swin.torchvision,
        'timm': swin.timm,
        'transformers': swin.transformers,
        'microsoft': swin.microsoft,
    },
    Hiera: {'timm': hiera.timm, 'facebook': hiera.facebook, 'transformers': hiera.transformers},
    VisionTransformer: {
        'timm': _either(vit.timm, dinov3.timm, eva.timm),
        'timm_qkvb': dinov3.timm_qkvb,
        'torchvision': vit.torchvision,
        'transformers': _either(vit_transformers.transformers, dinov3.transformers),
        'big_vision': vit_big_vision.big_vision,
        'dinov2': vit.dinov2,
        'dinov3': dinov3.authors,
        'eva02': eva.authors,
        'clip': vit.clip,
        'clip_visual': vit.clip_visual,
    },
    TextEncoder: {'transformers': text.transformers},
}


def layouts(module: nn.Module) -> dict[str, list[Line]]:
    """Layout → key map, for a backbone module; our own layout, ``'native'``, needs none and is not among them.

    A key map without lines means that the variant does not exist in that layout.
    """
    maps = {name: keymap(module) for name, keymap in TABLE.get(type(module), {}).items()}
    return {name: lines for name, lines in maps.items() if lines}


# Kind of head → layout → key map of a whole model that has it.
MODELS: dict[type[nn.Module], dict[str, Callable[[Model], list[Line]]]] = {
    FCOS: {'torchvision': detection.torchvision},
    RetinaNet: {'torchvision': detection.torchvision},
    FasterRCNN: {'torchvision': faster_rcnn.torchvision},
    FCNHead: {'torchvision': segmentation.torchvision},
    DeepLabV3Head: {'torchvision': segmentation.torchvision},
    YOLOHead: {'ultralytics': yolo.detector, 'ultralytics_fused': yolo.detector_fused},
}


def model_layouts(model: Model) -> list[tuple[str, list[Line]]]:
    """Layouts and key maps of a whole model; those of its backbone where its head is a linear one."""
    if type(model.head) not in MODELS:
        return list(layouts(model.backbone).items())
    maps = [(name, keymap(model)) for name, keymap in MODELS[type(model.head)].items()]
    return [(name, lines) for name, lines in maps if lines]
