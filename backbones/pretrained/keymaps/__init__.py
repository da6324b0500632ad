"""Which foreign layouts each kind of module can be loaded from and saved to: one explicit table."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from backbones.cnn.convnext import ConvNeXt
from backbones.cnn.efficientnet import EfficientNetLite
from backbones.cnn.resnet import ResNet
from backbones.pretrained.keymaps import convnext, efficientnet, resnet, swin, vit
from backbones.pretrained.keymaps.rules import Line
from backbones.vit.swin import SwinTransformer
from backbones.vit.vit import VisionTransformer

# Kind of module → layout → its key map. Where two layouts are one, the first is the one that is reported.
TABLE: dict[type[nn.Module], dict[str, Callable[[Any], list[Line]]]] = {
    ResNet: {'torchvision': resnet.torchvision, 'timm': resnet.torchvision},
    EfficientNetLite: {'lukemelas': efficientnet.lukemelas},
    ConvNeXt: {
        'torchvision': convnext.torchvision,
        'timm': convnext.timm,
        'transformers': convnext.transformers,
        'facebook': convnext.facebook,
    },
    VisionTransformer: {'timm': vit.timm},
    SwinTransformer: {
        'torchvision': swin.torchvision,
        'timm': swin.timm,
        'transformers': swin.transformers,
        'microsoft': swin.microsoft,
    },
}


def layouts(module: nn.Module) -> dict[str, list[Line]]:
    """Layout → key map, for a backbone module; our own layout, ``'native'``, needs none and is not among them."""
    return {name: keymap(module) for name, keymap in TABLE.get(type(module), {}).items()}
